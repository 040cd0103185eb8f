//! INTERFACE.md §2: documents, counts and digest of one partition, from its records in log order.
//! A document is a `serde_json` map that is changed in place: slow, and each line is a line of the table.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::accept::{Memory, Source};
use super::decode::{self, Event, Rules};
use super::{Rec, json, place, time};

/// The largest whole number that every JSON reader has exactly. The interface sets no limit to counts; sums of
/// missing sequences over sources could pass it, and RFC 8785 could then not write them: they stop here.
const COUNT_MAX: u64 = (1 << 53) - 1;

/// One entity: its document so far (without `summary_hash` and `projected_at`), and its accepted events.
#[derive(Clone, Debug)]
pub struct Entity {
    pub subject: String,
    pub document: Map<String, Value>,
    /// (id, type) of the accepted events; seq is the place + 1.
    pub events: Vec<(String, String)>,
    /// Offset of the last accepted event.
    pub offset: u64,
    memory: Memory,
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted { subject: String, seq: u64 },
    Duplicate,
    DeadLetter(&'static str),
}

/// One partition after some records.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    pub entities: BTreeMap<String, Entity>,
    pub records: u64,
    pub accepted: u64,
    pub duplicates: u64,
    /// Offset and reason.
    pub dead_letters: Vec<(u64, &'static str)>,
    /// `<offset>:<timestamp>:<crc32c>` of the last record.
    pub last_record: String,
}

/// Folds records (of any partitions, in log order within each) from nothing.
pub fn fold<'a>(records: impl IntoIterator<Item = &'a Rec>, rules: &Rules) -> BTreeMap<u32, Partition> {
    let mut partitions: BTreeMap<u32, Partition> = BTreeMap::new();
    for rec in records {
        partitions.entry(rec.partition).or_default().apply(rec, rules);
    }
    partitions
}

impl Partition {
    /// Applies the next record.
    pub fn apply(&mut self, rec: &Rec, rules: &Rules) -> Outcome {
        let key = rec.key.as_deref().unwrap_or_default();
        let crc = place::crc32c(&[key, rec.value.as_deref().unwrap_or_default()]);
        self.records += 1;
        self.last_record = format!("{}:{}:{crc:08x}", rec.offset, rec.timestamp_ms);
        let event = match decode::decode(rec, rules) {
            Ok(event) => event,
            Err(reason) => {
                self.dead_letters.push((rec.offset, reason));
                return Outcome::DeadLetter(reason);
            }
        };
        let entity = self
            .entities
            .entry(event.subject.clone())
            .or_insert_with(|| Entity::new(&event.subject, rec.partition));
        if !entity.memory.accept(&event.source, &event.id, event.sequence) {
            self.duplicates += 1;
            return Outcome::Duplicate;
        }
        self.accepted += 1;
        entity.apply(&event, rec);
        Outcome::Accepted {
            subject: event.subject,
            seq: entity.events.len() as u64,
        }
    }

    /// Wrapping sum of the first 16 bytes of each document's hash, as the checkpoint writes it.
    pub fn digest(&self) -> String {
        let mut digest: u128 = 0;
        for entity in self.entities.values() {
            digest = digest.wrapping_add(entity.digest());
        }
        format!("{digest:032x}")
    }
}

impl Entity {
    fn new(subject: &str, partition: u32) -> Self {
        let (kind, id) = subject.split_once('/').expect("a legal subject");
        let source = json!({"entity": subject, "partition": partition, "offset": null,
            "first_offset": null, "seq": 0, "sources": {}});
        let mut document = json!({
            "document_id": format!("{kind}_summary:{id}"), "kind": format!("{kind}_summary"),
            format!("{kind}_id"): id, "owner_user_id": null, "owner_guest_scope": null,
            "event_count": 0, "latest_seq": 0, "latest_event_type": null, "latest_event_at": null,
            "started_at": null, "updated_at": null, "missing_events": 0, "projection_version": 1,
            "runtime_source": source,
        });
        let own = if kind == "run" {
            json!({"status": "created", "thread_id": null, "late_event_count": 0, "executor_lost_count": 0,
                "terminal_at": null, "terminal_reason_class": null, "terminal_reason": null})
        } else {
            json!({"status": "running", "workspace_ref": null, "adapter": null, "metadata": null,
                "stopped_at": null, "last_heartbeat_at": null, "error_count": 0, "restart_count": 0})
        };
        let all = document.as_object_mut().expect("an object");
        all.extend(own.as_object().expect("an object").clone());
        Self {
            subject: subject.to_owned(),
            document: all.clone(),
            events: Vec::new(),
            offset: 0,
            memory: Memory::default(),
        }
    }

    /// `run_summary` or `worker_summary`.
    pub fn kind(&self) -> &str {
        self.document["kind"].as_str().expect("set by new")
    }

    /// The id without its kind.
    pub fn id(&self) -> &str {
        self.subject.split_once('/').expect("a legal subject").1
    }

    /// The hash over all but `summary_hash` and `projected_at`.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(json::canonical(&Value::Object(self.document.clone()))).into()
    }

    /// `summary_hash`.
    pub fn summary_hash(&self) -> String {
        let hash = self.hash();
        let (high, low) = hash.split_at(16);
        let number = |half: &[u8]| u128::from_be_bytes(half.try_into().expect("16 of 32 bytes"));
        format!("sha256:{:032x}{:032x}", number(high), number(low))
    }

    /// What the document adds to its partition's digest.
    pub fn digest(&self) -> u128 {
        u128::from_be_bytes(self.hash()[..16].try_into().expect("16 of 32 bytes"))
    }

    /// The document as it is stored, given when it was written.
    pub fn stored(&self, projected_at: &str) -> String {
        let mut document = self.document.clone();
        document.insert("summary_hash".to_owned(), json!(self.summary_hash()));
        document.insert("projected_at".to_owned(), json!(projected_at));
        json::canonical(&Value::Object(document))
    }

    fn set(&mut self, field: &str, value: impl Into<Value>) {
        let known = self.document.insert(field.to_owned(), value.into());
        assert!(known.is_some(), "{field} is not in the table");
    }

    fn add_one(&mut self, field: &str) {
        let count = self.document[field].as_u64().expect("a count");
        self.set(field, count + 1);
    }

    fn status(&self) -> &str {
        self.document["status"].as_str().expect("a status")
    }

    fn apply(&mut self, event: &Event, rec: &Rec) {
        self.events.push((event.id.clone(), event.type_.clone()));
        let seq = self.events.len();
        let at = event.time_ms.and_then(time::format).map_or(Value::Null, Value::String);
        if seq == 1 {
            self.document["runtime_source"]["first_offset"] = json!(rec.offset);
        }
        self.offset = rec.offset;
        self.set("event_count", seq);
        self.set("latest_seq", seq);
        self.set("latest_event_type", event.type_.clone());
        self.set("latest_event_at", at.clone());
        self.set(
            "updated_at",
            time::format(rec.timestamp_ms).map_or(Value::Null, Value::String),
        );
        let missing: u64 = self.memory.sources.values().map(Source::missing_count).sum();
        self.set("missing_events", missing.min(COUNT_MAX));
        let sources: Map<String, Value> = self
            .memory
            .sources
            .iter()
            .map(|(name, s)| {
                (
                    name.clone(),
                    json!({"max": s.max, "missing": s.missing, "forgotten": s.forgotten.min(COUNT_MAX)}),
                )
            })
            .collect();
        let from = &mut self.document["runtime_source"];
        from["offset"] = json!(rec.offset);
        from["seq"] = json!(seq);
        from["sources"] = Value::Object(sources);
        if self.subject.starts_with("run/") {
            self.apply_run(event, &at);
        } else {
            self.apply_worker(event, &at);
        }
    }

    fn apply_run(&mut self, event: &Event, at: &Value) {
        let terminal = ["succeeded", "failed", "canceled"].contains(&self.status());
        if terminal {
            self.add_one("late_event_count");
        }
        match event.type_.as_str() {
            "run.created" => self.set_owners(event),
            "run.started" => {
                self.set_owners(event);
                self.run_from_created();
                if self.document["started_at"].is_null() {
                    self.set("started_at", at.clone());
                }
            }
            "run.cancel_requested" if !terminal => self.set("status", "canceling"),
            "run.executor_lost" => self.add_one("executor_lost_count"),
            "run.finished" if !terminal => {
                self.set("status", event.data["status"].clone());
                self.set("terminal_at", at.clone());
                for (field, from) in [("terminal_reason_class", "reason_class"), ("terminal_reason", "reason")] {
                    self.set(field, event.data.get(from).cloned().unwrap_or_default());
                }
            }
            "run.cancel_requested" | "run.finished" => {} // too late
            _ => self.run_from_created(),
        }
    }

    fn run_from_created(&mut self) {
        if self.status() == "created" {
            self.set("status", "running");
        }
    }

    fn set_owners(&mut self, event: &Event) {
        for field in ["thread_id", "owner_user_id", "owner_guest_scope"] {
            let given = event.data.get(field).cloned().unwrap_or_default();
            if self.document[field].is_null() {
                self.set(field, given);
            }
        }
    }

    fn apply_worker(&mut self, event: &Event, at: &Value) {
        match event.type_.as_str() {
            "worker.started" => {
                let before = self.events[..self.events.len() - 1]
                    .iter()
                    .any(|(_, type_)| type_ == "worker.started");
                if before {
                    self.add_one("restart_count");
                }
                self.set("status", "running");
                self.set("started_at", at.clone());
                self.set("stopped_at", Value::Null);
                for field in ["workspace_ref", "adapter", "metadata"] {
                    if let Some(given) = event.data.get(field).filter(|value| !value.is_null()) {
                        self.set(field, given.clone());
                    }
                }
            }
            "worker.heartbeat" => self.set("last_heartbeat_at", at.clone()),
            "worker.error" => {
                self.add_one("error_count");
                if event.data.get("fatal") == Some(&Value::Bool(true)) {
                    self.set("status", "failed");
                }
            }
            "worker.stopped" if self.status() != "failed" => {
                self.set("status", "stopped");
                self.set("stopped_at", at.clone());
            }
            _ => {}
        }
    }
}

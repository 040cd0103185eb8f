//! Everything in Redis and Kafka against the reference fold of the records that Kafka holds.
//! Differences are collected and told together, field by field; documents are equal only byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use redis::Connection;
use redis::streams::StreamRangeReply;
use serde_json::Value;

use super::compare_places;
use super::world::{World, note};
use crate::reference::Rec;
use crate::reference::decode::Rules;
use crate::reference::fold::{Entity, Partition, fold};

/// Default of `events_kept`.
const EVENTS_KEPT: usize = 1000;

/// What a test may not expect to be equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allow {
    /// After a crash a dead letter may have been written again.
    pub repeated_dead_letters: bool,
    /// The log lost records at its end: their letters stay, and a stream goes on from less than it would have kept.
    pub was_cut: bool,
    /// Documents of these entities are the test's own business; digest and counts are then not compared.
    pub except: &'static [&'static str],
}

impl Allow {
    /// What was written twice to the dead letters is legal after a fault: their checkpoint was lost.
    pub const AFTER_A_FAULT: Self = Self {
        repeated_dead_letters: true,
        was_cut: false,
        except: &[],
    };
    /// After an unclean election.
    pub const AFTER_A_CUT: Self = Self {
        was_cut: true,
        ..Self::AFTER_A_FAULT
    };
}

/// Waits until all is applied, then compares all with the fold of the topic as it is.
pub fn assert_exact(world: &World, allow: Allow) {
    world.settle();
    assert_equals_fold_of(world, &world.read_back(), allow);
}

/// Compares all with the fold of these records.
pub fn assert_equals_fold_of(world: &World, records: &[Rec], allow: Allow) {
    assert!(!records.is_empty(), "an empty topic proves nothing");
    let expected = fold(records, &Rules::of(world.partitions));
    let mut found = Differences::default();
    let mut connection = world.redis.connect();
    for p in 0..world.partitions {
        let nothing = Partition::default();
        let partition = expected.get(&p).unwrap_or(&nothing);
        documents(world, &mut connection, p, partition, allow, &mut found);
        if allow.except.is_empty() {
            compare_places::checkpoint(world, p, partition, records, &mut found);
        }
    }
    compare_places::dead_letters(world, records, &expected, allow, &mut found);
    compare_places::group(world, records, &mut found);
    found.tell(&world.cluster.namespace);
    let documents: usize = expected.values().map(|p| p.entities.len()).sum();
    note(&format!(
        "{}: {documents} documents equal to a fold of {} records",
        world.cluster.namespace,
        records.len()
    ));
}

/// What is not as it should be.
#[derive(Default)]
pub struct Differences(Vec<String>);

impl Differences {
    pub fn add(&mut self, text: String) {
        self.0.push(text);
    }

    /// Notes a difference if there is one.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: &T, expected: &T) {
        if got != expected {
            self.add(format!("{what}: {got:?}, must be {expected:?}"));
        }
    }

    fn tell(&self, name: &str) {
        let shown = self.0.iter().take(12).cloned().collect::<Vec<_>>().join("\n  ");
        assert!(self.0.is_empty(), "{name}: {} differences:\n  {shown}", self.0.len());
    }
}

fn documents(
    world: &World,
    connection: &mut Connection,
    p: u32,
    expected: &Partition,
    allow: Allow,
    found: &mut Differences,
) {
    let skipped = |subject: &str| allow.except.contains(&subject);
    for kind in ["run", "worker"] {
        let of_kind: BTreeMap<&str, &Entity> = expected
            .entities
            .values()
            .filter(|e| e.subject.starts_with(&format!("{kind}/")))
            .map(|e| (e.id(), e))
            .collect();
        let prefix = world.key(p, &format!("{kind}_summary:"));
        let keys: Vec<String> = query(connection, &["KEYS", &format!("{prefix}*")]);
        let there: BTreeSet<&str> = keys.iter().filter_map(|key| key.strip_prefix(&prefix)).collect();
        for id in there.iter().filter(|id| !of_kind.contains_key(**id)) {
            found.add(format!("partition {p}: document {kind}/{id} is not in the log"));
        }
        let index: BTreeMap<String, f64> = scores(connection, &world.key(p, &format!("index:{kind}_summary")));
        for id in index.keys().filter(|id| !of_kind.contains_key(id.as_str())) {
            found.add(format!("partition {p}: {kind}/{id} is in the index, not in the log"));
        }
        for (id, entity) in of_kind {
            if skipped(&entity.subject) {
                continue;
            }
            let what = format!("partition {p} {}: place in the index", entity.subject);
            found.equal(&what, &index.get(id).copied(), &Some(entity.offset as f64));
            let stored: Option<String> = query(connection, &["GET", &format!("{prefix}{id}")]);
            document(entity, stored.as_deref(), found);
            stream(world, connection, p, entity, allow, found);
        }
    }
}

fn document(entity: &Entity, stored: Option<&str>, found: &mut Differences) {
    let subject = &entity.subject;
    let Some(text) = stored else {
        return found.add(format!("{subject}: no document"));
    };
    let Ok(Value::Object(got)) = serde_json::from_str::<Value>(text) else {
        return found.add(format!("{subject}: not a JSON object: {text}"));
    };
    let projected_at = got.get("projected_at").and_then(Value::as_str).unwrap_or_default();
    let expected_text = entity.stored(projected_at);
    if text == expected_text {
        return;
    }
    let expected: Value = serde_json::from_str(&expected_text).expect("the reference writes JSON");
    let expected = expected.as_object().expect("an object");
    let names: BTreeSet<&String> = got.keys().chain(expected.keys()).collect();
    let mut differs = false;
    for name in names.into_iter().filter(|name| got.get(*name) != expected.get(*name)) {
        differs = true;
        found.add(format!(
            "{subject}.{name}: {:?}, must be {:?}",
            got.get(name),
            expected.get(name)
        ));
    }
    if !differs {
        found.add(format!("{subject}: not canonical:\n    {text}\n    {expected_text}"));
    }
}

/// The stream has the last accepted events, in order, none missing.
fn stream(world: &World, connection: &mut Connection, p: u32, entity: &Entity, allow: Allow, found: &mut Differences) {
    let key = world.key(p, &format!("events:{}:{}", entity.kind(), entity.id()));
    let reply: StreamRangeReply = query(connection, &["XRANGE", &key, "-", "+"]);
    let count = entity.events.len();
    let kept = reply.ids.len();
    // Trimming may go by whole nodes of the stream: it may keep some more, never fewer.
    let least = if allow.was_cut { 1 } else { count.min(EVENTS_KEPT) };
    if kept < least || kept > count.min(EVENTS_KEPT + 200) {
        return found.add(format!("{}: {kept} of {count} events in the stream", entity.subject));
    }
    for (entry, seq) in reply.ids.iter().zip(count - kept + 1..) {
        let what = format!("{} stream entry", entity.subject);
        found.equal(&what, &entry.id, &format!("{seq}-0"));
        let event: Value = entry
            .get::<String>("event")
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        found.equal(
            &format!("{what} {seq}"),
            &(text("id"), text("type")),
            &entity.events[seq - 1],
        );
    }
}

fn scores(connection: &mut Connection, key: &str) -> BTreeMap<String, f64> {
    let flat: Vec<String> = query(connection, &["ZRANGE", key, "0", "-1", "WITHSCORES"]);
    let pair = |pair: &[String]| (pair[0].clone(), pair[1].parse().expect("a score"));
    flat.chunks_exact(2).map(pair).collect()
}

/// One command on a connection.
pub fn query<T: redis::FromRedisValue>(connection: &mut Connection, parts: &[&str]) -> T {
    let mut command = redis::cmd(parts[0]);
    for part in &parts[1..] {
        command.arg(*part);
    }
    command.query(connection).unwrap_or_else(|e| panic!("{parts:?}: {e}"))
}

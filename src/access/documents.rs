//! Documents and streams as readers get them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Access, AccessError, Led};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::time::Time;
use crate::store::{ListQuery, Store};

/// A heartbeat older than this is stale.
const HEARTBEAT_FRESH_MS: i64 = 120_000;
/// Documents read from a partition at once.
const CHUNK: usize = 200;

/// Which documents to list.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// Runs or workers.
    pub kind: Kind,
    /// Only those of this status.
    pub status: Option<String>,
    /// Only those updated at or after this, by the log's clock.
    pub since: Option<Time>,
    /// At most this many.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// Only those whose subject begins so; empty: all.
    pub scope: Vec<String>,
}

/// Some documents, the most recently updated first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// The documents.
    pub documents: Vec<Value>,
    /// Where the next page begins; null if this is the last.
    pub cursor: Option<String>,
}

/// One event of an entity's stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamEvent {
    /// Its place in the stream.
    pub seq: u64,
    /// The event as structured `CloudEvents` JSON, in one line, otherwise as it was written: not every number or nesting
    /// of `data` fits into a tree.
    pub event: Box<RawValue>,
}

impl StreamEvent {
    /// Takes a stored event.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn new(seq: u64, mut json: Vec<u8>) -> Result<Self, AccessError> {
        for byte in json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
            *byte = b' '; // it stands between tokens: in a string it would be escaped
        }
        let text = String::from_utf8(json).map_err(|error| error.to_string());
        let event = text.and_then(|text| RawValue::from_string(text).map_err(|error| error.to_string()));
        let event = event.map_err(|error| AccessError::Failed(format!("stored event {seq} is no JSON: {error}")))?;
        Ok(Self { seq, event })
    }

    /// A member as it was written; the last of equal names counts.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&str> {
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(self.event.get()).ok()?;
        members.get(name).map(|value| value.get())
    }

    /// A member that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.member(name)?).ok()
    }
}

impl Access {
    /// One document; workers get their `heartbeat_state`.
    ///
    /// # Errors
    /// `NotFound`; log or store do not answer.
    pub async fn document(&self, entity: &Entity, now_ms: i64) -> Result<Value, AccessError> {
        self.document_of(&self.led().await?, entity, now_ms).await
    }

    /// The same, from where an answer's view of the route has it.
    ///
    /// # Errors
    /// As [`Self::document`].
    pub async fn document_of(&self, led: &Led, entity: &Entity, now_ms: i64) -> Result<Value, AccessError> {
        let partition = self.home_of(led, entity).await?;
        let began = Instant::now();
        let read = led.of(entity).document(partition, entity).await;
        if led.is_away(entity) {
            self.route.reads.add(read.is_ok(), began.elapsed());
        }
        let mut json = read?;
        if json.is_none() && led.is_away(entity) && self.store.owner(partition).await?.is_some() {
            json = self.store.document(partition, entity).await?; // the old one may be a moment ahead
        }
        let mut document = parse(&json.ok_or_else(|| self.no_such(entity))?)?;
        add_heartbeat_state(&mut document, now_ms);
        Ok(document)
    }

    pub(super) fn no_such(&self, entity: &Entity) -> AccessError {
        let namespace = &self.settings.namespace;
        AccessError::NotFound(format!(
            "no {} {} in namespace {namespace}",
            entity.kind().name(),
            entity.id()
        ))
    }

    /// Documents of a kind, the most recently updated first.
    ///
    /// # Errors
    /// The cursor is none; log or store do not answer.
    pub async fn list(&self, request: &ListRequest, now_ms: i64) -> Result<Page, AccessError> {
        let before = request.cursor.as_deref().map(read_cursor).transpose()?;
        let mut found: Vec<(String, String, Value)> = Vec::new();
        let led = self.led().await?;
        for partition in self.partitions().await? {
            for (is_other, store) in led.stores() {
                let side = Side {
                    led: &led,
                    is_other,
                    store: &**store,
                };
                list_partition(&side, partition, (request, before.as_ref()), &mut found).await?;
            }
        }
        found.sort_by(|a, b| (&b.0, &b.1).cmp(&(&a.0, &a.1)));
        let more = found.len() > request.limit;
        found.truncate(request.limit);
        let cursor = found
            .last()
            .filter(|_| more)
            .map(|(updated_at, id, _)| format!("{updated_at}|{id}"));
        let documents = found.into_iter().map(|(_, _, mut document)| {
            add_heartbeat_state(&mut document, now_ms);
            document
        });
        Ok(Page {
            documents: documents.collect(),
            cursor,
        })
    }

    /// Events of an entity's stream above `after`, waiting up to `wait` for a first one.
    ///
    /// # Errors
    /// `NotFound`: there is no such entity; log or store do not answer.
    pub async fn events(
        &self,
        entity: &Entity,
        after: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<StreamEvent>, AccessError> {
        let led = self.led().await?;
        let partition = self.home_of(&led, entity).await?;
        let reading = led.of(entity);
        let entries = reading.events(partition, entity, after, limit, wait).await?;
        if entries.is_empty() && reading.document(partition, entity).await?.is_none() {
            return Err(self.no_such(entity));
        }
        let event = |entry: crate::store::StreamEntry| StreamEvent::new(entry.seq, entry.json);
        entries.into_iter().map(event).collect()
    }
}

/// One of the namespaces that a list is made of.
struct Side<'a> {
    led: &'a Led,
    is_other: bool,
    store: &'a dyn Store,
}

impl Side<'_> {
    /// Whether readers get this document from here.
    fn has(&self, kind: Kind, document: &Value) -> bool {
        if self.led.is_own() {
            return true;
        }
        let id = document[format!("{}_id", kind.name())].as_str().unwrap_or_default();
        Entity::new(kind, id).is_some_and(|entity| self.led.is_away(&entity) == self.is_other)
    }
}

/// Adds a partition's documents that fit, at most one more than asked for. Its index is ordered by offset, and
/// so by the log's clock as far as that runs forward.
async fn list_partition(
    side: &Side<'_>,
    partition: PartitionId,
    (request, before): (&ListRequest, Option<&(String, String)>),
    found: &mut Vec<(String, String, Value)>,
) -> Result<(), AccessError> {
    let since = request.since.map(|since| since.to_string()).unwrap_or_default();
    let (mut skip, mut taken) = (0, 0);
    loop {
        let query = ListQuery {
            kind: request.kind,
            skip,
            limit: CHUNK,
        };
        let chunk: Vec<(NextOffset, Vec<u8>)> = side.store.list(partition, &query).await?;
        let last_chunk = chunk.len() < CHUNK;
        for (_, json) in chunk {
            // One bad document hides no other; reading it by its id tells what is wrong.
            let Ok(document) = parse(&json) else { continue };
            let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
            let place = (text("updated_at"), text("document_id"));
            let fits = request
                .status
                .as_ref()
                .is_none_or(|status| document["status"] == status.as_str());
            if !side.has(request.kind, &document) {
                continue;
            }
            let seen = request.scope.is_empty() || in_scope(request, &place.1);
            if place.0 < since || !fits || !seen || before.is_some_and(|before| place >= *before) {
                continue;
            }
            found.push((place.0, place.1, document));
            taken += 1;
        }
        if last_chunk || taken > request.limit {
            return Ok(());
        }
        skip += CHUNK;
    }
}

/// Whether the entity of a document is one of those asked for.
fn in_scope(request: &ListRequest, document_id: &str) -> bool {
    let id = document_id.split_once(':').map_or("", |(_, id)| id);
    let subject = format!("{}/{id}", request.kind.name());
    request.scope.iter().any(|begin| subject.starts_with(begin))
}

/// The document with what is added where it is read.
#[must_use]
pub fn with_heartbeat_state(mut document: Value, now_ms: i64) -> Value {
    add_heartbeat_state(&mut document, now_ms);
    document
}

fn parse(json: &[u8]) -> Result<Value, AccessError> {
    serde_json::from_slice(json).map_err(|error| AccessError::Failed(format!("a stored document is no JSON: {error}")))
}

fn read_cursor(text: &str) -> Result<(String, String), AccessError> {
    let parts = text.split_once('|').filter(|(_, id)| !id.is_empty());
    let (updated_at, id) = parts.ok_or_else(|| AccessError::BadRequest(format!("cursor {text:?} is none of ours")))?;
    Ok((updated_at.to_owned(), id.to_owned()))
}

/// How a worker's heartbeat looks from here: added where it is read, never stored.
fn add_heartbeat_state(document: &mut Value, now_ms: i64) {
    if document["kind"] != Kind::Worker.document() {
        return;
    }
    let at = document["last_heartbeat_at"].as_str().and_then(Time::parse);
    let state = match at {
        None => "missing",
        Some(at) if now_ms.saturating_sub(at.ms()) <= HEARTBEAT_FRESH_MS => "fresh",
        Some(_) => "stale",
    };
    document["heartbeat_state"] = state.into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_heartbeat_is_fresh_for_two_minutes() {
        let state = |heartbeat: Value, now_ms| {
            let mut document = json!({"kind": "worker_summary", "last_heartbeat_at": heartbeat});
            add_heartbeat_state(&mut document, now_ms);
            document["heartbeat_state"].clone()
        };
        assert_eq!(state(Value::Null, 0), "missing");
        assert_eq!(state(json!("1970-01-01T00:00:00.000Z"), 120_000), "fresh");
        assert_eq!(state(json!("1970-01-01T00:00:00.000Z"), 120_001), "stale");
        let mut run = json!({"kind": "run_summary"});
        add_heartbeat_state(&mut run, 0);
        assert_eq!(run, json!({"kind": "run_summary"}));
    }
}

//! Documents and streams as readers get them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Access, AccessError, Led};
use crate::pure::entity::{Entity, Kind};
use crate::pure::time::Time;

/// A heartbeat older than this is stale.
const HEARTBEAT_FRESH_MS: i64 = 120_000;

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

/// The document with what is added where it is read.
#[must_use]
pub fn with_heartbeat_state(mut document: Value, now_ms: i64) -> Value {
    add_heartbeat_state(&mut document, now_ms);
    document
}

pub(super) fn parse(json: &[u8]) -> Result<Value, AccessError> {
    serde_json::from_slice(json).map_err(|error| AccessError::Failed(format!("a stored document is no JSON: {error}")))
}

/// How a worker's heartbeat looks from here: added where it is read, never stored.
pub(super) fn add_heartbeat_state(document: &mut Value, now_ms: i64) {
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

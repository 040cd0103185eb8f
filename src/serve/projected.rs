//! Read your writes: waits until a partition has applied a record.
//! In: places in the log, a time limit. Out: whether they are in the documents. Invariant: a time-out is no failure, and
//! never looks like one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::App;
use crate::access::{AccessError, Publication, Published};
use crate::projector::now_ms;
use crate::pure::entity::Entity;
use crate::pure::place::PartitionId;

/// Events of an entity looked through for one that was just published.
const LOOKED_THROUGH: u64 = 1000;
/// How often another namespace, which readers are led to, is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A published event and what became of it.
#[derive(Serialize)]
pub(super) struct Projected {
    #[serde(flatten)]
    place: Published,
    /// Its place in the entity's stream; null if it is not known (a duplicate of long ago).
    seq: Option<u64>,
    /// The document's status now.
    status: Value,
}

/// All of them, with the documents they are in.
#[derive(Serialize)]
pub(super) struct AllProjected {
    events: Vec<Projected>,
    documents: BTreeMap<String, Value>,
}

/// Whether `partition` has applied the record at `offset` before `until`, or before the server stops.
///
/// # Errors
/// The store does not answer.
pub(super) async fn is_applied(
    app: &App,
    partition: PartitionId,
    offset: u64,
    until: Instant,
) -> Result<bool, AccessError> {
    tokio::select! {
        biased;
        applied = is_applied_by(app, partition, offset, until) => applied,
        () = app.stop.cancelled() => Ok(false),
    }
}

async fn is_applied_by(app: &App, partition: PartitionId, offset: u64, until: Instant) -> Result<bool, AccessError> {
    let (_guest, mut position) = app.feeds.watch(partition);
    loop {
        let led = app.access.led().await?;
        let Ok(is_past) = timeout_at(until, app.access.is_past(&led, partition, offset)).await else {
            return Ok(false);
        };
        if is_past? {
            return Ok(true);
        }
        if led.is_own() {
            break; // its commits are told of
        }
        if timeout_at(until, tokio::time::sleep(LOOK_EVERY)).await.is_err() {
            return Ok(false);
        }
    }
    loop {
        if position.borrow_and_update().is_some_and(|next| next.0 > offset) {
            return Ok(true);
        }
        if !matches!(timeout_at(until, position.changed()).await, Ok(Ok(()))) {
            return Ok(false);
        }
    }
}

/// Waits for all; `None` if that took too long, or the store is away.
pub(super) async fn all(
    app: &App,
    publications: &[(Entity, String)],
    published: &[Published],
    patience: Duration,
) -> Result<Option<AllProjected>, AccessError> {
    let until = Instant::now() + patience;
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    for place in published {
        let offset = last.entry(place.partition).or_default();
        *offset = place.offset.max(*offset);
    }
    for (partition, offset) in last {
        match is_applied(app, PartitionId(partition), offset, until).await {
            Ok(true) => {}
            Ok(false) | Err(AccessError::Unreachable(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let mut documents: BTreeMap<String, Value> = BTreeMap::new();
    let mut events = Vec::with_capacity(published.len());
    for ((entity, source), place) in publications.iter().zip(published) {
        let name = entity.document_id();
        if !documents.contains_key(&name) {
            match app.access.document(entity, now_ms()).await {
                Ok(document) => _ = documents.insert(name.clone(), document),
                Err(AccessError::NotFound(_)) => {} // parked, or a dead letter under other settings
                Err(AccessError::Unreachable(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let document = documents.get(&name).unwrap_or(&Value::Null);
        events.push(Projected {
            seq: seq(app, entity, (&place.id, source), place.offset, document).await?,
            status: document["status"].clone(),
            place: place.clone(),
        });
    }
    Ok(Some(AllProjected { events, documents }))
}

/// The seq of an event: the document's, if that event was its last; else found in the stream by id and source.
async fn seq(
    app: &App,
    entity: &Entity,
    (id, source): (&str, &str),
    offset: u64,
    document: &Value,
) -> Result<Option<u64>, AccessError> {
    let latest = document["latest_seq"].as_u64();
    if document["runtime_source"]["offset"].as_u64() == Some(offset) {
        return Ok(latest);
    }
    let after = latest.unwrap_or(0).saturating_sub(LOOKED_THROUGH);
    let limit = LOOKED_THROUGH as usize;
    let events = match app.access.events(entity, after, limit, Duration::ZERO).await {
        Ok(events) => events,
        Err(AccessError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = events
        .iter()
        .rev()
        .find(|entry| entry.text("id").as_deref() == Some(id) && entry.text("source").as_deref() == Some(source));
    Ok(found.map(|entry| entry.seq))
}

/// Whose an event is, and who wrote it: what finds it again.
pub(super) fn named(publication: &Publication) -> Option<(Entity, String)> {
    let subject = std::str::from_utf8(publication.record.key.as_deref()?).ok()?;
    Some((Entity::parse(subject)?, publication.source.clone()))
}

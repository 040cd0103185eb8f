//! One entity, replayed: folded from its own events, in the part of the log that has them, and replaced if it differs.
//! In: an entity. Out: what was done, or would be. Invariant: as of `heal`.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::examine::{Begin, Examined, examine};
use super::ground::{Ground, Pace};
use super::heal::{Healer, Repaired, entry, heal_examined};
use super::site::RepairError;
use super::verdict::{Rebuild, Verdict};
use crate::pure::drift::{Difference, Reason, differences};
use crate::pure::entity::Entity;
use crate::pure::place::PartitionId;
use crate::pure::time::Time;
use crate::store::{Heal, Stored};

/// Whether anything may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intention {
    /// Only tell what would be.
    Look,
    /// Put it right.
    Repair,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityResult {
    /// It was what the log says.
    Unchanged,
    /// It is what the log says now, or would be.
    Rebuilt,
    /// The log knows nothing of it: it went, or would go.
    Removed,
}

/// One entity's replay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EntityReplay {
    /// `run_summary:<id>` or `worker_summary:<id>`.
    pub document_id: String,
    /// Where it lives.
    pub partition: u32,
    /// What came of it.
    pub result: EntityResult,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Why it was not what the log says.
    pub reason: Option<Reason>,
    /// The same in words.
    pub detail: String,
    /// Offset of its last event, if the log has one.
    pub offset: Option<u64>,
    /// Its accepted events.
    pub events: u64,
    /// Records read for it.
    pub records: u64,
    /// Fields that changed, or would.
    pub differences: Vec<Difference>,
    /// How long it took.
    pub milliseconds: f64,
}

/// Replays one entity; `None`: neither log nor store know it.
///
/// # Errors
/// Log or store do not answer; its first events are gone from the log; a rewind or an operator is at work.
pub async fn replay_entity(
    ground: &Ground,
    partition: PartitionId,
    entity: &Entity,
    (intention, healer): (Intention, &Healer),
) -> Result<Option<EntityReplay>, RepairError> {
    let began = Instant::now();
    let (examined, mut records) = look(ground, partition, entity, healer.pace).await?;
    let (result, reason, detail) = match &examined.verdict {
        Verdict::Unknown => return Ok(None),
        Verdict::Clean if examined.seen == Stored::Expired => {
            (EntityResult::Unchanged, None, "its document has expired".to_owned())
        }
        Verdict::Clean => (EntityResult::Unchanged, None, String::new()),
        Verdict::Unverifiable
        | Verdict::Drift {
            rebuild: Rebuild::BeginningLost,
            ..
        } => return Err(beginning_lost(entity)),
        Verdict::Drift { reason, detail, .. } if examined.refolded.document.is_empty() => {
            (EntityResult::Removed, Some(*reason), detail.clone())
        }
        Verdict::Drift { reason, detail, .. } => (EntityResult::Rebuilt, Some(*reason), detail.clone()),
    };
    let document = &examined.refolded.document;
    let mut replay = EntityReplay {
        document_id: entity.document_id(),
        partition: partition.0,
        result,
        dry_run: intention == Intention::Look,
        reason,
        detail,
        offset: document.offset().map(|offset| offset.0),
        events: document.seq(),
        records: 0,
        differences: changes(&examined, healer.now),
        milliseconds: 0.0,
    };
    match (intention, result) {
        (Intention::Look, _) => {}
        (Intention::Repair, EntityResult::Unchanged) if examined.seen == Stored::Expired => {}
        (Intention::Repair, EntityResult::Unchanged) => {
            restore_stream(ground, partition, &examined, healer).await?;
        }
        (Intention::Repair, _) => {
            let healing = heal_examined(ground, partition, examined, healer).await?;
            records += healing.records;
            if let Some((_, Repaired::BeginningLost(_))) = healing.entities.first() {
                return Err(beginning_lost(entity));
            }
        }
    }
    replay.records = records;
    replay.milliseconds = milliseconds(began.elapsed());
    Ok(Some(replay))
}

/// Reads its own part of the log; all of the log if what is stored is wrong, for then it may also be wrong about where
/// that part is. Returns the number of records read too.
async fn look(
    ground: &Ground,
    partition: PartitionId,
    entity: &Entity,
    pace: Pace,
) -> Result<(Examined, u64), RepairError> {
    let one = std::slice::from_ref(entity);
    let near = (Begin::AtFirstOffset, ground.events_kept, pace);
    let found = examine(ground, partition, one, near).await?;
    let (examined, records) = (only(found.entities)?, found.records);
    if !matches!(examined.verdict, Verdict::Drift { .. }) || examined.begin == Begin::AtLogStart {
        return Ok((examined, records));
    }
    let far = (Begin::AtLogStart, ground.events_kept, pace);
    let again = examine(ground, partition, one, far).await?;
    Ok((only(again.entities)?, records + again.records))
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

fn only(entities: Vec<Examined>) -> Result<Examined, RepairError> {
    let one = entities.into_iter().next();
    one.ok_or_else(|| RepairError::Refused("the store told nothing of the entity".to_owned()))
}

/// Fields in which what is stored differs from what the log says.
pub(super) fn changes(examined: &Examined, now: Time) -> Vec<Difference> {
    let (entry, _) = entry(examined, now);
    let before = match &examined.seen {
        Stored::Document { json, .. } => Some(json.as_slice()),
        Stored::Absent | Stored::Lost | Stored::Expired => None,
        Stored::Unreadable(detail) => Some(detail.as_bytes()),
    };
    differences(before, entry.becomes.as_ref().map(|healthy| healthy.json.as_slice()))
}

fn beginning_lost(entity: &Entity) -> RepairError {
    let name = entity.document_id();
    RepairError::Refused(format!(
        "{name} cannot be rebuilt: its first events may be gone from the log; it was left as it is"
    ))
}

/// Writes the stream anew if it is not what the log says; the document beside it is right.
async fn restore_stream(
    ground: &Ground,
    partition: PartitionId,
    examined: &Examined,
    healer: &Healer,
) -> Result<(), RepairError> {
    let events = &examined.refolded.events;
    let Some(after) = events.first().map(|event| event.seq.saturating_sub(1)) else {
        return Ok(());
    };
    let most = events.len() + 1;
    let stored = ground
        .store
        .events(partition, &examined.entity, after, most, Duration::ZERO)
        .await?;
    let same = stored.len() == events.len()
        && stored
            .iter()
            .zip(events)
            .all(|(stored, event)| stored.seq == event.seq && stored.json == event.json);
    if !same {
        let heal = Heal {
            version: examined.version(),
            entries: vec![entry(examined, healer.now).0],
            ..Heal::default()
        };
        // Changed meanwhile: then the projector appends to it, and it is no worse than before.
        ground.store.heal(partition, &heal).await?;
    }
    Ok(())
}

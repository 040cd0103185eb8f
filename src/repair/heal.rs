//! Entities that drifted, put right beside a live projector.
//! In: entities of one partition. Out: what came of each. Invariant: an entity is written only if it is as it was
//! examined; one that changes too fast is put right under a short operator's lease; what the log cannot give back
//! in full is left as it is and named.

use std::time::Duration;

use super::examine::{Begin, Examined, examine};
use super::ground::{Ground, Pace};
use super::marks::forget_since;
use super::site::RepairError;
use super::verdict::{Rebuild, Verdict};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::drift::Reason;
use crate::pure::entity::Entity;
use crate::pure::intent::Intent;
use crate::pure::place::PartitionId;
use crate::pure::time::Time;
use crate::store::{Heal, HealEntry, Healed, Healthy, Owner, StoreError};

/// What came of one entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// It was right when it was looked at again.
    Clean,
    /// It is as the log says now.
    Rebuilt(Reason),
    /// The log knows nothing of it, and now the store does neither.
    Removed,
    /// Its first events are gone from the log: it was left as it is.
    BeginningLost(Reason),
}

/// Tries beside the projector before it is asked to wait.
const TRIES: u32 = 3;
/// Tries under an operator's lease: nobody else writes then.
const TRIES_ALONE: u32 = 3;
/// How long a projector waits at most for a repair that died.
const LEASE: Duration = Duration::from_secs(30);
/// Entities put right at once.
const ENTITIES: usize = 64;
/// Memory for their streams.
const STREAM_BYTES: usize = 64 << 20;
/// An event of a stream, as far as memory is planned.
const EVENT_BYTES: usize = 1024;

/// Who heals, and when.
#[derive(Clone, Debug)]
pub struct Healer {
    /// For the lease that is taken when entities change too fast.
    pub operator: Owner,
    /// The time that goes into `projected_at`.
    pub now: Time,
    /// The share of a core.
    pub pace: Pace,
}

/// What was done, and how many records were read for it.
#[derive(Debug, Default)]
pub struct Healing {
    /// In no order.
    pub entities: Vec<(Entity, Repaired)>,
    /// Records read.
    pub records: u64,
}

/// Puts entities of one partition right.
///
/// # Errors
/// Log or store do not answer; a rewind or another operator is at work. Those done before stay done.
pub async fn heal(
    ground: &Ground,
    partition: PartitionId,
    entities: &[Entity],
    healer: &Healer,
) -> Result<Healing, RepairError> {
    let most = STREAM_BYTES / (EVENT_BYTES * ground.events_kept.max(1));
    let mut healing = Healing::default();
    for chunk in entities.chunks(most.clamp(1, ENTITIES)) {
        let left = tries(ground, partition, chunk.to_vec(), (healer, None, TRIES), &mut healing).await?;
        if left.is_empty() {
            continue;
        }
        let alone = Some(&healer.operator);
        ground.store.open(partition, &healer.operator, LEASE).await?;
        let left = tries(ground, partition, left, (healer, alone, TRIES_ALONE), &mut healing).await;
        ground.store.release(partition, &healer.operator).await?;
        if let Some(entity) = left?.first() {
            return Err(RepairError::Refused(format!(
                "{entity}: it changes under an operator's lease; somebody else writes to the store"
            )));
        }
    }
    Ok(healing)
}

/// Puts an entity right as it was examined; if it has changed since, as [`heal`] does.
///
/// # Errors
/// As [`heal`].
pub(super) async fn heal_examined(
    ground: &Ground,
    partition: PartitionId,
    examined: Examined,
    healer: &Healer,
) -> Result<Healing, RepairError> {
    let entity = examined.entity.clone();
    let mut healing = Healing::default();
    let changed = write(ground, partition, vec![examined], (healer, None), &mut healing).await?;
    if changed.is_empty() {
        return Ok(healing);
    }
    heal(ground, partition, &[entity], healer).await
}

/// Looks and writes a few times; returns those that changed each time.
async fn tries(
    ground: &Ground,
    partition: PartitionId,
    mut entities: Vec<Entity>,
    (healer, owner, tries): (&Healer, Option<&Owner>, u32),
    healing: &mut Healing,
) -> Result<Vec<Entity>, RepairError> {
    for _ in 0..tries {
        let look = (Begin::AtLogStart, ground.events_kept, healer.pace);
        let found = examine(ground, partition, &entities, look).await?;
        healing.records += found.records;
        let mut sick = Vec::new();
        for examined in found.entities {
            match settled(&examined) {
                Some(repaired) => healing.entities.push((examined.entity, repaired)),
                None => sick.push(examined),
            }
        }
        entities = write(ground, partition, sick, (healer, owner), healing).await?;
        if entities.is_empty() {
            break;
        }
    }
    Ok(entities)
}

/// What is to be said of an entity that is not to be written.
fn settled(examined: &Examined) -> Option<Repaired> {
    match &examined.verdict {
        Verdict::Clean | Verdict::Unknown | Verdict::Unverifiable => Some(Repaired::Clean),
        Verdict::Drift {
            rebuild: Rebuild::BeginningLost,
            reason,
            ..
        } => Some(Repaired::BeginningLost(*reason)),
        Verdict::Drift { .. } => None,
    }
}

/// Writes what was examined; returns those that changed meanwhile.
async fn write(
    ground: &Ground,
    partition: PartitionId,
    sick: Vec<Examined>,
    (healer, owner): (&Healer, Option<&Owner>),
    healing: &mut Healing,
) -> Result<Vec<Entity>, RepairError> {
    let (parked, plain): (Vec<_>, Vec<_>) = sick.into_iter().partition(|examined| examined.parked.is_some());
    let mut changed = Vec::new();
    let mut checkpoint = parked.first().and_then(|examined| examined.checkpoint.clone());
    if !plain.is_empty() {
        let heal = Heal {
            owner: owner.cloned(),
            version: plain.first().and_then(Examined::version),
            moves: None,
            entries: plain.iter().map(|examined| entry(examined, healer.now).0).collect(),
        };
        let results = sent(ground, partition, &heal).await?;
        settle(plain, &results, &mut changed, healing);
    }
    forget_since(&*ground.store, partition, parked.iter().filter_map(|one| one.parked)).await?;
    for examined in parked {
        let Some(before) = checkpoint.take() else {
            changed.push(examined.entity);
            continue;
        };
        let (entry, hash) = entry(&examined, healer.now);
        let after = examined.unparked(&before, hash);
        let heal = Heal {
            owner: owner.cloned(),
            version: Some(before.projection_version),
            moves: Some((before.identity(), after.clone())),
            entries: vec![entry],
        };
        let results = sent(ground, partition, &heal).await?;
        // Each moves the checkpoint on: the next one is compared with that.
        checkpoint = (results == [Healed::Done]).then_some(after);
        settle(vec![examined], &results, &mut changed, healing);
    }
    Ok(changed)
}

fn settle(examined: Vec<Examined>, healed: &[Healed], changed: &mut Vec<Entity>, healing: &mut Healing) {
    for (examined, healed) in examined.into_iter().zip(healed) {
        match (healed, &examined.verdict) {
            (Healed::Changed, _) => changed.push(examined.entity),
            (Healed::Done, Verdict::Drift { .. }) if examined.refolded.document.is_empty() => {
                healing.entities.push((examined.entity, Repaired::Removed));
            }
            (Healed::Done, Verdict::Drift { reason, .. }) => {
                healing.entities.push((examined.entity, Repaired::Rebuilt(*reason)));
            }
            (Healed::Done, _) => healing.entities.push((examined.entity, Repaired::Clean)),
        }
    }
}

/// Sends it; a refusal because the world moved on counts as changed, unless a rewind is the reason.
async fn sent(ground: &Ground, partition: PartitionId, heal: &Heal) -> Result<Vec<Healed>, RepairError> {
    match ground.store.heal(partition, heal).await {
        Ok(healed) => Ok(healed),
        Err(StoreError::Refused { found, .. }) if !is_rewinding(found.as_ref().as_ref()) => {
            Ok(vec![Healed::Changed; heal.entries.len()])
        }
        Err(StoreError::Refused { .. }) => Err(RepairError::Refused(format!(
            "partition {partition}: a rewind is under way; wait until it is done (`khala status`)"
        ))),
        Err(error) => Err(error.into()),
    }
}

fn is_rewinding(found: Option<&Checkpoint>) -> bool {
    let intent = found.map_or(Ok(None), |found| Intent::parse(&found.intent));
    intent.map_or(true, |intent| intent.as_ref().is_some_and(Intent::is_under_way))
}

/// What is written for an entity, and the first 16 bytes of the new document's hash (0: it goes).
pub(super) fn entry(examined: &Examined, now: Time) -> (HealEntry, u128) {
    let document = &examined.refolded.document;
    let (mut json, mut state, mut hash) = (Vec::new(), Vec::new(), 0);
    let becomes = document.offset().map(|offset| {
        hash = document.render(now, &mut json);
        let has_state = document.write_state(&mut state);
        Healthy {
            offset,
            json,
            state: has_state.then_some(state),
            events: examined
                .refolded
                .events
                .iter()
                .map(|event| (event.seq, event.json.clone()))
                .collect(),
        }
    });
    let entry = HealEntry {
        entity: examined.entity.clone(),
        seen: examined.seen.clone(),
        index: examined.index,
        becomes,
        unpark: examined.parked.is_some(),
    };
    (entry, hash)
}

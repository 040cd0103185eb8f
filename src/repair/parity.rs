//! Two namespaces of one log against each other, beside whoever projects them. In: two stores. Out: how many documents
//! are equal, which differ, and in which fields. Invariant: two documents are compared only where both include the same
//! events; one that includes fewer is behind, unless its own checkpoint says that it is not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::site::RepairError;
use crate::pure::drift::{Difference, Summary, differences};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::store::{Store, Stored};

/// Entities looked at by one call to each store.
const PAGE: usize = 500;
/// The most differing documents that are told one by one.
pub const DIFFERING_MAX: usize = 1000;
/// Documents on the move are looked at again so often, with a pause between.
const LOOKS_MAX: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// One document that is not the same in both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DifferingRow {
    /// `run_summary:<id>` or `worker_summary:<id>`.
    pub document_id: String,
    /// Where it lives.
    pub partition: u32,
    /// Fields: what the old namespace has, and the new.
    pub differences: Vec<Difference>,
}

/// What the comparison came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parity {
    /// Documents compared.
    pub documents: u64,
    /// The same in both, but for `projected_at`.
    pub equal: u64,
    /// Not the same, or in one of them only.
    pub differing: u64,
    /// Of these: in the old namespace only.
    pub only_old: u64,
    /// Of these: in the new namespace only.
    pub only_new: u64,
    /// Documents that changed faster than both could be seen at one place: neither equal nor differing.
    pub moving: u64,
    /// By field.
    pub changes: Summary,
    /// The first [`DIFFERING_MAX`].
    pub differ: Vec<DifferingRow>,
    /// How long it took.
    pub seconds: f64,
}

/// Both sides.
struct Both<'a> {
    old: &'a dyn Store,
    new: &'a dyn Store,
    partition: PartitionId,
}

/// What is known of one entity on one side.
struct Side {
    stored: Stored,
    last: Option<Offset>,
    checkpoint: NextOffset,
}

/// Compares all documents of some partitions.
///
/// # Errors
/// A store does not answer.
pub async fn compare_namespaces(
    old: &dyn Store,
    new: &dyn Store,
    partitions: &[PartitionId],
    told: &mut (dyn FnMut(PartitionId, &Parity) + Send),
) -> Result<Parity, RepairError> {
    let began = Instant::now();
    let mut parity = Parity::default();
    for &partition in partitions {
        let both = Both { old, new, partition };
        let mut moving = BTreeSet::new();
        for kind in Kind::ALL {
            both.walk(kind, &mut parity, &mut moving, told).await?;
        }
        for _ in 0..LOOKS_MAX {
            if moving.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            let again: Vec<Entity> = std::mem::take(&mut moving).into_iter().collect();
            for page in again.chunks(PAGE) {
                both.look(page, &mut parity, &mut moving).await?;
            }
            told(partition, &parity);
        }
        parity.moving += moving.len() as u64;
    }
    parity.changes.documents = parity.documents;
    parity.seconds = began.elapsed().as_secs_f64();
    Ok(parity)
}

/// Compares some documents of a partition now. What is not at one place in both now is put among the `moving`.
///
/// # Errors
/// A store does not answer.
pub async fn compare_entities(
    (old, new): (&dyn Store, &dyn Store),
    partition: PartitionId,
    entities: &[Entity],
    moving: &mut BTreeSet<Entity>,
) -> Result<Parity, RepairError> {
    let mut parity = Parity::default();
    let both = Both { old, new, partition };
    for page in entities.chunks(PAGE) {
        both.look(page, &mut parity, moving).await?;
    }
    Ok(parity)
}

impl Both<'_> {
    /// All of a kind: what the old one has, then what only the new one has.
    async fn walk(
        &self,
        kind: Kind,
        parity: &mut Parity,
        moving: &mut BTreeSet<Entity>,
        told: &mut (dyn FnMut(PartitionId, &Parity) + Send),
    ) -> Result<(), RepairError> {
        for (store, is_old) in [(self.old, true), (self.new, false)] {
            // What moves up meanwhile comes again; what came by then is known by being past the first look.
            let stop = store
                .checkpoint(self.partition)
                .await?
                .map(|checkpoint| checkpoint.next);
            let mut from = NextOffset::START;
            loop {
                let page = store.indexed(self.partition, kind, from, PAGE).await?;
                let Some((_, last)) = page.last() else { break };
                from = last.next();
                let (settled, later): (Vec<_>, Vec<_>) = page
                    .into_iter()
                    .partition(|(_, last)| stop.is_some_and(|stop| stop.is_past(*last)));
                let mut entities: Vec<Entity> = settled.into_iter().map(|(entity, _)| entity).collect();
                if is_old {
                    moving.extend(later.into_iter().map(|(entity, _)| entity));
                } else {
                    let peeked = self.old.peek(self.partition, &entities).await?.entities;
                    let mut there = peeked
                        .into_iter()
                        .map(|(stored, last)| stored != Stored::Absent || last.is_some());
                    entities.retain(|_| !there.next().unwrap_or(false));
                }
                self.look(&entities, parity, moving).await?;
                told(self.partition, parity);
            }
        }
        Ok(())
    }

    /// Judges some entities; those that are not at one place now are put among the moving.
    async fn look(
        &self,
        entities: &[Entity],
        parity: &mut Parity,
        moving: &mut BTreeSet<Entity>,
    ) -> Result<(), RepairError> {
        if entities.is_empty() {
            return Ok(());
        }
        let (old, new) = (
            self.old.peek(self.partition, entities).await?,
            self.new.peek(self.partition, entities).await?,
        );
        let stands = |checkpoint: Option<_>| {
            checkpoint.map_or(NextOffset::START, |at: crate::pure::checkpoint::Checkpoint| at.next)
        };
        let (old_at, new_at) = (stands(old.checkpoint), stands(new.checkpoint));
        for ((entity, (old, old_last)), (new, new_last)) in entities.iter().zip(old.entities).zip(new.entities) {
            let old = Side {
                stored: old,
                last: old_last,
                checkpoint: old_at,
            };
            let new = Side {
                stored: new,
                last: new_last,
                checkpoint: new_at,
            };
            if old.stored == Stored::Expired || new.stored == Stored::Expired {
                continue; // nothing to compare with
            }
            if old.is_behind(&new) || new.is_behind(&old) {
                moving.insert(entity.clone());
            } else if old.is_there() || new.is_there() {
                parity.add(entity, self.partition, (&old, &new));
            }
        }
        Ok(())
    }
}

impl Side {
    fn is_there(&self) -> bool {
        self.stored != Stored::Absent || self.last.is_some()
    }

    /// Whether the other one has an event that this one has not come to yet.
    fn is_behind(&self, other: &Self) -> bool {
        match (self.last, other.last) {
            (mine, Some(theirs)) => mine.is_none_or(|mine| mine < theirs) && !self.checkpoint.is_past(theirs),
            (_, None) => false,
        }
    }

    fn json(&self) -> Option<&[u8]> {
        match &self.stored {
            Stored::Document { json, .. } => Some(json),
            Stored::Absent | Stored::Lost | Stored::Expired => None,
            Stored::Unreadable(detail) => Some(detail.as_bytes()),
        }
    }
}

impl Parity {
    fn add(&mut self, entity: &Entity, partition: PartitionId, (old, new): (&Side, &Side)) {
        self.documents += 1;
        let found = differences(old.json(), new.json());
        if found.is_empty() && old.last == new.last {
            self.equal += 1;
            return;
        }
        self.differing += 1;
        self.only_old += u64::from(new.json().is_none());
        self.only_new += u64::from(old.json().is_none());
        self.changes.add(&found);
        if self.differ.len() < DIFFERING_MAX {
            self.differ.push(DifferingRow {
                document_id: entity.document_id(),
                partition: partition.0,
                differences: found,
            });
        }
    }
}

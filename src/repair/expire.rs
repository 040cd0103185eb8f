//! Takes documents of runs away that ended long ago, so that the store has a bound.
//! In: a partition that somebody projects. Out: documents and streams are gone; their place in the index stays as long as
//! the log has events of them, and says so: no drift. An event that comes late parks its entity, and it is folded anew.
//! Invariant: digest and counts stay as they are; where snapshots are written, only what is in one goes.

use std::collections::BTreeSet;

use super::ground::Ground;
use super::heal::{Healer, Repaired, heal};
use super::site::RepairError;
use super::snapshot::written_up_to;
use crate::pure::checkpoint::PROJECTION_VERSION;
use crate::pure::document::Document;
use crate::pure::entity::{Entity, Kind};
use crate::pure::intent::Intent;
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::time::Time;
use crate::store::{Expiring, Leaves, Stored};

/// Entities looked at by one call.
const PAGE: usize = 500;
/// Late events' entities made anew in one round.
const LATE_MAX: usize = 1_000;

/// A record that is dated further ahead than clocks differ says nothing of those behind it.
const AHEAD_MS: i64 = 5 * 60 * 1000;

/// How long documents stay, and what else must have them.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Runs whose last event is older go.
    pub keep_ms: i64,
    /// Whether only what is in a snapshot may go.
    pub in_snapshot: InSnapshot,
}

/// See [`Keep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InSnapshot {
    /// It must be.
    Must,
    /// None are written.
    NeedNot,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Documents taken away.
    pub documents: u64,
    /// Documents made anew, because an event came late.
    pub back: u64,
}

/// One partition.
#[derive(Debug, Default)]
pub struct Expiry {
    /// All before was looked at: what is there goes never, or by an event that moves it up.
    from: NextOffset,
    /// Places before are known not to be needed any more.
    forgotten: NextOffset,
    /// Where the checkpoint was.
    seen: NextOffset,
    /// Entities that cannot be made anew: the log has lost their beginnings.
    given_up: BTreeSet<Entity>,
}

impl Expiry {
    /// Takes away what has its time, and makes anew what an event came late for.
    ///
    /// # Errors
    /// Log or store do not answer; the next round goes on.
    pub async fn round(
        &mut self,
        ground: &Ground,
        partition: PartitionId,
        keep: Keep,
        healer: &Healer,
    ) -> Result<Expired, RepairError> {
        let Some(checkpoint) = ground.store.checkpoint(partition).await? else {
            return Ok(Expired::default());
        };
        let intent = Intent::parse(&checkpoint.intent);
        if !checkpoint.is_ours() || intent.map_or(true, |intent| intent.as_ref().is_some_and(Intent::is_under_way)) {
            return Ok(Expired::default());
        }
        if checkpoint.next < self.seen {
            *self = Self::default(); // documents went back
        }
        self.seen = checkpoint.next;
        let first = ground.log.bounds(partition).await?.first;
        let parked: Vec<Entity> = ground
            .store
            .parked(partition)
            .await?
            .into_iter()
            .map(|(entity, _)| entity)
            .collect();
        let back = self.late(ground, partition, &parked, healer).await?;
        let limit = match keep.in_snapshot {
            InSnapshot::NeedNot => checkpoint.next,
            InSnapshot::Must => written_up_to(&*ground.log, partition).await?.min(checkpoint.next),
        };
        let now_ms = healer.now.ms();
        let until_ms = now_ms.saturating_sub(keep.keep_ms);
        let parked: BTreeSet<Entity> = parked.into_iter().collect();
        let documents = self
            .take_away(ground, partition, (first, limit), (until_ms, now_ms), &parked)
            .await?;
        self.forget(ground, partition, first).await?;
        Ok(Expired { documents, back })
    }

    /// Entities whose document had expired when another event came.
    async fn late(
        &mut self,
        ground: &Ground,
        partition: PartitionId,
        parked: &[Entity],
        healer: &Healer,
    ) -> Result<u64, RepairError> {
        let asked: Vec<Entity> = parked
            .iter()
            .filter(|entity| !self.given_up.contains(*entity))
            .cloned()
            .collect();
        let mut late = Vec::new();
        for page in asked.chunks(PAGE) {
            let peeked = ground.store.peek(partition, page).await?.entities;
            let expired = page
                .iter()
                .zip(peeked)
                .filter(|(_, (stored, _))| *stored == Stored::Expired);
            late.extend(expired.map(|(entity, _)| entity.clone()));
        }
        late.truncate(LATE_MAX);
        if late.is_empty() {
            return Ok(0);
        }
        let mut back = 0;
        for (entity, repaired) in heal(ground, partition, &late, healer).await?.entities {
            match repaired {
                Repaired::BeginningLost(_) => {
                    tracing::warn!(%partition, %entity, "an event came for an expired document whose beginning the log has lost; it stays parked");
                    self.given_up.insert(entity);
                }
                _ => back += 1,
            }
        }
        Ok(back)
    }

    async fn take_away(
        &mut self,
        ground: &Ground,
        partition: PartitionId,
        (first, limit): (NextOffset, NextOffset),
        (until_ms, now_ms): (i64, i64),
        parked: &BTreeSet<Entity>,
    ) -> Result<u64, RepairError> {
        let mut taken = 0;
        loop {
            let page = ground.store.indexed(partition, Kind::Run, self.from, PAGE).await?;
            let page: Vec<_> = page.into_iter().take_while(|(_, last)| limit.is_past(*last)).collect();
            if page.is_empty() {
                return Ok(taken);
            }
            let entities: Vec<Entity> = page.iter().map(|(entity, _)| entity.clone()).collect();
            let peeked = ground.store.peek(partition, &entities).await?.entities;
            let (mut due, mut young) = (Vec::new(), None);
            for ((entity, last), (stored, _)) in page.iter().zip(peeked) {
                let Stored::Document { json, state } = stored else {
                    continue;
                };
                let Ok((document, _)) = Document::parse(entity, partition, &json, state.as_deref()) else {
                    continue;
                };
                let updated_ms = document.updated_at().map(Time::ms);
                if updated_ms.is_some_and(|at| at > now_ms + AHEAD_MS) {
                    continue; // it stays until all is looked at anew
                }
                if updated_ms.is_none_or(|at| at > until_ms) {
                    young = Some(NextOffset(last.0));
                    break; // the index is in the order of the log's clock
                }
                if document.is_terminal() && document.offset() == Some(*last) && !parked.contains(entity) {
                    let leaves = if first.is_past(*last) {
                        Leaves::Nothing
                    } else {
                        Leaves::Place
                    };
                    let (entity, last) = (entity.clone(), *last);
                    due.push(Expiring {
                        entity,
                        last,
                        leaves,
                        version: PROJECTION_VERSION,
                    });
                }
            }
            if !due.is_empty() {
                taken += ground.store.expire(partition, &due).await?;
            }
            if let Some(young) = young {
                self.from = young;
                return Ok(taken);
            }
            self.from = page.last().map_or(self.from, |(_, last)| last.next());
        }
    }

    /// Places of expired documents that the log has forgotten are not needed any more.
    async fn forget(&mut self, ground: &Ground, partition: PartitionId, first: NextOffset) -> Result<(), RepairError> {
        while self.forgotten < first {
            let page = ground.store.indexed(partition, Kind::Run, self.forgotten, PAGE).await?;
            let page: Vec<_> = page.into_iter().take_while(|(_, last)| first.is_past(*last)).collect();
            let entities: Vec<Entity> = page.iter().map(|(entity, _)| entity.clone()).collect();
            let peeked = ground.store.peek(partition, &entities).await?.entities;
            let gone = page
                .iter()
                .zip(peeked)
                .filter(|(_, (stored, _))| *stored == Stored::Expired);
            let gone: Vec<Expiring> = gone
                .map(|((entity, last), _)| Expiring {
                    entity: entity.clone(),
                    last: *last,
                    leaves: Leaves::Nothing,
                    version: PROJECTION_VERSION,
                })
                .collect();
            if !gone.is_empty() {
                ground.store.expire(partition, &gone).await?;
            }
            self.forgotten = match page.last() {
                Some((_, last)) if page.len() == PAGE => last.next(),
                _ => first,
            };
        }
        Ok(())
    }
}

//! One pass of a writer of snapshots over what has changed, and the marker that ends it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::site::RepairError;
use super::tail::{Others, Tail};
use super::write::{AGAIN_MAX, Snapshots};
use crate::log::{NewRecord, Role};
use crate::pure::batch::Stored;
use crate::pure::checkpoint::{Checkpoint, Mark};
use crate::pure::document::Document;
use crate::pure::entity::{Entity, Kind};
use crate::pure::intent::Intent;
use crate::pure::place::{NextOffset, Offset};
use crate::pure::snapshot::{Marker, Parts, Piece};

/// Documents read and written at once.
pub(super) const CHUNK: usize = 500;
/// Names read at once.
const NAMES: usize = 10_000;

/// Which documents a round takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    All,
    Terminal,
}

/// Whether these are documents of ours, and none between two states.
pub(super) fn is_settled(checkpoint: &Checkpoint) -> bool {
    checkpoint.is_ours()
        && matches!(Intent::parse(&checkpoint.intent), Ok(intent) if !intent.as_ref().is_some_and(Intent::is_under_way))
}

/// One pass over what has changed.
pub(super) struct Pass<'a> {
    snapshots: &'a Snapshots,
    epoch: String,
    take: Take,
    /// Up to where what has changed is written.
    next: NextOffset,
    /// Whether the store was never seen below that, nor between two states.
    stands: bool,
    pub(super) documents: u64,
    /// Documents that cannot be read: as of their last place at best.
    unreadable: BTreeMap<Entity, Offset>,
    /// `None`: no marker comes of it.
    tail: Option<Tail>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        snapshots: &'a Snapshots,
        epoch: String,
        take: Take,
        next: NextOffset,
        tail: Option<Tail>,
    ) -> Self {
        Self {
            snapshots,
            epoch,
            take,
            next,
            stands: true,
            documents: 0,
            unreadable: BTreeMap::new(),
            tail,
        }
    }

    /// Writes all that changed since `from`.
    pub(super) async fn changed(&mut self, from: NextOffset) -> Result<(), RepairError> {
        let mut at = Some(from);
        while let Some(from) = at.filter(|at| *at < self.next) {
            let (entities, next) = self.listed(from, CHUNK).await?;
            self.write_all(entities).await?;
            at = next;
        }
        // What changed again meanwhile has moved up. Names are read faster than they move.
        let mut moved = BTreeSet::new();
        while let Some(from) = at {
            let (entities, next) = self.listed(from, NAMES).await?;
            moved.extend(entities);
            at = next;
        }
        self.write_all(moved).await
    }

    /// The first entities from a place on, and where the others are. Of a store that went back nothing is listed: what
    /// is not there may have changed as well.
    async fn listed(
        &mut self,
        from: NextOffset,
        limit: usize,
    ) -> Result<(BTreeSet<Entity>, Option<NextOffset>), RepairError> {
        let Snapshots { store, partition, .. } = self.snapshots;
        let (checkpoint, page) = store.ahead(*partition, from, limit).await?;
        if !self.stands_under(checkpoint.as_ref()) {
            return Ok((BTreeSet::new(), None));
        }
        // A kind of which there are more ends where it ends; of the others no more is taken.
        let end_of = |kind| {
            let of_kind = page.iter().filter(|(entity, _)| entity.kind() == kind);
            let last = of_kind.clone().map(|(_, last)| last.next()).max();
            last.filter(|_| of_kind.count() >= limit)
        };
        let next = Kind::ALL.into_iter().filter_map(end_of).min();
        let is_before = |last: &Offset| next.is_none_or(|next| next.is_past(*last));
        let entities = page.into_iter().filter(|(_, last)| is_before(last));
        Ok((entities.map(|(entity, _)| entity).collect(), next))
    }

    fn stands_under(&mut self, checkpoint: Option<&Checkpoint>) -> bool {
        let stands = checkpoint.is_some_and(|checkpoint| checkpoint.next >= self.next && is_settled(checkpoint));
        self.stands &= stands;
        stands
    }

    pub(super) async fn write_all(&mut self, entities: BTreeSet<Entity>) -> Result<(), RepairError> {
        let entities: Vec<Entity> = entities.into_iter().collect();
        for chunk in entities.chunks(CHUNK) {
            self.write(chunk).await?;
        }
        Ok(())
    }

    /// The marker, and how many documents were written. `None`: somebody else wrote one meanwhile. No marker: documents
    /// went back. What waited is what was parked at the checkpoint, or between it and the first look at what has changed.
    pub(super) async fn mark(
        mut self,
        marks: &[Mark],
        checkpoint: Checkpoint,
        waited: &[(Entity, Offset)],
    ) -> Result<Option<(u64, Option<Marker>)>, RepairError> {
        let snapshots = self.snapshots;
        let mut written = None;
        for _ in 0..AGAIN_MAX {
            let others = self.others().await?;
            if others.marker {
                return Ok(None);
            }
            if others.entities.is_empty()
                && let Some(marker) = written
            {
                return Ok(Some((self.documents, Some(marker))));
            }
            self.write_all(others.entities).await?;
            let mut aside: Vec<_> = self.unreadable.clone().into_iter().collect();
            aside.extend_from_slice(waited);
            if !self.stands || !snapshots.still_stands(marks, checkpoint.next).await? {
                return Ok(Some((self.documents, None)));
            }
            let marker = Marker {
                namespace: snapshots.namespace.clone(),
                epoch: self.epoch.clone(),
                checkpoint: checkpoint.clone(),
                aside,
            };
            self.append(vec![marker.parts()]).await?;
            written = Some(marker); // if nobody wrote in between
        }
        Ok(None)
    }

    async fn others(&mut self) -> Result<Others, RepairError> {
        let snapshots = self.snapshots;
        match &mut self.tail {
            Some(tail) => tail.others(&*snapshots.log, snapshots.partition).await,
            None => Ok(Others::default()),
        }
    }

    async fn write(&mut self, entities: &[Entity]) -> Result<(), RepairError> {
        let partition = self.snapshots.partition;
        let peeked = self.snapshots.store.peek(partition, entities).await?;
        if !self.stands_under(peeked.checkpoint.as_ref()) {
            return Ok(()); // older than what the topic may have under a marker already
        }
        let mut records = Vec::with_capacity(entities.len());
        for (entity, (stored, indexed)) in entities.iter().zip(peeked.entities) {
            if stored == Stored::Expired {
                continue; // the topic keeps what it was
            }
            let Stored::Document { json, state } = stored else {
                self.unreadable.insert(entity.clone(), indexed.unwrap_or(Offset(0)));
                continue;
            };
            let Ok((document, _)) = Document::parse(entity, partition, &json, state.as_deref()) else {
                self.unreadable.insert(entity.clone(), indexed.unwrap_or(Offset(0)));
                continue;
            };
            if self.take == Take::Terminal && !document.is_terminal() {
                continue;
            }
            let piece = Piece {
                entity: entity.clone(),
                epoch: self.epoch.clone(),
                json,
                state,
            };
            records.push(piece.parts(&self.snapshots.namespace));
        }
        self.documents += records.len() as u64;
        self.append(records).await
    }

    async fn append(&mut self, parts: Vec<Parts>) -> Result<(), RepairError> {
        let record = |(key, value, headers): Parts| NewRecord {
            partition: Some(self.snapshots.partition),
            key: Some(key.into_bytes()),
            value: Some(value),
            headers,
            timestamp_ms: None,
        };
        let records = parts.into_iter().map(record).collect();
        for result in self.snapshots.log.append(Role::Documents, records).await {
            let (_, at) = result?;
            if let Some(tail) = &mut self.tail {
                tail.wrote(at);
            }
        }
        Ok(())
    }
}

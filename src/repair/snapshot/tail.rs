//! The end of the documents' topic: the newest marker, and what others wrote while a round was under way.
//! Two writers may be at work at once, a server and `khala snapshot`, or one that was taken for dead: what the late one
//! writes may be older than what the other's marker claims. So whatever somebody else wrote is written once more.

use std::collections::BTreeSet;

use super::super::site::RepairError;
use super::source::{Found, Pieces, Source};
use crate::log::{Log, Role};
use crate::pure::entity::Entity;
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::snapshot::Marker;

/// A marker is the last record of each round: it is looked for here first.
const TAIL: u64 = 2000;

/// What is found of the newest marker.
#[derive(Default)]
pub(super) struct Newest {
    pub marker: Option<Marker>,
    /// Whose documents come behind it.
    pub behind: BTreeSet<Entity>,
}

impl Newest {
    fn take(&mut self, found: Found, fits: &mut impl FnMut(&Marker) -> bool) {
        match found {
            Found::Marker(marker) if fits(&marker) => {
                // Within an epoch places only grow: a lower one is of a writer that was late.
                let is_late = |newest: &Marker| newest.epoch == marker.epoch && newest.next() > marker.next();
                if !self.marker.as_ref().is_some_and(is_late) {
                    self.marker = Some(marker);
                    self.behind.clear();
                }
            }
            Found::Piece(piece) if self.marker.is_some() => {
                self.behind.insert(piece.entity);
            }
            // Of another version: compaction takes ours from under it.
            Found::Other(entity) if self.marker.is_some() => _ = self.behind.insert(entity),
            Found::Marker(_) | Found::Piece(_) | Found::Other(_) => {}
        }
    }
}

/// The newest marker that is in the tail of the topic; of the whole topic if there is none.
pub(super) async fn newest(
    log: &dyn Log,
    partition: PartitionId,
    source: &Source,
    mut fits: impl FnMut(&Marker) -> bool,
) -> Result<Newest, RepairError> {
    let mut tries = vec![Pieces::open(log, partition, source).await?];
    if let Source::Topic = source {
        let bounds = log.bounds_of(Role::Documents, partition).await?;
        let from = NextOffset(bounds.end.0.saturating_sub(TAIL)).max(bounds.first);
        if from > bounds.first {
            tries.push(Pieces::topic(log, partition, from, bounds.end).await?);
        }
    }
    while let Some(mut pieces) = tries.pop() {
        let mut newest = Newest::default();
        while let Some(found) = pieces.next().await? {
            for found in found {
                newest.take(found, &mut fits);
            }
        }
        if newest.marker.is_some() {
            return Ok(newest);
        }
    }
    Ok(Newest::default())
}

/// What others wrote.
#[derive(Default)]
pub(super) struct Others {
    pub entities: BTreeSet<Entity>,
    pub marker: bool,
}

/// What of the topic is known: all below `seen`, and what was written here.
pub(super) struct Tail {
    seen: NextOffset,
    /// From, to; in order.
    own: Vec<(NextOffset, NextOffset)>,
}

impl Tail {
    /// From the topic's end on.
    pub(super) async fn open(log: &dyn Log, partition: PartitionId) -> Result<Self, RepairError> {
        let bounds = log.bounds_of(Role::Documents, partition).await?;
        let (seen, own) = (bounds.end, Vec::new());
        Ok(Self { seen, own })
    }

    /// A record that was written here.
    pub(super) fn wrote(&mut self, at: Offset) {
        match self.own.last_mut() {
            Some((_, to)) if to.0 == at.0 => *to = at.next(),
            _ => self.own.push((NextOffset(at.0), at.next())),
        }
    }

    /// What others wrote since it was asked last; reads just that.
    pub(super) async fn others(&mut self, log: &dyn Log, partition: PartitionId) -> Result<Others, RepairError> {
        let end = log.bounds_of(Role::Documents, partition).await?.end;
        let mut others = Others::default();
        let own = std::mem::take(&mut self.own);
        for (from, to) in own.into_iter().chain([(end, end)]) {
            let mut pieces = Pieces::topic(log, partition, self.seen, from).await?;
            while let Some(found) = pieces.next().await? {
                for found in found {
                    match found {
                        Found::Marker(_) => others.marker = true,
                        Found::Piece(piece) => _ = others.entities.insert(piece.entity),
                        Found::Other(entity) => _ = others.entities.insert(entity),
                    }
                }
            }
            self.seen = self.seen.max(to);
        }
        Ok(others)
    }
}

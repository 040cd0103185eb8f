//! Writes snapshots, off the hot path: the store's index tells what has changed, `peek` reads it.
//! In: a partition that somebody projects. Out: documents in the topic, then a marker.
//! Invariant: a marker is appended only after the log has every document that changed since the marker before it, and
//! what others wrote meanwhile is written once more before it: see `tail`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::site::{RepairError, now};
use super::super::survey::last_record_of;
use super::source::Source;
use super::tail::{Others, Tail, newest};
use crate::log::{Log, NewRecord, Role};
use crate::pure::batch::Stored;
use crate::pure::checkpoint::{Checkpoint, Mark};
use crate::pure::document::Document;
use crate::pure::entity::{Entity, Kind};
use crate::pure::intent::Intent;
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::recovery::LastRecord;
use crate::pure::snapshot::{Marker, Parts, Piece};
use crate::store::Store;

/// Documents read and written at once.
pub(super) const CHUNK: usize = 500;
/// Names read at once.
const NAMES: usize = 10_000;
/// Another namespace whose marker is younger than this has the topic.
const OTHERS_MS: i64 = 600_000;
/// How often it begins again because somebody else writes too.
const AGAIN_MAX: usize = 4;
/// Marks of the history that are looked at.
const MARKS: usize = 1_000;

/// What a round did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Round {
    /// Nothing has changed, or documents are between two states now.
    Nothing,
    /// Another namespace writes the snapshots of this topic.
    Others(String),
    /// So many documents, as of this place.
    Written {
        /// Documents.
        documents: u64,
        /// The marker's place.
        next: NextOffset,
    },
}

/// Which documents a round takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Take {
    All,
    Terminal,
}

/// Writes the snapshots of one partition.
pub struct Snapshots {
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    namespace: String,
    partition: PartitionId,
    /// The marker written or found last.
    marker: Option<Marker>,
    /// Up to where terminal documents were looked for.
    terminals: NextOffset,
}

impl Snapshots {
    /// Of a partition.
    pub fn new(log: Arc<dyn Log>, store: Arc<dyn Store>, namespace: &str, partition: PartitionId) -> Self {
        Self {
            log,
            store,
            namespace: namespace.to_owned(),
            partition,
            marker: None,
            terminals: NextOffset::START,
        }
    }

    /// The marker written or found last.
    pub fn marker(&self) -> Option<&Marker> {
        self.marker.as_ref()
    }

    /// Writes what has changed since the marker before, then a marker.
    ///
    /// # Errors
    /// Log or store do not answer; the next round begins where this one did.
    pub async fn round(&mut self) -> Result<Round, RepairError> {
        for _ in 0..AGAIN_MAX {
            if let Some(round) = self.attempt().await? {
                return Ok(round);
            }
        }
        Ok(Round::Nothing)
    }

    /// One round; `None`: somebody else finished one meanwhile.
    async fn attempt(&mut self) -> Result<Option<Round>, RepairError> {
        let marks = self.store.history(self.partition, MARKS).await?; // before all else: see `still_stands`
        let Some(checkpoint) = self.settled().await? else {
            return Ok(Some(Round::Nothing));
        };
        let tail = Tail::open(&*self.log, self.partition).await?;
        let found = newest(&*self.log, self.partition, &Source::Topic, |_| true).await?;
        // Going on in one epoch, each writer adds to what the other wrote; two that began anew at once have overwritten
        // each other's documents, and so all are written once more.
        let torn = matches!((&self.marker, &found.marker), (Some(ours), Some(newest)) if ours.epoch != newest.epoch);
        self.marker = found.marker;
        if let Some(marker) = &self.marker {
            let age_ms = now().ms() - marker.checkpoint.written_at_ms;
            if marker.namespace != self.namespace && age_ms < OTHERS_MS {
                return Ok(Some(Round::Others(marker.namespace.clone())));
            }
        }
        let (epoch, from, aside) = match &self.marker {
            Some(marker) if !torn && self.goes_on(marker, &checkpoint).await? => {
                let stands = checkpoint.next == marker.next();
                let stands = stands && (!found.behind.is_empty() || self.some_are_healed(marker).await?);
                if checkpoint.next <= marker.next() && !stands {
                    return Ok(Some(Round::Nothing)); // or being redone
                }
                (marker.epoch.clone(), marker.next(), marker.aside.clone())
            }
            _ => (format!("{:016x}", rand::random::<u64>()), NextOffset::START, Vec::new()),
        };
        let mut pass = Pass::new(self, epoch, Take::All, checkpoint.next, Some(tail));
        pass.changed(from).await?;
        let mut again = found.behind;
        again.extend(aside.into_iter().map(|(entity, _)| entity));
        pass.write_all(again).await?;
        let Some((documents, marker)) = pass.mark(&marks, checkpoint).await? else {
            return Ok(None);
        };
        let Some(marker) = marker else {
            return Ok(Some(Round::Nothing));
        };
        let next = marker.next();
        self.terminals = self.terminals.max(next);
        self.marker = Some(marker);
        Ok(Some(Round::Written { documents, next }))
    }

    /// Writes the terminal documents among those that changed since the last look, without a marker.
    ///
    /// # Errors
    /// As [`Self::round`].
    pub async fn terminals(&mut self) -> Result<u64, RepairError> {
        let (Some(checkpoint), Some(marker)) = (self.settled().await?, self.marker.clone()) else {
            return Ok(0);
        };
        if marker.namespace != self.namespace || checkpoint.next <= self.terminals {
            return Ok(0);
        }
        let from = self.terminals.max(marker.next());
        let mut pass = Pass::new(self, marker.epoch, Take::Terminal, checkpoint.next, None);
        pass.changed(from).await?;
        let documents = pass.documents;
        self.terminals = checkpoint.next;
        Ok(documents)
    }

    /// Whether entities that were aside when the marker was written are so no longer.
    async fn some_are_healed(&self, marker: &Marker) -> Result<bool, RepairError> {
        if marker.aside.is_empty() {
            return Ok(false);
        }
        let parked = self.store.parked(self.partition).await?;
        let waits = |entity| parked.iter().any(|(parked, _)| parked == entity);
        Ok(marker.aside.iter().any(|(entity, _)| !waits(entity)))
    }

    /// The checkpoint, unless documents may be between two states.
    async fn settled(&self) -> Result<Option<Checkpoint>, RepairError> {
        let checkpoint = self.store.checkpoint(self.partition).await?;
        Ok(checkpoint.filter(is_settled).map(|checkpoint| Checkpoint {
            intent: String::new(),
            ..checkpoint
        }))
    }

    /// Whether no document went back since the history had these marks. Where the checkpoint is does not tell: a rewind
    /// or a restore may have come and gone. But one leaves a lower mark, and the other begins a new history.
    async fn still_stands(&self, marks: &[Mark], next: NextOffset) -> Result<bool, RepairError> {
        if self.settled().await?.is_none_or(|still| still.next < next) {
            return Ok(false);
        }
        let was_there = |mark: &Mark| {
            let same = |old: &Mark| old.id == mark.id && old.checkpoint == mark.checkpoint;
            marks.iter().any(same)
        };
        let now = self.store.history(self.partition, MARKS).await?;
        let is_lower = |mark: &Mark| !mark.verified && mark.checkpoint.next < next && !was_there(mark);
        Ok((marks.is_empty() || now.iter().any(was_there)) && !now.iter().any(is_lower))
    }

    /// Whether documents since the marker are all that is missing: it is ours, of this topic, and not cut off.
    async fn goes_on(&self, marker: &Marker, checkpoint: &Checkpoint) -> Result<bool, RepairError> {
        let theirs = &marker.checkpoint;
        if marker.namespace != self.namespace
            || theirs.topic_id != checkpoint.topic_id
            || theirs.partitions != checkpoint.partitions
        {
            return Ok(false);
        }
        let bounds = self.log.bounds(self.partition).await?;
        let last = last_record_of(&*self.log, self.partition, theirs, (bounds.first, bounds.end)).await?;
        Ok(theirs.next <= bounds.end && last != LastRecord::Differs)
    }
}

fn is_settled(checkpoint: &Checkpoint) -> bool {
    matches!(Intent::parse(&checkpoint.intent), Ok(intent) if !intent.as_ref().is_some_and(Intent::is_under_way))
}

/// One pass over what has changed.
struct Pass<'a> {
    snapshots: &'a Snapshots,
    epoch: String,
    take: Take,
    /// Up to where what has changed is written.
    next: NextOffset,
    /// Whether the store was never seen below that, nor between two states.
    stands: bool,
    documents: u64,
    /// Documents that cannot be read: as of their last place at best.
    unreadable: BTreeMap<Entity, Offset>,
    /// `None`: no marker comes of it.
    tail: Option<Tail>,
}

impl<'a> Pass<'a> {
    fn new(snapshots: &'a Snapshots, epoch: String, take: Take, next: NextOffset, tail: Option<Tail>) -> Self {
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
    async fn changed(&mut self, from: NextOffset) -> Result<(), RepairError> {
        let (store, partition) = (Arc::clone(&self.snapshots.store), self.snapshots.partition);
        for kind in Kind::ALL {
            let mut at = from;
            while at < self.next {
                let page = store.indexed(partition, kind, at, CHUNK).await?;
                let Some((_, last)) = page.last() else { break };
                at = last.next();
                let entities: Vec<Entity> = page.into_iter().map(|(entity, _)| entity).collect();
                self.write(&entities).await?;
            }
            // What changed again meanwhile has moved up. Names are read faster than they move.
            let mut moved = BTreeSet::new();
            loop {
                let page = store.indexed(partition, kind, at, NAMES).await?;
                let Some((_, last)) = page.last() else { break };
                at = last.next();
                let whole = page.len() < NAMES;
                moved.extend(page.into_iter().map(|(entity, _)| entity));
                if whole {
                    break;
                }
            }
            self.write_all(moved).await?;
        }
        Ok(())
    }

    async fn write_all(&mut self, entities: BTreeSet<Entity>) -> Result<(), RepairError> {
        let entities: Vec<Entity> = entities.into_iter().collect();
        for chunk in entities.chunks(CHUNK) {
            self.write(chunk).await?;
        }
        Ok(())
    }

    /// The marker, and how many documents were written. `None`: somebody else wrote one meanwhile. No marker: documents
    /// went back.
    async fn mark(
        mut self,
        marks: &[Mark],
        checkpoint: Checkpoint,
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
            aside.extend(snapshots.store.parked(snapshots.partition).await?);
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
        let stands = |checkpoint: &Checkpoint| checkpoint.next >= self.next && is_settled(checkpoint);
        if !peeked.checkpoint.as_ref().is_some_and(stands) {
            self.stands = false;
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

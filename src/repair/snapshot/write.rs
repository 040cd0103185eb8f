//! Writes snapshots, off the hot path: the store's index tells what has changed, `peek` reads it.
//! In: a partition that somebody projects. Out: documents in the topic, then a marker.
//! Invariant: a marker is appended only after the log has every document that changed since the marker before it, and
//! what others wrote meanwhile is written once more before it: see `tail`.

use std::sync::Arc;

use super::super::site::{RepairError, now};
use super::super::survey::last_record_of;
use super::pass::{Pass, Take, is_settled};
use super::source::Source;
use super::tail::{Tail, newest};
use crate::log::Log;
use crate::pure::checkpoint::{Checkpoint, Mark};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::recovery::LastRecord;
use crate::pure::snapshot::Marker;
use crate::store::Store;

/// Another namespace whose marker is younger than this has the topic.
const OTHERS_MS: i64 = 600_000;
/// How often it begins again because somebody else writes too.
pub(super) const AGAIN_MAX: usize = 4;
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

/// Writes the snapshots of one partition.
pub struct Snapshots {
    pub(super) log: Arc<dyn Log>,
    pub(super) store: Arc<dyn Store>,
    pub(super) namespace: String,
    pub(super) partition: PartitionId,
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
        // Before any document is looked at: one that is healed later may have been looked at before it was.
        let waited = self.store.parked(self.partition).await?;
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
        let Some((documents, marker)) = pass.mark(&marks, checkpoint, &waited).await? else {
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
    pub(super) async fn still_stands(&self, marks: &[Mark], next: NextOffset) -> Result<bool, RepairError> {
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

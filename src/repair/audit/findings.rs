//! What an audit has to tell, gathered. In: what the passes over the log left open. Out: the report's rows.
//! Invariant: what looks wrong is examined by itself, at one instant, before it is told.

use std::collections::BTreeSet;

use super::super::entity::changes;
use super::super::examine::{Begin, Examined, examine};
use super::super::ground::Ground;
use super::super::report::{DRIFT_MAX, DriftRow, PartitionAudit, SkippedPartition, drift_row};
use super::super::site::RepairError;
use super::super::verdict::Verdict;
use super::{Audit, Work};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::drift::Reason;
use crate::pure::entity::Entity;
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::time::Time;
use crate::store::{StoreError, Stored};

/// What one suspect may cost while it is examined: two documents of some size.
const SUSPECT_BYTES: usize = 16 << 10;
/// Suspects examined at once, at least: each time costs a pass over the log.
const SUSPECTS_MIN: usize = 500;
/// And at most.
const SUSPECTS_MAX: usize = 50_000;
/// Rows whose differences are told; of the others only the sum.
const ROWS_IN_FULL: usize = 1_000;
/// Differences told of one document.
const DIFFERENCES_MAX: usize = 32;
/// Documents told by name whose first events are gone from the log.
const UNVERIFIABLE_MAX: usize = 1_000;

impl Audit<'_> {
    pub(super) fn tell_partition(
        &mut self,
        partition: PartitionId,
        reason: Reason,
        detail: String,
        offset: Option<u64>,
    ) {
        let known = |row: &DriftRow| row.document_id.is_empty() && row.partition == partition.0;
        if self.report.drift.iter().any(known) {
            return; // by an earlier slice
        }
        self.row(partition).drifted += 1;
        self.report.drift.push(DriftRow {
            document_id: String::new(),
            reason,
            detail,
            partition: partition.0,
            offset,
            repairable: false,
            parked: false,
            differences: Vec::new(),
        });
    }

    pub(super) fn pass_over(&mut self, partition: PartitionId, why: &str) {
        let skipped = &mut self.report.skipped;
        if !skipped.iter().any(|it| it.partition == partition.0) {
            skipped.push(SkippedPartition {
                partition: partition.0,
                why: why.to_owned(),
            });
        }
    }

    pub(super) fn row(&mut self, partition: PartitionId) -> &mut PartitionAudit {
        let rows = &mut self.report.partitions;
        let at = rows
            .iter()
            .position(|row| row.partition == partition.0)
            .unwrap_or_else(|| {
                rows.push(PartitionAudit {
                    partition: partition.0,
                    ..PartitionAudit::default()
                });
                rows.len() - 1
            });
        &mut rows[at]
    }

    /// Takes a partition's slice into the report.
    pub(super) async fn settle(&mut self, work: Work) -> Result<(), RepairError> {
        let Work {
            partition,
            first,
            checkpoint,
            listed,
        } = work;
        self.report.documents += listed.documents;
        self.report.unverifiable += listed.unverifiable;
        self.report.expired += listed.expired;
        self.report.sequence_gaps += listed.sequence_gaps;
        self.note_unverifiable(&listed.beginning_lost);
        if let Some(since) = self.since.get(&partition) {
            let old = self.work.old.entry(partition).or_insert((*since, 0));
            *old = (old.0.min(listed.begin), old.1 + listed.old);
        }
        let row = self.row(partition);
        row.documents += listed.documents;
        if row.until == 0 {
            (row.from, row.until) = (first.0, checkpoint.next.0);
        }
        if !self.marks.iter().any(|(known, _)| *known == partition) {
            let nothing_waits = listed.parked.is_empty();
            self.marks.push((partition, nothing_waits.then_some(checkpoint)));
        }
        self.confirm(partition, &listed.suspects).await
    }

    /// Examines suspects each by itself; what is drift then, is drift.
    pub(super) async fn confirm(
        &mut self,
        partition: PartitionId,
        suspects: &BTreeSet<Entity>,
    ) -> Result<(), RepairError> {
        let suspects: Vec<Entity> = suspects.iter().cloned().collect();
        let at_once = (self.request.memory_bytes / SUSPECT_BYTES).clamp(SUSPECTS_MIN, SUSPECTS_MAX);
        for chunk in suspects.chunks(at_once) {
            let look = (Begin::AtLogStart, 0, self.request.pace);
            let found = examine(self.ground, partition, chunk, look).await?;
            self.report.records += found.records;
            for examined in &found.entities {
                match &examined.verdict {
                    // The unverifiable were counted as they were listed.
                    Verdict::Clean | Verdict::Unknown | Verdict::Unverifiable => {}
                    Verdict::Drift { .. } => self.drifted(partition, examined),
                }
            }
        }
        Ok(())
    }

    fn drifted(&mut self, partition: PartitionId, examined: &Examined) {
        let Some(mut row) = drift_row(partition, examined) else {
            return;
        };
        let since = self.since.get(&partition).copied();
        let touched = since.is_none_or(|since| is_touched(examined, since));
        let rows = if touched {
            &mut self.report.drift
        } else {
            &mut self.beyond
        };
        if rows.len() >= DRIFT_MAX {
            self.report.truncated = true;
            return;
        }
        if row.repairable {
            let mut differences = changes(examined, Time::EPOCH);
            if touched {
                self.report.changes.add(&differences);
            }
            differences.truncate(DIFFERENCES_MAX);
            if rows.len() < ROWS_IN_FULL {
                row.differences = differences;
            }
        }
        rows.push(row);
        if touched {
            self.row(partition).drifted += 1;
        }
    }

    fn note_unverifiable(&mut self, entities: &[Entity]) {
        let known = &mut self.report.unverifiable_documents;
        let room = UNVERIFIABLE_MAX.saturating_sub(known.len());
        known.extend(entities.iter().take(room).map(Entity::document_id));
    }
}

/// Whether a replay from `since` on folds this entity anew.
fn is_touched(examined: &Examined, since: NextOffset) -> bool {
    match examined.index {
        _ if examined.parked.is_some() => true,
        Some(index) => !since.is_past(index),
        // To a replay it is new: right only if its first event is in what is redone.
        None => {
            let first = examined.refolded.document.first_offset();
            examined.seen == Stored::Absent && first.is_some_and(|first| !since.is_past(first))
        }
    }
}

/// Marks a checkpoint as equal to the log, unless that was the last thing that was done.
pub(super) async fn vouch(ground: &Ground, partition: PartitionId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
    let newest = ground.store.history(partition, 1).await?.pop();
    if newest.is_some_and(|mark| mark.verified && mark.checkpoint == *checkpoint) {
        return Ok(());
    }
    ground.store.verify(partition, checkpoint).await
}

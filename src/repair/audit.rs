//! The proof that documents equal the log: exact on a moving system, nothing paused, in bounded memory.
//! In: a namespace, or a part of it. Out: every document that is not what the log says, and why.
//! Invariant: no false alarm and no false peace. What looks wrong is examined again, alone and at one instant, before
//! it is told. What counts as known was listed after the checkpoint that the log is searched up to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Instant;

use super::examine::{Begin, Verdict, examine};
use super::ground::{Ground, Pace, read_log};
use super::listing::{Fingerprint, Listed, Scope, TooLarge};
use super::report::{AuditProgress, AuditReport, DRIFT_MAX, DriftRow, PartitionAudit, drift_row};
use super::site::RepairError;
use super::standing::{Standing, standing};
use crate::log::LogError;
use crate::pure::checkpoint::Checkpoint;
use crate::pure::drift::Reason;
use crate::pure::entity::Entity;
use crate::pure::event::Rules;
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::record::RecordBatch;
use crate::pure::refold::{Refolded, Slice};

/// What is to be audited, and how.
#[derive(Clone, Debug)]
pub struct AuditRequest {
    /// Only these partitions.
    pub partitions: Option<BTreeSet<PartitionId>>,
    /// Which entities: slices that share nothing.
    pub slices: Vec<Slice>,
    /// Memory for entities and documents at work.
    pub memory_bytes: usize,
    /// The share of a core.
    pub pace: Pace,
}

/// Takes note of how far an audit is.
pub type Watch<'a> = &'a (dyn Fn(AuditProgress) + Send + Sync);

/// Suspects examined at once.
const SUSPECTS: usize = 5_000;
/// How often a log may lose its beginning under an audit.
const MOVED_MAX: u32 = 3;
/// What the name of a stray document costs beside its text.
const STRAY_BYTES: usize = 64;

/// A partition at work.
struct Work {
    partition: PartitionId,
    /// The log's first offset.
    first: NextOffset,
    /// As it was before the listing.
    checkpoint: Checkpoint,
    listed: Listed,
}

struct Audit<'a> {
    ground: &'a Ground,
    request: &'a AuditRequest,
    watch: Watch<'a>,
    report: AuditReport,
    /// Share of the subjects that are done.
    done: f64,
    /// Width of all slices together.
    all: f64,
    /// Where each partition stood when it was begun.
    marks: Vec<(PartitionId, Checkpoint)>,
}

/// Audits. Nothing is written.
///
/// # Errors
/// Log or store do not answer; the documents are of another projection version.
pub async fn audit(ground: &Ground, request: &AuditRequest, watch: Watch<'_>) -> Result<AuditReport, RepairError> {
    let began = Instant::now();
    let mut audit = Audit {
        ground,
        request,
        watch,
        report: AuditReport::default(),
        done: 0.0,
        all: request
            .slices
            .iter()
            .map(|slice| slice.width() as f64)
            .sum::<f64>()
            .max(1.0),
        marks: Vec::new(),
    };
    let mut todo = request.slices.clone();
    let (mut width, mut moved) = (u64::MAX, 0);
    while let Some(mut slice) = todo.pop() {
        while slice.width() > width
            && let Some(upper) = slice.halve()
        {
            todo.push(upper);
        }
        match audit.slice(&slice).await {
            Ok(Ok(())) => audit.done += slice.width() as f64 / audit.all,
            Ok(Err(TooLarge)) => {
                width = slice.width() / 2;
                todo.push(slice);
            }
            // Retention took the beginning while it was read: what is left is compared anew.
            Err(RepairError::Log(LogError::Moved { .. })) if moved < MOVED_MAX => {
                moved += 1;
                todo.push(slice);
            }
            Err(error) => return Err(error),
        }
        if audit.report.drift.len() >= DRIFT_MAX {
            audit.report.truncated = true;
            break;
        }
    }
    let (mut report, marks) = (audit.report, audit.marks);
    report.partitions.sort_by_key(|row| row.partition);
    report
        .drift
        .sort_by(|a, b| (a.partition, &a.document_id).cmp(&(b.partition, &b.document_id)));
    report.clean = report.drift.is_empty();
    if request.slices == [Slice::ALL] {
        for (partition, checkpoint) in marks {
            let row = report.partitions.iter_mut().find(|row| row.partition == partition.0);
            if let Some(row) = row.filter(|row| row.drifted == 0) {
                ground.store.verify(partition, &checkpoint).await?;
                row.verified = true;
            }
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

impl Audit<'_> {
    /// One slice of all partitions; nothing is told of it if it was too large.
    async fn slice(&mut self, slice: &Slice) -> Result<Result<(), TooLarge>, RepairError> {
        let rules = self.ground.rules().await?;
        let mut works = Vec::new();
        let mut memory = self.request.memory_bytes;
        for partition in (0..rules.partitions).map(PartitionId) {
            if !self.is_asked_for(partition) {
                continue;
            }
            let Some((first, checkpoint)) = self.begin(partition).await? else {
                continue;
            };
            let scope = self.scope(partition, rules, slice, (first, &checkpoint));
            let Ok(listed) = scope.list(memory).await? else {
                return Ok(Err(TooLarge));
            };
            memory = memory.saturating_sub(listed.refold.bytes());
            works.push(Work {
                partition,
                first,
                checkpoint,
                listed,
            });
        }
        let Ok(foreign) = self.strays(&mut works, slice, (rules, memory)).await? else {
            return Ok(Err(TooLarge));
        };
        let held: usize = works.iter().map(|work| work.listed.refold.bytes()).sum();
        self.report.memory_bytes = self.report.memory_bytes.max(held as u64);
        let parts = works.len() as f64;
        for (i, work) in works.iter_mut().enumerate() {
            let share = slice.width() as f64 / self.all / parts;
            if let Err(TooLarge) = self.pass(work, slice, (memory, share * i as f64, share)).await? {
                return Ok(Err(TooLarge));
            }
        }
        self.report.slices += 1;
        for work in works {
            self.settle(work).await?;
        }
        for (partition, strays) in foreign {
            self.report.documents += strays.len() as u64;
            self.confirm(partition, &strays).await?;
        }
        Ok(Ok(()))
    }

    fn scope<'a>(
        &'a self,
        partition: PartitionId,
        rules: Rules,
        slice: &'a Slice,
        (first, checkpoint): (NextOffset, &'a Checkpoint),
    ) -> Scope<'a> {
        Scope {
            ground: self.ground,
            partition,
            rules,
            slice,
            first,
            checkpoint,
            pace: self.request.pace,
        }
    }

    /// Where a partition stands; `None`: nothing can be compared, and the report says why.
    async fn begin(&mut self, partition: PartitionId) -> Result<Option<(NextOffset, Checkpoint)>, RepairError> {
        match standing(self.ground, partition).await? {
            Standing::Untouched => Ok(None),
            Standing::Ready { first, checkpoint } => Ok(Some((first, *checkpoint))),
            Standing::Drift { reason, detail, offset } => {
                self.tell_partition(partition, reason, detail, offset);
                Ok(None)
            }
        }
    }

    fn is_asked_for(&self, partition: PartitionId) -> bool {
        let only = self.request.partitions.as_ref();
        only.is_none_or(|only| only.contains(&partition))
    }

    fn tell_partition(&mut self, partition: PartitionId, reason: Reason, detail: String, offset: Option<u64>) {
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
        });
    }

    fn row(&mut self, partition: PartitionId) -> &mut PartitionAudit {
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

    /// Finds documents by their keys that no index told of; those of partitions that the topic does not have.
    async fn strays(
        &self,
        works: &mut [Work],
        slice: &Slice,
        (rules, memory): (Rules, usize),
    ) -> Result<Result<BTreeMap<PartitionId, BTreeSet<Entity>>, TooLarge>, RepairError> {
        let mut strays: BTreeMap<PartitionId, BTreeSet<Entity>> = BTreeMap::new();
        let mut held = 0;
        let mut visit = |partition: PartitionId, entity: Entity| {
            let known = works
                .iter()
                .find(|work| work.partition == partition)
                .map_or(partition.0 < rules.partitions, |work| work.listed.refold.knows(&entity));
            let wanted = slice.contains(entity.subject().as_bytes()) && self.is_asked_for(partition);
            if known || !wanted || held > memory {
                return;
            }
            held += STRAY_BYTES + entity.subject().len();
            strays.entry(partition).or_default().insert(entity);
        };
        self.ground.store.scan(&mut visit).await?;
        if held > memory {
            return Ok(Err(TooLarge));
        }
        for work in works.iter_mut() {
            let Some(strays) = strays.remove(&work.partition) else {
                continue;
            };
            let scope = self.scope(work.partition, rules, slice, (work.first, &work.checkpoint));
            scope.look_at(&strays, &mut work.listed).await?;
        }
        Ok(Ok(strays))
    }

    /// Reads the log once: each document is folded up to its own offset, compared, and let go.
    async fn pass(
        &mut self,
        work: &mut Work,
        slice: &Slice,
        (memory, done, share): (usize, f64, f64),
    ) -> Result<Result<(), TooLarge>, RepairError> {
        let listed = &mut work.listed;
        listed.refold.watch_below(work.checkpoint.next, slice.clone());
        let (from, until) = (work.first, listed.end.max(work.checkpoint.next));
        let (allowed, mut most) = (listed.refold.bytes() + memory, 0);
        let (mut too_large, mut records, mut room) = (false, 0, Vec::new());
        let (watch, before) = (self.watch, &self.report);
        let progress = AuditProgress {
            done: self.done + done,
            documents: before.documents,
            records: before.records,
            drifted: before.drift.len() as u64,
        };
        let suspects = &mut listed.suspects;
        let refold = &mut listed.refold;
        let mut each = |batch: &RecordBatch| {
            let fed = refold.feed(batch);
            suspects.extend(fed.unknown.into_iter().chain(fed.later).map(|(entity, _)| entity));
            suspects.extend(fed.done.into_iter().filter_map(|one| wrong(one, &mut room)));
            most = most.max(refold.bytes());
            too_large = refold.bytes() > allowed;
            records += batch.len() as u64;
            let at = batch.next().unwrap_or(from);
            let part = from.until(at.min(until)) as f64 / from.until(until).max(1) as f64;
            watch(AuditProgress {
                done: progress.done + share * part,
                records: progress.records + records,
                ..progress
            });
            if too_large || suspects.len() > DRIFT_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let read = read_log(
            &*self.ground.log,
            work.partition,
            (from, until),
            self.request.pace,
            &mut each,
        )
        .await?;
        if too_large {
            return Ok(Err(TooLarge));
        }
        let left = listed.refold.finish();
        if listed.suspects.len() <= DRIFT_MAX {
            listed
                .suspects
                .extend(left.into_iter().filter_map(|one| wrong(one, &mut room)));
        }
        self.report.records += read;
        self.report.memory_bytes = self.report.memory_bytes.max(most as u64);
        Ok(Ok(()))
    }

    /// Takes a partition's slice into the report.
    async fn settle(&mut self, work: Work) -> Result<(), RepairError> {
        let Work {
            partition,
            first,
            checkpoint,
            listed,
        } = work;
        self.report.documents += listed.documents;
        self.report.unverifiable += listed.unverifiable;
        self.report.sequence_gaps += listed.sequence_gaps;
        let row = self.row(partition);
        row.documents += listed.documents;
        if row.until == 0 {
            (row.from, row.until) = (first.0, checkpoint.next.0);
        }
        if !self.marks.iter().any(|(known, _)| *known == partition) {
            self.marks.push((partition, checkpoint));
        }
        self.confirm(partition, &listed.suspects).await
    }

    /// Examines suspects each by itself; what is drift then, is drift.
    async fn confirm(&mut self, partition: PartitionId, suspects: &BTreeSet<Entity>) -> Result<(), RepairError> {
        let suspects: Vec<Entity> = suspects.iter().cloned().collect();
        for chunk in suspects.chunks(SUSPECTS) {
            let look = (Begin::AtLogStart, 0, self.request.pace);
            let found = examine(self.ground, partition, chunk, look).await?;
            self.report.records += found.records;
            for examined in &found.entities {
                match &examined.verdict {
                    Verdict::Clean | Verdict::Unknown => {}
                    Verdict::Unverifiable => self.report.unverifiable += 1,
                    Verdict::Drift { .. } if self.report.drift.len() >= DRIFT_MAX => self.report.truncated = true,
                    Verdict::Drift { .. } => {
                        self.report.drift.extend(drift_row(partition, examined));
                        self.row(partition).drifted += 1;
                    }
                }
            }
        }
        Ok(())
    }
}

/// An entity whose document is not the fold up to its own offset.
fn wrong(one: Refolded<Fingerprint>, room: &mut Vec<u8>) -> Option<Entity> {
    (Fingerprint::of(&one.document, room) != one.tag).then_some(one.entity)
}

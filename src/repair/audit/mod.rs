//! The proof that documents equal the log: exact on a moving system, nothing paused, in bounded memory.
//! In: a namespace, or a part of it. Out: every document that is not what the log says, and why.
//! Invariant: no false alarm and no false peace. What looks wrong is examined again, alone and at one instant, before
//! it is told. What counts as known was listed after the checkpoint that the log is searched up to.

mod findings;
mod forecast;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

pub use self::forecast::{Forecast, ForecastPartition, Stretch, forecast};
use super::ground::{Ground, Pace, read_log};
use super::listing::{Fingerprint, Listed, Scope, TooLarge};
use super::report::{AuditProgress, AuditReport, DRIFT_MAX, DriftRow};
use super::site::RepairError;
use super::standing::{Standing, standing, within};
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
    /// Where each partition stood when it was begun; `None`: its counts lacked what waited for parked entities.
    marks: Vec<(PartitionId, Option<Checkpoint>)>,
    /// Only what a replay from there on touches, by partition; empty: all.
    since: BTreeMap<PartitionId, NextOffset>,
    /// Drift that such a replay does not touch.
    beyond: Vec<DriftRow>,
    work: Spent,
}

/// What was done and how long it took, so that more of the same can be foretold.
#[derive(Default)]
struct Spent {
    documents: u64,
    listing: Duration,
    records: u64,
    reading: Duration,
    /// By partition: where the oldest entity begins, and how many begin before the replay does.
    old: BTreeMap<PartitionId, (NextOffset, u64)>,
}

/// Audits. Nothing is written but marks: those of partitions without drift are verified.
///
/// # Errors
/// Log or store do not answer; a rewind is under way in all that is to be audited, or begins meanwhile.
pub async fn audit(ground: &Ground, request: &AuditRequest, watch: Watch<'_>) -> Result<AuditReport, RepairError> {
    let began = Instant::now();
    let mut audit = Audit::new(ground, request, watch, BTreeMap::new());
    audit.run().await?;
    let (mut report, marks) = (audit.report, audit.marks);
    if request.slices == [Slice::ALL] && !report.truncated {
        for (partition, checkpoint) in marks {
            if report.skipped.iter().any(|it| it.partition == partition.0) {
                continue; // in one slice of several
            }
            let row = report.partitions.iter_mut().find(|row| row.partition == partition.0);
            if let (Some(row), Some(checkpoint)) = (row.filter(|row| row.drifted == 0), checkpoint) {
                findings::vouch(ground, partition, &checkpoint).await?;
                row.verified = true;
            }
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

impl<'a> Audit<'a> {
    fn new(
        ground: &'a Ground,
        request: &'a AuditRequest,
        watch: Watch<'a>,
        since: BTreeMap<PartitionId, NextOffset>,
    ) -> Self {
        let width = |slice: &Slice| slice.width() as f64;
        Self {
            ground,
            request,
            watch,
            report: AuditReport::default(),
            done: 0.0,
            all: request.slices.iter().map(width).sum::<f64>().max(1.0),
            marks: Vec::new(),
            since,
            beyond: Vec::new(),
            work: Spent::default(),
        }
    }

    /// All slices, halved where they do not fit.
    async fn run(&mut self) -> Result<(), RepairError> {
        let mut todo = self.request.slices.clone();
        let (mut width, mut moved) = (u64::MAX, 0);
        while let Some(mut slice) = todo.pop() {
            while slice.width() > width
                && let Some(upper) = slice.halve()
            {
                todo.push(upper);
            }
            let before = self.report.clone();
            match self.slice(&slice).await {
                Ok(Ok(())) => self.done += slice.width() as f64 / self.all,
                Ok(Err(TooLarge)) => {
                    width = slice.width() / 2;
                    todo.push(slice);
                }
                // Retention took the beginning while it was read: what is left is compared anew.
                Err(RepairError::Log(LogError::Moved { .. })) if moved < MOVED_MAX => {
                    moved += 1;
                    self.report = before;
                    todo.push(slice);
                }
                Err(error) => return Err(error),
            }
            if self.report.drift.len() >= DRIFT_MAX {
                self.report.truncated = true;
                break;
            }
        }
        let report = &mut self.report;
        report.partitions.sort_by_key(|row| row.partition);
        report
            .drift
            .sort_by(|a, b| (a.partition, &a.document_id).cmp(&(b.partition, &b.document_id)));
        report.clean = report.is_clean();
        report.changes.documents = report.documents;
        Ok(())
    }
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
            let began = Instant::now();
            let Ok(listed) = scope.list(memory).await? else {
                return Ok(Err(TooLarge));
            };
            self.work.listing += began.elapsed();
            self.work.documents += listed.documents;
            memory = memory.saturating_sub(listed.refold.bytes());
            works.push(Work {
                partition,
                first,
                checkpoint,
                listed,
            });
        }
        let has_nothing = works.is_empty() && self.report.drift.is_empty();
        if let (true, Some(why)) = (has_nothing, self.report.passed_over()) {
            return Err(RepairError::Refused(why)); // there is nothing else to tell
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
            since: self.since.get(&partition).copied().unwrap_or(NextOffset::START),
            checkpoint,
            pace: self.request.pace,
        }
    }

    /// Where a partition stands; `None`: nothing can be compared, and the report says why.
    async fn begin(&mut self, partition: PartitionId) -> Result<Option<(NextOffset, Checkpoint)>, RepairError> {
        if self.since.contains_key(&partition) {
            return within(self.ground, partition).await;
        }
        match standing(self.ground, partition).await? {
            Standing::Untouched => Ok(None),
            Standing::Between(why) => {
                self.pass_over(partition, why);
                Ok(None)
            }
            Standing::Ready {
                first,
                checkpoint,
                rolled_back,
            } => {
                if let Some(detail) = rolled_back {
                    self.tell_partition(partition, Reason::SinkRolledBack, detail, Some(checkpoint.next.0));
                }
                Ok(Some((first, *checkpoint)))
            }
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

    /// Finds documents by their keys that no index told of; those of partitions that the topic does not have.
    async fn strays(
        &self,
        works: &mut [Work],
        slice: &Slice,
        (rules, memory): (Rules, usize),
    ) -> Result<Result<BTreeMap<PartitionId, BTreeSet<Entity>>, TooLarge>, RepairError> {
        if !self.since.is_empty() {
            return Ok(Ok(BTreeMap::new())); // a replay does not touch them
        }
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
        let since = self.since.get(&work.partition).copied();
        let watched = since.unwrap_or(NextOffset::START)..work.checkpoint.next;
        listed.refold.watch(watched, slice.clone());
        // A replay believes where documents say that they begin; an audit does not.
        let from = since.map_or(work.first, |since| listed.begin.min(since).max(work.first));
        let until = listed.end.max(work.checkpoint.next);
        let began = Instant::now();
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
        self.work.reading += began.elapsed();
        self.work.records += read;
        self.report.records += read;
        self.report.memory_bytes = self.report.memory_bytes.max(most as u64);
        Ok(Ok(()))
    }
}

/// An entity whose document is not the fold up to its own offset.
fn wrong(one: Refolded<Fingerprint>, room: &mut Vec<u8>) -> Option<Entity> {
    one.tag.differs(&one.document, room).then_some(one.entity)
}

//! Replay of partitions: back to a mark under an operator's lease, then the redo, by the live projector if there is
//! one, else here. In: which partitions, and from where. Out: progress, then a report.
//! Invariant: nothing is changed before every partition asked for has a mark to go back to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Access, AccessError, projector_settings};
use crate::projector::{self, now_ms};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::entity::Entity;
use crate::pure::event::Rules;
use crate::pure::intent::Intent;
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::time::Time;
use crate::repair::{self, Choice, DriftRow, From, RepairError, Site, Stretch, operator};
use crate::store::{Owner, StoreError};

/// Marks looked at.
const MARKS_MAX: usize = 10_000;
/// How often the redo is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A partition that nobody has taken by then is redone here.
const TAKE_PATIENCE: Duration = Duration::from_secs(6);

/// What to replay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// Only this partition.
    #[serde(default)]
    pub partition: Option<u32>,
    /// `last-good`, `verified`, `earliest`, `offset N`, `time T`.
    #[serde(default = "last_good")]
    pub from: String,
    /// Only tell what it would do.
    #[serde(default)]
    pub dry_run: bool,
}

fn last_good() -> String {
    From::LastGood.to_string()
}

/// How far a replay is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayProgress {
    /// Which partition.
    pub partition: u32,
    /// `rewinding`, `redoing`, `proving`.
    pub phase: String,
    /// Where the redo is.
    pub offset: u64,
    /// Where it ends.
    pub until: u64,
    /// Entities put back so far.
    pub entities: u64,
    /// Records read so far.
    pub records: u64,
    /// Records a second, of the phase.
    pub records_per_second: f64,
    /// Time left of the redo; null while it cannot be told.
    pub seconds_left: Option<f64>,
}

/// What was replayed of one partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayedPartition {
    /// Which.
    pub partition: u32,
    /// The mark it went back to.
    pub from: u64,
    /// Where it stood, and stands again.
    pub until: u64,
    /// Records redone.
    pub records: u64,
    /// Entities put back.
    pub entities: u64,
    /// Documents left as they were: neither log nor snapshot has their beginning.
    pub left: Vec<String>,
}

/// What was replayed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplayReport {
    /// By number.
    pub partitions: Vec<ReplayedPartition>,
    /// Records redone, over all.
    pub records: u64,
    /// How long it took, the proof not counted.
    pub seconds: f64,
    /// What came of looking at it all again.
    pub proof: ReplayProof,
}

/// Everything that was redone, compared with the log once more.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplayProof {
    /// Documents that are what the log says.
    pub proven: u64,
    /// Those that are not.
    pub wrong: Vec<DriftRow>,
    /// How long it took.
    pub seconds: f64,
}

/// A partition and where it goes back to.
struct Job {
    partition: PartitionId,
    mark: Checkpoint,
    until: NextOffset,
    was_live: bool,
}

/// Told about progress.
pub type Told<'a> = &'a mut (dyn FnMut(ReplayProgress) + Send);

impl Access {
    /// Replays.
    ///
    /// # Errors
    /// `BadRequest`: what is asked for makes no sense, or another operator is at work; nothing was changed.
    pub async fn replay(&self, request: &ReplayRequest, told: Told<'_>) -> Result<ReplayReport, AccessError> {
        let report = self.replay_uncounted(request, told).await;
        let scope = request.partition.map_or("namespace", |_| "partition");
        if let Some(serving) = &self.serving {
            match &report {
                Ok(report) if !report.proof.wrong.is_empty() => serving.metrics.replayed(scope, "error"),
                Ok(_) if scope == "partition" => {} // whoever redoes it counts it
                Ok(_) => serving.metrics.replayed(scope, "ok"),
                Err(AccessError::BadRequest(_)) => {}
                Err(_) => serving.metrics.replayed(scope, "error"),
            }
        }
        report
    }

    async fn replay_uncounted(&self, request: &ReplayRequest, told: Told<'_>) -> Result<ReplayReport, AccessError> {
        let started = Instant::now();
        let from: From = request.from.parse().map_err(AccessError::BadRequest)?;
        let jobs = self.replay_jobs(request.partition, from).await?;
        let mut done = Vec::new();
        for job in &jobs {
            done.push(self.put_back(job, told).await?);
        }
        for (job, done) in jobs.iter().zip(&mut done) {
            self.follow_redo(job, told).await?;
            done.records = job.mark.next.until(job.until);
        }
        let records = done.iter().map(|partition| partition.records).sum();
        let seconds = started.elapsed().as_secs_f64();
        if let Some(last) = jobs.last() {
            told(last.progress("proving", last.until, (records, started)));
        }
        let stretches: Vec<Stretch> = jobs.iter().map(Job::stretch).collect();
        let found = repair::forecast(&self.ground(), &stretches, self.settings.audit_memory, &|_| {}).await?;
        let not_proven = found.left_count + found.changes.changed;
        Ok(ReplayReport {
            partitions: done,
            records,
            seconds,
            proof: ReplayProof {
                proven: found.documents.saturating_sub(not_proven),
                wrong: found.changed,
                seconds: found.seconds,
            },
        })
    }

    /// What a replay would go over.
    ///
    /// # Errors
    /// As [`Self::replay`].
    pub(super) async fn stretches(&self, request: &ReplayRequest) -> Result<Vec<Stretch>, AccessError> {
        let from: From = request.from.parse().map_err(AccessError::BadRequest)?;
        let jobs = self.replay_jobs(request.partition, from).await?;
        Ok(jobs.iter().map(Job::stretch).collect())
    }

    async fn replay_jobs(&self, only: Option<u32>, from: From) -> Result<Vec<Job>, AccessError> {
        let (mut jobs, topic) = (Vec::new(), self.log.topic().await?);
        for partition in self.chosen(only).await? {
            let Some(checkpoint) = self.store.checkpoint(partition).await? else {
                if only.is_some() {
                    let namespace = &self.settings.namespace;
                    let why =
                        format!("partition {partition}: namespace {namespace} has no checkpoint, so nothing to replay");
                    return Err(AccessError::BadRequest(why));
                }
                continue;
            };
            if !checkpoint.is_ours() {
                return Err(AccessError::other_version(partition, &checkpoint));
            }
            if let Some(words) = repair::of_another(&topic, &checkpoint) {
                return Err(AccessError::BadRequest(format!("partition {partition}: {words}")));
            }
            let marks = self.store.history(partition, MARKS_MAX).await?;
            let choice = Choice {
                log: &*self.log,
                partition,
                bounds: self.log.bounds(partition).await?,
                checkpoint: &checkpoint,
                marks: &marks,
            };
            let mark = choice.choose(from, now()).await?.map_err(AccessError::BadRequest)?;
            jobs.push(Job {
                partition,
                mark,
                until: checkpoint.next,
                was_live: self.store.owner(partition).await?.is_some(),
            });
        }
        if jobs.is_empty() {
            let namespace = &self.settings.namespace;
            return Err(AccessError::BadRequest(format!(
                "namespace {namespace} has no checkpoint in any partition, so nothing to replay"
            )));
        }
        Ok(jobs)
    }

    /// The partition asked for, or all.
    ///
    /// # Errors
    /// `BadRequest`: there is no such partition.
    pub async fn chosen(&self, only: Option<u32>) -> Result<Vec<PartitionId>, AccessError> {
        let partitions = self.partitions().await?;
        match only.map(PartitionId) {
            None => Ok(partitions),
            Some(wanted) if partitions.contains(&wanted) => Ok(vec![wanted]),
            Some(wanted) => {
                let last = partitions.len().saturating_sub(1);
                let why = format!("there is no partition {wanted}; the last one is {last}");
                Err(AccessError::BadRequest(why))
            }
        }
    }

    /// Where a repair of this partition works.
    pub fn site(&self, partition: PartitionId, owner: Owner) -> Site {
        Site {
            log: Arc::clone(&self.log),
            store: Arc::clone(&self.store),
            partition,
            owner,
            lease: self.settings.owner_lease,
            rules: Rules {
                partitioner: self.settings.partitioner,
                partitions: 1, // the topic tells
                max_event_bytes: self.settings.max_event_bytes,
                redact: self.settings.redact,
            },
        }
    }

    /// The rewind, under an operator's lease, which is given back whatever happens.
    async fn put_back(&self, job: &Job, told: Told<'_>) -> Result<ReplayedPartition, AccessError> {
        let site = self.site(job.partition, operator());
        let opened = site.store.open(site.partition, &site.owner, site.lease).await;
        let opened = opened.map_err(busy)?;
        let stands = opened.checkpoint.as_ref().map(|checkpoint| checkpoint.next);
        let done = if stands.is_none_or(|stands| stands < job.mark.next) {
            Err(AccessError::BadRequest(format!(
                "partition {}: it was put back meanwhile; look at `khala checkpoints`, and ask again",
                job.partition
            )))
        } else {
            self.rewind(&site, job, told).await
        };
        if let Err(error) = site.store.release(site.partition, &site.owner).await {
            tracing::warn!(%error, "the operator's lease was not given back; it ends by itself");
        }
        done
    }

    async fn rewind(&self, site: &Site, job: &Job, told: Told<'_>) -> Result<ReplayedPartition, AccessError> {
        let started = Instant::now();
        let mut tell = |progress: repair::Progress| {
            told(ReplayProgress {
                entities: progress.entities,
                ..job.progress("rewinding", job.mark.next, (progress.records, started))
            });
        };
        let rewound = repair::rewind(site, Some(&job.mark), &mut tell).await?;
        Ok(ReplayedPartition {
            partition: job.partition.0,
            from: rewound.next.0,
            until: job.until.0,
            records: 0,
            entities: rewound.entities,
            left: rewound.left.iter().map(Entity::document_id).collect(),
        })
    }

    /// Waits until the live projector has redone what was undone; without one, redoes it.
    async fn follow_redo(&self, job: &Job, told: Told<'_>) -> Result<(), AccessError> {
        let started = Instant::now();
        let mut told_last = Instant::now();
        let mut untaken = Some(Instant::now());
        loop {
            let checkpoint = self.store.checkpoint(job.partition).await?;
            let next = checkpoint.as_ref().map_or(job.mark.next, |checkpoint| checkpoint.next);
            let waits = checkpoint.is_some_and(|checkpoint| is_rewound(&checkpoint));
            if next >= job.until && !waits {
                return Ok(());
            }
            let records = job.mark.next.until(next);
            if told_last.elapsed() >= LOOK_EVERY * 5 {
                told_last = Instant::now();
                let progress = job.progress("redoing", next, (records, started));
                let rate = progress.records_per_second;
                let seconds_left = (rate > 0.0).then(|| next.until(job.until) as f64 / rate);
                told(ReplayProgress {
                    seconds_left,
                    ..progress
                });
            }
            let is_taken = self.store.owner(job.partition).await?.is_some();
            untaken = if is_taken {
                None
            } else {
                untaken.or(Some(Instant::now()))
            };
            let patience = if job.was_live { TAKE_PATIENCE } else { Duration::ZERO };
            if untaken.is_some_and(|since| since.elapsed() >= patience) {
                let settings = projector_settings(&self.settings, "replay");
                let (log, store) = (Arc::clone(&self.log), Arc::clone(&self.store));
                let redone = projector::redo(log, store, settings, job.partition, job.until).await;
                redone.map_err(|error| AccessError::Failed(format!("{error:#}")))?;
                untaken = None;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Job {
    fn stretch(&self) -> Stretch {
        Stretch {
            partition: self.partition,
            from: self.mark.next,
            until: self.until,
        }
    }

    fn progress(&self, phase: &str, offset: NextOffset, (records, since): (u64, Instant)) -> ReplayProgress {
        ReplayProgress {
            partition: self.partition.0,
            phase: phase.to_owned(),
            offset: offset.0,
            until: self.until.0,
            entities: 0,
            records,
            records_per_second: records as f64 / since.elapsed().as_secs_f64().max(0.001),
            seconds_left: None,
        }
    }
}

fn is_rewound(checkpoint: &Checkpoint) -> bool {
    matches!(Intent::parse(&checkpoint.intent), Ok(Some(Intent::Rewound { .. })))
}

fn now() -> Time {
    Time::from_ms(now_ms()).unwrap_or(Time::EPOCH)
}

/// Another operator's lease is the caller's to know, and that the documents are of another version.
pub(super) fn busy(error: StoreError) -> AccessError {
    if let StoreError::Refused { partition, found } = &error
        && let Some(found) = found.as_ref().as_ref().filter(|found| !found.is_ours())
    {
        return AccessError::other_version(*partition, found);
    }
    match error {
        StoreError::NotOwner { partition, owner } => AccessError::BadRequest(format!(
            "partition {partition}: {} is at work on it; nothing was changed; wait until it is done",
            repair::describe(&owner)
        )),
        other => other.into(),
    }
}

impl std::convert::From<RepairError> for AccessError {
    fn from(error: RepairError) -> Self {
        match error {
            RepairError::Store(error) => busy(error),
            RepairError::Log(error) => error.into(),
            RepairError::NoMark { .. } | RepairError::Lost { .. } | RepairError::Refused(_) => {
                Self::Failed(error.to_string())
            }
        }
    }
}

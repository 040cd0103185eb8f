//! The stages, each in a process of its own. In: a task. Out: how long it took, what it used, whether the documents
//! are right.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::Context;
use super::super::exit::{Exit, Failure};
use super::task::{Cpu, Outcome, Stage, Target, Task};
use super::{check, latency, usage};
use crate::access::{Access, Opened as Found, kafka_settings, open, place, projector_settings, topics};
use crate::config::{LogTarget, Settings, StoreTarget};
use crate::log::kafka;
use crate::log::{FetchLimits, NewRecord, Role};
use crate::projector::{self, StatusBoard, now_ms};
use crate::pure::event::{self, Rules};
use crate::pure::partition::{Action, Effect, Input, Outcome as Effected, Partition, Remembered, Setup, Streams};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::record::RecordBatch;
use crate::repair::compare;
use crate::store::Opened;
use crate::telemetry::messaging::Messaging;
use crate::telemetry::{Export, Metrics};

/// Records appended at once.
const CHUNK: usize = 50_000;
/// How often a running projector is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long a projector may stand still.
const PATIENCE: Duration = Duration::from_mins(1);

/// Does one task, and prints what came of it.
pub(super) async fn run(task: &str, context: &Context) -> Result<Exit, Failure> {
    let task: Task = serde_json::from_str(task).map_err(|error| Failure::usage(format!("--task: {error}")))?;
    let settings = Arc::new(settings(&task, &context.settings));
    let access = match open(&settings)? {
        Found::Direct(access) => access,
        Found::Running(server) => return Err(failed(format!("process {} owns the directory", server.pid))),
    };
    let outcome = match task.stage {
        Stage::Publish => publish(&access, &task).await?,
        Stage::Drain => drain(&access, &task).await?,
        Stage::Read => read(&access, &task, |_, _| ()).await?,
        Stage::Decode => decode(&access, &task).await?,
        Stage::Fold => fold(&access, &task).await?,
        Stage::Store | Stage::Streams => {
            let mut outcome = project(&access, &task, &context.export).await?;
            check::documents(&access, &task.workload, &mut outcome).await?;
            outcome
        }
        Stage::Latency => {
            let mut outcome = latency::measure(&access, &task, &context.export).await?;
            check::documents(&access, &task.workload, &mut outcome).await?;
            outcome
        }
    };
    context.out.value(&outcome);
    Ok(Exit::Done)
}

/// The settings in force, but for what the task says.
pub(super) fn settings(task: &Task, settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.topic.clone_from(&task.topic);
    settings.namespace.clone_from(&task.namespace);
    let everything = task.target == Target::Embedded;
    if everything || matches!(settings.log, LogTarget::Embedded(_)) {
        settings.log = LogTarget::Embedded(task.dir.clone());
    }
    if everything || matches!(settings.store, StoreTarget::Embedded(_)) {
        settings.store = StoreTarget::Embedded(task.dir.clone());
    }
    if let Some(compression) = &task.compression {
        settings
            .kafka
            .insert("compression.type".to_owned(), compression.clone());
    }
    if !matches!(task.stage, Stage::Streams | Stage::Latency) {
        settings.events_kept = 0;
    }
    settings
}

pub(super) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("bench: {error}"))
}

/// Time and CPU seconds since a moment.
pub(super) struct Watch<'a> {
    task: &'a Task,
    started: Instant,
    cpu: Cpu,
}

impl<'a> Watch<'a> {
    pub(super) fn start(task: &'a Task) -> Self {
        let cpu = cpu_of(task);
        let started = Instant::now();
        Self { task, started, cpu }
    }

    pub(super) fn stop(&self, events: u64) -> Outcome {
        let seconds = self.started.elapsed().as_secs_f64();
        let now = cpu_of(self.task);
        let used = |now: Option<f64>, before: Option<f64>| now.zip(before).map(|(now, before)| now - before);
        Outcome {
            events,
            seconds,
            cpu: Cpu {
                khala: used(now.khala, self.cpu.khala),
                broker: used(now.broker, self.cpu.broker),
                redis: used(now.redis, self.cpu.redis),
            },
            peak_bytes: usage::peak_bytes(),
            ..Outcome::default()
        }
    }
}

fn cpu_of(task: &Task) -> Cpu {
    let of = |process: Option<u32>| usage::cpu_seconds(&process?.to_string());
    Cpu {
        khala: usage::cpu_seconds("self"),
        broker: of(task.broker),
        redis: of(task.redis),
    }
}

/// Fills the topic; only appending is measured, not making the events.
async fn publish(access: &Access, task: &Task) -> Result<Outcome, Failure> {
    access.log.prepare().await.map_err(failed)?;
    let mut sent = task.workload.sent();
    let mut total = Outcome::default();
    loop {
        let chunk: Vec<NewRecord> = sent
            .by_ref()
            .take(CHUNK)
            .map(|sent| task.workload.record(sent))
            .collect();
        if chunk.is_empty() {
            return Ok(total);
        }
        let (watch, count) = (Watch::start(task), chunk.len() as u64);
        for appended in access.log.append(Role::Events, chunk).await {
            appended.map_err(failed)?;
        }
        total.add(&watch.stop(count));
    }
}

/// The end of each partition.
pub(super) async fn ends(access: &Access) -> Result<Vec<(PartitionId, NextOffset)>, Failure> {
    let mut ends = Vec::new();
    for partition in access.partitions().await? {
        ends.push((partition, access.log.bounds(partition).await.map_err(failed)?.end));
    }
    Ok(ends)
}

async fn drain(access: &Access, task: &Task) -> Result<Outcome, Failure> {
    let LogTarget::Kafka(bootstrap) = &access.settings.log else {
        return read(access, task, |_, _| ()).await; // the embedded log has no other consumer than its readers
    };
    let (ends, settings) = (ends(access).await?, kafka_settings(&access.settings, bootstrap));
    let watch = Watch::start(task);
    let drained = tokio::task::spawn_blocking(move || kafka::drain(&settings, &ends));
    let drained = drained.await.map_err(failed)?.map_err(failed)?;
    Ok(watch.stop(drained.records))
}

/// Khala's readers, all partitions at once; `take` gets each batch.
async fn read<T>(access: &Access, task: &Task, take: T) -> Result<Outcome, Failure>
where
    T: Fn(PartitionId, RecordBatch) + Clone + Send + 'static,
{
    let ends = ends(access).await?;
    let limits = FetchLimits {
        records: access.settings.batch_events,
        bytes: access.settings.batch_bytes,
        wait: PATIENCE,
    };
    let watch = Watch::start(task);
    let mut reading = JoinSet::new();
    for (partition, end) in ends {
        let (log, take) = (Arc::clone(&access.log), take.clone());
        reading.spawn(async move {
            let reader = log.reader(Role::Events, partition, NextOffset::START).await;
            let (mut reader, mut next, mut events) = (reader.map_err(failed)?, NextOffset::START, 0);
            while next < end {
                let batch = reader.fetch(limits).await.map_err(failed)?;
                let silent = || failed(format!("partition {partition}: nothing comes"));
                next = batch.next().ok_or_else(silent)?;
                events += batch.len() as u64;
                take(partition, batch);
            }
            Ok::<u64, Failure>(events)
        });
    }
    let mut events = 0;
    while let Some(read) = reading.join_next().await {
        events += read.map_err(failed)??;
    }
    Ok(watch.stop(events))
}

async fn decode(access: &Access, task: &Task) -> Result<Outcome, Failure> {
    let rules = Rules {
        partitioner: access.settings.partitioner,
        partitions: access.partitions().await?.len() as u32,
        max_event_bytes: access.settings.max_event_bytes,
        redact: access.settings.redact,
    };
    read(access, task, move |partition, batch| {
        for record in batch.iter() {
            let mut room = Vec::new();
            let event = event::decode_clean(&record, partition, &rules, &mut room);
            assert!(event.is_ok(), "a bench sends legal events: {event:?}");
        }
    })
    .await
}

/// The partitions' machines, all that is pure: decode, accept, fold, render, hash.
async fn fold(access: &Access, task: &Task) -> Result<Outcome, Failure> {
    let mut machines = BTreeMap::new();
    let partitions = access.partitions().await?;
    let settings = projector_settings(&access.settings, "bench");
    for partition in &partitions {
        let setup = Setup {
            partition: *partition,
            rules: Rules {
                partitioner: settings.partitioner,
                partitions: partitions.len() as u32,
                max_event_bytes: settings.max_event_bytes,
                redact: settings.redact,
            },
            streams: Streams::Off,
            cache_bytes: settings.cache_bytes / partitions.len(),
            dead_letter_share: settings.dead_letter_share,
        };
        let survey = compare(&*access.log, *partition, Opened::default())
            .await
            .map_err(failed)?;
        let mut machine = Partition::new(setup, Remembered::default());
        machine.on(Input::Assigned, 0);
        machine.on(Input::Done(Effected::Surveyed(Box::new(survey))), 0);
        machines.insert(*partition, Mutex::new(machine));
    }
    let machines = Arc::new(machines);
    read(access, task, move |partition, batch| {
        let mut machine = machines[&partition].lock().unwrap_or_else(PoisonError::into_inner);
        let folded = machine.on(Input::Records(batch), now_ms());
        let commits = |action: &Action| {
            matches!(
                action,
                Action::Do {
                    effect: Effect::Commit(_),
                    ..
                }
            )
        };
        assert!(
            folded.iter().any(commits),
            "a batch is folded without a question: {folded:?}"
        );
        machine.on(Input::Done(Effected::Committed), now_ms());
    })
    .await
}

/// A projector in this process.
pub(super) struct Projecting {
    pub board: Arc<StatusBoard>,
    stop: CancellationToken,
    task: JoinSet<anyhow::Result<()>>,
}

impl Projecting {
    pub(super) fn start(access: &Access, export: &Export) -> Result<Self, Failure> {
        let (board, stop) = (Arc::new(StatusBoard::default()), CancellationToken::new());
        let settings = projector_settings(&access.settings, &format!("bench-{}", std::process::id()));
        let place = place(&access.settings);
        let metrics = Metrics::exported(&access.settings.namespace, &topics(&access.settings), export)?;
        let spans = Messaging::new(export.tracer(), place);
        let mut task = JoinSet::new();
        task.spawn(projector::run_with_spans(
            Arc::clone(&access.log),
            Arc::clone(&access.store),
            settings,
            metrics,
            spans,
            Arc::clone(&board),
            stop.clone(),
        ));
        Ok(Self { board, stop, task })
    }

    /// Waits until something holds, as long as partitions get on.
    pub(super) async fn until(&mut self, what: &str, holds: impl Fn(&StatusBoard) -> bool) -> Result<(), Failure> {
        let (mut until, mut reached) = (Instant::now() + PATIENCE, 0);
        while !holds(&self.board) {
            let offsets = self.board.snapshot().into_iter().filter_map(|status| status.offset);
            let now_at = offsets.map(|offset| offset.0).sum::<u64>();
            if now_at != reached {
                (until, reached) = (Instant::now() + PATIENCE, now_at);
            }
            if let Some(ended) = self.task.try_join_next() {
                return Err(failed(format!("the projector ended: {ended:?}")));
            }
            if Instant::now() > until {
                let seconds = PATIENCE.as_secs();
                return Err(failed(format!(
                    "{what}: nothing moved for {seconds} s; {:?}",
                    self.board.snapshot()
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            ended.map_err(failed)??;
        }
        Ok(())
    }
}

/// The real projector, from joining the group to the last commit; waiting for the group is not measured.
async fn project(access: &Access, task: &Task, export: &Export) -> Result<Outcome, Failure> {
    let ends = ends(access).await?;
    access.log.prepare().await.map_err(failed)?; // the dead letters' topic
    access.store.check().await.map_err(failed)?;
    let mut projecting = Projecting::start(access, export)?;
    projecting.until("joining the group", StatusBoard::has_joined).await?;
    let watch = Watch::start(task);
    projecting
        .until("projecting everything", |board| {
            let done = board.snapshot();
            ends.iter().filter(|(_, end)| end.0 > 0).all(|(partition, end)| {
                let status = done.iter().find(|status| status.partition == *partition);
                status
                    .and_then(|status| status.offset)
                    .is_some_and(|offset| offset >= *end)
            })
        })
        .await?;
    let outcome = watch.stop(ends.iter().map(|(_, end)| end.0).sum());
    projecting.stop().await?;
    Ok(outcome)
}

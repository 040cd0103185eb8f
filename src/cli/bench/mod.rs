//! `khala bench`: how fast, how late, at what cost, on this log and this store; and whether every document is right.
//! In: flags. Out: a table or one JSON value; what is measured is in `task`, and each stage is a process of its own.
//! Invariant: topics, groups and namespaces are its own and go with it; ratios are taken within one repetition, so
//! that a machine's noise is in both.

mod check;
mod http;
mod latency;
mod report;
mod stages;
mod task;
pub(super) mod usage;
mod wire;
mod workload;

use std::path::{Path, PathBuf};

use super::Context;
use super::exit::{Exit, Failure};
use crate::access::{kafka_settings, redis_settings};
use crate::config::{LogTarget, Settings, StoreTarget};
use crate::log::kafka;
use crate::store::redis::RedisStore;

use self::report::Report;
use self::task::{Outcome, Stage, Target, Task};
use self::workload::Workload;

/// The embedded part uses at most so many events: each is synced to disk.
const EMBEDDED_EVENTS_MAX: u64 = 500_000;

/// Behind the command's help.
pub(super) const HELP: &str = "Examples:\n  khala bench --log kafka://localhost:9092 --store redis://localhost:6379\n  \
        khala bench --events 200000 --runs 5000 --stages drain,store --repetitions 5\n  \
        khala bench --json > before.json; khala bench --baseline before.json\n\n\
        It makes topics and namespaces of its own and removes them. Every run compares all documents with what was\n\
        sent; a wrong one ends it with exit code 1.";

#[derive(clap::Args)]
pub(super) struct BenchArgs {
    /// Events of the topic
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(3..))]
    pub events: u64,
    /// Runs that they belong to
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: u64,
    /// Runs under way at once
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    pub at_once: u64,
    /// Bytes of an event at least; without it about 300
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u64).range(..=900_000))]
    pub event_bytes: u64,
    /// How often each stage is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub repetitions: u64,
    /// Events a second while latency is measured
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// How long latency is measured in each repetition; 0: not at all
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub seconds: u64,
    /// Makes the same events again
    #[arg(long, value_name = "N", env = "KHALA_SEED", default_value_t = 1)]
    pub seed: u64,
    /// Of the producer; without it as set
    #[arg(long, value_name = "CODEC", value_parser = ["none", "lz4", "zstd", "gzip", "snappy"])]
    pub compression: Option<String>,
    /// Only these
    #[arg(long, value_delimiter = ',', value_name = "STAGE,…")]
    pub stages: Vec<Stage>,
    /// Read this topic, filled by an earlier `--keep` with the same numbers, instead of making one
    #[arg(long, value_name = "TOPIC")]
    pub filled: Option<String>,
    /// Leave the topic behind, and say its name
    #[arg(long)]
    pub keep: bool,
    /// Without the part on the embedded log and store
    #[arg(long)]
    pub no_embedded: bool,
    /// HTTP instead: publishing next to a bare producer, event to reader, memory of idle readers; each for `--seconds`
    #[arg(long, conflicts_with_all = ["stages", "filled", "keep", "baseline"])]
    pub over_http: bool,
    /// Compare with this earlier run (a file of `--json`)
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// The broker's process, if it is not the one that listens on this machine
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,
    /// Redis' process, if it is not the one that listens on this machine
    #[arg(long, value_name = "PID")]
    pub redis_pid: Option<u32>,
    /// What one process of a bench is to do
    #[arg(long, hide = true)]
    pub task: Option<String>,
}

pub(super) async fn run(args: BenchArgs, context: &Context) -> Result<Exit, Failure> {
    if let Some(task) = &args.task {
        return stages::run(task, context).await;
    }
    let baseline = args.baseline.as_deref().map(report::read).transpose()?;
    let bench = Bench::new(args, context);
    if bench.args.over_http {
        let done = http::run(&bench).await;
        let cleaned = bench.clean_up().await;
        return done.and_then(|()| cleaned.map(|()| Exit::Done));
    }
    let mut report = Report::new(&bench.args, &context.settings, bench.topic());
    let done = tokio::select! {
        done = bench.all(&mut report) => done,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Failed, "interrupted")),
    };
    let cleaned = bench.clean_up().await;
    done?;
    cleaned?;
    report.print(baseline.as_ref(), context.out);
    Ok(if report.wrong == 0 { Exit::Done } else { Exit::Failed })
}

struct Bench<'a> {
    args: BenchArgs,
    context: &'a Context,
    /// In all names.
    id: String,
    dir: PathBuf,
    broker: Option<u32>,
    redis: Option<u32>,
}

impl<'a> Bench<'a> {
    fn new(args: BenchArgs, context: &'a Context) -> Self {
        let settings = &context.settings;
        let id = format!("bench-{:08x}", rand::random::<u32>());
        let broker = match &settings.log {
            LogTarget::Kafka(servers) => usage::listener(servers.split(',').next().unwrap_or_default()),
            LogTarget::Embedded(_) => None,
        };
        let redis = match &settings.store {
            StoreTarget::Redis(url) => usage::listener(host_of(url)),
            StoreTarget::Embedded(_) => None,
        };
        Self {
            dir: directory(settings, &id),
            broker: args.broker_pid.or(broker),
            redis: args.redis_pid.or(redis),
            id,
            args,
            context,
        }
    }

    fn has(&self, stage: Stage) -> bool {
        self.args.stages.is_empty() || self.args.stages.contains(&stage)
    }

    async fn all(&self, report: &mut Report) -> Result<(), Failure> {
        self.throughput(report).await?;
        if self.has(Stage::Latency) && self.args.seconds > 0 {
            self.latency(report).await?;
        }
        let settings = &self.context.settings;
        let is_embedded = matches!(
            (&settings.log, &settings.store),
            (LogTarget::Embedded(_), StoreTarget::Embedded(_))
        );
        if self.args.no_embedded || is_embedded || !self.args.stages.is_empty() {
            return Ok(());
        }
        self.embedded(report).await
    }

    /// All stages up to the store, `repetitions` times.
    async fn throughput(&self, report: &mut Report) -> Result<(), Failure> {
        if self.args.filled.is_none() {
            let sample = self.measure(&self.task(Stage::Publish, 0), report).await?;
            report.add(Stage::Publish, "", sample);
        }
        let streams = self.context.settings.events_kept > 0;
        for repetition in 0..self.args.repetitions {
            let stages = [
                Stage::Drain,
                Stage::Read,
                Stage::Decode,
                Stage::Fold,
                Stage::Store,
                Stage::Streams,
            ];
            for stage in stages.into_iter().filter(|stage| self.has(*stage)) {
                if stage == Stage::Streams && !streams {
                    continue;
                }
                let sample = self.measure(&self.task(stage, repetition), report).await?;
                report.add(stage, "", sample);
            }
        }
        Ok(())
    }

    /// `repetitions` times, each on a topic of its own.
    async fn latency(&self, report: &mut Report) -> Result<(), Failure> {
        let events = self.args.rate * (self.args.seconds + 1);
        for repetition in 0..self.args.repetitions {
            let task = Task {
                workload: self.workload(events, events.div_ceil(40)),
                topic: self.latency_topic(repetition),
                ..self.task(Stage::Latency, repetition)
            };
            let latency = self.measure(&task, report).await?;
            report.latency(latency);
        }
        Ok(())
    }

    fn latency_topic(&self, repetition: u64) -> String {
        format!("{}.latency-{repetition}", self.topic())
    }

    /// What a newcomer has: the same on the embedded log and store.
    async fn embedded(&self, report: &mut Report) -> Result<(), Failure> {
        let events = self.args.events.min(EMBEDDED_EVENTS_MAX);
        for repetition in 0..self.args.repetitions {
            for stage in [Stage::Publish, Stage::Store] {
                let task = Task {
                    target: Target::Embedded,
                    broker: None,
                    redis: None,
                    topic: format!("{}.{repetition}", self.topic()),
                    workload: self.workload(events, events.div_ceil(40)),
                    ..self.task(stage, repetition)
                };
                let sample = self.measure(&task, report).await?;
                report.add(stage, "embedded", sample);
            }
        }
        Ok(())
    }

    fn workload(&self, events: u64, runs: u64) -> Workload {
        Workload {
            seed: self.args.seed,
            events,
            runs,
            at_once: self.args.at_once,
            event_bytes: self.args.event_bytes,
        }
    }

    fn topic(&self) -> String {
        self.args.filled.clone().unwrap_or_else(|| format!("khala.{}", self.id))
    }

    fn task(&self, stage: Stage, repetition: u64) -> Task {
        Task {
            stage,
            target: Target::AsSet,
            dir: self.dir.clone(),
            compression: self.args.compression.clone(),
            topic: self.topic(),
            namespace: format!("khala-{}-{}-{repetition}", self.id, stage.name()),
            workload: self.workload(self.args.events, self.args.runs),
            rate: self.args.rate,
            broker: self.broker,
            redis: self.redis,
        }
    }

    /// Runs a stage, and removes its namespace.
    async fn measure(&self, task: &Task, report: &mut Report) -> Result<Outcome, Failure> {
        let outcome = task.run().await;
        self.remove_namespace(task).await?;
        let outcome = outcome?;
        if outcome.events == 0 {
            let topic = &task.topic;
            return Err(stages::failed(format!(
                "topic {topic} holds no events; fill it with `khala bench --stages publish --keep`, and measure on the same log"
            )));
        }
        self.tell(task, &outcome);
        report.wrong(&outcome);
        Ok(outcome)
    }

    fn tell(&self, task: &Task, outcome: &Outcome) {
        let stage = task.stage.name();
        let place = if task.target == Target::Embedded {
            "embedded "
        } else {
            ""
        };
        let rate = report::rate(outcome) / 1000.0;
        let documents = match (outcome.documents, outcome.wrong) {
            (0, 0) => String::new(),
            (documents, wrong) => format!(", {documents} documents, {wrong} wrong"),
        };
        self.context.out.note(format!(
            "{place}{stage}: {} events in {:.2} s, {rate:.0} k/s{documents}",
            outcome.events, outcome.seconds
        ));
    }

    /// What a stage left behind beside the topic.
    async fn remove_namespace(&self, task: &Task) -> Result<(), Failure> {
        let settings = stages::settings(task, &self.context.settings);
        if let LogTarget::Kafka(bootstrap) = &settings.log
            && task.stage >= Stage::Fold
        {
            kafka::remove_group(&kafka_settings(&settings, bootstrap))
                .await
                .map_err(stages::failed)?;
        }
        if let StoreTarget::Redis(url) = &settings.store
            && task.stage >= Stage::Store
        {
            let store = RedisStore::new(redis_settings(&settings, url)).map_err(stages::failed)?;
            store.remove(partitions_max(&settings)).await.map_err(stages::failed)?;
        }
        Ok(())
    }

    async fn clean_up(&self) -> Result<(), Failure> {
        let settings = &self.context.settings;
        if let LogTarget::Kafka(bootstrap) = &settings.log {
            let mut topics: Vec<_> = (0..self.args.repetitions).map(|at| self.latency_topic(at)).collect();
            if self.args.keep {
                self.context
                    .out
                    .note(format!("the topic stays: --filled {}", self.topic()));
            } else if self.args.filled.is_none() {
                topics.push(self.topic());
            }
            for topic in topics {
                let mut settings = kafka_settings(settings, bootstrap);
                settings.topic = topic;
                kafka::remove_topics(&settings).await.map_err(stages::failed)?;
            }
        }
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(stages::failed(error)),
            _ => Ok(()),
        }
    }
}

/// A topic that was there keeps its own number of partitions; more than this a bench does not look for.
pub(super) fn partitions_max(settings: &Settings) -> u32 {
    settings.partitions.max(256)
}

/// Beside the embedded directory, so on the same disk.
pub(super) fn directory(settings: &Settings, id: &str) -> PathBuf {
    let beside = match (&settings.log, &settings.store) {
        (LogTarget::Embedded(dir), _) | (_, StoreTarget::Embedded(dir)) => dir.as_path(),
        _ => Path::new("khala-data"),
    };
    let mut name = beside.as_os_str().to_owned();
    name.push(format!(".{id}"));
    PathBuf::from(name)
}

/// `host:port` of a Redis URL.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(['/', ',', '?']).next().unwrap_or_default()
}

//! What one process of a bench is told to do, and what it tells: one JSON value each way.
//! Each stage runs in a process of its own, so that its CPU time and its peak of memory are its own.

use std::path::PathBuf;
use std::process::Stdio;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::super::exit::{Exit, Failure};
use super::workload::Workload;

/// A stage of the way from log to store; each does what the one before does, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Stage {
    /// Append all events and wait until the log has them
    Publish,
    /// A bare consumer that only counts: the ceiling
    Drain,
    /// Khala's readers
    Read,
    /// Decode each record
    Decode,
    /// The partitions' machines, whose every commit succeeds at once
    Fold,
    /// The projector and the store, event streams off
    Store,
    /// The projector and the store, event streams on
    Streams,
    /// Append at a given rate, and watch for when each event is visible
    Latency,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Drain => "drain",
            Self::Read => "read",
            Self::Decode => "decode",
            Self::Fold => "fold",
            Self::Store => "store",
            Self::Streams => "streams",
            Self::Latency => "latency",
        }
    }
}

/// Which log and store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// Those that the settings name.
    AsSet,
    /// The embedded ones.
    Embedded,
}

/// What a process is to do, beside the settings that it reads from the same flags.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub stage: Stage,
    pub target: Target,
    /// In place of an embedded target's directory.
    pub dir: PathBuf,
    /// Of the producer; `None`: as set.
    pub compression: Option<String>,
    pub topic: String,
    pub namespace: String,
    pub workload: Workload,
    /// Events a second, for latency.
    pub rate: u64,
    pub broker: Option<u32>,
    pub redis: Option<u32>,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub events: u64,
    pub seconds: f64,
    /// Of the process, of the broker's and of Redis', while it was measured.
    pub cpu: Cpu,
    pub peak_bytes: Option<u64>,
    /// Documents compared.
    pub documents: u64,
    /// Documents and counts that are not what they must be.
    pub wrong: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
    pub acknowledged: Option<Latency>,
    pub visible: Option<Latency>,
}

/// CPU seconds, as far as they are known.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cpu {
    pub khala: Option<f64>,
    pub broker: Option<f64>,
    pub redis: Option<f64>,
}

/// Milliseconds, from when an event was due.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Latency {
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    pub events: u64,
}

impl Outcome {
    /// Adds a later part of the same work.
    pub(super) fn add(&mut self, part: &Self) {
        let sum = |a: Option<f64>, b: Option<f64>| a.map_or(b, |a| b.map(|b| a + b));
        self.events += part.events;
        self.seconds += part.seconds;
        self.cpu = Cpu {
            khala: sum(self.cpu.khala, part.cpu.khala),
            broker: sum(self.cpu.broker, part.cpu.broker),
            redis: sum(self.cpu.redis, part.cpu.redis),
        };
        self.peak_bytes = part.peak_bytes;
    }
}

impl Task {
    /// Runs it in a process of its own, with this process' flags.
    pub(super) async fn run(&self) -> Result<Outcome, Failure> {
        let stage = self.stage.name();
        let failed = |what: String| Failure::new(Exit::Failed, format!("stage {stage}: {what}"));
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let task = serde_json::to_string(self).map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).arg("--task").arg(task);
        if std::env::var_os("KHALA_LOG_LEVEL").is_none() {
            command.env("KHALA_LOG_LEVEL", "warn");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let output = child
            .wait_with_output()
            .await
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(format!("its process ended with {}; see above", output.status)));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| failed(format!("its answer is none: {error}")))
    }
}

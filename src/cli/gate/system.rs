//! A whole `khala serve` in this process, on a place of its own: projector, HTTP on a free port, a store that can be
//! taken away. What it made is judged by `truth`, which reads log and store directly.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::exit::Failure;
use super::calls::{Calls, LOOK_EVERY};
use super::failed;
use super::place::Place;
use super::sink::{Gatekeeper, Sink};
use crate::access::{Access, Serving, topics};
use crate::projector::StatusBoard;
use crate::pure::checkpoint::{Checkpoint, Digest};
use crate::pure::place::NextOffset;
use crate::telemetry::messaging::Messaging;
use crate::telemetry::{Export, Metrics};

pub(in crate::cli) struct System {
    pub truth: Access,
    pub calls: Calls,
    pub sink: Sink,
    stop: CancellationToken,
    task: JoinSet<anyhow::Result<()>>,
}

impl System {
    pub(in crate::cli) async fn start(at: &Place) -> Result<Self, Failure> {
        let truth = at.open().await?;
        let (store, sink) = Sink::before(&truth).await?;
        let served = Access { store, ..truth.clone() };
        let listener = TcpListener::bind(at.settings.http).await.map_err(failed)?;
        let calls = Calls::to(listener.local_addr().map_err(failed)?, &at.settings)?;
        let serving = Serving {
            board: Arc::new(StatusBoard::default()),
            audit: Arc::default(),
            snapshots: Arc::default(),
            metrics: Metrics::exported(&at.settings.namespace, &topics(&at.settings), &Export::off())?,
            spans: Messaging::off(),
        };
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(crate::serve::run_on(
            listener,
            served,
            serving,
            Vec::new(),
            stop.clone(),
        ));
        let system = Self {
            truth,
            calls,
            sink,
            stop,
            task,
        };
        system.calls.ready().await?;
        Ok(system)
    }

    /// All checkpoints, read past the served store.
    pub(in crate::cli) async fn checkpoints(&self) -> Result<Vec<Option<Checkpoint>>, Failure> {
        let mut all = Vec::new();
        for partition in self.truth.partitions().await? {
            all.push(self.truth.store.checkpoint(partition).await.map_err(failed)?);
        }
        Ok(all)
    }

    /// What covers the documents: two equal sets have equal digests.
    pub(in crate::cli) async fn digests(&self) -> Result<Vec<Digest>, Failure> {
        let checkpoints = self.checkpoints().await?;
        Ok(checkpoints
            .into_iter()
            .map(|checkpoint| checkpoint.map(|it| it.digest).unwrap_or_default())
            .collect())
    }

    /// Waits until a counter of `/metrics` has grown beyond `before`.
    pub(in crate::cli) async fn until_counted(
        &self,
        name: &str,
        label: &str,
        before: f64,
        patience: Duration,
    ) -> Result<f64, Failure> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let now = self.calls.metrics().await?.sum(name, label);
            if now > before {
                return Ok(now - before);
            }
            if tokio::time::Instant::now() > until {
                return Err(failed(format!(
                    "{name}{{{label}}} stays at {now} for {} s",
                    patience.as_secs()
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(in crate::cli) async fn stop(mut self) -> Result<(), Failure> {
        self.sink.mend();
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            ended.map_err(failed)??;
        }
        Ok(())
    }
}

/// Looks at the lag again and again, past the served store, and at what each commit brings: a peak may be over between
/// two looks.
pub(in crate::cli) struct LagWatch {
    keeper: Arc<Gatekeeper>,
    stop: CancellationToken,
    task: JoinSet<Result<u64, Failure>>,
}

impl LagWatch {
    pub(in crate::cli) fn start(system: &System, every: Duration) -> Self {
        let (truth, stop) = (system.truth.clone(), CancellationToken::new());
        let keeper = Arc::clone(system.sink.keeper());
        keeper.behind.store(0, Ordering::SeqCst);
        let stopped = stop.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut most = 0;
            while tokio::time::timeout(every, stopped.cancelled()).await.is_err() {
                most = most.max(lag(&truth).await?);
            }
            Ok(most)
        });
        Self { keeper, stop, task }
    }

    /// The most that was seen.
    pub(in crate::cli) async fn stop(mut self) -> Result<u64, Failure> {
        self.stop.cancel();
        let watched = self.task.join_next().await.ok_or_else(|| failed("nobody watches"))?;
        Ok(watched.map_err(failed)??.max(self.keeper.behind.load(Ordering::SeqCst)))
    }
}

/// Events in the log beyond the checkpoints, over all partitions.
async fn lag(truth: &Access) -> Result<u64, Failure> {
    let mut lag = 0;
    for partition in truth.partitions().await? {
        let checkpoint = truth.store.checkpoint(partition).await.map_err(failed)?;
        let end = truth.log.bounds(partition).await.map_err(failed)?.end;
        lag += checkpoint
            .map_or(NextOffset::START, |checkpoint| checkpoint.next)
            .until(end);
    }
    Ok(lag)
}

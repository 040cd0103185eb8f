//! Looks at log and store from time to time: how far each partition is behind, whether the topic was made anew or grew,
//! how much memory the store has left; tells holds. Invariant: it decides nothing: what a change means is the recovery
//! table's to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::board::{PartitionStatus, StatusBoard};
use super::driver::now_ms;
use super::holds::Holds;
use crate::log::{FetchLimits, Log, LogError, Role, Topic};
use crate::pure::partition::State;
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::store::Store;
use crate::telemetry::Metrics;

const EVERY: Duration = Duration::from_secs(1);
/// The topic is looked at every so many rounds.
const TOPIC_ROUNDS: u32 = 3;
/// How far back the log reaches is looked at every so many rounds.
const HORIZON_ROUNDS: u32 = 15;
/// The store's memory is looked at this often.
const MEMORY_EVERY: Duration = Duration::from_secs(10);
/// How long a record behind a hole in the log is waited for.
const RECORD_PATIENCE: Duration = Duration::from_secs(1);

/// Looks at the store's memory until `stop`.
pub(super) async fn watch_memory(store: Arc<dyn Store>, metrics: Arc<Metrics>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        metrics.store_memory(store.memory().await.ok().flatten());
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(MEMORY_EVERY) => {}
        }
    }
}

pub(super) struct Watch {
    pub log: Arc<dyn Log>,
    pub store: Arc<dyn Store>,
    pub board: Arc<StatusBoard>,
    pub metrics: Arc<Metrics>,
    pub changed: mpsc::Sender<String>,
    pub oldest: BTreeMap<PartitionId, Oldest>,
    pub holds: Holds,
}

/// The oldest record not yet applied, as the log has it.
#[derive(Clone, Copy)]
pub(super) struct Oldest {
    at: NextOffset,
    timestamp_ms: i64,
}

impl Watch {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut known: Option<Topic> = None;
        let mut rounds = 0_u32;
        while !stop.is_cancelled() {
            if rounds.is_multiple_of(TOPIC_ROUNDS) {
                self.look_at_topic(&mut known).await;
            }
            let looks_back = rounds % HORIZON_ROUNDS == HORIZON_ROUNDS / 3;
            rounds = rounds.wrapping_add(1);
            if let Some(statistics) = self.log.statistics() {
                self.metrics.kafka(statistics);
            }
            let statuses = self.board.snapshot();
            tokio::select! {
                () = stop.cancelled() => return,
                told = self.holds.tell(&*self.store, &statuses) => if let Err(error) = told {
                    debug!(%error, "a hold was not told; the next round does");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look_at_lags() => {}
            }
            if looks_back && let Ok(Some(seconds)) = self.horizon_seconds().await {
                self.metrics.horizon(seconds);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn look_at_topic(&self, known: &mut Option<Topic>) {
        let Ok(topic) = self.log.topic().await else { return };
        let before = known.replace(topic.clone());
        if before.is_some_and(|before| before != topic) {
            let why = format!(
                "the topic changed: now {} partitions, id {:?}",
                topic.partitions, topic.id
            );
            let _ = self.changed.send(why).await;
        }
    }

    /// Age of the oldest record of the partition that reaches back least; `None` while every partition has all records
    /// it ever had: then a replay can go back to the beginning.
    async fn horizon_seconds(&self) -> Result<Option<f64>, LogError> {
        let mut shortest: Option<f64> = None;
        for status in self.board.snapshot() {
            let cut = status.bounds.filter(|bounds| bounds.first > NextOffset::START);
            let Some(bounds) = cut.filter(|bounds| bounds.first < bounds.end) else {
                continue;
            };
            let first = self.log.record_at(status.partition, Offset(bounds.first.0)).await?;
            if let Some(first) = first.filter(|first| first.timestamp_ms >= 0) {
                // A producer's clock may be ahead.
                let age_seconds = (now_ms() - first.timestamp_ms).max(0) as f64 / 1000.0;
                shortest = Some(shortest.map_or(age_seconds, |shortest| shortest.min(age_seconds)));
            }
        }
        Ok(shortest)
    }

    /// While the log is away the last known numbers stay, and ages grow.
    async fn look_at_lags(&mut self) {
        let statuses = self.board.snapshot();
        self.oldest
            .retain(|partition, _| statuses.iter().any(|status| status.partition == *partition));
        for status in statuses {
            if self.look_at_lag(status.partition).await.is_err() {
                return;
            }
        }
    }

    async fn look_at_lag(&mut self, partition: PartitionId) -> Result<(), LogError> {
        let bounds = self.log.bounds(partition).await?;
        // Asked after the log, so that what was applied meanwhile is no lag.
        let Some(status) = self.board.saw_bounds(partition, bounds) else {
            return Ok(());
        };
        let next = match status.offset {
            Some(next) => next,
            None => self.next_from_outside(partition).await?.unwrap_or(bounds.first),
        };
        let next = next.max(bounds.first); // what is gone is a gap, no lag
        let lag_events = next.until(bounds.end);
        let oldest_ms = match lag_events {
            0 => None,
            _ => Some(self.oldest_ms(&status, next).await?),
        };
        self.metrics.backlog(partition, lag_events, oldest_ms);
        Ok(())
    }

    /// Where a partition stands that has not found out itself: the store's word, then the group's.
    async fn next_from_outside(&self, partition: PartitionId) -> Result<Option<NextOffset>, LogError> {
        match self.store.checkpoint(partition).await {
            Ok(checkpoint) => Ok(checkpoint.map(|checkpoint| checkpoint.next)),
            Err(_) => self.log.group_offset(partition).await,
        }
    }

    /// Log timestamp of the record at `next`, which is not applied yet: from the batch in hand, else from the log.
    async fn oldest_ms(&mut self, status: &PartitionStatus, next: NextOffset) -> Result<i64, LogError> {
        let known = self.oldest.get(&status.partition).filter(|oldest| oldest.at == next);
        let timestamp_ms = match (status.oldest_ms.filter(|timestamp| *timestamp >= 0), known) {
            (Some(in_hand), _) => in_hand,
            (None, Some(known)) => known.timestamp_ms,
            (None, None) => self.timestamp_in_log(status, next).await?.unwrap_or_else(now_ms),
        };
        let oldest = Oldest { at: next, timestamp_ms };
        self.oldest.insert(status.partition, oldest);
        Ok(timestamp_ms)
    }

    async fn timestamp_in_log(&self, status: &PartitionStatus, next: NextOffset) -> Result<Option<i64>, LogError> {
        let partition = status.partition;
        let told = |timestamp: i64| (timestamp >= 0).then_some(timestamp);
        if let Some(record) = self.log.record_at(partition, Offset(next.0)).await? {
            return Ok(told(record.timestamp_ms));
        }
        if status.state == State::Running {
            return Ok(None); // a hole (a transaction's marker): its reader is past it in a moment
        }
        let limits = FetchLimits {
            records: 1,
            bytes: 1,
            wait: RECORD_PATIENCE,
        };
        let records = self
            .log
            .reader(Role::Events, partition, next)
            .await?
            .fetch(limits)
            .await?;
        let first = (!records.is_empty()).then(|| records.get(0).timestamp_ms);
        Ok(first.and_then(told))
    }
}

//! Commits the group's offsets behind the store's checkpoints, coalesced: a hint for lag tools, never the truth.
//! Invariant: what is committed was in the store before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::log::{GroupOffset, Log};
use crate::pure::place::PartitionId;
use crate::telemetry::Metrics;
use crate::telemetry::messaging::Messaging;

/// How far the group's offset may stay behind the checkpoint.
const EVERY: Duration = Duration::from_millis(250);

/// Runs until the queue is closed, then flushes.
pub(super) async fn commit_offsets(
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    spans: Messaging,
    mut offsets: mpsc::Receiver<GroupOffset>,
) {
    let told = (&*metrics, &spans);
    let mut pending: BTreeMap<PartitionId, GroupOffset> = BTreeMap::new();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0_u32;
    loop {
        tokio::select! {
            biased;
            _ = tick.tick() => flush(&*log, told, &mut pending, &mut failures).await,
            offset = offsets.recv() => match offset {
                Some(offset) => _ = pending.insert(offset.partition, offset),
                None => break,
            },
        }
    }
    flush(&*log, told, &mut pending, &mut failures).await;
}

async fn flush(
    log: &dyn Log,
    (metrics, spans): (&Metrics, &Messaging),
    pending: &mut BTreeMap<PartitionId, GroupOffset>,
    failures: &mut u32,
) {
    if pending.is_empty() {
        return;
    }
    let (started, since) = (Instant::now(), SystemTime::now());
    let committed = log.commit_group(pending.values().cloned().collect()).await;
    metrics.operation("commit", started.elapsed().as_secs_f64(), &committed);
    let error = committed.as_ref().err().map(ToString::to_string);
    spans.settled(since, error.as_deref());
    match committed {
        Ok(()) => {
            pending.clear();
            *failures = 0;
        }
        Err(error) => {
            *failures += 1;
            if failures.is_power_of_two() {
                warn!(%error, failures, "the group's offsets were not committed; lag tools see old ones");
            }
        }
    }
}

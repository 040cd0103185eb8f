//! Writes snapshots of the partitions that this process projects, off the hot path.
//! Invariant: nothing waits for it; what failed is tried again with the next round.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::access::{Access, Serving};
use crate::projector::{PartitionStatus, now_ms};
use crate::pure::partition::State;
use crate::pure::place::PartitionId;
use crate::repair::snapshot::{Round, Snapshots};

/// How soon documents of ended lives are written.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The first round of a partition comes sooner than the interval says.
const FIRST_AFTER: Duration = Duration::from_secs(5);
/// A partition that is so far behind is left in peace: what it makes now, the log has. Not for ever.
const LAG_EVENTS_MAX: u64 = 50_000;
const INTERVALS_WAITED_MAX: u32 = 10;

struct Writer {
    snapshots: Snapshots,
    due: Instant,
    terminals: u64,
}

/// Runs until `stop`.
pub(super) async fn run(access: Access, serving: Serving, stop: CancellationToken) {
    let interval = access.settings.snapshots_every();
    let mut writers: BTreeMap<PartitionId, Writer> = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let running: Vec<PartitionStatus> = serving.board.snapshot();
        let running = running.into_iter().filter(|status| status.state == State::Running);
        let running: Vec<PartitionStatus> = running.collect();
        writers.retain(|partition, _| running.iter().any(|status| status.partition == *partition));
        if let Some(interval) = interval {
            for status in &running {
                let writer = writers.entry(status.partition).or_insert_with(|| Writer {
                    snapshots: access.snapshots(status.partition),
                    due: Instant::now() + interval.min(FIRST_AFTER),
                    terminals: status.terminals,
                });
                tokio::select! {
                    () = stop.cancelled() => return,
                    is_whole = writer.look(&access, status, interval) => {
                        if is_whole {
                            serving.snapshots.is_whole(status.partition, now_ms());
                        }
                    }
                }
            }
        }
    }
}

impl Writer {
    /// Writes what is due; whether the snapshot has all documents now.
    async fn look(&mut self, access: &Access, status: &PartitionStatus, interval: Duration) -> bool {
        let partition = status.partition;
        let now = Instant::now();
        if self.due > now && self.terminals == status.terminals {
            return false;
        }
        let bounds = access.log.bounds(partition).await;
        let lag = bounds.map_or(0, |bounds| status.offset.map_or(0, |offset| offset.until(bounds.end)));
        if lag > LAG_EVENTS_MAX && now < self.due + interval * INTERVALS_WAITED_MAX {
            return false;
        }
        let done = if self.due <= now {
            self.due = now + interval;
            self.snapshots
                .round()
                .await
                .map(|round| match round {
                    Round::Written { documents, next } => debug!(%partition, documents, %next, "snapshot written"),
                    Round::Others(namespace) => {
                        info!(%partition, namespace, "another namespace writes this topic's snapshots");
                    }
                    Round::Nothing => {}
                })
                .map(|()| self.has_all(access, status))
        } else {
            self.terminals = status.terminals;
            self.snapshots.terminals().await.map(|_| false)
        };
        done.unwrap_or_else(|error| {
            warn!(%partition, %error, "no snapshot was written; it is tried again");
            false
        })
    }

    /// Whether the newest marker is ours and has all that was applied when the look began.
    fn has_all(&self, access: &Access, status: &PartitionStatus) -> bool {
        let marker = self.snapshots.marker();
        let ours = marker.filter(|marker| marker.namespace == access.settings.namespace);
        ours.is_some_and(|marker| status.offset.is_none_or(|next| next <= marker.next()))
    }
}

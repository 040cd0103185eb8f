//! Looks at the log from time to time: its end for the lag, its topic for having been made anew or grown.
//! Invariant: it only looks; what a change means is the recovery table's to say.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::board::StatusBoard;
use super::driver::now_ms;
use crate::log::{Log, Topic};
use crate::telemetry::Metrics;

const EVERY: Duration = Duration::from_secs(1);
/// The topic is looked at every so many rounds.
const TOPIC_ROUNDS: u32 = 3;

pub(super) struct Watch {
    pub log: Arc<dyn Log>,
    pub board: Arc<StatusBoard>,
    pub metrics: Arc<Metrics>,
    pub changed: mpsc::Sender<String>,
}

impl Watch {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut known: Option<Topic> = None;
        let mut rounds = 0_u32;
        while !stop.is_cancelled() {
            if rounds.is_multiple_of(TOPIC_ROUNDS) {
                self.look_at_topic(&mut known).await;
            }
            rounds = rounds.wrapping_add(1);
            self.look_at_ends(&stop).await;
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

    async fn look_at_ends(&self, stop: &CancellationToken) {
        for partition in self.board.snapshot() {
            if stop.is_cancelled() {
                return;
            }
            let Ok(bounds) = self.log.bounds(partition.partition).await else {
                return;
            };
            let now = now_ms();
            if let Some(status) = self.board.saw_end(partition.partition, bounds.end, now) {
                self.metrics
                    .backlog(status.partition, status.lag_events(), status.lag_seconds(now));
            }
        }
    }
}

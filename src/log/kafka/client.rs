//! What librdkafka tells from its own threads: logs, errors, rebalances. It is noted or sent on; nothing is decided.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::statistics::Reports;
use crate::log::{Assignment, Handover};
use crate::pure::place::PartitionId;

/// How long the group waits for batches under way in partitions that are given up.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(10);

fn log_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => warn!(facility, "kafka: {line}"),
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => info!(facility, "kafka: {line}"),
        _ => debug!(facility, "kafka: {line}"),
    }
}

/// For clients that ask: keeps what was told last, for a question that failed knows no more than that it did.
#[derive(Default)]
pub(super) struct QuietContext(Mutex<String>);

impl QuietContext {
    pub(super) fn take_trouble(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for QuietContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka");
        // That all brokers are down comes behind the reason why.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            reason.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl ConsumerContext for QuietContext {}

/// For the client that sends.
pub(super) struct SendContext(pub(super) Arc<Reports>);

impl ClientContext for SendContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka");
    }

    fn stats_raw(&self, json: &[u8]) {
        self.0.take("send", json);
    }
}

/// For the client that fetches: counts troubles with brokers, so that readers stop and compare.
pub(super) struct FetchContext {
    troubles: AtomicU64,
    last: Mutex<String>,
    reports: Arc<Reports>,
}

impl FetchContext {
    pub(super) fn new(reports: Arc<Reports>) -> Self {
        Self {
            troubles: AtomicU64::new(0),
            last: Mutex::default(),
            reports,
        }
    }

    pub(super) fn troubles(&self) -> u64 {
        self.troubles.load(Ordering::Acquire)
    }

    pub(super) fn last_trouble(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for FetchContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka");
        reason.clone_into(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner));
        self.troubles.fetch_add(1, Ordering::AcqRel);
    }

    fn stats_raw(&self, json: &[u8]) {
        self.reports.take("fetch", json);
    }
}

impl ConsumerContext for FetchContext {}

/// For the member of the group: sends assignments on, and pauses what it is assigned, since it never fetches.
pub(super) struct MemberContext {
    pub(super) changes: mpsc::Sender<Assignment>,
    pub(super) reports: Arc<Reports>,
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka");
    }

    fn stats_raw(&self, json: &[u8]) {
        self.reports.take("member", json);
    }
}

impl MemberContext {
    fn send(&self, change: Assignment) {
        // The queue is longer than a rebalance has messages; a receiver that is gone needs none.
        let _ = self.changes.blocking_send(change);
    }

    /// Waits until all that was begun is committed, unless others may have the partitions already. Heartbeats go on
    /// meanwhile, and `max.poll.interval.ms` is far longer.
    fn give_up(&self, partitions: Vec<PartitionId>, are_lost: bool) {
        let (handover, dropped) = Handover::new();
        self.send(Assignment::Revoked(partitions, handover));
        if are_lost {
            return;
        }
        if dropped.recv_timeout(HANDOVER_PATIENCE) == Err(RecvTimeoutError::Timeout) {
            warn!(
                seconds = HANDOVER_PATIENCE.as_secs(),
                "batches were not committed before their partitions were given up; whoever has them now redoes them"
            );
        }
    }
}

impl ConsumerContext for MemberContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            self.give_up(numbers(partitions), consumer.assignment_lost());
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                if let Err(error) = consumer.pause(partitions) {
                    debug!(%error, "not paused: what it fetches is dropped");
                }
                self.send(Assignment::Assigned(numbers(partitions)));
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => warn!(%error, "the consumer group could not be rebalanced"),
        }
    }
}

fn numbers(partitions: &TopicPartitionList) -> Vec<PartitionId> {
    let number = |partition: i32| u32::try_from(partition).ok().map(PartitionId);
    partitions
        .elements()
        .iter()
        .filter_map(|element| number(element.partition()))
        .collect()
}

//! The instruments of INTERFACE §5, made with OpenTelemetry and read by Prometheus.
//! In: what happened, once per batch. Out: Prometheus' text format.
//! Invariant: counters with closed label values stand at 0 from the start, so that a first error is an increase;
//! a partition that was given up leaves no gauge behind.
//! Source: OpenTelemetry's messaging conventions 1.44 for `messaging_*`.

mod gauges;
mod instruments;
mod peers;
mod process;
mod rollout;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::metrics::{Counter, Gauge, Histogram, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

use super::Export;
use crate::pure::place::PartitionId;
use gauges::Gauges;
pub use instruments::Topics;
use instruments::{Labelled, Messaging, Replays, build_info, gauge, lag_events, messages, provider, ratio, seconds};
use peers::Peers;
pub use peers::{KafkaStatistics, StoreMemory};
pub use rollout::RolloutGauges;
use rollout::Rollouts;

/// All reasons of `khala_projection_drift_total`.
pub const DRIFT_REASONS: [&str; 10] = [
    "missing_document",
    "unexpected_document",
    "summary_hash_mismatch",
    "document_corrupt",
    "checkpoint_ahead",
    "sink_rolled_back",
    "sink_lost",
    "projection_version_changed",
    "sequence_gap",
    "retention_gap",
];
const WRITE_RESULTS: [&str; 2] = ["ok", "error"];
const EVENT_RESULTS: [&str; 3] = ["accepted", "duplicate", "dead_letter"];
/// Where secrets were taken out.
const REDACTION_STAGES: [&str; 2] = ["publish", "projection"];
const PUBLISH_RESULTS: [&str; 3] = ["ok", "rejected", "error"];

/// All of Khala's instruments. Every method is cheap and meant to be called once per batch or request.
pub struct Metrics {
    registry: Registry,
    /// Keeps the instruments alive.
    _provider: SdkMeterProvider,
    gauges: Arc<Gauges>,
    peers: Arc<Peers>,
    lag_events: Histogram<u64>,
    latency: Histogram<f64>,
    writes: Labelled,
    events: Labelled,
    drift: Labelled,
    replays: Replays,
    audit_last_success: Gauge<f64>,
    audit_progress: Gauge<f64>,
    replay_horizon: Gauge<f64>,
    redactions: Labelled,
    published: Labelled,
    rollouts: Rollouts,
    publish_duration: Histogram<f64>,
    consumed: Counter<u64>,
    sent: Counter<u64>,
    process_duration: Histogram<f64>,
    operation_duration: Histogram<f64>,
    messaging: Messaging,
}

impl Metrics {
    /// Instruments for `namespace` that nobody pushes, with Kafka as the messaging system.
    ///
    /// # Errors
    /// OpenTelemetry refused an instrument or a view: a fault in this file.
    pub fn new(namespace: &str) -> anyhow::Result<Arc<Self>> {
        let topics = Topics {
            system: "kafka",
            events: format!("{namespace}.events"),
            dead_letters: format!("{namespace}.events.dead-letters"),
            group: namespace.to_owned(),
        };
        Self::exported(namespace, &topics, &Export::off())
    }

    /// Instruments for `namespace` and `topics`, pushed by OTLP too if `export` says so.
    ///
    /// # Errors
    /// As [`Self::new`]; or OTLP cannot be spoken as the environment says.
    pub fn exported(namespace: &str, topics: &Topics, export: &Export) -> anyhow::Result<Arc<Self>> {
        let registry = Registry::new();
        let provider = provider(&registry, namespace, export)?;
        let meter = provider.meter("khala");
        let gauges = Arc::new(Gauges::default());
        gauges.register(&meter);
        let peers = Arc::new(Peers::default());
        peers.register(&meter);
        process::register(&meter);
        build_info(&meter);
        let messaging = Messaging::new(topics);
        let counted = |name, help, label, values| Labelled::new(&meter, name, help, label, values);
        let metrics = Self {
            lag_events: lag_events(&meter),
            latency: seconds(
                &meter,
                "khala.projection.latency",
                "Record timestamp until visible in the store.",
            ),
            writes: counted("khala.projection.writes", "Store commits.", "result", &WRITE_RESULTS),
            events: counted("khala.projection.events", "Records applied.", "result", &EVENT_RESULTS),
            drift: counted("khala.projection.drift", "Drift found.", "reason", &DRIFT_REASONS),
            replays: Replays::new(&meter),
            audit_last_success: gauge(
                &meter,
                "khala.audit.last_success_timestamp",
                "When an audit last compared all documents of the namespace with the log; no series before the first.",
            ),
            audit_progress: ratio(
                &meter,
                "khala.audit.progress",
                "Share of the background audit that is done; no series before the first.",
            ),
            replay_horizon: gauge(
                &meter,
                "khala.replay.horizon",
                "How far back a replay can go: the shortest over all partitions; no series while not known.",
            ),
            redactions: counted(
                "khala.redactions",
                "Secrets taken out of events.",
                "stage",
                &REDACTION_STAGES,
            ),
            rollouts: Rollouts::new(&meter),
            published: counted("khala.publish", "Events published.", "result", &PUBLISH_RESULTS),
            publish_duration: seconds(
                &meter,
                "khala.publish.duration",
                "Until the log acknowledged, per call.",
            ),
            consumed: messages(
                &meter,
                "messaging.client.consumed.messages",
                "Records read from the log.",
            ),
            sent: messages(&meter, "messaging.client.sent.messages", "Records written to the log."),
            process_duration: seconds(
                &meter,
                "messaging.process.duration",
                "One batch, from fetched to visible in the store.",
            ),
            operation_duration: seconds(&meter, "messaging.client.operation.duration", "One call to the log."),
            messaging,
            gauges,
            peers,
            registry,
            _provider: provider,
        };
        metrics.stand_at_zero();
        Ok(Arc::new(metrics))
    }

    /// Counters whose labels are made with them already do.
    fn stand_at_zero(&self) {
        self.consumed(0);
        self.sent(0);
        self.sent_letters(0);
    }

    /// A commit of `partition` went through; the log's end is `lag_events` past it.
    pub fn committed(&self, partition: PartitionId, lag_events: u64) {
        self.lag_events.record(lag_events, &[]);
        let mut partitions = self.gauges.lock();
        let gauges = partitions.entry(partition).or_default();
        gauges.backlog_events = lag_events;
        if lag_events == 0 {
            gauges.oldest_ms = None;
        }
    }

    /// `count` records became visible `seconds` after their timestamp.
    pub fn latency(&self, seconds: f64, count: u64) {
        // OpenTelemetry has no "record n times"; without attributes one costs some 20 ns.
        for _ in 0..count {
            self.latency.record(seconds.max(0.0), &[]);
        }
    }

    /// A commit in the store: `ok` or `error`.
    pub fn write(&self, result: &'static str) {
        self.writes.add(result, 1);
    }

    /// Records of a batch that was committed.
    pub fn events(&self, accepted: u64, duplicates: u64, dead_letters: u64) {
        self.events.add("accepted", accepted);
        self.events.add("duplicate", duplicates);
        self.events.add("dead_letter", dead_letters);
    }

    /// Drift, by one of [`DRIFT_REASONS`]. Other names (`normal`, `first_start`, `log_replaced`) are no drift and
    /// count nothing, so that a recovery's name can be passed as it is.
    pub fn drift(&self, reason: &'static str) {
        self.drift.add(reason, 1);
    }

    /// A replay ended. Scopes: `entity`, `partition`, `namespace`; results: `ok`, `error`.
    pub fn replayed(&self, scope: &'static str, result: &'static str) {
        self.replays.add(scope, result);
    }

    /// An audit of the whole namespace ended, and told what it had to tell, `at` this time.
    pub fn audited(&self, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.audit_last_success.record(since.as_secs_f64(), &[]);
    }

    /// So much of the background audit is done, 0 to 1.
    pub fn audit_progress(&self, done: f64) {
        self.audit_progress.record(done.clamp(0.0, 1.0), &[]);
    }

    /// A replay can go back so many seconds: the shortest over all partitions.
    pub fn horizon(&self, seconds: f64) {
        self.replay_horizon.record(seconds.max(0.0), &[]);
    }

    /// What `partition` has yet to apply: events, and the log timestamp of the oldest of them in milliseconds.
    pub fn backlog(&self, partition: PartitionId, events: u64, oldest_ms: Option<i64>) {
        let mut partitions = self.gauges.lock();
        let gauges = partitions.entry(partition).or_default();
        gauges.backlog_events = events;
        gauges.oldest_ms = oldest_ms;
    }

    /// librdkafka's latest statistics.
    pub fn kafka(&self, statistics: KafkaStatistics) {
        self.peers.set_kafka(statistics);
    }

    /// The store's memory; `None`: not known now.
    pub fn store_memory(&self, memory: Option<StoreMemory>) {
        self.peers.set_memory(memory);
    }

    /// `partition` is held for this reason, or not any more; earlier reasons go to 0.
    pub fn held(&self, partition: PartitionId, reason: Option<&'static str>) {
        let mut partitions = self.gauges.lock();
        let held = &mut partitions.entry(partition).or_default().held;
        for is_held in held.values_mut() {
            *is_held = 0;
        }
        if let Some(reason) = reason {
            held.insert(reason, 1);
        }
    }

    /// `partition` is somebody else's now: its gauges vanish.
    pub fn forget_partition(&self, partition: PartitionId) {
        self.gauges.lock().remove(&partition);
    }

    /// Secrets were taken out of events: on their way into the log (`publish`), or into the store (`projection`).
    pub fn redacted(&self, stage: &'static str, count: u64) {
        if count > 0 {
            self.redactions.add(stage, count);
        }
    }

    /// A request with a bad event was refused with all of its `count` events; the log was not asked.
    pub fn rejected(&self, count: u64) {
        self.published.add("rejected", count);
    }

    /// A call that published `count` events ended after `seconds`: `ok` or `error`.
    pub fn published(&self, result: &'static str, seconds: f64, count: u64) {
        self.published.add(result, count);
        if let Some(labels) = self.published.labels.get(result) {
            self.publish_duration.record(seconds, labels);
        }
    }

    /// Records read from the log.
    pub fn consumed(&self, count: u64) {
        self.consumed.add(count, &self.messaging.poll);
    }

    /// Events written to the log.
    pub fn sent(&self, count: u64) {
        self.sent.add(count, &self.messaging.send);
    }

    /// Dead letters written to the log.
    pub fn sent_letters(&self, count: u64) {
        self.sent.add(count, &self.messaging.send_letters);
    }

    /// One batch was processed, from fetched to visible: what its span `process` lasts.
    pub fn processed(&self, seconds: f64) {
        self.process_duration.record(seconds, &self.messaging.process);
    }

    /// A call to the log that went well or not: `send`, `poll` or `commit`; other names count nothing.
    pub fn operation<T, E>(&self, name: &'static str, seconds: f64, result: &Result<T, E>) {
        let operations = match result {
            Ok(_) => &self.messaging.operations,
            Err(_) => &self.messaging.failed_operations,
        };
        if let Some(labels) = operations.get(name) {
            self.operation_duration.record(seconds, labels);
        }
    }

    /// Prometheus' text format.
    pub fn render(&self) -> String {
        // Fails only for a family without a name or without series; ours have both.
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

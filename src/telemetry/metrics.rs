//! The metrics of INTERFACE.md §5, from OpenTelemetry instruments, as Prometheus text.
//! Invariant: labels come from closed sets; counters with closed label values exist as 0 from the start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

use crate::pure::place::PartitionId;

/// Reasons of `khala_projection_drift_total`.
const DRIFT_REASONS: [&str; 10] = [
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

/// The operations counted by `messaging_client_operation_duration_seconds`.
const OPERATIONS: [&str; 2] = ["commit", "send"];

#[derive(Clone, Copy, Default)]
struct PartitionGauges {
    backlog_events: u64,
    lag_seconds: f64,
    held: Option<&'static str>,
}

type Gauges = Arc<Mutex<BTreeMap<PartitionId, PartitionGauges>>>;

/// All instruments of a process.
pub struct Metrics {
    registry: Registry,
    /// Kept alive: without it nothing is collected.
    _provider: SdkMeterProvider,
    namespace: KeyValue,
    gauges: Gauges,
    lag_events: Histogram<u64>,
    latency_seconds: Histogram<f64>,
    writes: Counter<u64>,
    events: Counter<u64>,
    drift: Counter<u64>,
    publish: Counter<u64>,
    publish_seconds: Histogram<f64>,
    consumed: Counter<u64>,
    sent: Counter<u64>,
    process_seconds: Histogram<f64>,
    operation_seconds: Histogram<f64>,
}

fn lag_bounds() -> Vec<f64> {
    [
        0, 1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 1_000_000,
    ]
    .map(f64::from)
    .to_vec()
}

fn seconds_bounds() -> Vec<f64> {
    vec![
        0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
        300.0,
    ]
}

impl Metrics {
    /// All instruments, under a namespace.
    ///
    /// # Errors
    /// The exporter cannot be set up.
    pub fn new(namespace: &str) -> anyhow::Result<Arc<Self>> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .without_units()
            .without_counter_suffixes()
            .build()?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("khala");
        let namespace = KeyValue::new("namespace", namespace.to_owned());
        let gauges = Gauges::default();
        register_gauges(&meter, &gauges, &namespace);
        let seconds = |name: &'static str, what: &'static str| {
            meter
                .f64_histogram(name)
                .with_description(what)
                .with_boundaries(seconds_bounds())
                .build()
        };
        let counter = |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        let metrics = Self {
            lag_events: meter
                .u64_histogram("khala_projection_lag_events")
                .with_description("Offsets between checkpoint and log end, at every commit")
                .with_boundaries(lag_bounds())
                .build(),
            latency_seconds: seconds(
                "khala_projection_latency_seconds",
                "Log timestamp to visible in the store",
            ),
            writes: counter("khala_projection_writes_total", "Commits to the store"),
            events: counter("khala_projection_events_total", "Records applied, by what they were"),
            drift: counter(
                "khala_projection_drift_total",
                "Documents or checkpoints found to be not what the log says",
            ),
            publish: counter("khala_publish_total", "Events published through Khala"),
            publish_seconds: seconds("khala_publish_duration_seconds", "Until all in-sync replicas had it"),
            consumed: counter("messaging_client_consumed_messages_total", "Records read from the log"),
            sent: counter("messaging_client_sent_messages_total", "Records written to the log"),
            process_seconds: seconds("messaging_process_duration_seconds", "Folding of one batch"),
            operation_seconds: seconds("messaging_client_operation_duration_seconds", "Calls to the log"),
            registry,
            _provider: provider,
            namespace,
            gauges,
        };
        metrics.zeros();
        Ok(Arc::new(metrics))
    }

    fn zeros(&self) {
        for result in ["ok", "error"] {
            self.writes.add(0, &self.with("result", result));
            self.publish.add(0, &self.with("result", result));
        }
        self.events(0, 0, 0);
        for reason in DRIFT_REASONS {
            self.drift.add(0, &self.with("reason", reason));
        }
        self.consumed(0);
        self.sent(0);
    }

    fn with(&self, label: &'static str, value: &'static str) -> [KeyValue; 2] {
        [self.namespace.clone(), KeyValue::new(label, value)]
    }

    fn only_namespace(&self) -> &[KeyValue] {
        std::slice::from_ref(&self.namespace)
    }

    /// A commit left the partition `lag_events` behind.
    pub fn committed(&self, _partition: PartitionId, lag_events: u64) {
        self.lag_events.record(lag_events, self.only_namespace());
    }

    /// A record became visible this long after its log timestamp.
    pub fn latency(&self, seconds: f64) {
        self.latency_seconds.record(seconds, self.only_namespace());
    }

    /// A commit to the store: `ok` or `error`.
    pub fn write(&self, result: &'static str) {
        self.writes.add(1, &self.with("result", result));
    }

    /// Records applied.
    pub fn events(&self, accepted: u64, duplicates: u64, dead_letters: u64) {
        for (result, count) in [
            ("accepted", accepted),
            ("duplicate", duplicates),
            ("dead_letter", dead_letters),
        ] {
            self.events.add(count, &self.with("result", result));
        }
    }

    /// Drift was found.
    pub fn drift(&self, reason: &'static str) {
        self.drift.add(1, &self.with("reason", reason));
    }

    /// How far a partition is behind now.
    pub fn backlog(&self, partition: PartitionId, backlog_events: u64, lag_seconds: f64) {
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let gauge = gauges.entry(partition).or_default();
        gauge.backlog_events = backlog_events;
        gauge.lag_seconds = lag_seconds;
    }

    /// A partition is held for a reason, or no more.
    pub fn held(&self, partition: PartitionId, reason: Option<&'static str>) {
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.entry(partition).or_default().held = reason;
    }

    /// A partition is not ours any more.
    pub fn forget_partition(&self, partition: PartitionId) {
        self.gauges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&partition);
    }

    /// `count` events were published, or failed to be, in `seconds`.
    pub fn published(&self, result: &'static str, seconds: f64, count: u64) {
        self.publish.add(count, &self.with("result", result));
        self.publish_seconds.record(seconds, &self.with("result", result));
        if result == "ok" {
            self.sent(count);
        }
    }

    /// Records were read from the log.
    pub fn consumed(&self, count: u64) {
        self.consumed.add(count, &self.with("messaging_system", "kafka"));
    }

    /// Records were written to the log.
    pub fn sent(&self, count: u64) {
        self.sent.add(count, &self.with("messaging_system", "kafka"));
    }

    /// A batch was folded.
    pub fn processed(&self, seconds: f64) {
        self.process_seconds
            .record(seconds, &self.with("messaging_operation_name", "process"));
    }

    /// A call to the log, by one of a closed set of names.
    pub fn operation(&self, name: &'static str, seconds: f64) {
        debug_assert!(OPERATIONS.contains(&name), "{name}");
        self.operation_seconds
            .record(seconds, &self.with("messaging_operation_name", name));
    }

    /// All of it as Prometheus text (exposition format 0.0.4).
    pub fn render(&self) -> String {
        let mut text = String::new();
        match TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            Ok(()) => text,
            Err(error) => format!("# the metrics cannot be encoded: {error}\n"),
        }
    }
}

fn register_gauges(meter: &Meter, gauges: &Gauges, namespace: &KeyValue) {
    let labels = |namespace: &KeyValue, partition: PartitionId| {
        vec![namespace.clone(), KeyValue::new("partition", partition.to_string())]
    };
    let (all, ns) = (Arc::clone(gauges), namespace.clone());
    meter
        .u64_observable_gauge("khala_projection_backlog_events")
        .with_description("Offsets between checkpoint and log end, now")
        .with_callback(move |observer| {
            for (partition, gauge) in all.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                observer.observe(gauge.backlog_events, &labels(&ns, *partition));
            }
        })
        .build();
    let (all, ns) = (Arc::clone(gauges), namespace.clone());
    meter
        .f64_observable_gauge("khala_projection_lag_seconds")
        .with_description("Age of the oldest record not yet applied; 0 when caught up")
        .with_callback(move |observer| {
            for (partition, gauge) in all.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                observer.observe(gauge.lag_seconds, &labels(&ns, *partition));
            }
        })
        .build();
    let (all, ns) = (Arc::clone(gauges), namespace.clone());
    meter
        .u64_observable_gauge("khala_projection_held")
        .with_description("1 while a partition is stopped until a person acts")
        .with_callback(move |observer| {
            for (partition, gauge) in all.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                if let Some(reason) = gauge.held {
                    let mut labels = labels(&ns, *partition);
                    labels.push(KeyValue::new("reason", reason));
                    observer.observe(1, &labels);
                }
            }
        })
        .build();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_exist_from_the_start_and_names_are_the_interface_s() {
        let metrics = Metrics::new("ns").expect("set up");
        let text = metrics.render();
        for line in [
            r#"khala_projection_writes_total{namespace="ns",result="error"} 0"#,
            r#"khala_projection_events_total{namespace="ns",result="dead_letter"} 0"#,
            r#"khala_projection_drift_total{namespace="ns",reason="sink_lost"} 0"#,
            r#"khala_publish_total{namespace="ns",result="ok"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("otel_scope") && !text.contains("target_info"), "{text}");
    }

    #[test]
    fn gauges_come_and_go_with_their_partition() {
        let metrics = Metrics::new("ns").expect("set up");
        metrics.backlog(PartitionId(3), 7, 1.5);
        metrics.held(PartitionId(3), Some("log_replaced"));
        metrics.committed(PartitionId(3), 30);
        metrics.latency(0.0004);
        let text = metrics.render();
        for line in [
            r#"khala_projection_backlog_events{namespace="ns",partition="3"} 7"#,
            r#"khala_projection_lag_seconds{namespace="ns",partition="3"} 1.5"#,
            r#"khala_projection_held{namespace="ns",partition="3",reason="log_replaced"} 1"#,
            r#"khala_projection_lag_events_bucket{namespace="ns",le="25"} 0"#,
            r#"khala_projection_lag_events_bucket{namespace="ns",le="50"} 1"#,
            r#"khala_projection_latency_seconds_bucket{namespace="ns",le="0.0005"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        metrics.forget_partition(PartitionId(3));
        assert!(!metrics.render().contains("partition=\"3\""));
    }
}

//! Making instruments: provider, names, bounds, label sets.
//! In: names of INTERFACE §5 in OpenTelemetry's form (dots, a unit apart). Out: instruments.
//! Invariant: labels are made here, once, from closed sets.

use std::collections::{BTreeMap, HashSet};

use anyhow::Context;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use prometheus::Registry;

use super::gauges::PARTITION_GAUGES;
use crate::telemetry::Export;

/// Names of client operations, with their type in the conventions.
const OPERATIONS: [(&str, &str); 3] = [("send", "send"), ("poll", "receive"), ("commit", "settle")];

const REPLAY_SCOPES: [&str; 3] = ["entity", "partition", "namespace"];
const REPLAY_RESULTS: [&str; 2] = ["ok", "error"];

const LAG_BOUNDS: [f64; 19] = [
    0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6,
];
const SECONDS_BOUNDS: [f64; 18] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
];
/// Partitions times reasons that one process may show; OpenTelemetry's own limit of 2,000 is one large topic.
const GAUGE_SERIES_MAX: usize = 20_000;

/// `namespace` is an attribute of the resource, copied to every series: so instruments without other labels
/// take OpenTelemetry's path without attributes, which is the fast one.
pub(super) fn provider(registry: &Registry, namespace: &str, export: &Export) -> anyhow::Result<SdkMeterProvider> {
    let labels = HashSet::from([Key::from_static_str("namespace")]);
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .with_resource_selector(labels)
        .scope_info_enabled(false)
        .without_target_info()
        .build()
        .context("the Prometheus exporter")?;
    let ours = export.resource().iter();
    let ours = ours.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty()
        .with_attributes(ours)
        .with_attribute(KeyValue::new("namespace", namespace.to_owned()))
        .build();
    // Only a limit of 0 could fail, and then the default stands.
    let wide = || Stream::builder().with_cardinality_limit(GAUGE_SERIES_MAX).build().ok();
    let view = move |instrument: &Instrument| PARTITION_GAUGES.contains(&instrument.name()).then(wide).flatten();
    let provider = SdkMeterProvider::builder().with_resource(resource).with_view(view);
    if export.is_disabled() {
        return Ok(provider.build()); // without a reader every instrument is a branch
    }
    let provider = provider.with_reader(exporter);
    Ok(match export.metrics()? {
        Some(pushed) => provider.with_reader(pushed).build(),
        None => provider.build(),
    })
}

pub(super) fn lag_events(meter: &Meter) -> Histogram<u64> {
    let histogram = meter
        .u64_histogram("khala.projection.lag_events")
        .with_boundaries(LAG_BOUNDS.to_vec());
    histogram
        .with_unit("{event}")
        .with_description("Events between a commit and the log's end.")
        .build()
}

pub(super) fn seconds(meter: &Meter, name: &'static str, help: &'static str) -> Histogram<f64> {
    let histogram = meter.f64_histogram(name).with_boundaries(SECONDS_BOUNDS.to_vec());
    histogram.with_unit("s").with_description(help).build()
}

pub(super) fn gauge(meter: &Meter, name: &'static str, help: &'static str) -> Gauge<f64> {
    meter.f64_gauge(name).with_unit("s").with_description(help).build()
}

pub(super) fn ratio(meter: &Meter, name: &'static str, help: &'static str) -> Gauge<f64> {
    meter.f64_gauge(name).with_unit("1").with_description(help).build()
}

/// Which build this is.
pub(super) fn build_info(meter: &Meter) {
    let labels = [KeyValue::new("version", env!("CARGO_PKG_VERSION"))];
    let gauge = meter.u64_observable_gauge("khala.build_info");
    gauge
        .with_description("1, with the version as a label.")
        .with_callback(move |observer| observer.observe(1, &labels))
        .build();
}

pub(super) fn messages(meter: &Meter, name: &'static str, help: &'static str) -> Counter<u64> {
    meter
        .u64_counter(name)
        .with_unit("{message}")
        .with_description(help)
        .build()
}

/// A counter over a closed set of values of one label.
pub(super) struct Labelled {
    counter: Counter<u64>,
    pub labels: BTreeMap<&'static str, [KeyValue; 1]>,
}

impl Labelled {
    pub fn new(
        meter: &Meter,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: &[&'static str],
    ) -> Self {
        let counter = meter.u64_counter(name).with_description(help).build();
        let labels: BTreeMap<_, _> = values
            .iter()
            .map(|value| (*value, [KeyValue::new(label, *value)]))
            .collect();
        for labels in labels.values() {
            counter.add(0, labels);
        }
        Self { counter, labels }
    }

    /// A value outside the set counts nothing: labels stay closed.
    pub fn add(&self, value: &str, count: u64) {
        if let Some(labels) = self.labels.get(value) {
            self.counter.add(count, labels);
        }
    }
}

/// Where messages come from and go: one name each, so fit for labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// `messaging.system`.
    pub system: &'static str,
    /// The events' topic.
    pub events: String,
    /// That of dead letters.
    pub dead_letters: String,
    /// The consumer group.
    pub group: String,
}

/// Labels of the messaging conventions, made once.
pub(super) struct Messaging {
    pub poll: Vec<KeyValue>,
    pub send: Vec<KeyValue>,
    pub send_letters: Vec<KeyValue>,
    pub process: Vec<KeyValue>,
    pub operations: BTreeMap<&'static str, Vec<KeyValue>>,
    /// The same, with `error.type`.
    pub failed_operations: BTreeMap<&'static str, Vec<KeyValue>>,
}

impl Messaging {
    pub fn new(topics: &Topics) -> Self {
        let to = |name, topic: &str| {
            vec![
                KeyValue::new("messaging.operation.name", name),
                KeyValue::new("messaging.system", topics.system),
                KeyValue::new("messaging.destination.name", topic.to_owned()),
            ]
        };
        let base = |name: &'static str| {
            let group = KeyValue::new("messaging.consumer.group.name", topics.group.clone());
            let group = (name != "send").then_some(group);
            to(name, &topics.events).into_iter().chain(group).collect::<Vec<_>>()
        };
        let labels = |(name, kind): (&'static str, &'static str)| {
            let kind = KeyValue::new("messaging.operation.type", kind);
            (name, base(name).into_iter().chain([kind]).collect::<Vec<_>>())
        };
        let operations: BTreeMap<_, _> = OPERATIONS.into_iter().map(labels).collect();
        let mut failed_operations = operations.clone();
        // The convention's word for an error of no further kind.
        let failed = KeyValue::new("error.type", "_OTHER");
        failed_operations
            .values_mut()
            .for_each(|labels| labels.push(failed.clone()));
        Self {
            poll: base("poll"),
            send: base("send"),
            send_letters: to("send", &topics.dead_letters),
            process: base("process"),
            operations,
            failed_operations,
        }
    }
}

/// `khala_replay_total` over two closed labels.
pub(super) struct Replays {
    counter: Counter<u64>,
    labels: BTreeMap<(&'static str, &'static str), [KeyValue; 2]>,
}

impl Replays {
    pub fn new(meter: &Meter) -> Self {
        let counter = meter
            .u64_counter("khala.replay")
            .with_description(
                "Replays that ended. Scope namespace: one of all partitions that a server was asked for; partition: each \
                 partition that was put back and is redone, also of such a one; entity: one document.",
            )
            .build();
        let pairs = REPLAY_SCOPES
            .iter()
            .flat_map(|scope| REPLAY_RESULTS.map(|result| (*scope, result)));
        let labels: BTreeMap<_, _> = pairs
            .map(|(scope, result)| {
                let labels = [KeyValue::new("scope", scope), KeyValue::new("result", result)];
                ((scope, result), labels)
            })
            .collect();
        for labels in labels.values() {
            counter.add(0, labels);
        }
        Self { counter, labels }
    }

    /// A pair outside the sets counts nothing.
    pub fn add(&self, scope: &'static str, result: &'static str) {
        if let Some(labels) = self.labels.get(&(scope, result)) {
            self.counter.add(1, labels);
        }
    }
}

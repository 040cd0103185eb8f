//! Gauges of each assigned partition, read when somebody scrapes.
//! In: the latest numbers of a partition. Out: one series a partition (and reason).
//! Invariant: a partition that is not assigned any more is not observed, and so has no series.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use crate::pure::place::PartitionId;

pub(super) const PARTITION_GAUGES: [&str; 3] = [
    "khala.projection.backlog_events",
    "khala.projection.lag",
    "khala.projection.held",
];

/// What is known of each assigned partition; read when somebody scrapes.
#[derive(Default)]
pub(super) struct Gauges(Mutex<BTreeMap<PartitionId, PartitionGauges>>);

#[derive(Default)]
pub(super) struct PartitionGauges {
    pub backlog_events: u64,
    pub lag_seconds: f64,
    pub held: BTreeMap<&'static str, u64>,
}

impl Gauges {
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, PartitionGauges>> {
        // Plain numbers: a panic in between leaves nothing torn.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn register(self: &Arc<Self>, meter: &Meter) {
        let [backlog_name, lag_name, held_name] = PARTITION_GAUGES;
        let gauges = Arc::clone(self);
        let observe = move |observer: &dyn AsyncInstrument<u64>| {
            for (partition, gauges) in gauges.lock().iter() {
                observer.observe(gauges.backlog_events, &[label(*partition)]);
            }
        };
        let help = "Events in the log that are not applied yet.";
        meter
            .u64_observable_gauge(backlog_name)
            .with_description(help)
            .with_callback(observe)
            .build();
        let gauges = Arc::clone(self);
        let observe = move |observer: &dyn AsyncInstrument<f64>| {
            for (partition, gauges) in gauges.lock().iter() {
                observer.observe(gauges.lag_seconds, &[label(*partition)]);
            }
        };
        let help = "Age of the oldest event that is not applied yet.";
        meter
            .f64_observable_gauge(lag_name)
            .with_unit("s")
            .with_description(help)
            .with_callback(observe)
            .build();
        let gauges = Arc::clone(self);
        let observe = move |observer: &dyn AsyncInstrument<u64>| {
            let partitions = gauges.lock();
            let series = partitions
                .iter()
                .flat_map(|(partition, gauges)| gauges.held.iter().map(|one| (*partition, one)));
            for (partition, (reason, is_held)) in series {
                observer.observe(*is_held, &[label(partition), KeyValue::new("reason", *reason)]);
            }
        };
        let help = "1 while a partition is stopped for a reason that a person must look at.";
        meter
            .u64_observable_gauge(held_name)
            .with_description(help)
            .with_callback(observe)
            .build();
    }
}

fn label(partition: PartitionId) -> KeyValue {
    KeyValue::new("partition", i64::from(partition.0))
}

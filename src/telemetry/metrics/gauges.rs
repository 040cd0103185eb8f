//! Gauges of each assigned partition, read when somebody scrapes.
//! In: the latest numbers of a partition. Out: one series a partition (and reason).
//! Invariant: a partition that is not assigned any more is not observed, and so has no series. An age is told as of the
//! scrape: it grows while log or store are away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

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
    /// Log timestamp of the oldest record not yet applied; milliseconds. `None`: there is none.
    pub oldest_ms: Option<i64>,
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
            let now_ms = now_ms();
            for (partition, gauges) in gauges.lock().iter() {
                observer.observe(age_seconds(gauges.oldest_ms, now_ms), &[label(*partition)]);
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

/// Age of a record; 0 if there is none, or if its timestamp lies in the future.
fn age_seconds(timestamp_ms: Option<i64>, now_ms: i64) -> f64 {
    timestamp_ms.map_or(0.0, |then| now_ms.saturating_sub(then).max(0) as f64 / 1000.0)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

fn label(partition: PartitionId) -> KeyValue {
    KeyValue::new("partition", i64::from(partition.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_never_negative_and_nothing_has_none() {
        for (timestamp_ms, seconds) in [
            (None, 0.0),
            (Some(8_500), 1.5),
            (Some(10_000), 0.0),
            (Some(99_000), 0.0),
        ] {
            assert_eq!(
                age_seconds(timestamp_ms, 10_000).to_bits(),
                f64::to_bits(seconds),
                "{timestamp_ms:?}"
            );
        }
    }
}

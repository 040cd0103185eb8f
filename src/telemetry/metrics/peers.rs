//! What log and store tell of themselves: librdkafka's statistics, the store's memory.
//! In: the latest report of each. Out: a few series without labels. Invariant: no report, no series.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::metrics::Meter;

/// What matters of librdkafka's statistics, over all clients of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KafkaStatistics {
    /// Records fetched that no partition has taken yet.
    pub fetch_queue_messages: u64,
    /// Their bytes.
    pub fetch_queue_bytes: u64,
    /// Records to be sent that are not acknowledged yet.
    pub send_queue_messages: u64,
    /// Rebalances of the group since the start.
    pub rebalances: u64,
    /// Failed requests and responses since the start, time-outs included.
    pub broker_errors: u64,
    /// The longest mean round trip to one broker, in seconds.
    pub round_trip_seconds: f64,
}

/// The store's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreMemory {
    /// In use.
    pub used_bytes: u64,
    /// The most it may use; `None`: no limit.
    pub limit_bytes: Option<u64>,
}

#[derive(Default)]
pub(super) struct Peers {
    kafka: Mutex<Option<KafkaStatistics>>,
    memory: Mutex<Option<StoreMemory>>,
}

impl Peers {
    pub fn set_kafka(&self, statistics: KafkaStatistics) {
        *lock(&self.kafka) = Some(statistics);
    }

    pub fn set_memory(&self, memory: Option<StoreMemory>) {
        *lock(&self.memory) = memory;
    }

    pub fn register(self: &Arc<Self>, meter: &Meter) {
        self.kafka(
            meter,
            "khala.kafka.fetch_queue_messages",
            "Records fetched, not yet taken.",
            |it| it.fetch_queue_messages as f64,
        );
        self.kafka(
            meter,
            "khala.kafka.fetch_queue_bytes",
            "Bytes fetched, not yet taken.",
            |it| it.fetch_queue_bytes as f64,
        );
        self.kafka(
            meter,
            "khala.kafka.send_queue_messages",
            "Records sent, not yet acknowledged.",
            |it| it.send_queue_messages as f64,
        );
        let help = "The longest mean round trip to one broker.";
        self.kafka(meter, "khala.kafka.round_trip_seconds", help, |it| {
            it.round_trip_seconds
        });
        self.kafka_total(
            meter,
            "khala.kafka.rebalances",
            "Rebalances of the consumer group.",
            |it| it.rebalances,
        );
        let help = "Requests to brokers that failed or timed out.";
        self.kafka_total(meter, "khala.kafka.broker_errors", help, |it| it.broker_errors);
        self.memory(
            meter,
            "khala.store.memory_used_bytes",
            "The store's memory in use.",
            |it| Some(it.used_bytes),
        );
        let help = "The most memory that the store may use; no series without a limit.";
        self.memory(meter, "khala.store.memory_limit_bytes", help, |it| it.limit_bytes);
    }

    fn kafka(
        self: &Arc<Self>,
        meter: &Meter,
        name: &'static str,
        help: &'static str,
        read: fn(&KafkaStatistics) -> f64,
    ) {
        let peers = Arc::clone(self);
        let gauge = meter.f64_observable_gauge(name).with_description(help);
        gauge
            .with_callback(move |observer| {
                if let Some(statistics) = &*lock(&peers.kafka) {
                    observer.observe(read(statistics), &[]);
                }
            })
            .build();
    }

    fn kafka_total(
        self: &Arc<Self>,
        meter: &Meter,
        name: &'static str,
        help: &'static str,
        read: fn(&KafkaStatistics) -> u64,
    ) {
        let peers = Arc::clone(self);
        let counter = meter.u64_observable_counter(name).with_description(help);
        counter
            .with_callback(move |observer| {
                if let Some(statistics) = &*lock(&peers.kafka) {
                    observer.observe(read(statistics), &[]);
                }
            })
            .build();
    }

    fn memory(
        self: &Arc<Self>,
        meter: &Meter,
        name: &'static str,
        help: &'static str,
        read: fn(&StoreMemory) -> Option<u64>,
    ) {
        let peers = Arc::clone(self);
        let gauge = meter.u64_observable_gauge(name).with_description(help);
        gauge
            .with_callback(move |observer| {
                if let Some(bytes) = lock(&peers.memory).as_ref().and_then(read) {
                    observer.observe(bytes, &[]);
                }
            })
            .build();
    }
}

/// Plain numbers: a panic in between leaves nothing torn.
fn lock<T>(number: &Mutex<T>) -> MutexGuard<'_, T> {
    number.lock().unwrap_or_else(PoisonError::into_inner)
}

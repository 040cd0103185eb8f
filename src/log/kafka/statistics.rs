//! What librdkafka tells of itself every `statistics.interval.ms`, reduced to the few numbers that matter.
//! In: its JSON, from each client's own thread. Out: sums over all clients.
//! Invariant: only the clients on the way of an event report; others would hide what theirs say.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use crate::telemetry::KafkaStatistics;

/// The latest report of each kind of client.
#[derive(Default)]
pub(super) struct Reports(Mutex<BTreeMap<&'static str, KafkaStatistics>>);

impl Reports {
    /// Takes a report of the client called `kind`; one that cannot be read is passed over.
    pub(super) fn take(&self, kind: &'static str, json: &[u8]) {
        if let Ok(report) = serde_json::from_slice::<Report>(json) {
            let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            reports.insert(kind, report.reduced());
        }
    }

    /// Over all clients; `None` before the first report.
    pub(super) fn sum(&self) -> Option<KafkaStatistics> {
        let reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reports.values().copied().reduce(|one, other| KafkaStatistics {
            fetch_queue_messages: one.fetch_queue_messages + other.fetch_queue_messages,
            fetch_queue_bytes: one.fetch_queue_bytes + other.fetch_queue_bytes,
            send_queue_messages: one.send_queue_messages + other.send_queue_messages,
            rebalances: one.rebalances + other.rebalances,
            broker_errors: one.broker_errors + other.broker_errors,
            round_trip_seconds: one.round_trip_seconds.max(other.round_trip_seconds),
        })
    }
}

/// The part of librdkafka's STATISTICS.md that is read.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Report {
    msg_cnt: u64,
    brokers: BTreeMap<String, Broker>,
    topics: BTreeMap<String, Topic>,
    cgrp: Group,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Broker {
    txerrs: u64,
    rxerrs: u64,
    req_timeouts: u64,
    rtt: Window,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Window {
    /// Microseconds.
    avg: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Topic {
    partitions: BTreeMap<String, Partition>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Partition {
    fetchq_cnt: i64,
    fetchq_size: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Group {
    rebalance_cnt: u64,
}

impl Report {
    fn reduced(&self) -> KafkaStatistics {
        let partitions = || self.topics.values().flat_map(|topic| topic.partitions.values());
        let errors = |broker: &Broker| broker.txerrs + broker.rxerrs + broker.req_timeouts;
        let longest_us = self.brokers.values().map(|broker| broker.rtt.avg).max().unwrap_or(0);
        KafkaStatistics {
            fetch_queue_messages: partitions().map(|it| it.fetchq_cnt.max(0) as u64).sum(),
            fetch_queue_bytes: partitions().map(|it| it.fetchq_size).sum(),
            send_queue_messages: self.msg_cnt,
            rebalances: self.cgrp.rebalance_cnt,
            broker_errors: self.brokers.values().map(errors).sum(),
            round_trip_seconds: longest_us.max(0) as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_summed_over_brokers_partitions_and_clients() {
        let reports = Reports::default();
        assert_eq!(reports.sum(), None);
        reports.take(
            "fetch",
            br#"{"name":"x","msg_cnt":1,"brokers":{"a:1/1":{"txerrs":1,"rxerrs":2,"req_timeouts":3,"rtt":{"avg":1500}},
                "b:1/2":{"txerrs":4,"rtt":{"avg":-1}}},
                "topics":{"t":{"partitions":{"0":{"fetchq_cnt":5,"fetchq_size":50},"-1":{"fetchq_cnt":0}}}}}"#,
        );
        reports.take("member", br#"{"cgrp":{"rebalance_cnt":7}}"#);
        reports.take("member", b"{");
        let sum = KafkaStatistics {
            fetch_queue_messages: 5,
            fetch_queue_bytes: 50,
            send_queue_messages: 1,
            rebalances: 7,
            broker_errors: 10,
            round_trip_seconds: 0.0015,
        };
        assert_eq!(reports.sum(), Some(sum));
    }
}

//! What `/metrics` says of a real Kafka and a real Redis: names, labels, and a lag that is right in every state.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::world::World;
use crate::support::khala::{Khala, Sample};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

/// Of the messaging conventions.
const SENDING: [&str; 3] = [
    "messaging_destination_name",
    "messaging_operation_name",
    "messaging_system",
];
const CONSUMING: [&str; 4] = [
    "messaging_consumer_group_name",
    "messaging_destination_name",
    "messaging_operation_name",
    "messaging_system",
];

/// INTERFACE.md §5, in full: name as scraped, and labels beside `namespace`.
#[rustfmt::skip]
const METRICS: &[(&str, &[&str])] = &[
    ("khala_projection_lag_events_count", &[]),
    ("khala_projection_backlog_events", &["partition"]),
    ("khala_projection_lag_seconds", &["partition"]),
    ("khala_projection_latency_seconds_count", &[]),
    ("khala_projection_writes_total", &["result"]),
    ("khala_projection_events_total", &["result"]),
    ("khala_projection_drift_total", &["reason"]),
    ("khala_replay_total", &["result", "scope"]),
    ("khala_publish_total", &["result"]),
    ("khala_publish_duration_seconds_count", &["result"]),
    ("messaging_process_duration_seconds_count", &CONSUMING),
    ("messaging_client_consumed_messages_total", &CONSUMING),
    ("messaging_client_sent_messages_total", &SENDING),
    ("khala_kafka_fetch_queue_messages", &[]),
    ("khala_kafka_fetch_queue_bytes", &[]),
    ("khala_kafka_send_queue_messages", &[]),
    ("khala_kafka_round_trip_seconds", &[]),
    ("khala_kafka_rebalances_total", &[]),
    ("khala_kafka_broker_errors_total", &[]),
    ("khala_redactions_total", &["stage"]),
    ("khala_store_memory_used_bytes", &[]),
    ("khala_build_info", &["version"]),
    ("process_resident_memory_bytes", &[]),
    ("process_cpu_seconds_total", &[]),
    ("process_open_fds", &[]),
    ("process_start_time_seconds", &[]),
];

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as i64
}

/// One event whose record has this timestamp, in partition 0.
fn produce_at(world: &World, id: u64, timestamp_ms: i64) {
    produce_all_at(world, id..=id, timestamp_ms);
}

fn produce_all_at(world: &World, ids: RangeInclusive<u64>, timestamp_ms: i64) {
    let producer: BaseProducer = world.config().create().expect("a legal configuration");
    for id in ids {
        let value = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"run.delta","subject":"run/a","sequence":{id}}}"#
        );
        let record = BaseRecord::to(&world.cluster.topic)
            .partition(0)
            .key("run/a")
            .payload(&value)
            .timestamp(timestamp_ms);
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("room in the queue");
    }
    producer.flush(seconds(60)).expect("the broker takes them");
}

/// Waits until lag in seconds and backlog are as wanted.
fn wait_lag(khala: &Khala, what: &str, backlog: f64, age: RangeInclusive<f64>) {
    eventually(what, seconds(60), || {
        let found = (
            khala.metric("khala_projection_backlog_events", &[("partition", "0")]),
            khala.metric("khala_projection_lag_seconds", &[("partition", "0")]),
        );
        if found.0.to_bits() == backlog.to_bits() && age.contains(&found.1) {
            Ok(())
        } else {
            Err(found)
        }
    });
}

fn labels(sample: &Sample) -> BTreeSet<&str> {
    sample.labels.keys().map(String::as_str).collect()
}

#[test]
fn every_metric_is_there_under_its_name_with_its_labels_and_the_namespace() {
    let mut world = World::new("metrics-names", 3, 4_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(2_000);
    khala.publish_http(r#"{"specversion":"1.0","id":"1","source":"s","type":"run.started","subject":"run/by-http"}"#);
    world.settle();
    eventually("the store's memory is told", seconds(60), || {
        let samples = khala.metrics();
        let missing: Vec<_> = METRICS
            .iter()
            .filter(|(name, _)| samples.iter().all(|s| s.name != *name))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    });
    for sample in khala.metrics() {
        assert_eq!(
            sample.labels.get("namespace"),
            Some(&world.cluster.namespace),
            "{sample:?}"
        );
        if let Some((_, expected)) = METRICS.iter().find(|(name, _)| sample.name == *name) {
            let expected: BTreeSet<&str> = expected.iter().copied().chain(["namespace"]).collect();
            assert_eq!(labels(&sample), expected, "{sample:?}");
        }
    }
    promtool_checks(&khala.get("/metrics").expect("an answer").1);
    let operations: BTreeSet<String> = khala
        .metrics()
        .into_iter()
        .filter(|sample| sample.name == "messaging_client_operation_duration_seconds_count")
        .filter_map(|sample| sample.labels.get("messaging_operation_type").cloned())
        .collect();
    assert_eq!(operations, ["receive", "send", "settle"].map(str::to_owned).into());
    eventually("the lag is observed at every commit", seconds(60), || {
        let commits = khala.metric("khala_projection_writes_total", &[("result", "ok")]);
        let observed = khala.metric("khala_projection_lag_events_count", &[]);
        let same = commits > 0.0 && commits.to_bits() == observed.to_bits();
        if same { Ok(()) } else { Err((commits, observed)) }
    });
}

/// Names, kinds, units and help as Prometheus wants them.
fn promtool_checks(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs (scripts/install-test-servers brings it)");
    let mut stdin = promtool.stdin.take().expect("piped");
    stdin.write_all(text.as_bytes()).expect("promtool reads it");
    drop(stdin);
    let output = promtool.wait_with_output().expect("our own child");
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&told));
    assert!(told.is_empty(), "{}", String::from_utf8_lossy(&told));
}

#[test]
fn a_day_of_ids_makes_no_new_series() {
    let mut world = World::new("metrics-closed", 3, 30_000, Keeps::Dumps);
    let khala = world.khala("one");
    let series = |khala: &Khala| -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for sample in khala.metrics() {
            *count.entry(sample.name).or_default() += 1;
        }
        count
    };
    world.produce(2_000);
    world.settle();
    // Statistics of client and store come after a while, once: told before the comparison.
    eventually("the client's statistics are told", seconds(60), || {
        let told = series(&khala).contains_key("khala_kafka_rebalances_total")
            && series(&khala).contains_key("khala_store_memory_used_bytes");
        if told { Ok(()) } else { Err("not yet") }
    });
    let before = series(&khala);
    world.produce(28_000);
    world.settle();
    assert_eq!(series(&khala), before);
    assert!(khala.metric("khala_projection_events_total", &[("result", "accepted")]) > 15_000.0);
    let text = khala.get("/metrics").expect("an answer").1;
    for word in ["run/", "worker/", "run_summary"] {
        assert!(!text.contains(word), "an id in a label: {word}");
    }
}

#[test]
fn lag_is_the_age_of_the_oldest_record_not_applied_in_every_state() {
    let mut world = World::new("metrics-lag", 1, 10, Keeps::AppendOnly);
    let khala = world.khala("one");
    wait_lag(&khala, "an empty topic has no lag", 0.0, 0.0..=0.0);
    produce_at(&world, 1, now_ms() - 3_600_000);
    world.settle();
    wait_lag(&khala, "what is applied has no lag, however old it is", 0.0, 0.0..=0.0);

    world.redis.stop();
    produce_at(&world, 2, now_ms() - 100_000);
    wait_lag(
        &khala,
        "while the store is away the age is the record's",
        1.0,
        100.0..=400.0,
    );
    produce_at(&world, 3, now_ms());
    wait_lag(&khala, "younger records change nothing", 2.0, 100.0..=400.0);
    world.redis.start_again();
    wait_lag(&khala, "caught up", 0.0, 0.0..=0.0);

    world.redis.stop();
    produce_at(&world, 4, now_ms() + 600_000);
    wait_lag(&khala, "a record from the future has no age", 1.0, 0.0..=0.0);
    world.redis.start_again();
    world.settle();
    assert_eq!(khala.term(), Some(0));

    let key = world.key(0, "checkpoint");
    let version: String = world.redis.ask(&["HGET", &key, "projection_version"]);
    let _: i64 = world.redis.ask(&["HSET", &key, "projection_version", "999"]);
    produce_at(&world, 5, now_ms() - 50_000);
    produce_at(&world, 6, now_ms());
    let khala = world.khala_unready("two");
    khala.wait_held("projection_version_changed");
    wait_lag(
        &khala,
        "a partition that is held lags by the record at its checkpoint",
        2.0,
        50.0..=400.0,
    );
    let _: i64 = world.redis.ask(&["HSET", &key, "projection_version", &version]);
    wait_lag(&khala, "going on", 0.0, 0.0..=0.0);
    let held = khala.metric("khala_projection_held", &[]);
    assert_eq!(held.to_bits(), 0.0_f64.to_bits(), "not held any more");
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn while_a_replay_redoes_old_records_the_lag_is_their_age() {
    let world = World::new("metrics-replay", 1, 10, Keeps::Dumps);
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--batch-events", "2"]);
    produce_all_at(&world, 1..=20_000, now_ms() - 3_600_000);
    world.settle();
    wait_lag(&khala, "caught up", 0.0, 0.0..=0.0);
    let is_seen = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // One after the other, so that one is under way whenever somebody looks.
        scope.spawn(|| {
            let started = Instant::now();
            while !is_seen.load(Ordering::Relaxed) && started.elapsed() < seconds(60) {
                khala.post("/v1/replays", r#"{"from":"earliest"}"#);
            }
        });
        eventually("a replay's lag is the age of its oldest record", seconds(60), || {
            let age = khala.metric("khala_projection_lag_seconds", &[("partition", "0")]);
            if (3_600.0..4_000.0).contains(&age) {
                Ok(())
            } else {
                Err(age)
            }
        });
        is_seen.store(true, Ordering::Relaxed);
    });
    let of_all = [("scope", "namespace"), ("result", "ok")];
    assert!(khala.metric("khala_replay_total", &of_all) > 0.0);
    wait_lag(&khala, "caught up again", 0.0, 0.0..=0.0);
    assert_eq!(khala.term(), Some(0));
}

//! `khala bench` on real servers: it is right, it leaves nothing, it sees a wrong document, and the projector is not
//! grossly slower than the log alone.

use std::process::Output;

use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

use super::world::{World, note};
use crate::support::khala::{Cluster, run};
use crate::support::redis_server::Keeps;
use crate::support::wait::seconds;

/// Half of what a build for tests reaches on a machine that does something else too: less is a gross loss.
const STORE_OF_DRAIN_MIN: f64 = 0.06;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn topics(world: &World) -> Vec<String> {
    let client: BaseConsumer = world.config().create().expect("a legal configuration");
    let metadata = client.fetch_metadata(None, seconds(10)).expect("the broker answers");
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

#[test]
fn a_short_bench_is_exact_leaves_nothing_and_finds_the_projector_near_the_log() {
    let world = World::new("bench-guard", 12, 100, Keeps::Dumps);
    let args = [
        "bench",
        "--json",
        "--events",
        "60000",
        "--runs",
        "1500",
        "--seconds",
        "1",
        "--no-embedded",
    ];
    let output = run(&world.cluster, &args, "");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    assert_eq!(report["wrong"], 0);
    // Store and streams three times each, and the latency's runs.
    assert!(report["documents"].as_u64() > Some(6 * 1500), "{report}");
    let p50 = ["visible_min", "visible", "visible_max"].map(|of| report["latency"][of]["p50_ms"].as_f64());
    assert!(p50[0] > Some(0.0) && p50.is_sorted(), "{report}");
    let stages = report["stages"].as_array().expect("stages");
    let store = stages
        .iter()
        .find(|stage| stage["name"] == "store")
        .expect("the stage `store`");
    let of_drain = store["of_drain"]["median"].as_f64().expect("a ratio");
    note(&format!(
        "store of drain: {of_drain:.2} (at least {STORE_OF_DRAIN_MIN}); {}",
        stderr(&output)
    ));
    assert!(of_drain >= STORE_OF_DRAIN_MIN, "{of_drain}: {}", stderr(&output));
    assert_eq!(world.redis.ask::<i64>(&["DBSIZE"]), 0);
    let topic = report["topic"].as_str().expect("its name");
    let left: Vec<String> = topics(&world)
        .into_iter()
        .filter(|name| name.starts_with(topic))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_wrong_document_ends_a_bench_with_1() {
    let world = World::new("bench-wrong", 3, 100, Keeps::Dumps);
    let numbers = ["bench", "--events", "4000", "--runs", "100", "--repetitions", "1"];
    let output = run(
        &world.cluster,
        &[&numbers[..], &["--stages", "publish", "--keep"]].concat(),
        "",
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    let topic = said
        .split("--filled ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    let topic = topic.unwrap_or_else(|| panic!("no topic in {said}"));
    let again = [&numbers[..], &["--stages", "store", "--filled", topic]].concat();
    let output = run(&world.cluster, &again, "");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let one_more =
        r#"{"specversion":"1.0","id":"x","source":"x","type":"run.delta","subject":"run/bench_0001_0000007"}"#;
    let filled = Cluster {
        topic: topic.to_owned(),
        ..world.cluster.clone()
    };
    assert_eq!(run(&filled, &["publish"], one_more).status.code(), Some(0));
    let output = run(&world.cluster, &again, "");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("wrong: run_summary:bench_0001_0000007"),
        "{}",
        stderr(&output)
    );
    world.kafka().delete_topic(topic);
    let empty = [&numbers[..], &["--stages", "drain", "--filled", &world.cluster.topic]].concat();
    let output = run(&world.cluster, &empty, "");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("holds no events"), "{}", stderr(&output));
}

#[test]
fn a_bench_of_http_measures_each_way_and_leaves_nothing() {
    let world = World::new("bench-http", 4, 100, Keeps::Dumps);
    let args = ["bench", "--over-http", "--json", "--seconds", "1", "--repetitions", "1"];
    let output = run(&world.cluster, &args, "");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    let rows = report["publish"].as_array().expect("rows");
    assert_eq!(rows.len(), 6, "{report}");
    assert!(
        rows.iter().all(|row| row["time"]["p99_ms"].as_f64() > Some(0.0)),
        "{report}"
    );
    assert!(report["event_to_reader"]["events"].as_u64() >= Some(100), "{report}");
    assert!(report["bytes_per_idle_reader"].as_u64() > Some(0), "{report}");
    assert_eq!(world.redis.ask::<i64>(&["DBSIZE"]), 0);
    let topic = report["topic"].as_str().expect("its name");
    assert!(topics(&world).iter().all(|name| !name.starts_with(topic)), "{topic}");
}

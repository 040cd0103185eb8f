//! The producers' kit: each example publishes a run's life as a newcomer would, and its document comes out right. And the
//! trap that most fall into once: librdkafka's own partitioner.

use std::path::{Path, PathBuf};
use std::process::Command;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use super::openapi::{must_pass, python};
use super::web::{event, get};
use super::world::World;
use crate::support::khala::run;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/producers")
}

/// A folder that `scripts/install-test-servers` fills.
fn installed(variable: &str, default: &str) -> String {
    let folder = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    assert!(
        Path::new(&folder).exists(),
        "no {folder}: scripts/install-test-servers brings it"
    );
    folder
}

/// The program of each example, without its arguments.
fn programs() -> Vec<(&'static str, Command)> {
    let examples = examples();
    let with = |program: PathBuf, file: &str| {
        let mut command = Command::new(program);
        command.arg(examples.join(file));
        command
    };
    let mut kafkajs = with("node".into(), "kafkajs.js");
    kafkajs.env(
        "NODE_PATH",
        format!("{}/node_modules", installed("KHALA_NODE_DIR", "/var/tmp/khala-node")),
    );
    let mut go = Command::new("go");
    go.args(["run", "."]).current_dir(examples.join("go"));
    let mut java = Command::new("java");
    java.args([
        "-cp",
        &format!("{}/*", installed("KHALA_KAFKA_DIR", "/var/tmp/khala-kafka-4.3.0")),
    ]);
    java.arg(examples.join("RunProducer.java"));
    vec![
        ("confluent", with(python("python"), "confluent.py")),
        ("kafkajs", kafkajs),
        ("go", go),
        ("java", java),
        ("plain-python", with(python("python"), "plain_http.py")),
        ("fetch", with("node".into(), "fetch.mjs")),
    ]
}

fn brokers(world: &World) -> String {
    world.cluster.log.trim_start_matches("kafka://").to_owned()
}

fn dead_letters(world: &World) -> Vec<Value> {
    let output = run(&world.cluster, &["dead-letters", "list", "--json"], "");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn the_documents_of_each_example_come_out_right() {
    let world = World::new("producers", 12, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let url = format!("http://{}", khala.http());
    for (name, mut command) in programs() {
        match name {
            "plain-python" | "fetch" => command.args([&url, name]),
            _ => command.args([&brokers(&world), &world.cluster.topic, name]),
        };
        let said = must_pass(&mut command);
        assert!(
            name != "fetch" || said.contains("all of it"),
            "it reads what it wrote: {said}"
        );
    }
    world.settle();
    for (name, _) in programs() {
        let document = get(khala.http(), &format!("/v1/runs/{name}"), &[]).json();
        let facts = ["status", "event_count", "missing_events", "owner_user_id"].map(|fact| document[fact].clone());
        assert_eq!(
            facts,
            [json!("succeeded"), json!(5), json!(0), json!("ada")],
            "{name}: {document}"
        );
    }
    assert_eq!(dead_letters(&world), Vec::<Value>::new());
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn librdkafkas_own_partitioner_is_named_with_its_cure_and_a_redrive_heals() {
    const RUNS: usize = 20;
    let world = World::new("trap", 12, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let producer: BaseProducer = world.config().create().expect("a producer");
    for n in 0..RUNS {
        let key = format!("run/trap.{n}");
        let value = event(&key, 1, "run.started", "{}");
        let record = BaseRecord::to(&world.cluster.topic).key(&key).payload(&value);
        producer.send(record).expect("room");
    }
    producer.flush(seconds(60)).expect("delivered");
    world.settle();
    let letters = dead_letters(&world);
    assert!(letters.len() > RUNS / 2, "most are misplaced: {}", letters.len());
    for letter in &letters {
        let detail = letter["detail"].as_str().unwrap_or_default();
        assert_eq!(letter["reason"], "wrong_partition");
        assert!(detail.contains("partitioner=murmur2_random"), "{detail}");
    }
    assert!(
        run(
            &world.cluster,
            &["dead-letters", "redrive", "--reason", "wrong_partition"],
            ""
        )
        .status
        .success()
    );
    world.settle();
    let found = eventually("all runs have a document", seconds(60), || {
        let page = get(khala.http(), "/v1/runs?limit=100", &[]).json();
        let count = page["documents"].as_array().map_or(0, Vec::len);
        if count == RUNS { Ok(page) } else { Err(count) }
    });
    assert!(
        found["documents"]
            .as_array()
            .expect("runs")
            .iter()
            .all(|run| run["event_count"] == 1)
    );
    assert_eq!(khala.term(), Some(0));
}

//! The commands against Kafka and Redis: what they print, and how they end.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::compare::{Allow, assert_exact};
use super::world::World;
use crate::reference::place::partition_of;
use crate::support::guarded::temp_dir;
use crate::support::khala::{Cluster, Khala, bare_run, run, run_unread};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually_true, seconds};

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All lines of stdout, each of which must be JSON.
fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
    text.lines().map(parse).collect()
}

fn ok(cluster: &Cluster, args: &[&str], input: &str) -> Vec<Value> {
    let output = run(cluster, args, input);
    assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
    lines(&output)
}

const GOOD: [&str; 4] = [
    r#"{"specversion":"1.0","id":"1","source":"s","type":"run.started","subject":"run/a","sequence":1,"data":{"thread_id":"t"}}"#,
    r#"{"specversion":"1.0","id":"2","source":"s","type":"run.delta","subject":"run/a","sequence":2,"data":{}}"#,
    r#"{"specversion":"1.0","id":"3","source":"s","type":"run.finished","subject":"run/a","sequence":3,"data":{"status":"succeeded"}}"#,
    r#"{"specversion":"1.0","id":"4","source":"s","type":"worker.started","subject":"worker/w","sequence":1}"#,
];

#[test]
fn bad_lines_are_named_and_the_rest_is_published() {
    let world = World::new("publish", 3, 100, Keeps::Dumps);
    let input = [
        GOOD[0],
        "{\"specversion\":\"1.0\"",
        GOOD[1],
        "",
        r#"{"specversion":"1.0","id":"x","source":"s","type":"x","subject":"job/1"}"#,
        GOOD[2],
        GOOD[3],
    ]
    .join("\n");
    let output = run(&world.cluster, &["publish", "--json"], &input);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    for words in ["line 2: not_json", "line 5: bad_subject"] {
        assert!(stderr(&output).contains(words), "no `{words}` in {}", stderr(&output));
    }
    let published = lines(&output);
    let ids: Vec<&str> = published
        .iter()
        .map(|line| line["id"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(ids, ["1", "2", "3", "4"]);
    let records = world.read_back();
    assert_eq!(records.len(), 4);
    for line in &published {
        let at = |rec: &&crate::reference::Rec| line["partition"] == rec.partition && line["offset"] == rec.offset;
        let rec = records.iter().find(at).expect("it is where publish says");
        let value: Value = serde_json::from_slice(rec.value.as_deref().unwrap_or_default()).expect("JSON");
        assert_eq!(value["id"], line["id"]);
        assert_eq!(value["subject"].as_str().map(str::as_bytes), rec.key.as_deref());
    }
    let _khala = world.khala("one");
    assert_exact(&world, Allow::default());
}

#[test]
fn reading_commands_tell_what_is_there() {
    let mut world = World::new("reading", 3, 400, Keeps::Dumps);
    let cluster = world.cluster.clone();
    let khala = world.khala("one");
    ok(&cluster, &["publish", "--json"], &GOOD.join("\n"));
    world.produce(400);
    assert_exact(&world, Allow::default());

    let key = world.key(partition_of(b"run/a", 3), "run_summary:a");
    let stored: String = world.redis.ask(&["GET", &key]);
    let stored: Value = serde_json::from_str(&stored).expect("JSON");
    assert_eq!(ok(&cluster, &["get", "run", "a", "--json"], ""), [stored]);
    let worker = &ok(&cluster, &["get", "worker", "w", "--json"], "")[0];
    assert_eq!(worker["heartbeat_state"], "missing", "{worker}");
    assert_eq!(code(&run(&cluster, &["get", "run", "nobody", "--json"], "")), 4);
    let output = run(&cluster, &["key", "run", "a"], "");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), key);

    let listed = ok(
        &cluster,
        &["list", "runs", "--status", "succeeded", "--limit", "5", "--json"],
        "",
    );
    assert!(!listed.is_empty() && listed.len() <= 5);
    assert!(listed.iter().all(|run| run["status"] == "succeeded"), "{listed:?}");
    let events = ok(&cluster, &["tail", "run", "a", "--after", "1", "--json"], "");
    let seqs: Vec<u64> = events.iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert_eq!(seqs, [2, 3], "tail ends by itself at the terminal event: {events:?}");

    let status = &ok(&cluster, &["status", "--json"], "")[0];
    let partitions = status["partitions"].as_array().expect("an array");
    assert_eq!(partitions.len(), 3);
    for (p, partition) in partitions.iter().enumerate() {
        assert_eq!(partition["lag_events"], 0, "{partition}");
        assert_eq!(partition["offset"], world.offsets()[p], "{partition}");
        assert_eq!(partition["state"], "running", "{partition}");
    }
    let marks = ok(&cluster, &["checkpoints", "--json"], "");
    assert!(!marks.is_empty(), "a history has marks");
    let letters = ok(&cluster, &["dead-letters", "list", "--json"], "");
    let dead: u64 = (0..3)
        .map(|p| world.checkpoint(p)["dead_letters"].parse::<u64>().unwrap_or(0))
        .sum();
    let listed = letters
        .first()
        .and_then(Value::as_array)
        .map_or(letters.len(), Vec::len);
    assert_eq!(listed as u64, dead, "each dead letter is listed");
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn exit_codes_tell_usage_from_absence_from_an_outage() {
    let mut world = World::new("exits", 2, 100, Keeps::Dumps);
    let cluster = world.cluster.clone();
    assert_eq!(code(&run(&cluster, &["gte"], "")), 2);
    assert_eq!(code(&run(&cluster, &["get", "run", "no spaces"], "")), 2);
    assert_eq!(code(&run(&cluster, &["get", "run", "nobody"], "")), 4);
    world.redis.stop();
    assert_eq!(code(&run(&cluster, &["get", "run", "nobody"], "")), 5);
    let nowhere = Cluster {
        log: "kafka://127.0.0.1:1".to_owned(),
        ..cluster
    };
    let output = run(&nowhere, &["publish"], GOOD[0]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    let checked = |property: &str| {
        let words = ["config", "check"].map(str::to_owned);
        bare_run(&words, &[(format!("KHALA_KAFKA__{property}"), "1".to_owned())])
    };
    assert_eq!(code(&checked("LINGER_MS")), 0);
    let output = checked("ACKS");
    assert_eq!(code(&output), 2, "what khala promises rests on it");
    assert!(stderr(&output).contains("acks"), "{}", stderr(&output));
}

#[test]
fn missing_topics_are_made_as_they_must_be() {
    let world = World::new("topics", 2, 100, Keeps::Dumps);
    let cluster = Cluster {
        topic: "made.by.khala".to_owned(),
        namespace: "made".to_owned(),
        ..world.cluster.clone()
    };
    for _ in 0..2 {
        let output = run(&cluster, &["topics", "apply"], "");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    for topic in ["made.by.khala", "made.by.khala.dead-letters"] {
        let bounds = super::topic::bounds(&world.config(), topic);
        assert_eq!(bounds, [(0, 0); 12], "{topic} has twelve empty partitions");
    }
}

/// A directory with both, and 60 runs in its log.
fn embedded(dir: &Path) -> Cluster {
    let place = format!("embedded:{}", dir.join("data").display());
    let cluster = Cluster {
        log: place.clone(),
        store: place,
        topic: "khala.events".to_owned(),
        namespace: "khala".to_owned(),
    };
    let event = |n| {
        format!(r#"{{"specversion":"1.0","id":"{n}","source":"s","type":"run.x","subject":"run/q{n}","sequence":1}}"#)
    };
    let events: Vec<String> = (0..60).map(event).collect();
    ok(&cluster, &["publish", "--json"], &events.join("\n"));
    cluster
}

#[test]
fn what_a_command_does_is_done_to_its_end_also_where_nobody_reads_what_it_prints() {
    let dir = temp_dir("unread");
    let cluster = embedded(dir.path());
    let runs = || ok(&cluster, &["list", "runs", "--limit", "100", "--json"], "").len();
    let khala = Khala::start(dir.path(), &cluster, "one", &[]);
    eventually_true("all are projected", seconds(60), || runs() == 60);
    assert_eq!(khala.term(), Some(0));
    for _ in 0..3 {
        assert_eq!(
            run_unread(&cluster, &["replay", "--from", "earliest", "--json"]),
            Some(0)
        );
        assert_eq!(runs(), 60, "none is missing");
    }
    assert_eq!(run_unread(&cluster, &["get", "run", "none"]), Some(4));
    assert_eq!(run_unread(&cluster, &["audit", "--json"]), Some(0));
    assert_eq!(run_unread(&cluster, &["list", "runs", "--json"]), Some(0));
}

#[test]
fn a_server_is_not_asked_for_what_it_does_not_serve() {
    let dir = temp_dir("other-namespace");
    let cluster = embedded(dir.path());
    let khala = Khala::start(dir.path(), &cluster, "one", &[]);
    khala.wait_ready();
    let other_namespace = Cluster {
        namespace: "other".to_owned(),
        ..cluster.clone()
    };
    let other_topic = Cluster {
        topic: "other".to_owned(),
        ..cluster.clone()
    };
    for other in [&other_namespace, &other_topic] {
        for args in [
            &["status"][..],
            &["get", "run", "q1"],
            &["publish"],
            &["replay", "--from", "earliest"],
        ] {
            let output = run(other, args, GOOD[0]);
            assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
            assert!(
                stderr(&output).contains("serves topic khala.events, namespace khala"),
                "{}",
                stderr(&output)
            );
        }
    }
    assert_eq!(
        code(&run(&cluster, &["get", "run", "a"], "")),
        4,
        "nothing was published"
    );
    assert_eq!(khala.term(), Some(0));
}

//! Snapshots: a store that was lost and a log that has forgotten are together still no loss.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::compare::{Allow, assert_exact};
use super::topic;
use super::world::World;
use crate::support::khala::{Cluster, Khala, run};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

/// Documents and checkpoints by key, without what a redo may change.
pub fn documents(world: &World) -> BTreeMap<String, Value> {
    let keys: Vec<String> = world.redis.ask(&["KEYS", "*_summary:*"]);
    let mut found = BTreeMap::new();
    for key in keys.into_iter().filter(|key| {
        let tag = format!("{{{}:", world.cluster.namespace);
        key.starts_with(&tag) && !key.contains(":state:") && !key.contains(":events:")
    }) {
        let text: String = world.redis.ask(&["GET", &key]);
        let mut document: Value = serde_json::from_str(&text).expect("JSON");
        document.as_object_mut().expect("an object").remove("projected_at");
        let key = key.split_once('}').expect("a tag").1.to_owned();
        found.insert(key, document);
    }
    for p in 0..world.partitions {
        let mut checkpoint = world.checkpoint(p);
        checkpoint.remove("written_at");
        found.insert(
            format!("checkpoint {p}"),
            serde_json::to_value(checkpoint).expect("JSON"),
        );
    }
    found
}

pub fn assert_same(world: &World, before: &BTreeMap<String, Value>) {
    world.settle();
    eventually(
        "all is restored, and nothing is waiting to be picked up",
        seconds(60),
        || {
            let intents: Vec<_> = (0..world.partitions)
                .map(|p| world.checkpoint(p).remove("intent"))
                .collect();
            let picked_up = intents.iter().all(|intent| intent.as_deref() == Some(""));
            if picked_up { Ok(()) } else { Err(intents) }
        },
    );
    world.settle();
    let after = documents(world);
    let wrong: Vec<_> = before
        .iter()
        .filter(|(key, document)| after.get(*key) != Some(document))
        .collect();
    let parked: Vec<String> = world.redis.ask(&["KEYS", "*:parked"]);
    let first = wrong.first().map(|(key, document)| (key, document, after.get(*key)));
    assert!(
        wrong.is_empty(),
        "{} of {} differ, parked: {parked:?}; first: {first:?}",
        wrong.len(),
        before.len()
    );
    assert_eq!(after.len(), before.len(), "none is invented");
}

pub fn snapshot(world: &World, args: &[&str]) -> Vec<Value> {
    let output = run(&world.cluster, &[&["snapshot", "--json"], args].concat(), "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Retention takes all records before these places.
pub fn forget(world: &World, ends: &[u64]) {
    for (p, end) in ends.iter().enumerate() {
        world.kafka().delete_records(&world.cluster.topic, p as u32, *end);
    }
}

pub fn serve(world: &World, name: &str) -> Khala {
    Khala::start(world.dir(), &world.cluster, name, &["--snapshot-interval", "1s"])
}

#[test]
fn a_flushed_store_and_a_log_that_has_forgotten_lose_nothing() {
    let mut world = World::new("snapshots", 3, 20_000, Keeps::Dumps);
    let khala = serve(&world, "one");
    world.produce(6_000);
    assert_exact(&world, Allow::default());
    snapshot(&world, &[]);
    let ends = world.offsets();
    world.produce(6_000); // snapshots go on beside: some documents are further on than the marker
    world.settle();
    let before = documents(&world);
    forget(&world, &ends);
    let _: String = world.redis.ask(&["FLUSHALL"]);
    khala.wait_recovery("sink_lost");
    assert_same(&world, &before);
    let status = run(&world.cluster, &["status", "--json"], "");
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let rows = status["partitions"].as_array().expect("an array");
    assert!(rows.iter().all(|row| row["beyond_log"].as_u64() > Some(0)), "{status}");
    assert!(rows.iter().all(|row| row["horizon_seconds"].is_number()), "{status}");
    let text = run(&world.cluster, &["status"], "");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("only a snapshot can give them back"), "{text}");
    // And life goes on.
    world.produce(1_000);
    world.settle();
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn documents_further_on_than_the_marker_are_brought_to_one_place() {
    let mut world = World::new("snapshot-ahead", 2, 20_000, Keeps::Dumps);
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--snapshot-interval", "1h"]);
    world.produce(6_000);
    world.settle();
    snapshot(&world, &[]);
    let ends = world.offsets();
    let config = world.config();
    let documents_topic = format!("{}.documents", world.cluster.topic);
    let kept = || -> u64 {
        let bounds = topic::bounds(&config, &documents_topic);
        bounds.iter().map(|(_, end)| end).sum()
    };
    let at_marker = kept();
    let messages = world.messages(6_000);
    world.send(&messages);
    world.settle();
    eventually("finished runs are in the topic, without a marker", seconds(20), || {
        let now = kept();
        if now > at_marker { Ok(()) } else { Err(now) }
    });
    let before = documents(&world);
    forget(&world, &ends);
    let _: String = world.redis.ask(&["FLUSHALL"]);
    khala.wait_recovery("sink_lost");
    assert_same(&world, &before);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_restore_that_is_killed_again_and_again_comes_to_the_same_end() {
    let mut world = World::new("restore-killed", 2, 60_000, Keeps::Dumps);
    let khala = serve(&world, "one");
    world.produce(30_000);
    world.settle();
    snapshot(&world, &[]);
    let ends = world.offsets();
    world.produce(2_000);
    world.settle();
    let before = documents(&world);
    assert_eq!(khala.term(), Some(0));
    forget(&world, &ends);
    let _: String = world.redis.ask(&["FLUSHALL"]);
    let mut killed = 0;
    for n in 0..30 {
        let khala = Khala::start_unready(world.dir(), &world.cluster, &format!("killed-{n}"), &[]);
        let restoring = eventually("it restores, or has", seconds(60), || {
            let intents: Vec<String> = (0..2).filter_map(|p| world.checkpoint(p).remove("intent")).collect();
            if intents.iter().any(|intent| intent.starts_with("restore")) {
                return Ok(true);
            }
            if intents.len() == 2 { Ok(false) } else { Err(intents) }
        });
        khala.kill9();
        killed += u32::from(restoring);
        if killed == 4 {
            break;
        }
        if !restoring {
            let _: String = world.redis.ask(&["FLUSHALL"]); // it was faster than the look at it: once more
        }
    }
    assert!(killed > 0, "no kill came while it restored: an empty pass");
    let khala = serve(&world, "last");
    assert_same(&world, &before);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_file_fills_another_namespace_and_no_namespace_that_has_documents() {
    let mut world = World::new("snapshot-file", 3, 10_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(4_000);
    world.settle();
    let before = documents(&world);
    let file = world.dir().join("documents.ndjson").display().to_string();
    let rows = snapshot(&world, &["--file", &file]);
    assert!(rows.iter().all(|row| row["offset"].is_number()), "{rows:?}");
    let code = |cluster: &Cluster, args: &[&str]| {
        let output = run(cluster, args, "");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (refused, words) = code(&world.cluster, &["restore", "--file", &file]);
    assert_eq!(refused, Some(2), "{words}");
    assert_eq!(code(&world.cluster, &["restore", "--file", "/nowhere"]).0, Some(2));
    let other = Cluster {
        namespace: "snapshot-other".to_owned(),
        ..world.cluster.clone()
    };
    let (none, words) = code(&other, &["restore"]);
    assert_eq!(none, Some(4), "{words}");
    let (done, words) = code(&other, &["restore", "--file", &file]);
    assert_eq!(done, Some(0), "{words}");
    assert_eq!(khala.term(), Some(0));
    world.cluster = other;
    let khala = world.khala("other");
    assert_same(&world, &before);
    world.produce(500);
    world.settle();
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_finished_run_is_in_the_topic_long_before_the_interval_is_over() {
    let world = World::new("terminals", 1, 100, Keeps::Dumps);
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--snapshot-interval", "1h"]);
    let event = |id: &str, kind: &str, data: &str| {
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"{kind}","subject":"run/a","data":{data}}}"#)
    };
    let publish = |line: String| assert!(run(&world.cluster, &["publish"], &line).status.success());
    let kept = |wanted: &str| {
        eventually(wanted, seconds(20), || {
            let records = topic::read_back(&world.config(), &format!("{}.documents", world.cluster.topic));
            let found = records.iter().any(|rec| {
                let value = String::from_utf8_lossy(rec.value.as_deref().unwrap_or_default()).into_owned();
                rec.key.as_deref() == Some(b"run/a") && value.contains(wanted)
            });
            if found { Ok(()) } else { Err(records.len()) }
        });
    };
    publish(event("1", "run.started", "{}"));
    kept("\"status\":\"running\"");
    publish(event("2", "run.finished", r#"{"status":"succeeded"}"#));
    kept("\"status\":\"succeeded\"");
    assert_eq!(khala.term(), Some(0));
}

/// The newest good mark of a partition past an offset; events are produced until there is one.
fn good_mark(world: &mut World, partition: u32, past: u64) -> u64 {
    let number = partition.to_string();
    eventually("a good mark behind the snapshot", seconds(60), || {
        world.produce(200);
        world.settle();
        let marks = run(&world.cluster, &["checkpoints", "--partition", &number, "--json"], "");
        let text = String::from_utf8_lossy(&marks.stdout).into_owned();
        let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let rows = rows.flat_map(|row| row.as_array().cloned().unwrap_or_else(|| vec![row]));
        let good = rows.filter(|row| row["good"] == true);
        let offsets = good.filter_map(|row| row["offset"].as_u64());
        offsets.filter(|offset| *offset > past).max().ok_or(text.clone())
    })
}

/// Documents of a partition that begin before an offset and end at a mark or later.
fn cut_documents(documents: &BTreeMap<String, Value>, partition: u32, (first, mark): (u64, u64)) -> Vec<String> {
    let is_cut = |document: &&Value| {
        let source = &document["runtime_source"];
        source["partition"] == partition
            && source["first_offset"].as_u64() < Some(first)
            && source["offset"].as_u64() >= Some(mark)
    };
    let cut = documents.values().filter(is_cut);
    cut.map(|document| document["document_id"].as_str().expect("an id").to_owned())
        .collect()
}

fn replay(world: &World, partition: u32, offset: u64) -> Value {
    let (partition, offset) = (partition.to_string(), offset.to_string());
    let words = [
        "replay",
        "--partition",
        &partition,
        "--from",
        "offset",
        &offset,
        "--json",
    ];
    let output = run(&world.cluster, &words, "");
    let (text, told) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(0), "{text}{told}");
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON")
}

#[test]
fn a_replay_takes_from_the_snapshot_what_the_log_has_forgotten_and_names_what_nobody_has() {
    let mut world = World::new("snapshot-replay", 2, 20_000, Keeps::Dumps);
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--snapshot-interval", "off"]);
    world.produce(4_000);
    world.settle();
    snapshot(&world, &[]);
    let mut ends = world.offsets();
    world.produce(1_000);
    world.settle();
    ends[1] = world.offsets()[1]; // the log of partition 1 will forget also what is in no snapshot
    let marks = [good_mark(&mut world, 0, ends[0]), good_mark(&mut world, 1, ends[1])];
    world.produce(2_000);
    world.settle();
    forget(&world, &ends);
    let before = documents(&world);
    let [covered, bare] = [0, 1].map(|p| cut_documents(&before, p, (ends[p as usize], marks[p as usize])));
    assert!(
        covered.len() > 3 && !bare.is_empty(),
        "an empty pass: {covered:?} {bare:?}"
    );
    for document in &covered[..3] {
        let _: i64 = world.redis.ask(&["DEL", &world.key(0, document)]);
    }
    let report = replay(&world, 0, marks[0]);
    assert_eq!(report["partitions"][0]["left"], serde_json::json!([]), "{report}");
    assert!(
        report["partitions"][0]["entities"].as_u64() >= Some(covered.len() as u64),
        "{report}"
    );
    assert_same(&world, &before);
    let report = replay(&world, 1, marks[1]);
    let left: BTreeSet<&str> = report["partitions"][0]["left"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|name| name.as_str().expect("a name"))
        .collect();
    assert_eq!(left, bare.iter().map(String::as_str).collect(), "{report}");
    let same = |mut all: BTreeMap<String, Value>| {
        all.remove("checkpoint 1"); // what a left document has already, its redo counts among the duplicates
        all
    };
    assert_eq!(same(documents(&world)), same(before), "left untouched");
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_log_that_saw_several_leaders_is_audited_from_its_beginning_to_its_end() {
    let mut world = World::with_own_broker("leaders", 2, 20_000);
    let khala = world.khala("one");
    for _ in 0..5 {
        world.produce(400);
        world.settle();
        world.own_broker().stop();
        world.own_broker().start_again();
    }
    world.produce(400);
    world.settle();
    let output = run(&world.cluster, &["audit", "--json"], "");
    let (text, words) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(0), "{text}{words}");
    assert_eq!(khala.term(), Some(0));
}

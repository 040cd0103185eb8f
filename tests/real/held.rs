//! Held partitions: where going on would destroy what cannot be rebuilt, nothing is written.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compare::{Allow, assert_exact};
use super::spoil::documents;
use super::web::{get, post};
use super::world::World;
use crate::support::khala::{Khala, run};
use crate::support::redis_server::Keeps;
use crate::support::wait::{always, eventually, seconds};

/// All keys but leases, with their contents: what must not change while held.
fn contents(world: &World) -> BTreeMap<String, Vec<u8>> {
    let keys: Vec<String> = world.redis.ask(&["KEYS", "*"]);
    let kept = keys.into_iter().filter(|key| !key.ends_with(":owner"));
    kept.map(|key| {
        let dump: Option<Vec<u8>> = world.redis.ask(&["DUMP", &key]);
        (key, dump.unwrap_or_default())
    })
    .collect()
}

/// The partition is held for this reason, says so everywhere, and stays as it is.
fn assert_held(world: &World, khala: &Khala, reason: &str, before: &BTreeMap<String, Vec<u8>>) {
    khala.wait_held(reason);
    khala.wait_recovery(reason);
    let body = eventually("readyz is 503 while held", seconds(60), || match khala.get("/readyz") {
        Ok((503, body)) => Ok(body),
        other => Err(other),
    });
    assert!(body.contains(reason), "/readyz says why: {body}");
    let (status, body) = khala.get("/v1/status").expect("status answers");
    assert!(
        status == 200 && body.contains("\"held\"") && body.contains(reason),
        "{status} {body}"
    );
    assert_eq!(
        khala.get("/healthz").map(|(status, _)| status),
        Ok(200),
        "held is alive"
    );
    assert_no_resume(world, khala, reason);
    always("nothing is written while held", seconds(2), || {
        contents(world) == *before
    });
}

/// What dead letters have no part in is not resumed, and nobody is told that it was.
fn assert_no_resume(world: &World, khala: &Khala, reason: &str) {
    let output = run(&world.cluster, &["resume"], "");
    let said = String::from_utf8_lossy(&output.stderr);
    let words = format!("is held for {reason}, which resume does not lift: ");
    assert!(output.status.code() == Some(1) && said.contains(&words), "{output:?}");
    let json = ("content-type", "application/json");
    let answer = post(khala.http(), "/v1/resume", &[json], br#"{"partition":0}"#);
    assert_eq!((answer.status, answer.code().as_str()), (409, "refused"), "{answer:?}");
    assert!(answer.text.contains(&words), "{answer:?}");
}

/// A projected world, then stopped.
fn projected(name: &str) -> World {
    let mut world = World::new(name, 3, 10_000, Keeps::Dumps);
    let khala = world.khala("before");
    world.produce(3_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
    world
}

/// No repair takes the topic's events for those of documents that are of another one, also where it has offsets enough.
fn assert_no_repair(world: &World, before: &BTreeMap<String, Vec<u8>>, because: &str) {
    let documents = documents(world);
    let run_of = documents.values().find(|copy| copy.kind() == "run_summary");
    let id = run_of.expect("a run").id();
    let of_one = [vec!["replay", "run", id], vec!["audit", "run", id, "--repair"]];
    let of_all = [
        vec!["replay", "--from", "earliest"],
        vec!["replay", "--from", "earliest", "--dry-run"],
        vec!["replay", "--from", "last-good"],
        vec!["audit", "--repair", "--repair-max", "100000"],
    ];
    for arguments in of_one.into_iter().chain(of_all) {
        let output = run(&world.cluster, &arguments, "");
        let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned());
        assert!(
            said.concat().contains(because) && !output.status.success(),
            "{arguments:?}: {} {said:?}",
            output.status
        );
        assert_eq!(&contents(world), before, "{arguments:?} changed something");
    }
}

#[test]
fn a_topic_made_anew_is_not_folded_into_the_old_documents() {
    let mut world = projected("recreated");
    let before = contents(&world);
    let topic = world.cluster.topic.clone();
    world.kafka().delete_topic(&topic);
    world.kafka().create_topic(&topic, 3);
    world.produce(6_000);
    let khala = world.khala_unready("after");
    assert_held(&world, &khala, "log_replaced", &before);
    assert_no_repair(&world, &before, "made anew");
    assert_eq!(khala.term(), Some(0));
    assert_no_repair(&world, &before, "made anew");
}

#[test]
fn a_topic_made_anew_under_a_serving_process_is_noticed() {
    let mut world = World::new("recreated-serving", 3, 10_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(3_000);
    assert_exact(&world, Allow::default());
    let topic = world.cluster.topic.clone();
    let before = contents(&world);
    world.kafka().delete_topic(&topic);
    world.kafka().create_topic(&topic, 3);
    world.produce(6_000);
    assert_held(&world, &khala, "log_replaced", &before);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn added_partitions_move_keys_and_hold() {
    let world = projected("added");
    let before = contents(&world);
    world.kafka().add_partitions(&world.cluster.topic, 5);
    let khala = world.khala_unready("after");
    assert_held(&world, &khala, "partitions_changed", &before);
    assert_no_repair(&world, &before, "keys have moved");
    for document in documents(&world).values() {
        let kind = if document.kind() == "run_summary" {
            "runs"
        } else {
            "workers"
        };
        let path = format!("/v1/{kind}/{}", document.id());
        assert_eq!(
            get(khala.http(), &path, &[]).status,
            200,
            "{path} is there, and is read where it is"
        );
    }
    assert_eq!(khala.term(), Some(0));
    assert_no_repair(&world, &before, "keys have moved");
}

#[test]
fn documents_of_another_version_are_not_mixed() {
    let mut world = projected("version");
    for p in 0..3 {
        let _: i64 = world
            .redis
            .ask(&["HSET", &world.key(p, "checkpoint"), "projection_version", "999"]);
    }
    let before = contents(&world);
    world.produce(1_000);
    let khala = world.khala_unready("after");
    assert_held(&world, &khala, "projection_version_changed", &before);
    let counted = khala.metric(
        "khala_projection_drift_total",
        &[("reason", "projection_version_changed")],
    );
    assert!(counted > 0.0);
    assert_eq!(khala.term(), Some(0));
    operators_of_another_version_change_nothing(&world, &before);
}

fn operators_of_another_version_change_nothing(world: &World, before: &BTreeMap<String, Vec<u8>>) {
    let document = before.keys().find_map(|key| key.split_once("}:run_summary:"));
    let run_id = document.expect("a document of a run").1;
    for (command, says) in [
        (&["replay", "--from", "earliest"][..], "projection version 999"),
        (&["replay", "--from", "last-good"], "projection version 999"),
        (&["replay", "run", run_id], "projection version 999"),
        (&["audit", "--repair"], "projection_version_changed"),
        (&["restore"], "has documents"),
    ] {
        let output = run(&world.cluster, command, "");
        let text = format!("{output:?}");
        let refuses = output.status.code() != Some(0) && text.contains(says);
        assert!(refuses, "{command:?}: {text}");
        assert!(contents(world) == *before, "{command:?}: {text}");
    }
}

#[test]
fn a_last_record_that_is_another_holds_where_no_mark_matches() {
    let mut world = projected("last-record");
    let checkpoint = world.checkpoint(1);
    let mut parts: Vec<&str> = checkpoint["last_record"].split(':').collect();
    parts[2] = "deadbeef";
    let _: i64 = world
        .redis
        .ask(&["HSET", &world.key(1, "checkpoint"), "last_record", &parts.join(":")]);
    let _: i64 = world.redis.ask(&["DEL", &world.key(1, "checkpoints")]);
    let before = world.checkpoint(1);
    world.produce(1_000);
    let khala = world.khala_unready("after");
    khala.wait_held("log_replaced");
    assert_eq!(world.checkpoint(1), before, "the held partition is left as it is");
    assert!(matches!(khala.get("/readyz"), Ok((503, _))));
    let output = run(&world.cluster, &["resume", "--json"], "");
    let rows = String::from_utf8_lossy(&output.stdout);
    let rows: Vec<Value> = rows
        .lines()
        .map(|row| serde_json::from_str(row).expect("JSON"))
        .collect();
    let told = |row: &Value| (row["below"].is_u64(), row["held"]["reason"].as_str().map(str::to_owned));
    let (free, held) = ((true, None), (false, Some("log_replaced".to_owned())));
    assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), [free.clone(), held, free]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let kept: i64 = world.redis.ask(&["EXISTS", &world.key(1, "resume")]);
    assert_eq!(kept, 0, "dead letters of the held partition are not let through");
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_checkpoint_that_is_none_holds_its_partition_and_is_told() {
    let mut world = projected("no-checkpoint");
    let key = world.key(1, "checkpoint");
    let _: i64 = world.redis.ask(&["DEL", &key]);
    let _: String = world.redis.ask(&["SET", &key, "x"]);
    world.produce(500);
    let khala = world.khala_unready("after");
    khala.wait_held("document_corrupt");
    let told = run(&world.cluster, &["status", "--json"], "");
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let report: Value = serde_json::from_slice(&told.stdout).expect("one JSON value");
    let row = &report["partitions"][1];
    assert_eq!(
        (&row["state"], &row["reason"]),
        (&"held".into(), &"document_corrupt".into()),
        "{row}"
    );
    let kept: String = world.redis.ask(&["GET", &key]);
    assert_eq!(kept, "x", "the held partition is left as it is");
    assert_eq!(khala.term(), Some(0));
}

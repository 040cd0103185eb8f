//! Dead letters go back to the events' topic: once each, where they belong, and only what is legal now.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compare::{Allow, assert_exact};
use super::topic;
use super::world::World;
use crate::reference::messy::Message;
use crate::reference::place::partition_of;
use crate::support::guarded::Guarded;
use crate::support::khala::run;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, eventually_true, seconds};

fn event(subject: &str, n: usize, pad: usize) -> Message {
    let pad = "x".repeat(pad);
    let value = format!(
        r#"{{"specversion":"1.0","id":"{n}","source":"s","type":"run.delta","subject":"{subject}","data":{{"delta":"{pad}"}}}}"#
    );
    Message {
        partition: None,
        key: Some(subject.as_bytes().to_vec()),
        value: Some(value.into_bytes()),
        headers: vec![(
            "content-type".to_owned(),
            Some(b"application/cloudevents+json".to_vec()),
        )],
    }
}

/// An event where its key does not belong.
fn misplaced(subject: &str, n: usize, partitions: u32) -> Message {
    let wrong = (partition_of(subject.as_bytes(), partitions) + 1) % partitions;
    Message {
        partition: Some(wrong),
        ..event(subject, n, 0)
    }
}

fn redrive(world: &World, args: &[&str]) -> (i32, Value) {
    let args: Vec<&str> = ["dead-letters", "redrive"].iter().chain(args).copied().collect();
    let output = run(&world.cluster, &[&args[..], &["--json"]].concat(), "");
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(text.trim())
        .unwrap_or_else(|e| panic!("{e}: {text} {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().expect("it ends by itself"), report)
}

fn letters(world: &World) -> Vec<Value> {
    let output = run(
        &world.cluster,
        &["dead-letters", "list", "--limit", "100000", "--json"],
        "",
    );
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// How often each redriven source is in the events' topic.
fn redriven(world: &World) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for record in world.read_back() {
        for (name, value) in &record.headers {
            if name == "khala_redriven_from" {
                let source = String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
                *found.entry(source).or_default() += 1;
            }
        }
    }
    found
}

#[test]
fn letters_go_where_they_belong_once_and_only_if_they_are_legal_now() {
    let world = World::new("redrive", 3, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let mut messages = vec![misplaced("run/a", 1, 3), event("run/large", 2, 1 << 20)];
    messages[1].value.as_mut().expect("set").truncate(2_000_000);
    messages.push(Message {
        value: Some(b"{cut".to_vec()),
        ..event("run/bad", 3, 0)
    });
    world.send(&messages);
    world.settle();
    assert_eq!(letters(&world).len(), 3);
    let (code, dry) = redrive(&world, &["--all", "--dry-run"]);
    assert_eq!(
        (code, &dry["redriven"], &dry["still_dead"]),
        (0, &1.into(), &2.into()),
        "{dry}"
    );
    assert!(redriven(&world).is_empty(), "a dry run publishes nothing");
    let (code, report) = redrive(&world, &["--all"]);
    assert_eq!(
        (code, &report["redriven"], &report["still_dead"]),
        (0, &1.into(), &2.into()),
        "{report}"
    );
    eventually("the document is there", seconds(60), || {
        let output = run(&world.cluster, &["get", "run", "a", "--json"], "");
        if output.status.success() { Ok(()) } else { Err(output) }
    });
    let original = &messages[0];
    let back = world.read_back();
    let back = back
        .iter()
        .find(|r| r.headers.len() == 2 && r.key == original.key)
        .expect("redriven");
    assert_eq!(
        (&back.value, back.partition),
        (&original.value, partition_of(b"run/a", 3))
    );
    assert_eq!(back.headers[0], original.headers[0], "headers come back as they were");

    after_a_fix(&world);
    assert_eq!(khala.term(), Some(0));
}

/// The limit is raised: what was too large is not any more.
fn after_a_fix(world: &World) {
    let large = letters(world)
        .into_iter()
        .find(|letter| letter["reason"] == "too_large")
        .expect("listed");
    let place = [large["partition"].to_string(), large["offset"].to_string()];
    let (code, report) = redrive(world, &[&place[0], &place[1]]);
    assert_eq!(
        (code, &report["still_dead"]),
        (2, &1.into()),
        "it would be dead again: {report}"
    );
    let (code, report) = redrive(world, &[&place[0], &place[1], "--max-event-bytes", "2MiB"]);
    assert_eq!(
        (code, &report["redriven"]),
        (0, &1.into()),
        "after the fix it is not: {report}"
    );
    let (code, report) = redrive(world, &["--all", "--max-event-bytes", "2MiB"]);
    // The server still has the old limit: its own letter of the redriven event is another one.
    let counts = (&report["already_redriven"], &report["still_dead"]);
    assert_eq!((code, counts), (0, (&2.into(), &1.into())), "each once: {report}");
    assert!(redriven(world).values().all(|times| *times == 1));
    assert_eq!(
        run(&world.cluster, &["dead-letters", "redrive", "0", "999"], "")
            .status
            .code(),
        Some(4)
    );
    assert_eq!(
        run(&world.cluster, &["dead-letters", "redrive"], "").status.code(),
        Some(2)
    );
}

#[test]
fn killed_again_and_again_a_redrive_publishes_each_letter_once() {
    let world = World::new("redrive-killed", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let total = 4_000;
    let messages: Vec<Message> = (0..total).map(|n| misplaced(&format!("run/r{n}"), n, 2)).collect();
    world.send(&messages);
    world.settle();
    let mut args: Vec<String> = ["dead-letters", "redrive", "--all", "--json"]
        .map(str::to_owned)
        .to_vec();
    args.extend(world.cluster.flags());
    // Each append takes a second: there is a middle on any machine.
    let slow = [("KHALA_KAFKA__LINGER_MS".to_owned(), "1000".to_owned())];
    let mut before = 0;
    let mut killed = 0;
    while killed < 4 {
        let files = world.dir().join(format!("redrive-{killed}"));
        let mut process = Guarded::start(&files, env!("CARGO_BIN_EXE_khala"), &args, &slow);
        let grown = eventually("it publishes, or ends", seconds(60), || {
            let now = redriven(&world).len();
            match process.ended() {
                Some(_) => Ok(None),
                None if now > before => Ok(Some(now)),
                None => Err(now),
            }
        });
        let Some(grown) = grown else { break };
        process.signal("KILL");
        process.wait();
        before = grown;
        killed += 1;
    }
    assert!(killed > 0, "it was killed in the middle");
    let (code, report) = redrive(&world, &["--all"]);
    let found = redriven(&world);
    assert!(found.values().all(|times| *times == 1), "none is there twice");
    let interrupted = report["interrupted"].as_u64().unwrap_or_default() as usize;
    assert_eq!(found.len() + interrupted, total, "what is not there is named: {code}");
    assert_eq!(code, i32::from(interrupted > 0));
    let (code, _) = redrive(&world, &["--all", "--interrupted"]);
    let found = redriven(&world);
    assert_eq!((code, found.len()), (0, total));
    assert!(found.values().all(|times| *times == 1), "none is there twice");
    world.settle();
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_flood_of_dead_letters_holds_its_partition_until_it_is_resumed() {
    let world = World::new("flood", 2, 100, Keeps::Dumps);
    let garbage = |n: usize| Message {
        partition: Some(partition_of(b"run/flood", 2)),
        value: Some(b"<html>502 Bad Gateway</html>".to_vec()),
        ..event("run/flood", n, 0)
    };
    let flood: Vec<Message> = (0..6_000).map(garbage).collect();
    let beside = (0..100)
        .map(|n| format!("run/b{n}"))
        .find(|key| partition_of(key.as_bytes(), 2) != partition_of(b"run/flood", 2));
    world.send(&flood);
    world.send(&[event("run/flood", 1, 0), event(&beside.expect("some key"), 2, 0)]);
    let khala = world.khala_unready("one");
    khala.wait_held("dead_letter_share");
    let letters = topic::bounds(&world.config(), &format!("{}.dead-letters", world.cluster.topic));
    let appended: u64 = letters.iter().map(|(first, end)| end - first).sum();
    assert!(appended < 5_000, "the flood was stopped: {appended}");
    eventually("the neighbour goes on", seconds(60), || {
        let applied = world.applied();
        if applied >= 1 { Ok(()) } else { Err(applied) }
    });
    assert_eq!(
        run(&world.cluster, &["resume", "--partition", "7"], "").status.code(),
        Some(2)
    );
    let reason = || status_of(&world, partition_of(b"run/flood", 2))["reason"].clone();
    eventually_true("who asks elsewhere is told too", seconds(60), || {
        reason() == "dead_letter_share"
    });
    let output = run(&world.cluster, &["resume", "--json"], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.settle();
    khala.wait_ready();
    eventually_true("and that it is over", seconds(60), || reason().is_null());
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
}

/// A partition as `khala status` tells it, which asks log and store.
fn status_of(world: &World, partition: u32) -> Value {
    let output = run(&world.cluster, &["status", "--json"], "");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let partitions = status["partitions"].as_array().expect("partitions");
    let found = partitions.iter().find(|row| row["partition"] == partition);
    found.expect("the partition").clone()
}

//! Documents of runs that ended long ago are taken away, and nobody takes that for drift.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use super::rebuild::documents;
use super::web::event;
use super::world::World;
use crate::reference::place::partition_of;
use crate::support::khala::{Khala, run};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

fn has_ended(document: &Value) -> bool {
    document["kind"] == "run_summary"
        && matches!(document["status"].as_str(), Some("succeeded" | "failed" | "canceled"))
}

/// Waits until exactly these documents are there.
fn wait_for(world: &World, what: &str, wanted: &Documents) {
    eventually(what, seconds(90), || {
        let now = documents(world, &world.cluster.namespace);
        let wrong: Vec<_> = wanted
            .iter()
            .filter(|(key, document)| now.get(*key) != Some(document))
            .collect();
        if wrong.is_empty() && now.len() == wanted.len() {
            return Ok(());
        }
        let more = now.iter().find(|(key, _)| !wanted.contains_key(*key));
        Err(format!(
            "{} of {}, wrong {:?}, too many {more:?}",
            now.len(),
            wanted.len(),
            wrong.first()
        ))
    });
}

fn audit(world: &World) -> Value {
    let output = run(&world.cluster, &["audit", "--json"], "");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON")
}

type Documents = BTreeMap<String, Value>;

fn id(document: &Value) -> String {
    document["run_id"].as_str().expect("an id").to_owned()
}

fn serve(world: &World, name: &str, keep: &str) -> Khala {
    let flags = ["--keep-terminal", keep, "--snapshot-interval", "1s"];
    Khala::start(world.dir(), &world.cluster, name, &flags)
}

fn no_drift(khala: &Khala) {
    let drift = khala.metric("khala_projection_drift_total", &[]);
    assert!(drift < 0.5, "{drift}");
}

#[test]
fn runs_that_ended_long_ago_go_and_come_back_for_a_late_event_and_for_a_replay() {
    let mut world = World::new("expiry", 2, 10_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(4_000);
    world.settle();
    let before = documents(&world, "expiry");
    assert_eq!(khala.term(), Some(0));
    let (ended, alive): (Documents, Documents) = before.clone().into_iter().partition(|(_, one)| has_ended(one));
    let counts = (ended.len(), alive.len());
    assert!(counts.0 > 10 && counts.1 > 10, "an empty pass: {counts:?}");
    let late = id(ended.values().next().expect("one"));
    they_go(&world, (&ended, &alive), &late);
    they_come_back(&world, (&ended, &before), &late);
    what_the_log_forgets_is_gone_whole(&world, &alive, &late);
}

fn they_go(world: &World, (ended, alive): (&Documents, &Documents), late: &str) {
    let khala = serve(world, "two", "1s");
    wait_for(world, "runs that ended are gone", alive);
    let report = audit(world);
    assert_eq!(report["expired"], ended.len(), "{report}");
    assert_eq!(report["documents"], alive.len(), "{report}");
    let streams: Vec<String> = world.redis.ask(&["KEYS", "*:events:run_summary:*"]);
    let has_stream = |one: &Value| streams.iter().any(|key| key.ends_with(&format!(":{}", id(one))));
    assert_eq!(ended.values().find(|one| has_stream(one)), None);
    let got = run(&world.cluster, &["get", "run", late], "");
    assert_eq!(got.status.code(), Some(4));
    let page = run(&world.cluster, &["list", "runs", "--limit", "1000", "--json"], "");
    let listed = String::from_utf8_lossy(&page.stdout).matches("run_summary:").count();
    let runs = alive.values().filter(|one| one["kind"] == "run_summary").count();
    assert_eq!(listed, runs, "no page ends early");
    no_drift(&khala);
    assert_eq!(khala.term(), Some(0));
}

fn they_come_back(world: &World, (ended, before): (&Documents, &Documents), late: &str) {
    let khala = serve(world, "three", "2h"); // nothing is in a cache, and nothing new goes
    let event =
        format!(r#"{{"specversion":"1.0","id":"late","source":"late","type":"run.delta","subject":"run/{late}"}}"#);
    khala.publish_http(&event);
    let key = format!(":run_summary:{late}");
    let then = &ended[&key];
    let counts = |one: &Value| one["event_count"].as_u64().zip(one["late_event_count"].as_u64());
    let wanted = counts(then).map(|(events, late)| (events + 1, late + 1));
    eventually("the late event's run is back", seconds(90), || {
        let now = documents(world, "expiry").remove(&key).ok_or("not there")?;
        if counts(&now) == wanted && now["status"] == then["status"] {
            Ok(())
        } else {
            Err("another one")
        }
    });
    assert_eq!(audit(world)["expired"], ended.len() - 1);
    no_drift(&khala);
    let replay = run(&world.cluster, &["replay", "--from", "earliest"], "");
    let words = String::from_utf8_lossy(&replay.stderr).into_owned();
    assert_eq!(replay.status.code(), Some(0), "{words}");
    let after = documents(world, "expiry");
    assert_eq!(after.len(), before.len(), "a replay makes all anew");
    let differs = |(other, one): &(&String, &Value)| **other != key && before.get(*other) != Some(one);
    assert_eq!(after.iter().find(differs), None);
    assert_eq!(audit(world)["expired"], 0);
    assert_eq!(khala.term(), Some(0));
}

fn what_the_log_forgets_is_gone_whole(world: &World, alive: &Documents, late: &str) {
    let khala = serve(world, "four", "1s");
    wait_for(world, "they are gone again", alive);
    for (p, end) in world.offsets().into_iter().enumerate() {
        world.kafka().delete_records(&world.cluster.topic, p as u32, end);
    }
    let place = || -> Option<f64> {
        let p = partition_of(format!("run/{late}").as_bytes(), 2);
        world.redis.ask(&["ZSCORE", &world.key(p, "index:run_summary"), late])
    };
    eventually("what the log has forgotten leaves no place", seconds(60), || {
        place().map_or(Ok(()), Err)
    });
    let _: String = world.redis.ask(&["FLUSHALL"]);
    khala.wait_recovery("sink_lost");
    wait_for(world, "snapshots bring all back, and those that ended go again", alive);
    assert_eq!(khala.term(), Some(0));
}

/// A producer whose clock is ahead holds nobody else's documents up. (An hour is what a broker takes by default.)
#[test]
fn a_run_that_is_dated_ahead_stays_alone() {
    let world = World::new("expiry-ahead", 1, 100, Keeps::Dumps);
    let producer: BaseProducer = world.config().create().expect("a configuration");
    let now_ms = i64::try_from(UNIX_EPOCH.elapsed().expect("after 1970").as_millis()).expect("for long");
    let ahead_ms = now_ms + 50 * 60_000;
    for (i, (run, timestamp_ms)) in [("before", now_ms), ("ahead", ahead_ms), ("behind", now_ms)]
        .into_iter()
        .enumerate()
    {
        let subject = format!("run/{run}");
        let text = event(&subject, 1, "run.finished", r#"{"status":"succeeded"}"#);
        let record = BaseRecord::to(&world.cluster.topic).key(&subject).payload(&text);
        let sent = producer.send(record.timestamp(timestamp_ms));
        sent.map_err(|(error, _)| error).expect("room in the queue");
        producer.flush(seconds(60)).expect("the log takes it");
        assert_eq!(world.read_back().len(), i + 1);
    }
    let khala = serve(&world, "one", "1s");
    eventually("what ended long ago is gone", seconds(90), || {
        let left: Vec<String> = documents(&world, &world.cluster.namespace).into_keys().collect();
        if left == [":run_summary:ahead"] {
            Ok(())
        } else {
            Err(left)
        }
    });
    let report = audit(&world);
    assert_eq!(
        (&report["documents"], &report["expired"]),
        (&1.into(), &2.into()),
        "{report}"
    );
    no_drift(&khala);
    assert_eq!(khala.term(), Some(0));
}

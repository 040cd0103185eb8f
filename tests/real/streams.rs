//! Event streams: live, resumed, across processes, behind the floor, many at once.

use std::collections::BTreeMap;
use std::thread;

use serde_json::{Value, json};

use super::web::{Events, MANY, ONE, event, get, post};
use super::world::World;
use crate::support::khala::Khala;
use crate::support::proxy::Proxy;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually_true, seconds};

pub fn publish(http: &str, subject: &str, sequence: u64, kind: &str, data: &str) {
    let answer = post(
        http,
        "/v1/events",
        &[ONE],
        event(subject, sequence, kind, data).as_bytes(),
    );
    assert_eq!(answer.status, 202, "{answer:?}");
}

#[test]
fn eight_readers_of_two_processes_see_each_event_once_and_the_end() {
    let world = World::new("readers", 4, 100, Keeps::Dumps);
    let (one, two) = (world.khala("one"), world.khala("two"));
    let https = [one.http().to_owned(), two.http().to_owned()];
    // Wherever a run's partition lives, half of its readers are at the other process.
    for run in 0..4 {
        publish(&https[0], &format!("run/r{run}"), 1, "run.started", "{}");
    }
    let readers: Vec<_> = (0..32)
        .map(|n| {
            let (http, run) = (https[n % 2].clone(), n / 2 % 4);
            thread::spawn(move || {
                let path = format!("/v1/runs/r{run}/events?wait=30s");
                let mut events = Events::open(&http, &path, &[]);
                let first = events.next().expect("the first event");
                assert_eq!((first.id, first.event.as_str()), (Some(1), "message"));
                events.ids()
            })
        })
        .collect();
    for n in 2..=40 {
        for run in 0..4 {
            publish(
                &https[n % 2],
                &format!("run/r{run}"),
                n as u64,
                "run.delta",
                r#"{"x":"y"}"#,
            );
        }
    }
    for run in 0..4 {
        publish(
            &https[0],
            &format!("run/r{run}"),
            41,
            "run.finished",
            r#"{"status":"succeeded"}"#,
        );
    }
    for reader in readers {
        let (ids, done) = reader.join().expect("no panic");
        assert_eq!(ids, (2..=41).collect::<Vec<u64>>());
        assert!(done, "the stream ends with [DONE]");
    }
    let (ids, done) = Events::open(&https[0], "/v1/runs/r1/events", &[("last-event-id", "41")]).ids();
    assert!(ids.is_empty() && done, "who has seen all is told so");
    assert_eq!((one.term(), two.term()), (Some(0), Some(0)));
}

#[test]
fn a_reader_resumes_at_another_process_after_a_crash() {
    let world = World::new("resume", 2, 100, Keeps::AppendOnly);
    let khala = world.khala("one");
    for n in 1..=20 {
        publish(khala.http(), "run/a", n, "run.delta", "{}");
    }
    let mut events = Events::open(khala.http(), "/v1/runs/a/events?wait=30s", &[]);
    let seen: Vec<_> = (0..20).filter_map(|_| events.next()?.id).collect();
    khala.kill9();
    assert_eq!(events.next(), None, "the stream broke");
    let khala = world.khala("two");
    publish(khala.http(), "run/a", 21, "run.finished", r#"{"status":"failed"}"#);
    let last = seen.last().copied().unwrap_or_default().to_string();
    let (ids, done) = Events::open(khala.http(), "/v1/runs/a/events", &[("last-event-id", &last)]).ids();
    assert_eq!((seen, ids, done), ((1..=20).collect(), vec![21], true));
}

#[test]
fn a_cursor_below_what_is_kept_gets_the_floor_and_a_plan_that_works() {
    let world = World::new("floor", 2, 100, Keeps::Dumps);
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--events-kept", "10"]);
    let http = khala.http();
    let events: Vec<String> = (1..=30).map(|n| event("run/a", n, "run.delta", "{}")).collect();
    let body = format!("[{}]", events.join(","));
    assert_eq!(
        post(http, "/v1/events?wait=projected&timeout=30s", &[MANY], body.as_bytes()).status,
        200
    );
    for headers in [
        &[("last-event-id", "5")][..],
        &[("last-event-id", "5"), ("accept", "application/json")],
    ] {
        let answer = get(http, "/v1/runs/a/events", headers);
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, answer.code().as_str(), &error["floor"]),
            (409, "retention_floor_breach", &json!(21))
        );
        let plan = &error["plan"];
        let document = get(http, plan["document"].as_str().expect("a path"), &[]).json();
        assert_eq!(
            document["latest_seq"], plan["after"],
            "the document has all up to where the plan goes on"
        );
    }
    assert_eq!(get(http, "/v1/runs/a/events?after=19", &[]).status, 409);
    let page = get(http, "/v1/runs/a/events?after=20", &[("accept", "application/json")]).json();
    assert_eq!(
        (page["events"].as_array().map(Vec::len), &page["next_after"]),
        (Some(10), &json!(30))
    );
    // Who names no cursor begins with what is there, and is told where that is.
    let kept = get(http, "/v1/runs/a/events", &[("accept", "application/json")]);
    assert_eq!(
        (kept.json()["events"][0]["seq"].clone(), kept.header("khala-first-seq")),
        (json!(21), "21")
    );
    // The plan leads on to what comes.
    let follow = {
        let http = http.to_owned();
        thread::spawn(move || Events::open(&http, "/v1/runs/a/events?after=30", &[]).ids())
    };
    publish(http, "run/a", 31, "run.finished", r#"{"status":"succeeded"}"#);
    assert_eq!(follow.join().expect("no panic"), (vec![31], true));
}

#[test]
fn a_key_of_another_type_gives_way_to_the_stream() {
    let world = World::new("foreign", 1, 100, Keeps::Dumps);
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--events-kept", "10"]);
    let http = khala.http();
    let _: String = world
        .redis
        .ask(&["SET", &world.key(0, "events:run_summary:a"), "not a stream"]);
    let events: Vec<String> = (1..=30).map(|n| event("run/a", n, "run.delta", "{}")).collect();
    let body = format!("[{}]", events.join(","));
    assert_eq!(
        post(http, "/v1/events?wait=projected&timeout=30s", &[MANY], body.as_bytes()).status,
        200
    );
    let page = get(http, "/v1/runs/a/events?after=20", &[("accept", "application/json")]).json();
    assert_eq!(
        (page["events"].as_array().map(Vec::len), &page["next_after"]),
        (Some(10), &json!(30))
    );
}

/// What a reader who is told to list anew lists.
fn running(http: &str) -> Vec<Value> {
    let page = get(http, "/v1/runs?status=running&limit=1000", &[]).json();
    page["documents"].as_array().expect("documents").clone()
}

fn id_and_seq(document: &Value) -> (String, u64) {
    assert_eq!(
        (&document["kind"], &document["status"]),
        (&json!("run_summary"), &json!("running"))
    );
    let id = document["run_id"].as_str().expect("an id").to_owned();
    (id, document["latest_seq"].as_u64().expect("a seq"))
}

#[test]
fn changes_of_all_documents_are_followed_from_any_process() {
    let world = World::new("changes", 4, 100, Keeps::Dumps);
    let (one, two) = (world.khala("one"), world.khala("two"));
    for (http, wanted) in [(one.http(), "one"), (two.http(), "two")] {
        let mut changes = Events::open(http, "/v1/stream?kind=run&status=running", &[]);
        assert_eq!(changes.next().map(|frame| frame.event).as_deref(), Some("ready"));
        let names: Vec<String> = (0..8).map(|n| format!("{wanted}.{n}")).collect();
        let writer = {
            let (http, names) = (http.to_owned(), names.clone());
            thread::spawn(move || {
                for round in 1..=40 {
                    for name in &names {
                        publish(&http, &format!("run/{name}"), round, "run.delta", "{}");
                        publish(&http, &format!("worker/{name}"), round, "worker.heartbeat", "{}");
                    }
                }
            })
        };
        let (mut latest, mut said) = (BTreeMap::new(), Vec::new());
        while latest.values().filter(|seq| **seq == 40).count() < names.len() {
            let Some(frame) = changes.next() else {
                let state = get(http, "/v1/partitions", &[]).text;
                panic!(
                    "the stream goes on; {latest:?}, writer done: {}, {said:?}, {state}",
                    writer.is_finished()
                );
            };
            let documents = match frame.event.as_str() {
                "document" => vec![serde_json::from_str(&frame.data).expect("JSON")],
                _ => running(http),
            };
            said.push(frame.event);
            let all = documents.iter().map(id_and_seq);
            latest.extend(all.filter(|(id, _)| names.contains(id)));
        }
        writer.join().expect("no panic");
    }
}

#[test]
fn a_change_whose_commit_was_not_answered_is_told_all_the_same() {
    let mut world = World::new("unanswered", 1, 100, Keeps::AppendOnly);
    let proxy = Proxy::to(&world.redis.address());
    world.cluster.store = format!("redis://{}", proxy.address());
    let khala = world.khala("one");
    let http = khala.http();
    let mut changes = Events::open(http, "/v1/stream?kind=run", &[]);
    publish(http, "run/a", 1, "run.delta", "{}");
    let mut next_seq = || loop {
        let frame = changes.next().expect("the stream goes on");
        if frame.event == "document" {
            return id_and_seq(&serde_json::from_str(&frame.data).expect("JSON")).1;
        }
    };
    assert_eq!(next_seq(), 1);
    let before = world.offsets();
    proxy.delay(seconds(1));
    publish(http, "run/a", 2, "run.delta", "{}");
    eventually_true("the store has it", seconds(60), || world.offsets() > before);
    proxy.cut(); // its answer is on its way
    proxy.delay(std::time::Duration::ZERO);
    assert_eq!(next_seq(), 2);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_stream_outlives_an_outage_of_the_store() {
    let mut world = World::new("outage", 2, 100, Keeps::AppendOnly);
    let khala = world.khala("one");
    let http = khala.http().to_owned();
    publish(&http, "run/a", 1, "run.started", "{}");
    let mut events = Events::open(&http, "/v1/runs/a/events?wait=30s", &[]);
    assert_eq!(events.next().and_then(|frame| frame.id), Some(1));
    world.redis.stop();
    publish(&http, "run/a", 2, "run.delta", "{}");
    world.redis.start_again();
    publish(&http, "run/a", 3, "run.finished", r#"{"status":"succeeded"}"#);
    assert_eq!(events.ids(), (vec![2, 3], true));
    assert_eq!(khala.term(), Some(0), "and open streams keep nobody from stopping");
}

#[test]
fn who_begins_to_follow_all_changes_in_an_outage_is_told_to_list_anew() {
    let mut world = World::new("outage-begun", 1, 100, Keeps::AppendOnly);
    let khala = world.khala("one");
    publish(khala.http(), "run/a", 1, "run.started", "{}");
    world.settle();
    world.redis.stop();
    let mut changes = Events::open(khala.http(), "/v1/stream", &[]);
    let mut said = || changes.next().map(|frame| frame.event);
    assert_eq!(said().as_deref(), Some("ready"));
    world.redis.start_again();
    assert_eq!(said().as_deref(), Some("reset"));
    for n in 2..=4 {
        let mut changes = Events::open(khala.http(), "/v1/stream", &[]);
        assert_eq!(changes.next().map(|frame| frame.event).as_deref(), Some("ready"));
        publish(khala.http(), "run/a", n, "run.delta", "{}");
        let next = changes.next().map(|frame| frame.event);
        assert_eq!(next.as_deref(), Some("document"), "who begins later hears of no reset");
    }
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn an_open_stream_ends_when_the_server_stops() {
    let world = World::new("drain", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    publish(khala.http(), "run/a", 1, "run.started", "{}");
    let mut events = Events::open(khala.http(), "/v1/runs/a/events?wait=30s", &[]);
    assert_eq!(events.next().and_then(|frame| frame.id), Some(1));
    let started = std::time::Instant::now();
    assert_eq!(khala.term(), Some(0));
    assert_eq!(events.next(), None);
    assert!(started.elapsed() < seconds(60), "{:?}", started.elapsed());
}

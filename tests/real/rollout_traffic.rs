//! A rollout while events flow: readers see no document go back, none is lost, event streams never mix two namespaces,
//! and the way back from the last stage is as short as from any other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::compare::{Allow, assert_exact};
use super::rollout::{Done, away, beside, led, level, listed, mark, plan, report, start};
use super::web::{Events, Frame, event};
use super::world::{World, note};
use crate::reference::messy::Message;
use crate::support::khala::{Cluster, Khala};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

const ANY_PARITY: &str = "parity_differing_max = 1e9\nparity_documents_min = 0";

/// Each run and worker of one answer, with how many events its document has.
fn counts(khala: &Khala) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for kind in ["runs", "workers"] {
        let (status, text) = khala.get(&format!("/v1/{kind}?limit=1000")).expect("an answer");
        let page: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((status, &page["cursor"]), (200, &Value::Null), "{text}");
        for row in page["documents"].as_array().expect("documents") {
            let id = row["document_id"].as_str().expect("an id").to_owned();
            let count = row["event_count"].as_u64().expect("a count");
            assert_eq!(found.insert(id, count), None, "an entity twice in one answer");
        }
    }
    found
}

#[test]
fn under_traffic_no_reader_sees_a_document_go_back_and_none_is_lost() {
    let mut world = World::new("traffic", 2, 12_000, Keeps::Dumps);
    let old = world.khala("old");
    let new = Khala::start(world.dir(), &beside(&world), "new", &[]);
    world.produce(1_000);
    world.settle();
    level(&world);
    let messages = world.messages(10_000);
    let path = plan(world.dir(), "", "2s", "parity_documents_min = 20");
    let done = AtomicBool::new(false);
    let (answers, sent) = std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut sent = 0;
            for some in messages.chunks(250) {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                world.send(some);
                sent += some.len();
            }
            sent
        });
        let reader = scope.spawn(|| {
            let (mut seen, mut answers) = (BTreeMap::new(), 0);
            while !done.load(Ordering::SeqCst) {
                let now = counts(&old);
                for (id, before) in &seen {
                    let now = now.get(id).unwrap_or_else(|| panic!("{id} is not there any more"));
                    assert!(now >= before, "{id} went back from {before} to {now} events");
                }
                (seen, answers) = (now, answers + 1);
            }
            answers
        });
        let ending = Done(&done);
        let (code, _, words) = start(&world, &path);
        assert_eq!(code, Some(0), "{words}");
        eventually("all readers are led over", seconds(90), || {
            let now = report(&old);
            match now["rollout"]["phase"].as_str() {
                Some("done") => Ok(()),
                Some("rolled_back") => panic!("{now}"),
                _ => Err(now["leader"].clone()),
            }
        });
        drop(ending);
        (
            reader.join().expect("the reader"),
            producer.join().expect("the producer"),
        )
    });
    note(&format!("{sent} events sent meanwhile, {answers} answers looked at"));
    assert!(sent > 500 && answers > 20, "{sent} {answers}");
    world.settle();
    level(&world);
    // What readers of the old server get is the candidate's, and right.
    world.cluster.namespace = beside(&world).namespace;
    let twice = Allow::AFTER_A_FAULT; // both namespaces wrote each dead letter
    assert_exact(&world, twice);
    "traffic".clone_into(&mut world.cluster.namespace);
    assert_exact(&world, twice);
    let all = counts(&old);
    assert_eq!(all, counts(&new), "the candidate's server says the same");
    mark(&world, usize::MAX);
    let runs = listed(&old);
    assert_eq!(away(&runs).len(), runs.len(), "all readers are led over");
}

/// Made here, so that no scanner takes this file for a leak.
fn secret() -> String {
    format!("sk-{}", "A1b2C3d4E5f6".repeat(3))
}

/// The candidate keeps secrets, the namespace redacts them: so each event and document tells where it is from.
fn is_away(text: &str) -> bool {
    let (away, own) = (text.contains(&secret()), text.contains("[redacted:api_key]"));
    assert!(away != own, "of one namespace: {text}");
    away
}

fn begun(name: &str) -> (World, Khala, Khala) {
    let world = World::new(name, 2, 100, Keeps::Dumps);
    let old = world.khala("old");
    let new = Khala::start(world.dir(), &beside(&world), "new", &["--redact", "off"]);
    send(&world, 1);
    world.settle();
    level(&world);
    (world, old, new)
}

/// An event of a worker straight to the log: what goes through Khala is redacted before it is there.
fn send(world: &World, sequence: u64) {
    let data = json!({"workspace_ref": format!("use {}", secret())}).to_string();
    world.send(&[Message {
        partition: None,
        key: Some(b"worker/w".to_vec()),
        value: Some(event("worker/w", sequence, "worker.started", &data).into_bytes()),
        headers: Vec::new(),
    }]);
}

/// Frames up to the one of this event; all of one namespace.
fn up_to(events: &mut Events, seq: u64) -> bool {
    let mut from = Vec::new();
    loop {
        let frame = events.next().unwrap_or_else(|| panic!("the stream ended before {seq}"));
        from.push(is_away(&frame.data));
        if frame.id == Some(seq) {
            assert!(from.iter().all(|one| *one == from[0]), "{from:?}");
            return from[0];
        }
    }
}

/// The frames that are left when the stream ends by itself.
fn rest(mut events: Events) -> Vec<Frame> {
    let began = Instant::now();
    let mut left = Vec::new();
    while let Some(frame) = events.next() {
        left.push(frame);
    }
    assert!(began.elapsed() < seconds(5), "ended after {:?}", began.elapsed());
    assert!(left.iter().all(|frame| frame.data != "[DONE]"), "{left:?}");
    left
}

#[test]
fn a_stream_of_events_ends_where_its_readers_are_led_elsewhere_and_goes_on_there() {
    let (world, old, new) = begun("led-stream");
    let open = |after: u64| {
        Events::open(
            old.http(),
            "/v1/workers/w/events",
            &[("last-event-id", &after.to_string())],
        )
    };
    let mut events = Events::open(old.http(), "/v1/workers/w/events", &[]);
    assert!(!up_to(&mut events, 1));
    send(&world, 2);
    assert!(!up_to(&mut events, 2));
    let path = plan(world.dir(), "\"worker/*\"", "1h", ANY_PARITY);
    let (code, _, words) = start(&world, &path);
    assert_eq!(code, Some(0), "{words}");
    assert!(rest(events).is_empty(), "no event came");
    send(&world, 3);
    let mut events = open(2);
    assert!(up_to(&mut events, 3), "the candidate's");
    send(&world, 4);
    assert!(up_to(&mut events, 4), "the candidate's, live");
    let said = old.post("/v1/rollout/rollback", "{}");
    assert!(said.contains("\"rolled_back\""), "{said}");
    assert!(rest(events).is_empty(), "no event came");
    // Readers need the candidate no more.
    assert_eq!(new.term(), Some(0));
    send(&world, 5);
    let mut events = open(4);
    assert!(!up_to(&mut events, 5), "its own");
    send(&world, 6);
    assert!(!up_to(&mut events, 6), "its own, live");
}

#[test]
fn a_stream_of_documents_says_reset_where_readers_are_led_elsewhere() {
    let (world, old, _new) = begun("led-changes");
    let mut events = Events::open(old.http(), "/v1/stream", &[]);
    let done = AtomicBool::new(false);
    let frames = std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut sequence = 2;
            while !done.load(Ordering::SeqCst) {
                send(&world, sequence);
                sequence += 1;
            }
        });
        let ending = Done(&done);
        let mut frames = Vec::new();
        let mut read = |away: bool| {
            let until = Instant::now() + seconds(60);
            let mut wanted = 3;
            while wanted > 0 {
                assert!(Instant::now() < until, "{frames:?}");
                let frame = events.next().expect("a frame");
                let is_such = frame.event == "document" && is_away(&frame.data) == away;
                wanted -= u32::from(is_such);
                frames.push(frame);
            }
        };
        read(false);
        let path = plan(world.dir(), "\"worker/*\"", "1h", ANY_PARITY);
        let (code, _, words) = start(&world, &path);
        assert_eq!(code, Some(0), "{words}");
        read(true);
        let said = old.post("/v1/rollout/rollback", "{}");
        assert!(said.contains("\"rolled_back\""), "{said}");
        read(false);
        drop(ending);
        producer.join().expect("the producer");
        frames
    });
    let mut from = None;
    for frame in &frames {
        match frame.event.as_str() {
            "reset" => from = None,
            "document" => {
                let now = is_away(&frame.data);
                assert!(from.is_none_or(|from| from == now), "no reset between: {frames:?}");
                from = Some(now);
            }
            _ => {}
        }
    }
    note(&format!("{} frames", frames.len()));
}

#[test]
fn the_way_back_from_the_last_stage_is_open_even_if_the_old_namespace_is_behind() {
    let mut world = World::new("way-back", 2, 2_000, Keeps::Dumps);
    let _: String = world
        .redis
        .ask(&["ACL", "SETUSER", "old", "on", ">secret", "~*", "&*", "+@all"]);
    let cluster = Cluster {
        store: format!("redis://old:secret@{}", world.redis.address()),
        ..world.cluster.clone()
    };
    let old = Khala::start(world.dir(), &cluster, "old", &[]);
    let _new = Khala::start(world.dir(), &beside(&world), "new", &[]);
    world.produce(500);
    world.settle();
    level(&world);
    mark(&world, usize::MAX);
    let path = plan(world.dir(), "", "1h", ANY_PARITY);
    let (code, _, words) = start(&world, &path);
    assert_eq!(code, Some(0), "{words}");
    led(&old);
    for _ in 0..2 {
        let said = old.post("/v1/rollout/promote", "{}");
        assert!(said.contains("\"rolling\""), "{said}");
    }
    eventually("all readers are led over", seconds(10), || {
        let runs = listed(&old);
        if away(&runs).len() == runs.len() {
            Ok(())
        } else {
            Err(runs)
        }
    });
    // The old namespace's projectors may not write any more; the rollout's own notes may be written.
    let notes = format!("~{{{}}}:*", world.cluster.namespace);
    let others = format!("~{{{}*", beside(&world).namespace);
    let _: String = world
        .redis
        .ask(&["ACL", "SETUSER", "old", "resetkeys", &notes, &others, "%R~*"]);
    let before = world.offsets();
    world.produce(500);
    world.cluster.namespace = beside(&world).namespace;
    world.settle();
    "way-back".clone_into(&mut world.cluster.namespace);
    assert_eq!(world.offsets(), before, "the old namespace stands still");
    mark(&world, usize::MAX);
    let asked = Instant::now();
    let said = old.post("/v1/rollout/rollback", "{}");
    assert!(said.contains("\"rolled_back\""), "{said}");
    loop {
        let sent = asked.elapsed();
        if away(&listed(&old)).is_empty() {
            break;
        }
        assert!(
            sent < Duration::from_secs(1),
            "readers are still led away after {sent:?}"
        );
    }
    note(&format!("readers are back within {} ms", asked.elapsed().as_millis()));
}

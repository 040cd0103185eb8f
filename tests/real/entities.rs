//! One bad entity stops one entity: its document deleted by hand, of another type, not JSON, not its own hash.

use std::collections::BTreeMap;

use super::compare::{Allow, assert_exact};
use super::world::World;
use crate::reference::messy::Message;
use crate::reference::place::partition_of;
use crate::support::khala::run;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

/// Sorts the spoilt from the others: the comparison leaves these four alone.
const SPOILT: [&str; 4] = [
    "run/spoilt.deleted",
    "run/spoilt.list",
    "worker/spoilt:text",
    "run/spoilt-hash",
];

fn event(subject: &str, sequence: u64) -> Message {
    let value = format!(
        r#"{{"specversion":"1.0","id":"{sequence}","source":"s","type":"custom","subject":"{subject}","sequence":{sequence}}}"#
    );
    Message {
        key: Some(subject.as_bytes().to_vec()),
        value: Some(value.into_bytes()),
        ..Message::default()
    }
}

fn parked(world: &World) -> BTreeMap<String, u64> {
    let all = (0..world.partitions).map(|p| {
        world
            .redis
            .ask::<BTreeMap<String, u64>>(&["HGETALL", &world.key(p, "parked")])
    });
    all.flatten().collect()
}

#[test]
fn a_document_spoilt_by_hand_parks_its_entity_and_no_other() {
    let mut world = World::new("spoilt", 3, 10_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(2_000);
    world.send(&SPOILT.map(|subject| event(subject, 1)));
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
    let keys = SPOILT.map(|subject| {
        let (kind, id) = subject.split_once('/').expect("a subject");
        world.key(partition_of(subject.as_bytes(), 3), &format!("{kind}_summary:{id}"))
    });
    let text: String = world.redis.ask(&["GET", &keys[3]]);
    let _: i64 = world.redis.ask(&["DEL", &keys[0], &keys[1]]);
    let _: i64 = world.redis.ask(&["RPUSH", &keys[1], "x"]);
    let _: String = world.redis.ask(&["SET", &keys[2], "not JSON"]);
    let other = text.replacen("\"event_count\":1", "\"event_count\":7", 1);
    assert_ne!(text, other);
    let _: String = world.redis.ask(&["SET", &keys[3], &other]);
    // Not in a cache any more: a new process reads what is there.
    let khala = world.khala("two");
    world.send(&SPOILT.map(|subject| event(subject, 2)));
    world.produce(2_000);
    let allow = Allow {
        except: &SPOILT,
        ..Allow::default()
    };
    assert_exact(&world, allow);
    let found = eventually("the four are parked", seconds(60), || {
        let parked = parked(&world);
        if parked.len() == 4 { Ok(parked) } else { Err(parked) }
    });
    let mut first_not_applied = BTreeMap::new();
    for rec in world.read_back() {
        let subject = String::from_utf8_lossy(rec.key.as_deref().unwrap_or_default()).into_owned();
        if SPOILT.contains(&subject.as_str()) {
            first_not_applied.insert(subject, rec.offset); // of the second event, which is the last
        }
    }
    assert_eq!(found, first_not_applied);
    let drift = |reason: &str| khala.metric("khala_projection_drift_total", &[("reason", reason)]);
    let counted = drift("missing_document") + drift("document_corrupt") + drift("summary_hash_mismatch");
    assert!(counted >= 4.0, "{counted} of 4 were counted");
    assert!(
        matches!(khala.get("/readyz"), Ok((200, _))),
        "a parked entity holds no partition"
    );
    let listed = run(&world.cluster, &["list", "runs", "--json", "--limit", "5"], "");
    assert_eq!(
        listed.status.code(),
        Some(0),
        "a bad document hides no other: {listed:?}"
    );
    assert_eq!(listed.stdout.split(|byte| *byte == b'\n').count(), 6);
    let kept: Vec<String> = world.redis.ask(&["LRANGE", &keys[1], "0", "-1"]);
    assert_eq!(kept, ["x"], "what is not ours to understand is not overwritten");
    assert_eq!(khala.term(), Some(0));
}

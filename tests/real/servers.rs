//! The test bench itself: servers do what the tests rely on, and the comparison sees what is wrong.
//! A stand-in writes to Redis and Kafka what the reference says; then one thing after the other is spoilt.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::compare::{Allow, assert_equals_fold_of};
use super::topic;
use super::world::World;
use crate::reference::Rec;
use crate::reference::decode::Rules;
use crate::reference::fold::{Entity, Partition, fold};
use crate::reference::messy::Message;
use crate::reference::place::partition_of;
use crate::support::redis_server::{Keeps, Redis};

#[test]
fn a_redis_comes_back_as_old_as_its_dump() {
    let mut redis = Redis::start(Keeps::Dumps);
    let _: String = redis.ask(&["SET", "k", "old"]);
    let dump = redis.dump();
    let _: String = redis.ask(&["SET", "k", "new"]);
    redis.restore(&dump);
    assert_eq!(redis.ask::<String>(&["GET", "k"]), "old");
    let mut redis = Redis::start(Keeps::AppendOnly);
    let _: String = redis.ask(&["SET", "k", "kept"]);
    redis.kill();
    redis.start_again();
    assert_eq!(redis.ask::<String>(&["GET", "k"]), "kept");
}

#[test]
fn a_broker_keeps_records_over_a_kill_and_forgets_what_is_deleted() {
    let mut world = World::with_own_broker("bench-broker", 3, 300);
    world.produce(300);
    let before = world.read_back();
    assert_eq!(before.len(), 300);
    world.own_broker().kill();
    world.own_broker().start_again();
    assert_eq!(world.read_back(), before);
    let topic = world.cluster.topic.clone();
    world.kafka().delete_records(&topic, 1, 5);
    let after: Vec<Rec> = before
        .into_iter()
        .filter(|rec| rec.partition != 1 || rec.offset >= 5)
        .collect();
    assert_eq!(world.read_back(), after);
    world.kafka().add_partitions(&topic, 5);
    assert_eq!(topic::bounds(&world.config(), &topic).len(), 5);
    world.kafka().delete_topic(&topic);
    world.kafka().create_topic(&topic, 3);
    assert_eq!(world.read_back(), []);
}

#[test]
fn keys_lie_where_librdkafka_puts_them() {
    let mut world = World::new("bench-keys", 6, 2000, Keeps::Dumps);
    let mut messages = world.messages(2000);
    messages.retain(|m| m.partition.is_none() && m.key.is_some());
    world.send(&messages);
    for rec in world.read_back() {
        assert_eq!(rec.partition, partition_of(rec.key.as_deref().unwrap(), 6), "{rec:?}");
    }
}

#[test]
fn the_comparison_sees_whatever_is_wrong() {
    let mut world = World::new("bench-canary", 3, 1500, Keeps::Dumps);
    world.produce(1500);
    let records = world.read_back();
    let expected = fold(&records, &Rules::of(3));
    stand_in(&world, &records, &expected);
    let judge = || {
        catch_unwind(AssertUnwindSafe(|| {
            assert_equals_fold_of(&world, &records, Allow::default());
        }))
        .is_ok()
    };
    assert!(judge(), "the stand-in wrote what the reference says");
    let entity = expected[&0].entities.values().find(|e| e.events.len() > 2).unwrap();
    let (kind, id) = (entity.kind(), entity.id());
    let document = world.key(0, &format!("{kind}:{id}"));
    let text: String = world.redis.ask(&["GET", &document]);
    let spoils: [&[&str]; 8] = [
        &["DEL", &document],
        &["SET", &document, &text.replacen(':', ": ", 1)],
        &[
            "SET",
            &document,
            &text.replacen("\"event_count\":", "\"event_count\":1", 1),
        ],
        &["SET", &world.key(0, "run_summary:nobody"), "{}"],
        &["ZADD", &world.key(0, &format!("index:{kind}")), "0", id],
        &[
            "XADD",
            &world.key(0, &format!("events:{kind}:{id}")),
            "99999-0",
            "event",
            "{}",
        ],
        &["HSET", &world.key(0, "checkpoint"), "digest", "0"],
        &["HINCRBY", &world.key(1, "checkpoint"), "duplicates", "1"],
    ];
    let dump = world.redis.dump();
    for spoil in spoils {
        let _: redis::Value = world.redis.ask(spoil);
        assert!(!judge(), "not seen: {spoil:?}");
        let _: redis::Value = world.redis.ask(&["FLUSHALL"]);
        stand_in_redis(&world, &records, &expected);
    }
    assert!(judge() && !dump.is_empty());
    let (p, partition) = expected.iter().find(|(_, p)| !p.dead_letters.is_empty()).unwrap();
    let (offset, reason) = partition.dead_letters[0];
    let original = records
        .iter()
        .find(|r| (r.partition, r.offset) == (*p, offset))
        .unwrap();
    let dead = format!("{}.dead-letters", world.cluster.topic);
    topic::send(&world.config(), &dead, &[dead_letter(&world, original, reason)]);
    assert!(!judge(), "a dead letter twice");
}

/// Writes all that khala would have written.
fn stand_in(world: &World, records: &[Rec], expected: &std::collections::BTreeMap<u32, Partition>) {
    stand_in_redis(world, records, expected);
    let dead = format!("{}.dead-letters", world.cluster.topic);
    world.kafka().create_topic(&dead, world.partitions);
    let place = |rec: &Rec| {
        expected[&rec.partition]
            .dead_letters
            .iter()
            .find(|(o, _)| *o == rec.offset)
            .copied()
    };
    let letters: Vec<Message> = records
        .iter()
        .filter_map(|rec| Some(dead_letter(world, rec, place(rec)?.1)))
        .collect();
    topic::send(&world.config(), &dead, &letters);
    let bounds = topic::bounds(&world.config(), &world.cluster.topic);
    let ends: Vec<u64> = bounds.into_iter().map(|(_, end)| end).collect();
    topic::commit(&world.config(), &world.cluster.topic, &world.cluster.namespace, &ends);
}

fn stand_in_redis(world: &World, records: &[Rec], expected: &std::collections::BTreeMap<u32, Partition>) {
    let mut pipe = redis::pipe();
    for (p, partition) in expected {
        for entity in partition.entities.values().filter(|e| !e.events.is_empty()) {
            write_entity(world, &mut pipe, *p, entity);
        }
        let end = records
            .iter()
            .filter(|r| r.partition == *p)
            .map(|r| r.offset + 1)
            .max()
            .expect("the bench can do it");
        let fields = [
            ("offset", end.to_string()),
            ("last_record", partition.last_record.clone()),
            ("records", partition.records.to_string()),
            ("accepted", partition.accepted.to_string()),
            ("duplicates", partition.duplicates.to_string()),
            ("dead_letters", partition.dead_letters.len().to_string()),
            ("digest", partition.digest()),
            ("intent", String::new()),
            ("projection_version", "1".to_owned()),
            ("partitions", world.partitions.to_string()),
            ("topic_id", String::new()),
            ("written_at", "2026-01-01T00:00:00.000Z".to_owned()),
        ];
        pipe.cmd("HSET")
            .arg(world.key(*p, "checkpoint"))
            .arg(&fields[..])
            .ignore();
    }
    pipe.query::<()>(&mut world.redis.connect())
        .expect("the bench can do it");
}

fn write_entity(world: &World, pipe: &mut redis::Pipeline, p: u32, entity: &Entity) {
    let (kind, id) = (entity.kind(), entity.id());
    let document = entity.stored("2026-01-01T00:00:00.000Z");
    pipe.cmd("SET")
        .arg(world.key(p, &format!("{kind}:{id}")))
        .arg(document)
        .ignore();
    let index = world.key(p, &format!("index:{kind}"));
    pipe.cmd("ZADD").arg(index).arg(entity.offset).arg(id).ignore();
    let kept = entity.events.len().saturating_sub(1000);
    for (i, (event_id, type_)) in entity.events.iter().enumerate().skip(kept) {
        let event = serde_json::json!({"id": event_id, "type": type_}).to_string();
        let stream = world.key(p, &format!("events:{kind}:{id}"));
        pipe.cmd("XADD")
            .arg(stream)
            .arg(format!("{}-0", i + 1))
            .arg("event")
            .arg(event)
            .ignore();
    }
}

fn dead_letter(world: &World, original: &Rec, reason: &str) -> Message {
    let text = |name: &str, value: String| (format!("khala_{name}"), Some(value.into_bytes()));
    let mut headers = original.headers.clone();
    headers.extend([
        text("reason", reason.to_owned()),
        text("topic", world.cluster.topic.clone()),
        text("partition", original.partition.to_string()),
        text("offset", original.offset.to_string()),
        text("detail", "because".to_owned()),
    ]);
    Message {
        partition: Some(original.partition),
        key: original.key.clone(),
        value: original.value.clone(),
        headers,
    }
}

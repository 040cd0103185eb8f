//! A topic copied into one with more partitions: each record once, each entity's in their order, also over a kill.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compare::{Allow, assert_exact};
use super::topic;
use super::world::World;
use crate::reference::Rec;
use crate::reference::place::partition_of;
use crate::support::guarded::Guarded;
use crate::support::khala::{Cluster, Khala, run};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

/// A record's timestamp and value.
type Kept = (i64, Option<Vec<u8>>);

/// Values by key, in the order in which a topic has them.
fn by_key(records: &[Rec]) -> BTreeMap<Option<Vec<u8>>, Vec<Kept>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut records: Vec<&Rec> = records.iter().collect();
    records.sort_by_key(|rec| rec.timestamp_ms); // stable: keys that are in two partitions merge by time
    for rec in records {
        found
            .entry(rec.key.clone())
            .or_default()
            .push((rec.timestamp_ms, rec.value.clone()));
    }
    found
}

#[test]
fn more_partitions_keep_each_entitys_order_also_when_the_copy_was_killed() {
    let mut world = World::new("migrated", 2, 70_000, Keeps::Dumps);
    world.produce(60_000);
    let to = "migrated.events.2";
    let mut args: Vec<String> = ["topics", "migrate", "--to", to, "--partitions", "5", "--json"]
        .map(str::to_owned)
        .to_vec();
    args.extend(world.cluster.flags());
    // Each of its twelve or so appends takes a second: there is a middle on any machine.
    let slow = [("KHALA_KAFKA__LINGER_MS".to_owned(), "1000".to_owned())];
    let mut process = Guarded::start(&world.dir().join("migrate"), env!("CARGO_BIN_EXE_khala"), &args, &slow);
    eventually("it copies", seconds(60), || {
        let there = topic::bounds(&world.config(), to);
        if there.iter().any(|(_, end)| *end > 0) {
            Ok(())
        } else {
            Err(there)
        }
    });
    process.signal("KILL");
    process.wait();
    world.produce(1_000);
    let args: Vec<&str> = ["topics", "migrate", "--to", to, "--partitions", "5", "--json"].to_vec();
    let migrate = || {
        let output = run(&world.cluster, &args, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let there_before = migrate()["there_before"].as_u64().unwrap_or_default();
    assert_eq!(migrate()["copied"], 0, "nothing is copied twice");
    let (old, new) = (world.read_back(), topic::read_back(&world.config(), to));
    assert_eq!(new.len(), old.len(), "each record once");
    assert!(
        there_before > 0 && there_before < old.len() as u64,
        "it was killed in the middle: {there_before}"
    );
    assert_eq!(by_key(&new), by_key(&old));
    for rec in new.iter().filter(|rec| rec.key.is_some()) {
        assert_eq!(rec.partition, partition_of(rec.key.as_deref().unwrap_or_default(), 5));
    }

    let namespace = Cluster {
        topic: to.to_owned(),
        namespace: "migrated.2".to_owned(),
        ..world.cluster.clone()
    };
    world.cluster = namespace;
    world.partitions = 5;
    let khala = Khala::start(world.dir(), &world.cluster, "new", &[]);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn what_cannot_be_migrated_is_refused_and_nothing_is_made() {
    let mut world = World::new("unmigrated", 3, 100, Keeps::Dumps);
    world.produce(100);
    let messages = world.messages(5);
    let refused = |args: &[&str]| {
        let output = run(&world.cluster, &[&["topics", "migrate"], args].concat(), "");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        stderr
    };
    refused(&["--to", "unmigrated.events"]);
    let few = refused(&["--to", "unmigrated.2", "--partitions", "3"]);
    assert!(few.contains("more than 3"), "{few}");
    world.kafka().create_topic("unmigrated.3", 6);
    topic::send(&world.config(), "unmigrated.3", &messages);
    let foreign = refused(&["--to", "unmigrated.3", "--partitions", "6"]);
    assert!(foreign.contains("no migration put there"), "{foreign}");
}

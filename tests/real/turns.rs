//! Partitions that catch up by turns: more of them than there are turns, killed in between, and some that are stuck.

use super::compare::{Allow, assert_exact};
use super::topic;
use super::world::World;
use crate::support::khala::{Cluster, Khala};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

/// Small batches: all but the last records of a partition are caught up with by turns.
const BATCHES: [&str; 2] = ["--batch-events", "100"];

/// As many as a process has here.
fn turns() -> usize {
    3 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// Khala may write keys of these patterns, and read as it says.
fn rights(world: &World, keys: &[String]) {
    let mut set = vec!["ACL", "SETUSER", "khala", "on", ">secret", "&*", "+@all", "resetkeys"];
    set.extend(keys.iter().map(String::as_str));
    let _: String = world.redis.ask(&set);
}

fn remaining(world: &World) -> Vec<u64> {
    let bounds = topic::bounds(&world.config(), &world.cluster.topic);
    let offsets = world.offsets();
    let ends = bounds.into_iter().map(|(_, end)| end);
    ends.zip(offsets).map(|(end, offset)| end - offset).collect()
}

#[test]
fn more_partitions_than_turns_are_exact_also_where_processes_are_killed() {
    let partitions = turns() as u32 * 2;
    let mut world = World::new("turns", partitions, 60_000, Keeps::Dumps);
    world.produce(50_000);
    let start = |world: &World, name: &str| Khala::start_unready(world.dir(), &world.cluster, name, &BATCHES);
    for round in 0..3 {
        let khala = start(&world, &format!("killed-{round}"));
        let applied = world.applied();
        world.wait_applied(applied + 1_000);
        khala.kill9();
    }
    assert!(
        remaining(&world).iter().any(|left| *left > 100),
        "an empty pass: all is done"
    );
    let khala = start(&world, "last");
    assert_exact(&world, Allow::AFTER_A_FAULT);
    world.produce(1_000);
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn nobody_waits_for_partitions_that_are_stuck() {
    let partitions = turns() as u32 + 5;
    let mut world = World::new("stuck", partitions, 60_000, Keeps::Dumps);
    rights(&world, &["~*".to_owned()]);
    let cluster = Cluster {
        store: format!("redis://khala:secret@{}", world.redis.address()),
        ..world.cluster.clone()
    };
    world.produce(60_000);
    let khala = Khala::start_unready(world.dir(), &cluster, "one", &BATCHES);
    world.wait_applied(1_000);
    khala.sigstop();
    let before = remaining(&world);
    let unfinished = before.iter().enumerate().filter(|(_, left)| **left > 200);
    let stuck: Vec<usize> = unfinished.map(|(p, _)| p).take(turns() + 1).collect();
    assert!(stuck.len() > turns(), "an empty pass: {before:?} are left");
    // Of these it may write nothing more: as many as there are turns, and one more.
    let others = (0..partitions as usize).filter(|p| !stuck.contains(p));
    let mut keys: Vec<String> = others.map(|p| format!("~{}*", world.key(p as u32, ""))).collect();
    keys.extend(["~{stuck}*".to_owned(), "%R~*".to_owned()]);
    rights(&world, &keys);
    khala.sigcont();
    eventually("the others catch up", seconds(60), || {
        let now = remaining(&world);
        let is_done = now.iter().enumerate().all(|(p, left)| *left == 0 || stuck.contains(&p));
        if is_done { Ok(()) } else { Err(now) }
    });
    let now = remaining(&world);
    assert!(
        stuck.iter().all(|p| now[*p] > 0),
        "{stuck:?} are stuck: {now:?} are left"
    );
    rights(&world, &["~*".to_owned()]);
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(khala.term(), Some(0));
}

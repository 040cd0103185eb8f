//! Redis behind a bad network, and a Redis that refuses: slow, cut in the middle of scripts, read-only, full,
//! replaced by a replica that lacks the last writes.

use std::time::Duration;

use super::compare::{Allow, assert_exact};
use super::world::World;
use crate::support::khala::Khala;
use crate::support::proxy::Proxy;
use crate::support::redis_server::{Keeps, Redis};
use crate::support::wait::{eventually_true, seconds};

fn failed_writes(khala: &Khala) -> f64 {
    khala.metric("khala_projection_writes_total", &[("result", "error")])
}

/// A world whose Redis is reached through a proxy.
fn behind_a_proxy(name: &str) -> (World, Proxy) {
    let mut world = World::new(name, 4, 40_000, Keeps::AppendOnly);
    let proxy = Proxy::to(&world.redis.address());
    world.cluster.store = format!("redis://{}", proxy.address());
    (world, proxy)
}

#[test]
fn connections_cut_in_the_middle_of_scripts_change_nothing() {
    let (mut world, proxy) = behind_a_proxy("cut");
    let khala = world.khala("one");
    for bytes in [400_000, 90_000, 30_000, 150_000] {
        let before = proxy.cuts();
        proxy.cut_after(bytes);
        eventually_true("connections are cut", seconds(60), || {
            world.produce(500);
            proxy.cuts() > before + 3
        });
        proxy.cut_after(0);
        world.settle();
    }
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert!(failed_writes(&khala) > 0.0, "some commits were cut");
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_slow_store_is_caught_up_with_in_large_batches() {
    let (mut world, proxy) = behind_a_proxy("slow");
    let khala = world.khala("one");
    proxy.delay(Duration::from_millis(50)); // of 16 KiB: some 300 KiB a second, for batches of megabytes
    world.produce(20_000);
    assert_exact(&world, Allow::AFTER_A_FAULT);
    proxy.delay(Duration::ZERO);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_batch_under_way_is_committed_before_its_partition_is_given_to_another() {
    let (mut world, proxy) = behind_a_proxy("handed-on");
    let one = world.khala("one");
    proxy.delay(Duration::from_millis(40)); // of 16 KiB: a batch is under way for a second
    world.produce(5_000);
    world.cluster.store = world.redis.url(); // the other one's line is not slow
    let two = world.khala_unready("two");
    eventually_true("the other one takes its share", seconds(60), || {
        world.produce(1_000);
        !two.recoveries().is_empty()
    });
    assert_exact(&world, Allow::default()); // no dead letter was written twice
    proxy.delay(Duration::ZERO);
    assert_eq!((one.term(), two.term()), (Some(0), Some(0)));
}

#[test]
fn a_store_that_refuses_to_write_costs_time_and_nothing_else() {
    let mut world = World::new("refusing", 4, 40_000, Keeps::AppendOnly);
    let khala = world.khala("one");
    world.produce(5_000);
    world.settle();
    for (fault, cure) in [
        (&["REPLICAOF", "127.0.0.1", "1"][..], &["REPLICAOF", "NO", "ONE"][..]),
        (
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
        ),
    ] {
        let before = (world.applied(), failed_writes(&khala));
        let _: String = world.redis.ask(fault);
        world.produce(3_000);
        eventually_true("writes are refused, and counted", seconds(60), || {
            failed_writes(&khala) > before.1
        });
        assert_eq!(world.applied(), before.0, "{fault:?}: no checkpoint moves");
        let _: String = world.redis.ask(cure);
        world.settle();
    }
    assert_exact(&world, Allow::AFTER_A_FAULT);
    khala.wait_ready();
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_replica_that_lacks_the_last_writes_is_brought_to_the_log() {
    let (mut world, proxy) = behind_a_proxy("behind");
    let to_replica = Proxy::to(&world.redis.address());
    let (host, port) = to_replica
        .address()
        .split_once(':')
        .map(|(h, p)| (h.to_owned(), p.to_owned()))
        .expect("host:port");
    let replica = Redis::start_as(Keeps::AppendOnly, &["--replicaof", &host, &port]);
    let khala = world.khala("one");
    world.produce(8_000);
    world.settle();
    let place = || replica.ask::<Option<u64>>(&["HGET", &world.key(0, "checkpoint"), "offset"]);
    let at = world.offsets()[0];
    eventually_true("the replica has it", seconds(60), || place() == Some(at));
    to_replica.lead_to("127.0.0.1:1");
    world.produce(8_000);
    world.settle();
    world.redis.kill();
    let _: String = replica.ask(&["REPLICAOF", "NO", "ONE"]);
    proxy.lead_to(&replica.address());
    world.redis = replica;
    world.produce(4_000);
    assert_exact(&world, Allow::AFTER_A_FAULT);
    khala.wait_recovery("sink_rolled_back");
    assert_eq!(khala.term(), Some(0));
}

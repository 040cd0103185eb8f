//! Redis: away, emptied, older than it was, without its scripts; while serving and while stopped.

use super::compare::{Allow, assert_exact};
use super::world::World;
use crate::support::khala::Khala;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually_true, seconds};

fn drift(khala: &Khala, reason: &str) -> u64 {
    khala.metric("khala_projection_drift_total", &[("reason", reason)]) as u64
}

#[test]
fn a_redis_that_is_away_costs_time_and_nothing_else() {
    let mut world = World::new("redis-away", 4, 40_000, Keeps::AppendOnly);
    let khala = world.khala("one");
    for kill in [false, true, false] {
        world.produce(5_000);
        let before = khala.metric("khala_projection_writes_total", &[("result", "error")]);
        if kill {
            world.redis.kill();
        } else {
            world.redis.stop();
        }
        world.produce(5_000);
        eventually_true("failed writes are counted", seconds(60), || {
            khala.metric("khala_projection_writes_total", &[("result", "error")]) > before
        });
        world.redis.start_again();
        world.settle();
    }
    assert_exact(&world, Allow::AFTER_A_FAULT);
    khala.wait_ready();
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn an_older_dump_under_a_serving_process_is_a_sink_rolled_back() {
    let mut world = World::new("rolled-back", 4, 40_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(10_000);
    world.settle();
    let dump = world.redis.dump();
    world.produce(10_000);
    world.settle();
    world.redis.restore(&dump);
    world.produce(5_000);
    assert_exact(&world, Allow::AFTER_A_FAULT);
    khala.wait_recovery("sink_rolled_back");
    assert!(drift(&khala, "sink_rolled_back") > 0);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn an_older_dump_under_a_stopped_process_is_a_sink_rolled_back() {
    let mut world = World::new("rolled-back-stopped", 4, 30_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(8_000);
    world.settle();
    let dump = world.redis.dump();
    world.produce(8_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
    world.redis.restore(&dump);
    let khala = world.khala("two");
    assert_exact(&world, Allow::AFTER_A_FAULT);
    khala.wait_recovery("sink_rolled_back");
    assert!(drift(&khala, "sink_rolled_back") > 0);
}

#[test]
fn a_flush_under_a_serving_process_is_a_lost_sink() {
    let mut world = World::new("flushed-serving", 4, 40_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(15_000);
    assert_exact(&world, Allow::default());
    let _: String = world.redis.ask(&["FLUSHALL"]);
    world.produce(5_000);
    assert_exact(&world, Allow::AFTER_A_FAULT);
    khala.wait_recovery("sink_lost");
    assert!(drift(&khala, "sink_lost") > 0);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_flush_while_stopped_never_starts_at_the_group_offset() {
    let mut world = World::new("flushed-stopped", 4, 30_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(10_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
    let _: String = world.redis.ask(&["FLUSHALL"]);
    let khala = world.khala("two");
    assert_exact(&world, Allow::AFTER_A_FAULT);
    khala.wait_recovery("sink_lost");
    assert!(drift(&khala, "sink_lost") > 0);
}

#[test]
fn a_flush_of_the_scripts_is_not_even_noticed() {
    let mut world = World::new("scripts", 4, 20_000, Keeps::Dumps);
    let khala = world.khala("one");
    for _ in 0..5 {
        world.produce(2_000);
        let _: String = world.redis.ask(&["SCRIPT", "FLUSH"]);
    }
    world.settle();
    let _: String = world.redis.ask(&["SCRIPT", "FLUSH", "SYNC"]);
    world.produce(2_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.metric("khala_projection_drift_total", &[]) as u64, 0);
    assert_eq!(khala.term(), Some(0));
}

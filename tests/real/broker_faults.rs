//! Kafka: restarted, killed, and records gone that were not applied yet.

use super::compare::{Allow, assert_equals_fold_of, assert_exact};
use super::topic;
use super::world::World;
use crate::reference::Rec;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

#[test]
fn a_broker_that_is_restarted_and_killed_costs_time_and_nothing_else() {
    let mut world = World::with_own_broker("broker-restart", 4, 30_000);
    let khala = world.khala("one");
    world.produce(8_000);
    world.own_broker().stop();
    world.own_broker().start_again();
    world.produce(8_000);
    world.settle();
    world.produce(4_000);
    world.own_broker().kill();
    world.own_broker().start_again();
    world.produce(4_000);
    assert_exact(&world, Allow::AFTER_A_FAULT);
    khala.wait_ready();
    let drift = khala.metric("khala_projection_drift_total", &[]) as u64;
    assert_eq!(drift, 0, "recoveries: {:?}", khala.recoveries());
    eventually("the client tells that the broker failed", seconds(60), || {
        let errors = khala.metric("khala_kafka_broker_errors_total", &[]);
        if errors > 0.0 { Ok(()) } else { Err(errors) }
    });
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn records_gone_before_they_were_applied_are_a_retention_gap() {
    let mut world = World::new("gap", 2, 20_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(6_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
    let applied = world.read_back();
    world.produce(4_000);
    let ends = topic::bounds(&world.config(), &world.cluster.topic);
    let first = ends[0].1 - 500;
    assert!(world.offsets()[0] < first, "records are lost that were not applied");
    world.kafka().delete_records(&world.cluster.topic, 0, first);
    let khala = world.khala("two");
    world.produce(2_000);
    world.settle();
    khala.wait_recovery("retention_gap");
    let counted = khala.metric("khala_projection_drift_total", &[("reason", "retention_gap")]);
    assert!(counted > 0.0, "the gap is counted");
    assert!(
        khala.stderr().contains(&first.to_string()),
        "the log names where the gap ends"
    );
    // What was applied before the gap, then what is left after it.
    let mut known = applied;
    let seen: Vec<u64> = (0..2)
        .map(|p| known.iter().filter(|r: &&Rec| r.partition == p).count() as u64)
        .collect();
    known.extend(
        world
            .read_back()
            .into_iter()
            .filter(|rec| rec.offset >= seen[rec.partition as usize]),
    );
    known.sort_by_key(|rec| (rec.partition, rec.offset));
    assert_equals_fold_of(&world, &known, Allow::AFTER_A_FAULT);
    assert_eq!(khala.term(), Some(0));
}

//! Three brokers: their leaders killed one after the other, and an unclean election that cuts the log.

use super::compare::{Allow, assert_exact};
use super::topic;
use super::world::World;
use crate::support::broker::Kafka;

#[test]
fn leaders_that_are_killed_one_after_the_other_cost_time_and_nothing_else() {
    let [first, second, third] = Kafka::start_three();
    let mut others = [second, third];
    let mut world = World::with_brokers(first, "leaders", 4, 40_000, Kafka::create_replicated_topic);
    let khala = world.khala("one");
    world.produce(6_000);
    for broker in [0, 1, 0] {
        let broker = &mut others[broker];
        broker.kill();
        world.produce(4_000);
        world.settle();
        broker.start_again();
        world.produce(2_000);
    }
    assert_exact(&world, Allow::AFTER_A_FAULT);
    khala.wait_ready();
    let drift = khala.metric("khala_projection_drift_total", &[]) as u64;
    assert_eq!(drift, 0, "recoveries: {:?}", khala.recoveries());
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn an_unclean_election_cuts_the_log_and_the_documents_follow_it() {
    let [first, mut second, mut third] = Kafka::start_three();
    let mut world = World::with_brokers(first, "unclean", 3, 40_000, Kafka::create_careless_topic);
    let khala = world.khala("one");
    world.produce(6_000);
    world.settle();
    third.kill();
    world.produce(6_000);
    world.settle();
    let before = world.offsets();
    second.kill();
    third.start_again();
    let ends = topic::bounds(&world.config(), &world.cluster.topic);
    let lost = ends.iter().zip(&before).any(|((_, end), before)| end < before);
    assert!(lost, "the log has lost records: {ends:?}, {before:?}");
    khala.wait_recovery("checkpoint_ahead");
    world.produce(3_000);
    assert_exact(&world, Allow::AFTER_A_CUT);
    second.start_again();
    world.produce(3_000);
    assert_exact(&world, Allow::AFTER_A_CUT);
    assert_eq!(khala.term(), Some(0));
}

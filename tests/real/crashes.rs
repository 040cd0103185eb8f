//! The process: a clean run, kills, a long sleep while another takes over.

use super::compare::{Allow, assert_exact};
use super::topic;
use super::world::World;
use crate::support::khala::Khala;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, eventually_true, seconds};

#[test]
fn a_hundred_thousand_messy_events_are_projected_exactly() {
    let mut world = World::new("clean", 6, 100_000, Keeps::Dumps);
    world.produce(60_000);
    let khala = world.khala("one");
    world.produce(40_000);
    assert_exact(&world, Allow::default());
    khala.wait_recovery("first_start");
    let records: f64 = world.read_back().len() as f64;
    eventually("each record is counted", seconds(60), || {
        let counted = khala.metric("khala_projection_events_total", &[]);
        let all = (counted - records).abs() < 0.5;
        if all { Ok(()) } else { Err((counted, records)) }
    });
    assert!(khala.metric("khala_projection_writes_total", &[("result", "ok")]) > 0.0);
    assert_eq!(khala.metric("khala_projection_drift_total", &[]) as u64, 0);
    assert_eq!(khala.term(), Some(0), "SIGTERM ends with 0");
    let again = world.khala("again");
    again.wait_recovery("normal");
    world.produce(500);
    assert_exact(&world, Allow::default());
    assert_eq!(again.metric("khala_projection_drift_total", &[]) as u64, 0);
}

#[test]
fn who_takes_over_what_is_caught_up_tells_the_group() {
    let mut world = World::new("caught-up", 3, 2_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(2_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
    // As after a kill between the store's commit and the group's: documents are there, lag tools do not know.
    let behind: Vec<u64> = world.offsets().iter().map(|offset| offset - 7).collect();
    topic::commit(&world.config(), &world.cluster.topic, &world.cluster.namespace, &behind);
    let khala = world.khala("two");
    assert_exact(&world, Allow::default());
    assert!(khala.recoveries().iter().all(|name| name == "normal"));
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn ten_kills_of_two_processes_change_nothing() {
    let mut world = World::new("kills", 6, 60_000, Keeps::Dumps);
    world.produce(20_000);
    let mut two: Vec<Khala> = vec![world.khala("p0"), world.khala("p1")];
    for round in 0..10 {
        world.produce(4_000);
        let applied = world.applied();
        world.wait_applied(applied + 1);
        two.remove(0).kill9();
        // Nothing is waited for: the next one starts while partitions still belong to the dead one.
        two.push(world.khala_unready(&format!("p{}", round + 2)));
    }
    assert_exact(&world, Allow::AFTER_A_FAULT);
    let recovered: usize = two.iter().map(|khala| khala.recoveries().len()).sum();
    assert!(recovered > 0, "no recovery was named");
    for khala in two {
        assert_eq!(khala.term(), Some(0));
    }
}

#[test]
fn one_that_slept_past_its_session_writes_nothing_wrong() {
    let mut world = World::new("sleeper", 4, 40_000, Keeps::Dumps);
    let sleeper = world.khala("sleeper");
    world.produce(10_000);
    world.wait_applied(1_000);
    sleeper.sigstop();
    let other = world.khala_unready("other");
    world.produce(10_000);
    // All partitions go to the other one, which does what the sleeper left.
    world.settle();
    other.wait_recovery("normal");
    let seen = other.recoveries().len();
    assert!(seen >= 4, "the other one took {seen} partitions");
    sleeper.sigcont();
    world.produce(10_000);
    assert_exact(&world, Allow::AFTER_A_FAULT);
    eventually_true("both are ready again", seconds(60), || {
        [&sleeper, &other]
            .iter()
            .all(|khala| matches!(khala.get("/readyz"), Ok((200, _))))
    });
    world.produce(2_000);
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!((sleeper.term(), other.term()), (Some(0), Some(0)));
}

#[test]
fn a_second_process_shares_the_partitions_and_leaves_them_cleanly() {
    let mut world = World::new("sharing", 6, 20_000, Keeps::Dumps);
    let one = world.khala("one");
    world.produce(5_000);
    let two = world.khala("two");
    world.produce(5_000);
    assert_exact(&world, Allow::default());
    two.wait_recovery("normal");
    eventually("the client tells of the rebalances", seconds(60), || {
        let rebalances = one.metric("khala_kafka_rebalances_total", &[]);
        if rebalances > 1.0 { Ok(()) } else { Err(rebalances) }
    });
    assert_eq!(one.term(), Some(0));
    world.produce(5_000);
    assert_exact(&world, Allow::default());
    assert_eq!(two.term(), Some(0));
}

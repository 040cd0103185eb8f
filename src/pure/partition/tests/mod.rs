//! The machine over a log and a store in memory, under every fault that both can show it.

mod cut;
mod lease;
mod store;
pub(in crate::pure) mod world;

use proptest::prelude::*;

use self::world::{Dice, World, fold, messy_log};
use super::{Action, Effect, Failure, Input, Outcome, Partition, Rewound, State};
use crate::pure::checkpoint::{Checkpoint, PROJECTION_VERSION};
use crate::pure::place::{NextOffset, Offset};
use crate::pure::record::RecordBatch;
use crate::pure::recovery::Called;

/// So small that documents are let go and read again all the time.
const TINY_CACHE: usize = 1500;

fn run(seed: u64, records: usize) -> (World, Dice) {
    let mut dice = Dice::new(seed);
    let log = messy_log(&mut dice, records);
    let cache_bytes = if dice.one_in(2) { TINY_CACHE } else { 1 << 20 };
    (World::new(log, cache_bytes), dice)
}

#[test]
fn a_clean_run_equals_the_fold_and_appends_each_dead_letter_once() {
    for seed in 0..20 {
        let (mut world, mut dice) = run(seed, 200);
        world.settle(&mut dice);
        world.check_all();
        let (_, checkpoint) = fold(&world.log, world.end());
        assert!(
            checkpoint.dead_letters > 0 && checkpoint.duplicates > 0,
            "seed {seed}: an empty pass"
        );
        assert_eq!(world.dead_letters.len() as u64, checkpoint.dead_letters, "seed {seed}");
        assert_eq!(world.named, [Called::FirstStart]);
    }
}

#[test]
fn a_flush_while_serving_is_named_and_redone() {
    let (mut world, mut dice) = run(1, 100);
    world.settle(&mut dice);
    world.store = store::StoreState::default();
    world.input(Input::Tick {
        cache_bytes: TINY_CACHE,
    });
    world.settle(&mut dice);
    world.check_all();
    assert_eq!(world.named.last(), Some(&Called::SinkLost));
}

#[test]
fn a_flood_of_dead_letters_holds_until_an_operator_lets_it_through() {
    let mut log = RecordBatch::default();
    for offset in 0..100 {
        log.push(Offset(offset), 0, Some(b"run/a"), Some(b"<html>"));
    }
    let (mut world, mut dice) = (World::new(log, TINY_CACHE), Dice::new(1));
    let held = |world: &World| {
        matches!(
            world.machine.view().state,
            State::Held {
                called: Called::DeadLetterShare,
                ..
            }
        )
    };
    let mut step = |world: &mut World| {
        world.feed(10);
        world.perform(&mut dice, u64::MAX);
        world.input(Input::Tick {
            cache_bytes: TINY_CACHE,
        });
    };
    for _ in 0..50 {
        step(&mut world);
    }
    assert!(held(&world), "{:?}", world.machine.view());
    let before = (world.dead_letters.len(), world.store.checkpoint.clone());
    assert!(before.0 <= 30, "the flood was stopped: {}", before.0);
    for _ in 0..50 {
        step(&mut world);
        assert!(held(&world), "it does not waver");
    }
    assert_eq!(before, (world.dead_letters.len(), world.store.checkpoint.clone()));
    world.let_through = world.end();
    world.settle(&mut dice);
    world.check_all();
    assert_eq!(world.dead_letters.len(), 100);
}

#[test]
fn an_older_store_is_named_also_when_the_group_lags() {
    let (mut world, mut dice) = run(2, 100);
    let mut old = None;
    while world
        .store
        .checkpoint
        .as_ref()
        .is_none_or(|checkpoint| checkpoint.next < NextOffset(60))
    {
        world.feed(5);
        world.perform(&mut dice, u64::MAX);
        if world
            .store
            .checkpoint
            .as_ref()
            .is_some_and(|checkpoint| checkpoint.next > NextOffset(20))
            && old.is_none()
        {
            old = Some(world.store.clone());
        }
    }
    world.store = old.expect("an older store");
    world.group = None;
    world.settle(&mut dice);
    world.check_all();
    assert_eq!(world.named.last(), Some(&Called::SinkRolledBack));
}

#[test]
fn a_gap_with_nothing_behind_it_is_named_once_and_is_no_lag() {
    let (mut world, mut dice) = run(9, 100);
    let applied = |world: &World| world.store.checkpoint.as_ref().map(|checkpoint| checkpoint.next);
    while applied(&world) < Some(NextOffset(40)) {
        world.feed(5);
        world.perform(&mut dice, u64::MAX);
    }
    world.first = world.end();
    for _ in 0..3 {
        world.crash();
        world.settle(&mut dice);
        assert_eq!(applied(&world), Some(world.end()));
    }
    assert_eq!(
        world.named,
        [Called::FirstStart, Called::RetentionGap, Called::Normal, Called::Normal]
    );
}

#[test]
fn a_missing_document_parks_its_entity_and_the_others_go_on() {
    let (mut world, mut dice) = run(4, 300);
    let log = world.log.clone();
    while world.store.documents.len() < 4 {
        world.feed(3);
        world.perform(&mut dice, u64::MAX);
    }
    let (victim, _) = world.store.documents.pop_first().expect("a document");
    world.crash();
    world.settle(&mut dice);
    assert!(
        world.drifted.contains(&(victim.clone(), "missing_document")),
        "{:?}",
        world.drifted
    );
    assert!(world.store.parked.contains_key(&victim));
    let (documents, _) = fold(&log, world.end());
    for (entity, json) in documents.iter().filter(|(entity, _)| **entity != victim) {
        assert_eq!(
            world.store.documents.get(entity).map(|(json, _)| json),
            Some(json),
            "{entity}"
        );
    }
    assert!(
        !world.store.documents.contains_key(&victim),
        "a lost document was taken for a new one"
    );
}

#[test]
fn a_held_partition_writes_nothing_and_goes_on_when_the_cause_is_gone() {
    let (mut world, mut dice) = run(5, 50);
    let mut foreign = Checkpoint::first(NextOffset(3), "topic", 1);
    foreign.projection_version = PROJECTION_VERSION + 1;
    world.store.checkpoint = Some(foreign.clone());
    for _ in 0..50 {
        world.feed(5);
        world.perform(&mut dice, u64::MAX);
        world.input(Input::Tick {
            cache_bytes: TINY_CACHE,
        });
    }
    assert_eq!(world.store.checkpoint, Some(foreign));
    assert!(matches!(
        world.machine.view().state,
        State::Held {
            called: Called::ProjectionVersionChanged,
            ..
        }
    ));
    assert_eq!(world.named, [Called::ProjectionVersionChanged], "it is said once");
    let tick = |_: u32| {
        world.machine.on(
            Input::Tick {
                cache_bytes: TINY_CACHE,
            },
            0,
        )
    };
    let asked = (0..50).flat_map(tick).count();
    assert!(asked <= 1, "it looked {asked} times at once");
    world.store.checkpoint = None;
    for _ in 0..10 {
        world.input(Input::Tick {
            cache_bytes: TINY_CACHE,
        });
    }
    world.settle(&mut dice);
    world.check_all();
}

#[test]
fn a_log_that_was_seen_to_be_another_is_no_better_once_retention_takes_what_told() {
    let (mut world, mut dice) = run(5, 50);
    world.settle(&mut dice);
    let mut lost = world.store.checkpoint.clone().expect("settled");
    lost.last_record.as_mut().expect("applied").crc32c ^= 1;
    world.store.checkpoint = Some(lost.clone());
    let mut look = |world: &mut World| {
        for _ in 0..50 {
            world.perform(&mut dice, u64::MAX);
            world.input(Input::Tick {
                cache_bytes: TINY_CACHE,
            });
        }
        matches!(
            world.machine.view().state,
            State::Held {
                called: Called::LogReplaced,
                ..
            }
        )
    };
    assert!(look(&mut world), "{:?}", world.machine.view());
    world.first = world.end();
    assert!(look(&mut world), "{:?}", world.machine.view());
    assert_eq!(world.store.checkpoint, Some(lost));
}

#[test]
fn a_rewind_that_cannot_be_finished_is_tried_again_and_again_and_said_once() {
    let (world, _) = run(5, 50);
    let (mut survey, mut machine) = (world.survey(), world.machine);
    let mut checkpoint = Checkpoint::first(NextOffset(3), "topic", 1);
    checkpoint.intent = "rewind 2 - 0 1 1 0 0 t".to_owned();
    survey.checkpoint = Some(checkpoint);
    let surveyed = || Input::Done(Outcome::Surveyed(Box::new(survey.clone())));
    let no_mark = || {
        let failure = Failure::Hopeless("no mark".to_owned());
        Input::Done(Outcome::Failed(Effect::Rewind { to: None }, failure))
    };
    let is_held = |machine: &Partition| matches!(machine.view().state, State::Held { .. });
    machine.on(surveyed(), 0);
    assert!(!is_held(&machine));
    machine.on(no_mark(), 0);
    for _ in 0..3 {
        let tick = |_: u32| machine.on(Input::Tick { cache_bytes: 1 << 20 }, 0);
        let looks: Vec<Action> = (0..50).flat_map(tick).collect();
        assert!(matches!(looks[..], [Action::Do { .. }]), "{looks:?}");
        let tries = machine.on(surveyed(), 0);
        let rewind = |action: &Action| {
            matches!(
                action,
                Action::Do {
                    effect: Effect::Rewind { to: None },
                    ..
                }
            )
        };
        assert!(tries.len() == 1 && tries.iter().all(rewind), "{tries:?}");
        assert!(is_held(&machine));
        assert!(machine.on(no_mark(), 0).is_empty());
        assert!(is_held(&machine));
    }
    machine.on(surveyed(), 0);
    machine.on(Input::Done(Outcome::Rewound(Rewound::default())), 0);
    assert!(!is_held(&machine), "it could be finished at last");
}

#[test]
fn dead_letters_are_not_repeated_after_a_recovery_in_a_live_projector() {
    let (mut world, mut dice) = run(6, 200);
    while world.dead_letters.is_empty() {
        world.feed(5);
        world.perform(&mut dice, u64::MAX);
    }
    for _ in 0..5 {
        world.input(Input::ReaderStopped("broker went away".to_owned()));
        for _ in 0..20 {
            world.feed(5);
            world.perform(&mut dice, u64::MAX);
        }
    }
    world.settle(&mut dice);
    world.check_all();
    let (_, checkpoint) = fold(&world.log, world.end());
    assert_eq!(world.dead_letters.len() as u64, checkpoint.dead_letters);
}

#[test]
fn dead_letters_on_their_way_are_waited_for_by_a_recovery() {
    let (mut world, mut dice) = run(8, 200);
    for i in 0..400 {
        world.feed(5);
        if i % 3 == 0 {
            world.perform_after(Input::LogChanged("more partitions".to_owned()));
        } else {
            world.perform(&mut dice, u64::MAX);
        }
    }
    world.settle(&mut dice);
    world.check_all();
    let (_, checkpoint) = fold(&world.log, world.end());
    assert_eq!(world.dead_letters.len() as u64, checkpoint.dead_letters);
}

#[test]
fn a_reader_that_stops_after_every_batch_holds_nothing_up() {
    let (mut world, mut dice) = run(7, 200);
    for _ in 0..400 {
        // The leader's epoch changes behind each batch: reading stops while the batch is in hand.
        if world.feed(5) {
            world.input(Input::ReaderStopped("leader epoch".to_owned()));
        }
        world.perform(&mut dice, u64::MAX);
    }
    let applied = world.store.checkpoint.as_ref().map(|checkpoint| checkpoint.next);
    assert_eq!(applied, Some(world.end()), "all is applied");
    world.check_all();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 60 } else { 1000 }))]

    /// Crashes between fold, store commit and group commit; lost answers; a store that goes back or is lost.
    #[test]
    fn no_fault_leaves_a_document_that_is_not_the_fold(seed in any::<u64>()) {
        let (mut world, mut dice) = run(seed, 80);
        let mut old = vec![world.store.clone()];
        let (crash_in, lose_in) = (20 + dice.below(80), 40 + dice.below(200));
        for _ in 0..400 {
            match dice.below(4) {
                0 => { world.feed(1 + dice.below(9) as usize); }
                1 | 2 => { world.perform(&mut dice, 15); }
                _ => world.input(Input::Tick { cache_bytes: TINY_CACHE }),
            }
            if dice.one_in(crash_in) {
                world.crash();
            }
            if dice.one_in(25) {
                old.push(world.store.clone());
            }
            if dice.one_in(lose_in) {
                world.store = old[dice.below(old.len() as u64) as usize].clone();
            }
            if dice.one_in(40) {
                world.input(Input::ReaderStopped("leader epoch".to_owned()));
            }
            if dice.one_in(80) {
                world.input(Input::LogChanged("more partitions".to_owned()));
            }
            if dice.one_in(10) {
                world.check_documents();
            }
        }
        world.settle(&mut dice);
        world.check_all();
    }

    /// Any split into batches gives the same bytes.
    #[test]
    fn batches_do_not_show_in_the_documents(seed in any::<u64>(), size in 1_usize..60) {
        let (mut world, mut dice) = run(seed, 120);
        while world.store.checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.next < world.end()) {
            world.feed(size);
            world.perform(&mut dice, u64::MAX);
        }
        world.check_all();
    }
}

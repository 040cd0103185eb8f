//! A log that is cut, or has another leader, just before the first fetch.

use super::run;
use crate::pure::partition::{Input, State};
use crate::pure::place::Offset;
use crate::pure::record::RecordBatch;

#[test]
fn a_log_cut_between_the_comparison_and_the_first_fetch_is_found_out_by_that_fetch() {
    let (mut world, mut dice) = run(3, 60);
    world.settle(&mut dice);
    let last = world
        .store
        .checkpoint
        .as_ref()
        .and_then(|now| now.last_record)
        .expect("one");
    world.crash();
    world.perform(&mut dice, u64::MAX); // the comparison
    assert!(matches!(world.machine.view().state, State::Running));
    let mut cut = RecordBatch::default();
    for record in world.log.iter() {
        let is_last = record.offset == last.offset;
        cut.push(
            record.offset,
            record.timestamp_ms + i64::from(is_last),
            record.key,
            record.value,
        );
    }
    cut.push(Offset(last.offset.0 + 1), 0, Some(b"run/later"), Some(b"{}"));
    world.log = cut;
    assert!(world.feed(10), "the first fetch");
    assert!(
        !matches!(world.machine.view().state, State::Running),
        "it compares again"
    );
    assert_eq!(
        world.store.checkpoint.as_ref().and_then(|now| now.last_record),
        Some(last),
        "nothing is written"
    );
}

#[test]
fn a_reader_that_stops_right_behind_the_last_record_goes_on_behind_it() {
    let (mut world, mut dice) = run(3, 60);
    world.settle(&mut dice);
    let end = world.end();
    world.crash();
    world.perform(&mut dice, u64::MAX);
    let read_from = |world: &super::world::World| world.place.expect("it reads");
    assert!(read_from(&world) < end, "with the last record applied");
    assert!(world.feed(10));
    world.input(Input::ReaderStopped("another leader's epoch".to_owned()));
    world.perform(&mut dice, u64::MAX);
    assert_eq!(read_from(&world), end);
    world.input(Input::ReaderStopped("a broker is away".to_owned()));
    world.perform(&mut dice, u64::MAX);
    assert!(read_from(&world) < end, "and with it the next time");
}

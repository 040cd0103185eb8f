//! The refold against the slow and obvious fold, over messy logs cut into batches anyhow.

use proptest::prelude::*;

use super::*;
use crate::pure::partition::tests::world::{Dice, PARTITION, fold, messy_log, rules};

/// The log in batches of a few records.
fn batches(log: &RecordBatch, dice: &mut Dice) -> Vec<RecordBatch> {
    let mut cut = vec![RecordBatch::default()];
    for record in log.iter() {
        if dice.one_in(4) {
            cut.push(RecordBatch::default());
        }
        let last = cut.len() - 1;
        cut[last].push(record.offset, record.timestamp_ms, record.key, record.value);
    }
    cut
}

fn run(refold: &mut Refold<u64>, log: &RecordBatch, dice: &mut Dice) -> (Vec<Refolded<u64>>, Vec<(Entity, Offset)>) {
    let (mut done, mut unknown) = (Vec::new(), Vec::new());
    for records in batches(log, dice) {
        let fed = refold.feed(&records);
        done.extend(fed.done);
        unknown.extend(fed.unknown);
    }
    done.extend(refold.finish());
    (done, unknown)
}

/// Content of a document but for when it was written.
fn content(document: &Document) -> Option<Vec<u8>> {
    let mut json = Vec::new();
    (!document.is_empty()).then(|| {
        document.render(Time::from_ms(1_700_000_000_000).expect("a time"), &mut json);
        json
    })
}

fn entity(subject: &str) -> Entity {
    Entity::parse(subject).expect("legal")
}

const SUBJECTS: [&str; 6] = ["run/a", "run/b", "run/c", "worker/w", "run/d", "run/never"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn each_entity_is_the_fold_up_to_its_own_end(seed in any::<u64>(), ends in prop::collection::vec(0_u64..400, 6)) {
        let mut dice = Dice::new(seed);
        let log = messy_log(&mut dice, 250);
        let mut refold = Refold::new(PARTITION, rules(), 0);
        for (subject, end) in SUBJECTS.iter().zip(&ends) {
            refold.want(entity(subject), Want::until(NextOffset(*end)), *end);
        }
        let (done, unknown) = run(&mut refold, &log, &mut dice);
        prop_assert_eq!((done.len(), unknown.len(), refold.open()), (6, 0, 0));
        for one in done {
            let (documents, _) = fold(&log, NextOffset(one.tag));
            prop_assert_eq!(content(&one.document), documents.get(&one.entity).cloned(), "{} until {}", one.entity, one.tag);
        }
        let entries: usize = SUBJECTS.iter().map(|subject| entry_bytes::<u64>(&entity(subject))).sum();
        prop_assert_eq!(refold.bytes(), entries, "documents handed out are paid back");
    }

    #[test]
    fn a_split_tells_hash_and_counts_on_both_sides(seed in any::<u64>(), split in 0_u64..300, more in 0_u64..200) {
        let mut dice = Dice::new(seed);
        let log = messy_log(&mut dice, 250);
        let until = NextOffset(split + more);
        let mut refold = Refold::new(PARTITION, rules(), 0);
        for subject in SUBJECTS {
            refold.want(entity(subject), Want { until, split: NextOffset(split) }, 0);
        }
        let (done, _) = run(&mut refold, &log, &mut dice);
        let (before, after) = (fold(&log, NextOffset(split)), fold(&log, until));
        let sum = |count: fn(&Refolded<u64>) -> u64| done.iter().map(count).sum::<u64>();
        prop_assert_eq!(sum(|one| one.accepted), after.1.accepted - before.1.accepted);
        prop_assert_eq!(sum(|one| one.duplicates), after.1.duplicates - before.1.duplicates);
        let hashes = done.iter().fold(0_u128, |sum, one| sum.wrapping_add(one.hash_at_split));
        prop_assert_eq!(hashes, before.1.digest.0);
        let hashes = done.iter().fold(0_u128, |sum, one| sum.wrapping_add(hash(&one.document, &mut Vec::new())));
        prop_assert_eq!(hashes, after.1.digest.0);
    }

    #[test]
    fn an_entity_that_nobody_wants_is_told_once_if_it_began_below_the_bound(seed in any::<u64>(), bound in 0_u64..300) {
        let mut dice = Dice::new(seed);
        let log = messy_log(&mut dice, 250);
        let mut refold: Refold<u64> = Refold::new(PARTITION, rules(), 0);
        refold.want(entity("run/a"), Want::until(NextOffset(0)), 0);
        refold.watch(NextOffset::START..NextOffset(bound), Slice::ALL);
        let (_, unknown) = run(&mut refold, &log, &mut dice);
        let told: Vec<&str> = unknown.iter().map(|(entity, _)| entity.subject()).collect();
        let (documents, _) = fold(&log, NextOffset(bound));
        let there: Vec<&str> = documents.keys().map(Entity::subject).filter(|subject| *subject != "run/a").collect();
        let mut sorted = told.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, there);
    }

    #[test]
    fn slices_share_nothing_and_leave_nothing_out(seed in any::<u64>(), cuts in 0_usize..6) {
        let mut slices = vec![Slice::ALL];
        for i in 0..cuts {
            let upper = slices[i % 2].halve().expect("large enough");
            slices.push(upper);
        }
        for subject in [format!("run/{seed}"), format!("worker/{seed:x}")] {
            let holding = slices.iter().filter(|slice| slice.contains(subject.as_bytes())).count();
            prop_assert_eq!(holding, 1);
        }
    }
}

#[test]
fn the_last_events_are_kept_in_order() {
    let mut dice = Dice::new(3);
    let log = messy_log(&mut dice, 250);
    let mut refold = Refold::new(PARTITION, rules(), 5);
    refold.want(entity("run/a"), Want::until(NextOffset(u64::MAX)), 0);
    let (done, _) = run(&mut refold, &log, &mut dice);
    let seqs: Vec<u64> = done[0].events.iter().map(|event| event.seq).collect();
    let last = done[0].document.seq();
    assert_eq!(seqs, (last - 4..=last).collect::<Vec<_>>());
    assert!(done[0].events.iter().all(|event| event.json.starts_with(b"{")));
}

#[test]
fn an_event_past_the_end_of_one_handed_out_is_told_once() {
    let mut dice = Dice::new(9);
    let log = messy_log(&mut dice, 250);
    let mut refold = Refold::new(PARTITION, rules(), 0);
    for subject in ["run/a", "run/b", "run/c"] {
        let until = if subject == "run/b" { 400 } else { 100 };
        refold.want(entity(subject), Want::until(NextOffset(until)), 0);
    }
    refold.pass_over(entity("run/c"));
    refold.pass_over(entity("run/d"));
    refold.watch(NextOffset::START..NextOffset(200), Slice::ALL);
    let fed: Vec<_> = batches(&log, &mut dice)
        .iter()
        .map(|records| refold.feed(records))
        .collect();
    let later: Vec<_> = fed.iter().flat_map(|fed| &fed.later).collect();
    assert_eq!((later.len(), later[0].0.subject()), (1, "run/a"));
    assert!((100..200).contains(&later[0].1.0), "{later:?}");
    let unknown: Vec<_> = fed
        .iter()
        .flat_map(|fed| &fed.unknown)
        .map(|(entity, _)| entity.subject())
        .collect();
    assert_eq!(unknown, ["worker/w"]);
    assert!(refold.knows(&entity("run/d")) && !refold.knows(&entity("run/never")));
}

#[test]
fn a_share_is_about_that_share_and_moves_with_its_beginning() {
    let count = |slices: &[Slice]| {
        let of = |i: &u32| slices.iter().any(|slice| slice.contains(format!("run/{i}").as_bytes()));
        (0..20_000).filter(of).count()
    };
    for from in [0, u64::MAX / 2, u64::MAX - 5] {
        let share = count(&Slice::share(0.1, from));
        assert!((1800..2200).contains(&share), "{share} of 20000 from {from}");
    }
    assert_eq!(count(&Slice::share(1.0, 77)), 20_000);
    assert_ne!(Slice::share(0.1, 0), Slice::share(0.1, 1 << 63));
}

//! What a snapshot's marker claims: each entity's document as of its place is in the topic, or the entity is aside.

use std::collections::BTreeSet;

use khala::pure::entity::Entity;
use khala::pure::place::{NextOffset, Offset};
use khala::repair::heal;
use khala::repair::snapshot::{Round, lookup};

use super::operator::healer;
use super::part::Part;
use super::projector::Task;
use super::sea::{PARTITION, Sea};
use super::version::ground;
use super::writers::{compact, go_on, has_all, is_parked, part, restored, round, sea, site, to_its_end, writer};

fn run() -> Entity {
    Entity::parse("run/b").expect("a subject")
}

/// Its document.
fn said(part: &Part) -> String {
    let json = part.documents.get(&run()).map(|(json, _)| json.as_slice());
    String::from_utf8_lossy(json.unwrap_or_default()).into_owned()
}

/// All events are read, and the last one of `run/b` waits.
fn waiting() -> Part {
    Part {
        checkpoint: part(3).checkpoint,
        parked: [(run(), Offset(2))].into(),
        ..part(2)
    }
}

/// What is restored from the round of a writer, at whose poll `at` the entity that waits is healed, and whether the
/// round had come to its end before.
fn healed_at(at: usize, has_marker: bool) -> (Part, bool) {
    let sea = sea();
    if has_marker {
        sea.lock().part = part(2);
        to_its_end(Box::pin(round(writer(&sea))));
    }
    sea.lock().part = waiting();
    let mut task: Task<_> = Box::pin(round(writer(&sea)));
    let was_done = go_on(&mut task, at).is_some();
    sea.lock().part = part(3);
    if !was_done {
        to_its_end(task);
    }
    compact(&sea);
    (restored(&sea), was_done)
}

#[test]
fn an_entity_that_is_healed_while_a_round_is_under_way_is_written_or_aside() {
    for has_marker in [false, true] {
        let mut at = 0;
        loop {
            let (part, was_done) = healed_at(at, has_marker);
            assert!(
                has_all(&part) || is_parked(&part),
                "healed at {at}: {:?}",
                part.documents
            );
            if was_done {
                break;
            }
            at += 1;
        }
        assert!(at > 10, "{at} moments are too few");
    }
}

/// The entity that waits has lost its document. It is healed, and the store fails over to a copy in which it does not wait
/// yet, before poll `over`, and back before poll `back`.
fn healed_beside(over: usize, back: usize) -> Part {
    let sea = sea();
    let mut newest = waiting();
    newest.documents.remove(&run());
    let mut older = newest.clone();
    older.checkpoint = part(2).checkpoint;
    older.parked.clear();
    sea.lock().part = newest.clone();
    let ground = ground(&sea);
    let mut task: Task<_> = Box::pin(async move { heal(&ground, PARTITION, &[run()], &healer(1, 0)).await.is_ok() });
    for at in 0..=back {
        if at == over {
            newest = std::mem::replace(&mut sea.lock().part, older.clone());
        }
        if at == back {
            sea.lock().part = newest.clone();
        }
        if go_on(&mut task, 1).is_some() {
            if (over..back).contains(&at) {
                sea.lock().part = newest;
            }
            return sea.lock().part.clone();
        }
    }
    to_its_end(task);
    sea.lock().part.clone()
}

#[test]
fn what_waits_is_healed_as_what_waits_also_where_the_store_fails_over_and_back() {
    let mut healed = 0;
    for over in 0..40 {
        for back in over + 1..=40 {
            let part = healed_beside(over, back);
            let is_whole = said(&part).contains(r#""latest_seq":2"#);
            let when = format!("over at {over}, back at {back}");
            assert!(!is_whole || !is_parked(&part), "{when}: the digest counts what it was");
            healed += u64::from(is_whole);
        }
    }
    assert!(healed > 0, "it was never healed");
}

/// A topic whose newest document of `run/b` cannot be read, behind an older one, and then a marker.
fn spoilt() -> Sea {
    let sea = sea();
    for applied in [2, 3] {
        sea.lock().part = part(applied);
        let (_, done) = to_its_end(Box::pin(round(writer(&sea))));
        assert!(matches!(done, Round::Written { .. }), "{done:?}");
    }
    let mut state = sea.lock();
    let of_run = |record: &&mut crate::reference::Rec| record.key.as_deref() == Some(run().subject().as_bytes());
    let newest = state.documents.iter_mut().rev().find(of_run).expect("it was written");
    newest.value = Some(b"{}".to_vec());
    drop(state);
    sea
}

#[test]
fn a_restore_parks_whose_newest_document_cannot_be_read() {
    let part = restored(&spoilt());
    assert!(is_parked(&part), "{}", said(&part));
}

#[test]
fn a_lookup_gives_no_older_document_for_one_that_cannot_be_read() {
    let sea = spoilt();
    sea.lock().first = 3; // the older marker tells nothing any more
    let site = site(&sea);
    let found = to_its_end(Box::pin(async move {
        let entities = BTreeSet::from([run(), Entity::parse("run/a").expect("a subject")]);
        lookup(&site, &entities, NextOffset(3)).await.expect("a calm sea")
    }));
    let found: Vec<&str> = found.keys().map(Entity::subject).collect();
    assert_eq!(found, ["run/a"]);
}

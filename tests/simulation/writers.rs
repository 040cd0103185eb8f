//! Two writers of snapshots at once, a server and `khala snapshot`: the one that is late must not leave an older
//! document under the marker of the other, wherever it is when it is killed.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use khala::pure::checkpoint::Checkpoint;
use khala::pure::document::Document;
use khala::pure::entity::Entity;
use khala::pure::event::decode_structured;
use khala::pure::place::{NextOffset, Offset};
use khala::pure::time::Time;
use khala::repair::Site;
use khala::repair::snapshot::{Round, Snapshots, Source, restore};
use khala::store::Owner;

use super::log::SimLog;
use super::part::Part;
use super::plan::Calls;
use super::projector::{RULES, Task, poll};
use super::sea::{PARTITION, Sea};
use super::store::SimStore;
use super::version::Version;
use super::weak::Weak;
use crate::reference::Rec;

/// More polls than anything here has.
const POLLS: usize = 1000;
const SUBJECTS: [&str; 3] = ["run/a", "run/b", "run/b"];

/// The event at an offset: one of `run/a`, then two of `run/b`.
fn event(offset: usize) -> String {
    let (subject, sequence) = (SUBJECTS[offset], if offset == 2 { 2 } else { 1 });
    let kind = if sequence == 1 { "run.started" } else { "run.progressed" };
    format!(
        r#"{{"specversion":"1.0","id":"{offset}","source":"s","type":"{kind}","subject":"{subject}","sequence":{sequence},"data":{{"thread_id":"t"}}}}"#
    )
}

/// The store when the first `applied` events are applied.
pub fn part(applied: usize) -> Part {
    let mut part = Part {
        checkpoint: Some(Checkpoint::first(NextOffset(applied as u64), "id", 1)),
        ..Part::default()
    };
    for subject in SUBJECTS {
        let entity = Entity::parse(subject).expect("a subject");
        let mut document = Document::new(entity.clone(), PARTITION);
        for offset in (0..applied).filter(|offset| SUBJECTS[*offset] == subject) {
            let event = event(offset);
            let event = decode_structured(event.as_bytes(), 1 << 16).expect("an event");
            document.apply(&event, Offset(offset as u64), 0);
        }
        if let Some(last) = document.offset() {
            let mut json = Vec::new();
            document.render(Time::from_ms(0).expect("1970"), &mut json);
            part.documents.insert(entity.clone(), (json, None));
            part.index.insert(entity, last);
        }
    }
    part
}

pub fn sea() -> Sea {
    let sea = Sea::new(1, Calls::default(), Weak::Nothing);
    let record = |offset: usize| Rec {
        partition: 0,
        offset: offset as u64,
        timestamp_ms: 0,
        key: Some(SUBJECTS[offset].as_bytes().to_vec()),
        value: Some(event(offset).into_bytes()),
        headers: Vec::new(),
    };
    sea.lock().records = (0..SUBJECTS.len()).map(record).collect();
    sea
}

pub fn writer(sea: &Sea) -> Box<Snapshots> {
    let (log, store) = (Arc::new(SimLog(sea.clone())), Arc::new(SimStore(sea.clone())));
    Box::new(Snapshots::new(log, store, "khala", PARTITION))
}

pub async fn round(mut writer: Box<Snapshots>) -> (Box<Snapshots>, Round) {
    let done = writer.round().await.expect("a calm sea");
    (writer, done)
}

/// Polls it so often; what came of it if it is done.
pub fn go_on<T>(task: &mut Task<T>, polls: usize) -> Option<T> {
    (0..polls).find_map(|_| poll(task))
}

pub fn to_its_end<T>(mut task: Task<T>) -> T {
    go_on(&mut task, POLLS).expect("it comes to its end")
}

/// Only the newest record of each key stays.
pub fn compact(sea: &Sea) {
    let mut seen = BTreeSet::new();
    let mut documents = std::mem::take(&mut sea.lock().documents);
    documents.reverse();
    documents.retain(|record| seen.insert(record.key.clone()));
    documents.reverse();
    sea.lock().documents = documents;
}

pub fn site(sea: &Sea) -> Site {
    Site {
        log: Arc::new(SimLog(sea.clone())),
        store: Arc::new(SimStore(sea.clone())),
        partition: PARTITION,
        owner: Owner("operator/1".to_owned()),
        lease: Duration::from_hours(1),
        rules: RULES,
    }
}

/// Restores into nothing, when the log has forgotten all; the store then.
pub fn restored(sea: &Sea) -> Part {
    let mut state = sea.lock();
    state.part = Part::default();
    state.first = SUBJECTS.len() as u64;
    drop(state);
    let site = site(sea);
    to_its_end(Box::pin(async move {
        let opened = site.store.open(PARTITION, &site.owner, site.lease).await;
        assert!(opened.is_ok_and(|opened| opened.checkpoint.is_none()));
        let restored = restore(&site, &Source::Topic, &mut |_| {}).await;
        assert!(restored.expect("a calm sea").done().is_some(), "there is a snapshot");
    }));
    sea.lock().part.clone()
}

/// A late writer is at poll `late` of its round when another does its own, of a store that is further on, and is killed
/// `killed` polls later. The sea then, the other writer, and whether the late one had come to its end before both.
fn two_writers(late: usize, killed: usize) -> (Sea, Box<Snapshots>, [bool; 2]) {
    let sea = sea();
    sea.lock().part = part(1);
    let (_, first) = to_its_end(Box::pin(round(writer(&sea))));
    assert!(matches!(first, Round::Written { documents: 1, .. }), "{first:?}");
    sea.lock().part = part(2);
    let mut one: Task<_> = Box::pin(round(writer(&sea)));
    let was_done = go_on(&mut one, late).is_some();
    sea.lock().part = part(3);
    let (other, _) = to_its_end(Box::pin(round(writer(&sea))));
    let is_done = was_done || go_on(&mut one, killed).is_some();
    (sea, other, [was_done, is_done])
}

/// Looks at what comes of each interleaving; returns how many there are.
fn each(look: impl Fn(Sea, Box<Snapshots>, &str)) -> usize {
    let mut looked = 0;
    for late in 0.. {
        for killed in 0.. {
            let (sea, other, [was_done, is_done]) = two_writers(late, killed);
            look(sea, other, &format!("late at {late}, killed {killed} later"));
            looked += 1;
            if was_done {
                return looked;
            }
            if is_done {
                break;
            }
        }
    }
    looked
}

pub fn has_all(part: &Part) -> bool {
    let run = Entity::parse("run/b").expect("a subject");
    let (json, _) = &part.documents[&run];
    let whole = String::from_utf8_lossy(json).contains(r#""latest_seq":2"#);
    whole && !part.parked.contains_key(&run)
}

pub fn is_parked(part: &Part) -> bool {
    part.parked.contains_key(&Entity::parse("run/b").expect("a subject"))
}

#[test]
fn the_newest_document_is_restored_whoever_wrote_last() {
    let looked = each(|sea, _, when| {
        let part = restored(&sea);
        assert!(has_all(&part), "{when}: {:?}", part.documents);
    });
    assert!(looked > 100, "{looked} interleavings are too few");
}

#[test]
fn an_older_document_under_a_marker_is_never_taken_for_the_newest() {
    let parked = Cell::new(0);
    each(|sea, _, when| {
        compact(&sea);
        let part = restored(&sea);
        parked.set(parked.get() + u64::from(is_parked(&part)));
        assert!(has_all(&part) || is_parked(&part), "{when}: {:?}", part.documents);
    });
    assert!(parked.get() > 0, "no late writer left an older document");
}

#[test]
fn the_next_round_writes_once_more_what_a_late_writer_has_written() {
    each(|sea, other, when| {
        to_its_end(Box::pin(round(other)));
        compact(&sea);
        let part = restored(&sea);
        assert!(has_all(&part), "{when}: {:?}", part.documents);
    });
}

/// As of all events, and as a process of that version sees it.
fn written_by(sea: &Sea, version: Version) -> Round {
    sea.lock().part = version.seen(part(3));
    to_its_end(Box::pin(round(writer(&sea.of(version))))).1
}

#[test]
fn what_another_version_has_overwritten_is_parked_and_written_once_more() {
    let sea = sea();
    let written = written_by(&sea, Version::One);
    assert!(matches!(written, Round::Written { documents: 2, .. }), "{written:?}");
    written_by(&sea, Version::Two);
    sea.lock().documents.pop(); // killed before its marker
    compact(&sea);
    let waits = restored(&sea);
    assert_eq!((waits.documents.len(), waits.parked.len()), (0, 2), "{waits:?}");
    sea.lock().first = 0;
    written_by(&sea, Version::One);
    compact(&sea);
    let whole = restored(&sea);
    assert_eq!((whole.documents.len(), whole.parked.len()), (2, 0), "{whole:?}");
}

//! A snapshot round beside a store that is lost and restored: a marker is written only if the log has what it claims.

use std::sync::Arc;

use khala::pure::checkpoint::{Checkpoint, Mark};
use khala::pure::document::Document;
use khala::pure::entity::Entity;
use khala::pure::event::decode_structured;
use khala::pure::place::{NextOffset, Offset};
use khala::pure::time::Time;
use khala::repair::snapshot::{Round, Snapshots};

use super::log::SimLog;
use super::part::Part;
use super::plan::Calls;
use super::projector::{Task, poll};
use super::sea::{PARTITION, Sea};
use super::store::SimStore;
use super::weak::Weak;

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"run.started","subject":"run/a","sequence":1,"data":{"thread_id":"t"}}"#;
/// More polls than a round has.
const POLLS: usize = 60;

fn document(entity: &Entity, event: &str) -> Vec<u8> {
    let event = decode_structured(event.as_bytes(), 1 << 16).expect("an event");
    let mut document = Document::new(entity.clone(), PARTITION);
    document.apply(&event, Offset(0), 0);
    let mut json = Vec::new();
    document.render(Time::from_ms(0).expect("1970"), &mut json);
    json
}

fn part(entity: &Entity, next: u64, mark: &str) -> Part {
    let checkpoint = Checkpoint::first(NextOffset(next), "id", 1);
    let mut part = Part {
        checkpoint: Some(checkpoint.clone()),
        ..Part::default()
    };
    part.marks.push(Mark {
        id: mark.to_owned(),
        checkpoint,
        verified: false,
    });
    part.documents.insert(entity.clone(), (document(entity, EVENT), None));
    part.index.insert(entity.clone(), Offset(0));
    part
}

/// One round; before poll `lost` the store has `meanwhile` only, and before poll `back` it has `then`.
fn round(before: &Part, meanwhile: &Part, then: &Part, (lost, back): (usize, usize)) -> (Round, Vec<(String, String)>) {
    let sea = Sea::new(1, Calls::default(), Weak::Nothing);
    sea.lock().part = before.clone();
    let (log, store) = (Arc::new(SimLog(sea.clone())), Arc::new(SimStore(sea.clone())));
    let mut task: Task<_> = Box::pin(async move {
        Snapshots::new(log, store, "khala", PARTITION)
            .round()
            .await
            .expect("a calm sea")
    });
    for at in 0..POLLS {
        if at == lost {
            sea.lock().part = meanwhile.clone();
        }
        if at == back {
            sea.lock().part = then.clone();
        }
        if let Some(done) = poll(&mut task) {
            return (done, appended(&sea));
        }
    }
    panic!("a round of more than {POLLS} polls");
}

/// Keys and values.
fn appended(sea: &Sea) -> Vec<(String, String)> {
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
    let records = &sea.lock().documents;
    records
        .iter()
        .map(|record| (text(&record.key), text(&record.value)))
        .collect()
}

#[test]
fn a_round_beside_a_lost_and_restored_store_claims_nothing_that_it_did_not_write() {
    let entity = Entity::parse("run/a").expect("a subject");
    let (before, restored) = (part(&entity, 1, "before"), part(&entity, 1, "restored"));
    let mut rewinding = part(&entity, 0, "before");
    (rewinding.documents, rewinding.index) = Default::default();
    let older = rewinding.clone(); // it fails over to an old copy, and back
    let mut redone = before.clone(); // a rewind leaves a mark where it went to
    redone.marks.push(Mark {
        id: "rewound".to_owned(),
        ..rewinding.marks[0].clone()
    });
    let calm = round(&before, &before, &before, (POLLS, POLLS));
    assert!(matches!(calm.0, Round::Written { documents: 1, .. }), "{calm:?}");
    let mut given_up = 0;
    for lost in 0..POLLS {
        for back in lost + 1..=POLLS {
            let stores = [(&Part::default(), &restored), (&rewinding, &redone), (&older, &before)];
            for (meanwhile, then) in stores {
                let (done, appended) = round(&before, meanwhile, then, (lost, back));
                let wrote = appended.iter().any(|(key, _)| key == entity.subject());
                match done {
                    Round::Written {
                        next: NextOffset(0), ..
                    } => assert!(lost <= 2, "begun at the start"),
                    Round::Written { .. } => assert!(wrote, "lost at {lost}, back at {back}: {appended:?}"),
                    _ => given_up += 1,
                }
            }
        }
    }
    assert!(given_up > 0, "no round met the loss");
}

#[test]
fn a_round_beside_a_store_that_went_back_writes_no_older_document() {
    let entity = Entity::parse("run/a").expect("a subject");
    let (before, mut older) = (part(&entity, 1, "before"), part(&entity, 0, "older"));
    let other = document(&entity, &EVENT.replace("\"t\"", "\"older\""));
    older.documents.insert(entity, (other, None));
    let mut given_up = 0;
    for lost in 3..POLLS {
        for back in lost + 1..=POLLS {
            let (done, appended) = round(&before, &older, &before, (lost, back));
            let wrote = appended.iter().any(|(_, value)| value.contains("\"older\""));
            assert!(!wrote, "older from {lost} to {back}: {appended:?}");
            given_up += u64::from(done == Round::Nothing);
        }
    }
    assert!(given_up > 0, "no round met the older store");
}

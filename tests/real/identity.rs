//! What a checkpoint's identity is, by the real Redis: whatever was made upon one that differs in a single field is refused.

use std::time::Duration;

use khala::pure::checkpoint::{Checkpoint, Digest, Identity};
use khala::pure::entity::Entity;
use khala::pure::place::{NextOffset, PartitionId};
use khala::pure::record::RecordIdentity;
use khala::store::{Batch, Heal, Owner, Store, StoreError};

use super::transactions::store;
use crate::support::redis_server::{Keeps, Redis};

const P: PartitionId = PartitionId(0);

fn there() -> Checkpoint {
    Checkpoint {
        last_record: RecordIdentity::parse("41:-1:0000abcd"),
        digest: Digest(7),
        duplicates: 3,
        ..Checkpoint::first(NextOffset(42), "topic", 1)
    }
}

/// As it is there, but for one field.
fn others() -> Vec<(&'static str, Checkpoint)> {
    let but = |change: fn(&mut Checkpoint)| {
        let mut other = there();
        change(&mut other);
        other
    };
    vec![
        ("offset", but(|other| other.next = NextOffset(43))),
        (
            "last_record",
            but(|other| other.last_record = RecordIdentity::parse("41:-1:0000abce")),
        ),
        ("digest", but(|other| other.digest = Digest(8))),
        ("intent", but(|other| "rewound 50 t".clone_into(&mut other.intent))),
        ("projection_version", but(|other| other.projection_version += 1)),
        ("duplicates", but(|other| other.duplicates = 2)),
    ]
}

/// By a script, and by a transaction.
#[test]
fn what_was_made_upon_a_checkpoint_that_differs_in_one_field_is_refused() {
    let redis = Redis::start(Keeps::Dumps);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let owner = Owner("projector/test/1".to_owned());
    let run = Entity::parse("run/a").expect("a subject");
    let others = others();
    let names: Vec<&str> = others.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, Identity::FIELDS, "each field is tried");
    for (namespace, large) in [("script", usize::MAX), ("transaction", 0)] {
        let store = store(redis.url(), namespace, large);
        let is_refused = |done: Result<(), StoreError>| match done {
            Err(StoreError::Refused { found, .. }) => *found == Some(there()),
            _ => false,
        };
        runtime.block_on(async {
            store.open(P, &owner, Duration::from_mins(1)).await.expect("opened");
            let first = Batch::new(None, there());
            store.commit(P, &owner, &first).await.expect("committed");
            for (field, other) in &others {
                let upon = other.identity();
                let batch = Batch::new(Some(upon.clone()), other.clone());
                assert!(
                    is_refused(store.commit(P, &owner, &batch).await),
                    "{namespace}: {field}"
                );
                let loaded = store.load(P, &[Some(upon.clone())], std::slice::from_ref(&run)).await;
                assert!(is_refused(loaded.map(drop)), "{namespace}: {field}");
                let heal = Heal {
                    version: Some(there().projection_version),
                    moves: Some((upon, other.clone())),
                    ..Heal::default()
                };
                assert!(is_refused(store.heal(P, &heal).await.map(drop)), "{namespace}: {field}");
            }
            let upon = Some(there().identity());
            let loaded = store
                .load(P, std::slice::from_ref(&upon), std::slice::from_ref(&run))
                .await;
            loaded.expect("it is the one that is there");
            store
                .commit(P, &owner, &Batch::new(upon, there()))
                .await
                .expect("it is the one that is there");
        });
    }
}

//! Two projection versions in one namespace, by mistake: what one has made, the other leaves as it is.

use std::time::Duration;

use khala::pure::batch::{DocumentWrite, Stored};
use khala::pure::checkpoint::Checkpoint;
use khala::pure::entity::Entity;
use khala::pure::place::{NextOffset, Offset, PartitionId};
use khala::store::{Batch, Expiring, Heal, HealEntry, Healed, Healthy, Leaves, Owner, Store, StoreError};

use super::transactions::store;
use crate::support::redis_server::{Keeps, Redis};

const P: PartitionId = PartitionId(0);

fn checkpoint(next: u64, version: u32) -> Checkpoint {
    Checkpoint {
        projection_version: version,
        ..Checkpoint::first(NextOffset(next), "topic", 1) // no document yet: the digest tells nothing
    }
}

/// Of an entity that was not there, and so tells no version itself.
fn absent(run: &Entity, version: Option<u32>) -> Heal {
    let healthy = Healthy {
        offset: Offset(0),
        json: b"{}".to_vec(),
        state: None,
        events: Vec::new(),
    };
    let entry = HealEntry {
        entity: run.clone(),
        seen: Stored::Absent,
        index: None,
        becomes: Some(healthy),
        unpark: false,
    };
    Heal {
        version,
        entries: vec![entry],
        ..Heal::default()
    }
}

/// By a script, and by a transaction.
#[test]
fn what_was_made_upon_another_versions_documents_is_refused() {
    let redis = Redis::start(Keeps::Dumps);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let owner = Owner("projector/test/1".to_owned());
    let run = Entity::parse("run/a").expect("a subject");
    for (namespace, large) in [("script", usize::MAX), ("transaction", 0)] {
        let store = store(redis.url(), namespace, large);
        let there = checkpoint(1, 1);
        let mut batch = Batch::new(Some(checkpoint(1, 2).identity()), checkpoint(2, 2));
        batch.buffer = b"{}".to_vec();
        batch.documents.push(DocumentWrite {
            entity: run.clone(),
            offset: Offset(1),
            json: 0..2,
            state: None,
        });
        let is_refused = |done: Result<(), StoreError>| match done {
            Err(StoreError::Refused { found, .. }) => *found == Some(there.clone()),
            _ => false,
        };
        runtime.block_on(async {
            store.open(P, &owner, Duration::from_mins(1)).await.expect("opened");
            let first = Batch::new(None, there.clone());
            store.commit(P, &owner, &first).await.expect("committed");
            let theirs = batch.expected.clone().expect("one");
            assert!(is_refused(store.commit(P, &owner, &batch).await), "{namespace}");
            let loaded = store.load(P, &[Some(theirs.clone())], std::slice::from_ref(&run)).await;
            assert!(is_refused(loaded.map(drop)), "{namespace}");
            let heal = Heal {
                version: Some(2),
                moves: Some((theirs, batch.checkpoint.clone())),
                ..Heal::default()
            };
            assert!(is_refused(store.heal(P, &heal).await.map(drop)), "{namespace}");
            for version in [Some(2), None] {
                let healed = store.heal(P, &absent(&run, version)).await;
                assert!(is_refused(healed.map(drop)), "{namespace}: {version:?}");
            }
            let healed = store.heal(P, &absent(&run, Some(1))).await;
            assert!(
                matches!(healed.as_deref(), Ok([Healed::Done])),
                "{namespace}: {healed:?}"
            );
            store.open(P, &owner, Duration::from_mins(1)).await.expect("opened");
            let expiring = Expiring {
                entity: run.clone(),
                last: Offset(0),
                leaves: Leaves::Place,
                version: 2,
            };
            assert_eq!(store.expire(P, &[expiring]).await.expect("an answer"), 0, "{namespace}");
            (batch.expected, batch.checkpoint) = (Some(there.identity()), checkpoint(2, 1));
            store.commit(P, &owner, &batch).await.expect("it was the version");
        });
    }
}

use super::*;
use crate::pure::checkpoint::Mark;
use crate::pure::entity::Kind;
use crate::store::{DocumentWrite, EventWrite};

pub(super) const P0: PartitionId = PartitionId(0);
const LEASE: Duration = Duration::from_mins(1);
const SETTINGS: EmbeddedSettings = EmbeddedSettings {
    events_kept: 3,
    history_kept: 2,
};

pub(super) fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, "khala", SETTINGS).unwrap()
}

pub(super) fn projector() -> Owner {
    Owner("projector/a/1".to_owned())
}

pub(super) fn entity(subject: &str) -> Entity {
    Entity::parse(subject).unwrap()
}

pub(super) fn at(next: u64) -> Checkpoint {
    Checkpoint {
        records: next,
        ..Checkpoint::first(NextOffset(next), "topic", 12)
    }
}

/// A batch from one checkpoint to another, with a document and an event (seq = offset + 1) per subject and offset.
pub(super) fn batch(from: Option<u64>, to: u64, writes: &[(&str, u64)]) -> Batch {
    let mut batch = Batch {
        mark: true,
        ..Batch::new(from.map(|from| at(from).identity()), at(to))
    };
    for (subject, offset) in writes {
        let start = batch.buffer.len() as u32;
        batch.buffer.extend_from_slice(json(subject, *offset).as_bytes());
        let end = batch.buffer.len() as u32;
        batch.documents.push(DocumentWrite {
            entity: entity(subject),
            offset: Offset(*offset),
            json: start..end,
            state: Some(start..start + 2),
        });
        batch.events.push(EventWrite {
            entity: entity(subject),
            seq: offset + 1,
            json: start..end,
        });
    }
    batch
}

pub(super) fn json(subject: &str, offset: u64) -> String {
    format!(r#"{{"entity":"{subject}","offset":{offset}}}"#)
}

pub(super) async fn owned(dir: &Path) -> EmbeddedStore {
    let store = open(dir);
    Store::open(&store, P0, &projector(), LEASE).await.unwrap();
    store
}

pub(super) async fn put(store: &EmbeddedStore, batch: &Batch) {
    store.commit(P0, &projector(), batch).await.unwrap();
}

pub(super) fn places(marks: &[Mark]) -> Vec<Checkpoint> {
    marks.iter().map(|mark| mark.checkpoint.clone()).collect()
}

pub(super) async fn seqs(store: &EmbeddedStore, subject: &str, after: u64) -> Vec<u64> {
    let events = store.events(P0, &entity(subject), after, 100, Duration::ZERO).await;
    events.unwrap().into_iter().map(|event| event.seq).collect()
}

pub(super) async fn listed(store: &EmbeddedStore, below: Option<u64>, limit: usize) -> Vec<String> {
    let (kind, below) = (Kind::Run, below.map(Offset));
    let documents = store.list(P0, &ListQuery { kind, below, limit }).await.unwrap();
    let texts = documents.into_iter().map(|(_, json)| String::from_utf8(json).unwrap());
    texts.filter(|text| !text.is_empty()).collect()
}

#[tokio::test]
async fn all_of_a_commit_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    put(
        &store,
        &Batch {
            parked: vec![(entity("run/bad"), Offset(1))],
            ..batch(None, 3, &[("run/a", 0), ("worker/w", 2)])
        },
    )
    .await;
    drop(store);

    let store = open(dir.path());
    let opened = Store::open(&store, P0, &projector(), LEASE).await.unwrap();
    assert_eq!(opened.checkpoint, Some(at(3)));
    assert_eq!(places(&opened.marks), [at(3)]);
    assert_eq!(opened.namespace_partitions, Some(12));
    assert_eq!(opened.parked, [(entity("run/bad"), Offset(1))]);
    assert_eq!(store.parked(P0).await.unwrap(), opened.parked);
    let expected = [None, Some(at(3).identity())];
    let loaded = store.load(P0, &expected, &[entity("run/a"), entity("run/new")]).await;
    let document = Stored::Document {
        json: json("run/a", 0).into_bytes(),
        state: Some(b"{\"".to_vec()),
    };
    assert_eq!(loaded.unwrap(), [document, Stored::Absent]);
    assert_eq!(listed(&store, None, 10).await, [json("run/a", 0)]);
    let event = store
        .events(P0, &entity("worker/w"), 0, 10, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(
        (event[0].seq, event[0].json.as_slice()),
        (3, json("worker/w", 2).as_bytes())
    );
}

/// Whether anything but the checkpoint at 3 and `run/a` is there.
async fn ensure_untouched(store: &EmbeddedStore) {
    assert_eq!(store.checkpoint(P0).await.unwrap(), Some(at(3)));
    assert_eq!(places(&store.history(P0, 10).await.unwrap()), [at(3)]);
    assert_eq!(listed(store, None, 10).await, [json("run/a", 0)]);
    assert_eq!(seqs(store, "run/a", 0).await, [1]);
    assert_eq!(store.document(P0, &entity("run/b")).await.unwrap(), None);
    assert_eq!(seqs(store, "run/b", 0).await, [0; 0]);
    assert_eq!(store.parked(P0).await.unwrap(), []);
}

#[tokio::test]
async fn a_refused_commit_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    let first = batch(None, 3, &[("run/a", 0)]);
    put(&store, &first).await;
    let new = |from| Batch {
        parked: vec![(entity("run/c"), Offset(4))],
        ..batch(from, 6, &[("run/a", 4), ("run/b", 5)])
    };
    for wrong in [&first, &new(None), &new(Some(4))] {
        let error = store.commit(P0, &projector(), wrong).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Refused { found, .. } if **found == Some(at(3))),
            "{error}"
        );
        ensure_untouched(&store).await;
    }
    let other = Owner("projector/b/2".to_owned());
    let error = store.commit(P0, &other, &new(Some(3))).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::NotOwner { owner, .. } if *owner == projector().0),
        "{error}"
    );
    let error = store.commit(P0, &other, &new(None)).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    ensure_untouched(&store).await;
    put(&store, &new(Some(3))).await;
    assert_eq!(listed(&store, None, 10).await, [json("run/b", 5), json("run/a", 4)]);
}

#[tokio::test]
async fn documents_count_only_under_an_expected_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    assert_eq!(
        store.load(P0, &[None], &[entity("run/a")]).await.unwrap(),
        [Stored::Absent]
    );
    put(&store, &batch(None, 3, &[("run/a", 0)])).await;
    let expected = [None, Some(at(2).identity())];
    let error = store.load(P0, &expected, &[entity("run/a")]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused { found, .. } if **found == Some(at(3))),
        "{error}"
    );
}

#[tokio::test]
async fn a_known_entity_without_a_readable_document_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    put(&store, &batch(None, 3, &[("run/a", 0), ("run/b", 1), ("run/c", 2)])).await;
    let (shared, place) = (&store.backend.shared, keys::Place::new("khala", P0));
    let mut tamper = shared.disk.batch();
    tamper.remove(&shared.documents, place.document(&entity("run/a")));
    let key = place.document(&entity("run/b"));
    let mut flipped = shared.documents.get(&key).unwrap().unwrap().to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    tamper.insert(&shared.documents, key, flipped);
    shared.disk.commit(tamper).unwrap();

    let all = ["run/a", "run/b", "run/c"].map(entity);
    let loaded = store.load(P0, &[Some(at(3).identity())], &all).await.unwrap();
    assert!(matches!(loaded[0], Stored::Lost), "{loaded:?}");
    assert!(
        matches!(loaded[1], Stored::Unreadable(what) if what.contains("flipped")),
        "{loaded:?}"
    );
    assert!(matches!(loaded[2], Stored::Document { .. }), "{loaded:?}");
    let error = store.document(P0, &all[1]).await.unwrap_err().to_string();
    assert!(error.contains("partition 0: run_summary:b"), "{error}");
    assert_eq!(listed(&store, None, 10).await, [json("run/c", 2)]);
}

#[tokio::test]
async fn an_operators_lease_is_never_taken_while_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    let operator = Owner("operator/me/1".to_owned());
    Store::open(&store, P0, &operator, LEASE).await.unwrap();
    let error = Store::open(&store, P0, &projector(), LEASE).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::NotOwner { owner, .. } if *owner == operator.0),
        "{error}"
    );
    assert_eq!(store.owner(P0).await.unwrap(), Some(operator.clone()));
    store.release(P0, &projector()).await.unwrap();
    assert_eq!(store.owner(P0).await.unwrap(), Some(operator.clone()));
    Store::open(&store, P0, &operator, Duration::ZERO).await.unwrap();
    assert_eq!(store.owner(P0).await.unwrap(), None);
    Store::open(&store, P0, &projector(), LEASE).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_is_gone_cannot_be_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    assert_eq!(store.renew(P0, &projector(), LEASE).await.unwrap(), None);
    put(&store, &batch(None, 1, &[])).await;
    assert_eq!(store.renew(P0, &projector(), LEASE).await.unwrap(), Some(at(1)));
    let other = Owner("projector/b/2".to_owned());
    Store::open(&store, P0, &other, LEASE).await.unwrap();
    let error = store.renew(P0, &projector(), LEASE).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::NotOwner { owner, .. } if *owner == other.0),
        "{error}"
    );
    store.release(P0, &other).await.unwrap();
    let error = store.renew(P0, &other, LEASE).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::NotOwner { owner, .. } if owner.is_empty()),
        "{error}"
    );
}

#[tokio::test]
async fn streams_and_history_keep_their_length() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    put(&store, &batch(None, 1, &[("run/a", 0)])).await;
    for next in 2..=8 {
        put(&store, &batch(Some(next - 1), next, &[("run/a", next - 1)])).await;
    }
    assert_eq!(seqs(&store, "run/a", 0).await, [6, 7, 8]);
    assert_eq!(seqs(&store, "run/a", 7).await, [8]);
    assert_eq!(seqs(&store, "run/a", u64::MAX).await, [0; 0]);
    assert_eq!(places(&store.history(P0, 10).await.unwrap()), [at(8), at(7)]);
    assert_eq!(places(&store.history(P0, 1).await.unwrap()), [at(8)]);
    let shared = &store.backend.shared;
    assert_eq!(shared.events.len().unwrap(), 3);
    assert_eq!(shared.disk.meta().prefix("history\0").count(), 2);
    assert_eq!(shared.index.len().unwrap(), 2);
    drop(store);

    let fewer = EmbeddedSettings {
        events_kept: 2,
        history_kept: 1,
    };
    let store = EmbeddedStore::open(dir.path(), "khala", fewer).unwrap();
    assert_eq!(seqs(&store, "run/a", 0).await, [7, 8]);
    assert_eq!(places(&store.history(P0, 10).await.unwrap()), [at(8)]);
}

#[tokio::test]
async fn who_waits_for_events_gets_them_when_they_are_committed() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    put(&store, &batch(None, 1, &[("run/a", 0)])).await;
    let run = entity("run/a");
    let waiting = store.events(P0, &run, 1, 10, Duration::from_secs(30));
    let second = batch(Some(1), 2, &[("run/a", 1)]);
    let (events, ()) = tokio::join!(waiting, put(&store, &second));
    assert_eq!(events.unwrap()[0].seq, 2);
}

#[tokio::test]
async fn a_listing_goes_by_last_offset_and_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    put(&store, &batch(None, 3, &[("run/a", 0), ("run/b", 1), ("run/c", 2)])).await;
    put(&store, &batch(Some(3), 4, &[("run/a", 3)])).await;
    assert_eq!(listed(&store, None, 2).await, [json("run/a", 3), json("run/c", 2)]);
    assert_eq!(listed(&store, Some(2), 2).await, [json("run/b", 1)]);
    let query = ListQuery {
        kind: Kind::Run,
        below: None,
        limit: 1,
    };
    assert_eq!(store.list(P0, &query).await.unwrap()[0].0, Offset(3));
}

#[tokio::test]
async fn namespaces_of_one_directory_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    put(&store, &batch(None, 3, &[("run/a", 0)])).await;
    for name in ["khal", "khala2"] {
        let other = store.with_namespace(name).unwrap();
        let opened = Store::open(&other, P0, &projector(), LEASE).await.unwrap();
        assert_eq!((opened.checkpoint, opened.namespace_partitions), (None, None));
        assert_eq!(other.document(P0, &entity("run/a")).await.unwrap(), None);
        assert_eq!(listed(&other, None, 10).await, [""; 0]);
    }
    assert!(store.with_namespace("a\0b").is_err());
}

#[tokio::test]
async fn a_damaged_checkpoint_is_named_and_stops_commits() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    put(&store, &batch(None, 3, &[])).await;
    let shared = &store.backend.shared;
    let key = keys::Place::new("khala", P0).checkpoint();
    let mut value = shared.disk.meta().get(&key).unwrap().unwrap().to_vec();
    value[9] ^= 4;
    let mut tamper = shared.disk.batch();
    tamper.insert(shared.disk.meta(), key, value);
    shared.disk.commit(tamper).unwrap();
    let other = Owner("projector/b/2".to_owned());
    let error = Store::open(&store, P0, &other, LEASE).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt { what, .. } if what == "checkpoint"),
        "{error}"
    );
    assert_eq!(store.owner(P0).await.unwrap(), Some(other.clone()));
    let error = store.commit(P0, &other, &batch(Some(3), 4, &[])).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn after_a_failed_write_every_commit_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    store
        .backend
        .shared
        .disk
        .stop(&std::io::Error::other("input/output error"));
    let error = store.commit(P0, &projector(), &batch(None, 1, &[])).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Rejected(words) if words.contains("restart Khala")),
        "{error}"
    );
    assert!(store.check().await.is_err());
}

#[tokio::test]
async fn partitions_commit_at_once_and_one_partition_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = owned(dir.path()).await;
    for partition in 1..8 {
        Store::open(&store, PartitionId(partition), &projector(), LEASE)
            .await
            .unwrap();
    }
    let steps: Vec<_> = (0..5)
        .map(|i| batch((i > 0).then_some(i), i + 1, &[("run/a", i)]))
        .collect();
    let (store, steps, owner) = (&store, &steps, &projector());
    let commits = (0..8).flat_map(|partition| {
        let one = move |step| store.commit(PartitionId(partition), owner, step);
        steps.iter().map(one)
    });
    for done in futures_util::future::join_all(commits).await {
        done.unwrap();
    }
    for partition in 0..8 {
        let found = store.checkpoint(PartitionId(partition)).await.unwrap();
        assert_eq!(found, Some(at(5)));
    }
    assert_eq!(store.backend.shared.index.len().unwrap(), 16);
}

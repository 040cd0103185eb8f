//! The commits of the fuzzed corpus (fuzz/corpus/script) on a real Redis: the script reads from keys and arguments what
//! the fuzz target reads from them, and what was committed is read back.

use std::path::Path;
use std::time::Duration;

use khala::pure::batch::Stored;
use khala::pure::checkpoint::Identity;
use khala::pure::place::PartitionId;
use khala::store::redis::{RedisSettings, RedisStore};
use khala::store::{Batch, Owner, Store};

use crate::bodies::script::{EVENTS_KEPT, batch};
use crate::support::redis_server::{Keeps, Redis};
use crate::support::wait::seconds;

const P: PartitionId = PartitionId(0);

/// What must be there before the commit: the owner, and the checkpoint that it expects.
fn prepare(redis: &Redis, namespace: &str, owner: &Owner, expected: Option<&Identity>) {
    let key = |rest: &str| format!("{{{namespace}:0}}:{rest}");
    let _: String = redis.ask(&["SET", &key("owner"), &owner.0]);
    if let Some(identity) = expected {
        let checkpoint = key("checkpoint");
        for (name, value) in Identity::FIELDS.into_iter().zip(identity.fields()) {
            let _: u64 = redis.ask(&["HSET", &checkpoint, name, &value]);
        }
    }
}

async fn commit_and_read(store: &RedisStore, owner: &Owner, batch: &Batch) {
    store.commit(P, owner, batch).await.expect("committed");
    assert_eq!(
        store.checkpoint(P).await.expect("readable"),
        Some(batch.checkpoint.clone())
    );
    let mut parked = store.parked(P).await.expect("readable");
    parked.sort();
    let mut wanted = batch.parked.clone();
    wanted.sort();
    assert_eq!(parked, wanted);
    let (waiting, from): (Vec<_>, Vec<_>) = wanted.into_iter().map(|(entity, at)| (entity, Some(at))).unzip();
    assert_eq!(store.peek(P, &waiting).await.expect("readable").parked, from);
    let entities: Vec<_> = batch.documents.iter().map(|document| document.entity.clone()).collect();
    let peeked = store.peek(P, &entities).await.expect("readable");
    for (document, found) in batch.documents.iter().zip(peeked.entities) {
        let state = document.state.as_ref().map(|state| batch.text(state).to_vec());
        let json = batch.text(&document.json).to_vec();
        assert_eq!(found, (Stored::Document { json, state }, Some(document.offset)));
        let events = store
            .events(P, &document.entity, 0, 100, Duration::ZERO)
            .await
            .expect("readable");
        let sent = batch.events.iter().filter(|event| event.entity == document.entity);
        let sent: Vec<_> = sent
            .map(|event| (event.seq, batch.text(&event.json).to_vec()))
            .collect();
        let kept = sent[sent.len().saturating_sub(EVENTS_KEPT as usize)..].to_vec();
        assert_eq!(
            events
                .into_iter()
                .map(|event| (event.seq, event.json))
                .collect::<Vec<_>>(),
            kept
        );
    }
}

#[test]
fn what_was_fuzzed_is_committed_to_a_real_redis_and_read_back() {
    let redis = Redis::start(Keeps::Dumps);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/script");
    let mut documents = 0;
    let inputs = std::fs::read_dir(folder).expect("the corpus");
    let paths: Vec<_> = inputs.map(|entry| entry.expect("a readable folder").path()).collect();
    // By a script, and by a transaction.
    for (i, (path, large)) in paths
        .iter()
        .flat_map(|path| [(path, usize::MAX), (path, 0)])
        .enumerate()
    {
        let (owner, batch) = batch(&std::fs::read(path).expect("a readable file"));
        let namespace = format!("corpus-{i}");
        prepare(&redis, &namespace, &owner, batch.expected.as_ref());
        let settings = RedisSettings {
            url: redis.url(),
            namespace,
            timeout: seconds(30),
            events_kept: EVENTS_KEPT,
            history_kept: 5,
            allow_eviction: false,
            large,
        };
        let _at_failure = Named(path.display().to_string());
        runtime.block_on(async {
            let store = RedisStore::new(settings).expect("an address");
            commit_and_read(&store, &owner, &batch).await;
        });
        documents += batch.documents.len();
    }
    assert!(documents > 40, "only {documents} documents in the corpus");
}

/// Tells which input it was that failed.
struct Named(String);

impl Drop for Named {
    #[expect(clippy::print_stdout, reason = "shown when the test fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.0);
        }
    }
}

//! Large batches go to Redis by a transaction, small ones by a script: both write and read the same, on a real Redis.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use khala::pure::batch::{DocumentWrite, EventWrite, Stored};
use khala::pure::checkpoint::{Checkpoint, Digest};
use khala::pure::entity::{Entity, Kind};
use khala::pure::place::{NextOffset, Offset, PartitionId};
use khala::store::redis::{RedisSettings, RedisStore};
use khala::store::{Batch, Owner, Store, StoreError};
use tokio::runtime::Runtime;

use crate::support::redis_server::{Keeps, Redis};
use crate::support::wait::seconds;

const P: PartitionId = PartitionId(0);
const SCRIPT: usize = usize::MAX;
const TRANSACTION: usize = 0;

pub(super) fn store(url: String, namespace: &str, large: usize) -> RedisStore {
    let settings = RedisSettings {
        url,
        namespace: namespace.to_owned(),
        timeout: seconds(30),
        events_kept: 300,
        history_kept: 5,
        allow_eviction: false,
        large,
    };
    RedisStore::new(settings).expect("an address")
}

fn owner() -> Owner {
    Owner("projector/test/1".to_owned())
}

fn run(id: &str) -> Entity {
    Entity::new(Kind::Run, id).expect("a legal id")
}

fn checkpoint(next: u64) -> Checkpoint {
    Checkpoint {
        digest: Digest(u128::from(next)),
        ..Checkpoint::first(NextOffset(next), "topic", 1)
    }
}

/// A batch from one checkpoint to the next.
fn batch(from: Option<u64>, to: u64) -> Batch {
    let mut batch = Batch::new(from.map(|from| checkpoint(from).identity()), checkpoint(to));
    batch.mark = true;
    batch
}

fn put(batch: &mut Batch, text: &str) -> Range<u32> {
    let start = batch.buffer.len() as u32;
    batch.buffer.extend_from_slice(text.as_bytes());
    start..batch.buffer.len() as u32
}

fn document(batch: &mut Batch, entity: &Entity, offset: u64, text: &str) {
    let json = put(batch, text);
    let state = Some(put(batch, "state"));
    let (entity, offset) = (entity.clone(), Offset(offset));
    batch.documents.push(DocumentWrite {
        entity,
        offset,
        json,
        state,
    });
}

fn event(batch: &mut Batch, entity: &Entity, seq: u64, text: &str) {
    let json = put(batch, text);
    let entity = entity.clone();
    batch.events.push(EventWrite { entity, seq, json });
}

/// Takes the partition, as a projector does.
fn open(runtime: &Runtime, store: &RedisStore) {
    runtime
        .block_on(store.open(P, &owner(), Duration::from_mins(1)))
        .expect("opened");
}

fn commit(runtime: &Runtime, store: &RedisStore, batch: &Batch) -> Result<(), StoreError> {
    runtime.block_on(store.commit(P, &owner(), batch))
}

/// What Redis says of a stream, but for how its memory is laid out.
fn stream(redis: &Redis, namespace: &str, id: &str) -> (Vec<redis::Value>, Vec<String>) {
    let key = format!("{{{namespace}:0}}:events:run_summary:{id}");
    let entries = redis.ask(&["XRANGE", &key, "-", "+"]);
    let about: redis::streams::StreamInfoStreamReply = redis.ask(&["XINFO", "STREAM", &key]);
    let about = [about.length.to_string(), about.last_generated_id, about.first_entry.id];
    (entries, about.to_vec())
}

#[test]
fn a_stream_that_goes_as_one_value_is_what_its_events_make_one_by_one() {
    let redis = Redis::start(Keeps::Dumps);
    let runtime = Runtime::new().expect("a runtime");
    let sizes = [1usize, 57, 58, 120, 4000, 4089, 5000, 16_370, 16_377, 16_390, 70_000];
    let stores = [("scripts", SCRIPT), ("transactions", TRANSACTION)].map(|(name, large)| {
        let store = store(redis.url(), name, large);
        open(&runtime, &store);
        store
    });
    let write = |from: Option<u64>, to: u64, seqs: &dyn Fn(u64) -> u64, count: u64| {
        let mut batch = batch(from, to);
        for (i, size) in sizes.iter().enumerate() {
            let entity = run(&format!("r{i}"));
            document(&mut batch, &entity, to, "{}");
            for n in 0..count {
                event(
                    &mut batch,
                    &entity,
                    seqs(n),
                    &"x".repeat(size.saturating_sub(n as usize % 7)),
                );
            }
        }
        for store in &stores {
            commit(&runtime, store, &batch).expect("committed");
        }
        for (i, size) in sizes.iter().enumerate() {
            let [scripts, transactions] =
                ["scripts", "transactions"].map(|name| stream(&redis, name, &format!("r{i}")));
            assert_eq!(transactions, scripts, "events of {size} bytes after {to}");
        }
    };
    // Gaps that need each width of an integer, more entries than a node has, more than are kept, then appends to them.
    write(None, 10, &|n| 1 + n * n * n, 120);
    write(Some(10), 20, &|n| (1 << 22) + (n << 16) + n, 250);
    write(Some(20), 30, &|n| (1 << 40) + (n << 34), 3);
    let made: Vec<String> = redis.ask(&["KEYS", "*probe*"]);
    assert!(made.is_empty(), "{made:?}");
    let calls: String = redis.ask(&["INFO", "commandstats"]);
    assert!(calls.contains("cmdstat_restore:calls=12,"), "{calls}"); // each stream, and the attempt
}

#[test]
fn what_is_in_the_wrong_place_is_replaced_or_refused_by_both() {
    let redis = Redis::start(Keeps::Dumps);
    let runtime = Runtime::new().expect("a runtime");
    for (name, large) in [("scripts", SCRIPT), ("transactions", TRANSACTION)] {
        let store = store(redis.url(), name, large);
        open(&runtime, &store);
        let key = |rest: &str| format!("{{{name}:0}}:{rest}");
        let mut first = batch(None, 10);
        for i in 0..40 {
            document(&mut first, &run(&format!("r{i}")), i, "{}");
            event(&mut first, &run(&format!("r{i}")), 1, "one");
            event(&mut first, &run(&format!("r{i}")), 2, "two");
        }
        for foreign in [
            "events:run_summary:r3",
            "events:run_summary:r4",
            "run_summary:r5",
            "state:run_summary:r6",
        ] {
            let _: u64 = redis.ask(&["LPUSH", &key(foreign), "foreign"]);
        }
        // A redo after a rollback finds later entries.
        let _: String = redis.ask(&["XADD", &key("events:run_summary:r7"), "1-0", "event", "one"]);
        let _: String = redis.ask(&["XADD", &key("events:run_summary:r7"), "9-0", "event", "nine"]);
        commit(&runtime, &store, &first).expect("committed");
        let seqs_of = |id: &str| {
            let events = runtime.block_on(store.events(P, &run(id), 0, 10, Duration::ZERO));
            let events = events.expect("readable");
            events.iter().map(|event| event.seq).collect::<Vec<_>>()
        };
        for (id, seqs) in [("r3", vec![1, 2]), ("r4", vec![1, 2]), ("r7", vec![1, 9])] {
            assert_eq!(seqs_of(id), seqs, "{name} {id}");
        }
        let found = runtime.block_on(store.document(P, &run("r5"))).expect("readable");
        assert_eq!(found.as_deref(), Some(&b"{}"[..]), "{name}");

        let _: u64 = redis.ask(&["DEL", &key("events:run_summary:r8")]);
        let _: u64 = redis.ask(&["LPUSH", &key("events:run_summary:r8"), "foreign"]);
        let mut further = batch(Some(10), 11);
        for i in 0..40 {
            document(&mut further, &run(&format!("r{i}")), i, "{}");
            event(&mut further, &run(&format!("r{i}")), 3, "three");
            event(&mut further, &run(&format!("r{i}")), 4, "four");
        }
        commit(&runtime, &store, &further).expect("committed");
        for (id, seqs) in [("r3", vec![1, 2, 3, 4]), ("r7", vec![1, 9]), ("r8", vec![3, 4])] {
            assert_eq!(seqs_of(id), seqs, "{name} {id}");
        }

        let _: u64 = redis.ask(&["DEL", &key("index:run_summary")]);
        let _: u64 = redis.ask(&["LPUSH", &key("index:run_summary"), "foreign"]);
        let mut second = batch(Some(11), 20);
        (0..40).for_each(|i| document(&mut second, &run(&format!("r{i}")), 10 + i, "{\"second\":1}"));
        let refused = commit(&runtime, &store, &second);
        assert!(
            matches!(refused, Err(StoreError::Corrupt { .. })),
            "{name}: {refused:?}"
        );
        let found = runtime.block_on(store.document(P, &run("r0"))).expect("readable");
        assert_eq!(found.as_deref(), Some(&b"{}"[..]), "{name}: nothing was written");

        let _: u64 = redis.ask(&["DEL", &key("index:run_summary"), &key("checkpoint")]);
        let _: u64 = redis.ask(&["LPUSH", &key("checkpoint"), "foreign"]);
        let refused = commit(&runtime, &store, &second);
        assert!(
            matches!(refused, Err(StoreError::Corrupt { .. })),
            "{name}: {refused:?}"
        );
    }
}

#[test]
fn both_load_the_same() {
    let redis = Redis::start(Keeps::Dumps);
    let runtime = Runtime::new().expect("a runtime");
    let [scripts, transactions] = [SCRIPT, TRANSACTION].map(|large| store(redis.url(), "loads", large));
    open(&runtime, &scripts);
    let mut first = batch(None, 10);
    ["whole", "lost", "expired", "back"]
        .iter()
        .for_each(|id| document(&mut first, &run(id), 7, "{}"));
    document(
        &mut first,
        &Entity::new(Kind::Worker, "w").expect("a legal id"),
        8,
        "{\"worker\":1}",
    );
    commit(&runtime, &scripts, &first).expect("committed");
    let key = |rest: &str| format!("{{loads:0}}:{rest}");
    let _: u64 = redis.ask(&["DEL", &key("run_summary:lost"), &key("run_summary:expired")]);
    for id in ["expired", "back"] {
        let _: String = redis.ask(&["SET", &key(&format!("state:run_summary:{id}")), "expired 7"]);
    }
    let entities = ["whole", "new", "lost", "expired", "back"].map(run).to_vec();
    let entities = [entities, vec![Entity::new(Kind::Worker, "w").expect("a legal id")]].concat();
    let of = |next: u64| Some(checkpoint(next).identity());
    let both = |expected: &[_], entities: &[Entity]| {
        let [scripts, transactions] =
            [&scripts, &transactions].map(|store| runtime.block_on(store.load(P, expected, entities)));
        assert_eq!(format!("{transactions:?}"), format!("{scripts:?}"));
        scripts
    };
    let loaded = both(&[None, of(10)], &entities).expect("loaded");
    let words = loaded.iter().map(|stored| match stored {
        Stored::Document { state, .. } => {
            if state.is_some() {
                "with state"
            } else {
                "without state"
            }
        }
        Stored::Absent => "absent",
        Stored::Lost => "lost",
        Stored::Expired => "expired",
        Stored::Unreadable(_) => "unreadable",
    });
    let wanted = ["with state", "absent", "lost", "expired", "without state", "with state"];
    assert_eq!(words.collect::<Vec<_>>(), wanted);
    assert!(matches!(
        both(&[None, of(11)], &entities),
        Err(StoreError::Refused { .. })
    ));
    for foreign in ["run_summary:whole", "state:run_summary:back", "run_summary:never"] {
        let _: u64 = redis.ask(&["DEL", &key(foreign)]);
        let _: u64 = redis.ask(&["LPUSH", &key(foreign), "foreign"]);
        both(&[of(10)], &[entities.clone(), vec![run("never")]].concat()).expect("loaded");
    }
}

/// Somebody takes the partition, again and again, while a large batch is on its way: what was written after that is
/// seen, for whoever owns it looks at the document as soon as it does, and once more before it leaves.
#[test]
fn nothing_is_written_once_the_partition_is_somebody_elses() {
    let redis = Redis::start(Keeps::Dumps);
    let runtime = Runtime::new().expect("a runtime");
    let store = store(redis.url(), "race", TRANSACTION);
    open(&runtime, &store);
    let done = AtomicBool::new(false);
    let (mut committed, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let mut connection = redis.connect();
            let (owner_key, key) = ("{race:0}:owner", "{race:0}:run_summary:r999");
            let mut takes = 0;
            while !done.load(Ordering::Relaxed) {
                let (_, before): (String, Option<String>) = redis::pipe()
                    .atomic()
                    .cmd("SET")
                    .arg(owner_key)
                    .arg("projector/other/1")
                    .cmd("GET")
                    .arg(key)
                    .query(&mut connection)
                    .expect("answered");
                std::thread::yield_now();
                let (after, _): (Option<String>, String) = redis::pipe()
                    .atomic()
                    .cmd("GET")
                    .arg(key)
                    .cmd("SET")
                    .arg(owner_key)
                    .arg(owner().0)
                    .query(&mut connection)
                    .expect("answered");
                assert_eq!(after, before, "written beside the owner");
                takes += 1;
            }
            takes
        });
        let mut from = None;
        let mut to = 1;
        while !taker.is_finished() && (committed < 100 || refused < 100) {
            let mut batch = batch(from, to);
            for i in 0..1000 {
                document(&mut batch, &run(&format!("r{i}")), to, &format!("{{\"to\":{to}}}"));
            }
            match commit(&runtime, &store, &batch) {
                Ok(()) => {
                    committed += 1;
                    from = Some(to);
                    to += 1;
                }
                Err(StoreError::NotOwner { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(taker.join().expect("no write beside the owner") > 100);
    });
}

#[test]
fn without_the_right_to_transactions_scripts_do_all() {
    let redis = Redis::start(Keeps::Dumps);
    let runtime = Runtime::new().expect("a runtime");
    let _: String = redis.ask(&[
        "ACL",
        "SETUSER",
        "few",
        "on",
        ">secret",
        "~*",
        "&*",
        "+@all",
        "-@transaction",
    ]);
    let _: String = redis.ask(&[
        "ACL", "SETUSER", "more", "on", ">secret", "~*", "&*", "+@all", "-restore",
    ]);
    for user in ["few", "more"] {
        let store = store(format!("redis://{user}:secret@{}", redis.address()), user, TRANSACTION);
        open(&runtime, &store);
        for round in 0..3u64 {
            let mut batch = batch(round.checked_sub(1).map(|before| 10 * before + 10), 10 * round + 10);
            for i in 0..40 {
                let entity = run(&format!("r{}", 100 * round + i));
                document(&mut batch, &entity, 10 * round + 1, "{}");
                event(&mut batch, &entity, 1, "one");
                event(&mut batch, &entity, 2, "two");
            }
            commit(&runtime, &store, &batch).expect("committed");
            let entities: Vec<_> = batch.documents.iter().map(|document| document.entity.clone()).collect();
            let expected = [Some(batch.checkpoint.identity())];
            let loaded = runtime.block_on(store.load(P, &expected, &entities)).expect("loaded");
            assert!(loaded.iter().all(|stored| matches!(stored, Stored::Document { .. })));
            let (entries, _) = stream(&redis, user, &format!("r{}", 100 * round + 7));
            assert_eq!(entries.len(), 2);
        }
    }
    let calls: String = redis.ask(&["INFO", "commandstats"]);
    let line = calls
        .lines()
        .find(|line| line.starts_with("cmdstat_exec:"))
        .expect("the second user may");
    assert!(!line.starts_with("cmdstat_exec:calls=0,"), "{line}");
}

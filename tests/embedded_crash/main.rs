//! The embedded log and store under kill -9 (`kills`), flipped bits (`flips`) and on a disk without room (`full`).
//! What was acknowledged must be there, and each checkpoint must cover exactly the documents that are there.
//! Again with the same kills or flips: `KHALA_SEED=<seed>`.

#![expect(clippy::unwrap_used, reason = "a test: a panic names the line")]
#![expect(clippy::print_stdout, reason = "the child tells its parent what was acknowledged")]

mod flips;
mod full;
mod kills;
#[path = "../reference/mod.rs"]
mod reference;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use khala::log::embedded::{EmbeddedLog, EmbeddedSettings as LogSettings};
use khala::log::{FetchLimits, Log, LogError, Role};
use khala::pure::checkpoint::Checkpoint;
use khala::pure::entity::Entity;
use khala::pure::place::{NextOffset, Offset, PartitionId, Partitioner};
use khala::store::embedded::{EmbeddedSettings as StoreSettings, EmbeddedStore};
use khala::store::{Batch, DocumentWrite, EventWrite, Owner, Store, StoreError};

const PARTITIONS: u32 = 3;
const ENTITIES: u64 = 5;
const LEASE: Duration = Duration::from_mins(1);

fn open_log(dir: &Path) -> Result<EmbeddedLog, LogError> {
    let settings = LogSettings {
        topic: "khala.events".to_owned(),
        group: "khala".to_owned(),
        partitions: PARTITIONS,
        partitioner: Partitioner::Murmur2,
    };
    EmbeddedLog::open(dir, settings)
}

fn open_store(dir: &Path) -> Result<EmbeddedStore, StoreError> {
    let settings = StoreSettings {
        events_kept: 10,
        history_kept: 5,
    };
    EmbeddedStore::open(dir, "khala", settings)
}

fn owner() -> Owner {
    Owner("projector/child/1".to_owned())
}

fn value(partition: PartitionId, number: u64) -> String {
    format!("{partition}:{number}:{}", "x".repeat((number % 700) as usize))
}

/// The `n`-th commit of a partition: one event, the document of one of a few entities, and of one that all share.
fn step(n: u64) -> Batch {
    let at = |next| Checkpoint {
        records: next,
        ..Checkpoint::first(NextOffset(next), "topic", PARTITIONS)
    };
    let buffer = n.to_string().into_bytes();
    let all = 0..buffer.len() as u32;
    let document = |entity: Entity| DocumentWrite {
        entity,
        offset: Offset(n),
        json: all.clone(),
        state: None,
    };
    let expected = (n > 0).then(|| at(n).identity());
    Batch {
        documents: vec![document(one_of(n)), document(shared())],
        events: vec![EventWrite {
            entity: shared(),
            seq: n + 1,
            json: all.clone(),
        }],
        mark: true,
        buffer,
        ..Batch::new(expected, at(n + 1))
    }
}

fn one_of(n: u64) -> Entity {
    Entity::parse(&format!("run/{}", n % ENTITIES)).expect("legal")
}

fn shared() -> Entity {
    Entity::parse("worker/shared").expect("legal")
}

async fn read_all(log: &EmbeddedLog, partition: PartitionId) -> Result<Vec<String>, LogError> {
    let limits = FetchLimits {
        records: 5000,
        bytes: 4 << 20,
        wait: Duration::ZERO,
    };
    let mut reader = log.reader(Role::Events, partition, NextOffset(0)).await?;
    let mut values = Vec::new();
    loop {
        let batch = reader.fetch(limits).await?;
        if batch.is_empty() {
            return Ok(values);
        }
        for record in batch.iter() {
            assert_eq!(record.offset, Offset(values.len() as u64));
            values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        }
    }
}

/// The checkpoint's place, after making sure that documents, stream and history are those of this very place.
async fn covered(store: &EmbeddedStore, partition: PartitionId) -> Result<u64, StoreError> {
    let Some(checkpoint) = store.checkpoint(partition).await? else {
        assert_eq!(store.document(partition, &shared()).await?, None);
        return Ok(0);
    };
    let next = checkpoint.next.0;
    let newest = |k| (0..next).rev().find(|n| n % ENTITIES == k);
    for k in 0..ENTITIES {
        let document = store.document(partition, &one_of(k)).await?;
        let expected = newest(k).map(|n| n.to_string().into_bytes());
        assert_eq!(document, expected, "partition {partition} at {next}: run/{k}");
    }
    let document = store.document(partition, &shared()).await?;
    assert_eq!(document, Some((next - 1).to_string().into_bytes()));
    let events = store.events(partition, &shared(), 0, 100, Duration::ZERO).await?;
    let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (next.saturating_sub(10) + 1..=next).collect::<Vec<_>>());
    assert_eq!(store.history(partition, 1).await?[0].checkpoint, checkpoint);
    Ok(next)
}

fn seed() -> u64 {
    let given = std::env::var("KHALA_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("again: KHALA_SEED={seed} cargo test --test embedded_crash");
    seed
}

//! Rewind on the embedded log and store: to any mark and redone is as never having gone back, byte for byte but for
//! `projected_at`; and so it is when the rewind is cut off at any of its awaits, any number of times.
//! Again with the same input: `KHALA_SEED=<seed>`.

#![expect(clippy::unwrap_used, reason = "a test: a panic names the line")]

#[path = "../reference/mod.rs"]
mod reference;

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use khala::log::embedded::{EmbeddedLog, EmbeddedSettings as LogSettings};
use khala::log::{Log, NewRecord, Role};
use khala::projector::{ProjectorSettings, redo};
use khala::pure::checkpoint::{Checkpoint, Digest, Mark};
use khala::pure::entity::Kind;
use khala::pure::event::Rules;
use khala::pure::place::{NextOffset, PartitionId, Partitioner};
use khala::repair::{RepairError, Site, operator, rewind};
use khala::store::embedded::{EmbeddedSettings as StoreSettings, EmbeddedStore};
use khala::store::{Store, StoreError};
use reference::messy::{Message, Messy, Shape};
use serde_json::Value;

const PARTITIONS: u32 = 2;
const LEASE: Duration = Duration::from_mins(1);

struct Bench {
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    settings: ProjectorSettings,
}

/// All that the store holds of a partition, but for the times of writing.
#[derive(Debug, PartialEq)]
struct Contents {
    documents: BTreeMap<String, (u64, String)>,
    events: BTreeMap<String, Vec<(u64, Vec<u8>)>>,
    checkpoint: Checkpoint,
}

fn projector_settings() -> ProjectorSettings {
    let loaded = khala::config::load(&khala::config::Flags::default(), std::iter::empty()).unwrap();
    khala::access::projector_settings(&loaded.settings, "test")
}

impl Bench {
    fn open(dir: &Path) -> Self {
        let log = LogSettings {
            topic: "khala.events".to_owned(),
            group: "khala".to_owned(),
            partitions: PARTITIONS,
            partitioner: Partitioner::Murmur2,
        };
        let store = StoreSettings {
            events_kept: 1_000_000,
            history_kept: 1_000,
        };
        Self {
            log: Arc::new(EmbeddedLog::open(dir, log).unwrap()),
            store: Arc::new(EmbeddedStore::open(dir, "khala", store).unwrap()),
            settings: ProjectorSettings {
                events_kept: 1_000_000,
                batch_events: 97,
                ..projector_settings()
            },
        }
    }

    async fn publish(&self, messages: Vec<Message>) {
        let record = |message: Message| NewRecord {
            partition: message.partition.map(PartitionId),
            key: message.key,
            value: message.value,
            headers: message.headers,
            ..NewRecord::default()
        };
        let records = messages.into_iter().map(record).collect();
        for appended in self.log.append(Role::Events, records).await {
            appended.unwrap();
        }
    }

    async fn redo(&self, partition: PartitionId) {
        let end = self.log.bounds(partition).await.unwrap().end;
        let (log, store) = (self.log.clone(), self.store.clone());
        redo(log, store, self.settings.clone(), partition, end).await.unwrap();
    }

    async fn contents(&self, partition: PartitionId) -> Contents {
        let mut contents = Contents {
            documents: BTreeMap::new(),
            events: BTreeMap::new(),
            checkpoint: self.store.checkpoint(partition).await.unwrap().unwrap(),
        };
        contents.checkpoint.written_at_ms = 0;
        contents.checkpoint.intent.clear();
        let mut digest = Digest::default();
        for kind in Kind::ALL {
            let all = self.store.indexed(partition, kind, NextOffset::START, usize::MAX).await;
            for (entity, offset) in all.unwrap() {
                let json = self.store.document(partition, &entity).await.unwrap().unwrap();
                let mut document: Value = serde_json::from_slice(&json).unwrap();
                document.as_object_mut().unwrap().remove("projected_at");
                let hash = document["summary_hash"].as_str().unwrap()["sha256:".len()..][..32].to_owned();
                digest = digest.moved(0, u128::from_str_radix(&hash, 16).unwrap());
                let subject = entity.subject().to_owned();
                contents
                    .documents
                    .insert(subject.clone(), (offset.0, document.to_string()));
                let stream = self
                    .store
                    .events(partition, &entity, 0, usize::MAX, Duration::ZERO)
                    .await;
                let stream = stream.unwrap().into_iter().map(|entry| (entry.seq, entry.json));
                contents.events.insert(subject, stream.collect());
            }
        }
        assert_eq!(
            digest, contents.checkpoint.digest,
            "the digest is the sum of the documents' hashes"
        );
        contents
    }

    fn site(&self, partition: PartitionId) -> Site {
        Site {
            log: self.log.clone(),
            store: self.store.clone(),
            partition,
            owner: operator(),
            lease: LEASE,
            rules: Rules {
                partitioner: Partitioner::Murmur2,
                partitions: PARTITIONS,
                max_event_bytes: 1 << 20,
                redact: khala::pure::redact::Redact::Secrets,
            },
        }
    }

    /// A rewind that must not be: why not. Nothing has changed.
    async fn refused(&self, partition: PartitionId, mark: &Checkpoint) -> RepairError {
        let before = (
            self.contents(partition).await,
            self.store.checkpoint(partition).await.unwrap(),
        );
        let site = self.site(partition);
        self.store.open(partition, &site.owner, LEASE).await.unwrap();
        let error = rewind(&site, Some(mark), &mut |_| {}).await.unwrap_err();
        self.store.release(partition, &site.owner).await.unwrap();
        let after = (
            self.contents(partition).await,
            self.store.checkpoint(partition).await.unwrap(),
        );
        assert_eq!(before, after);
        error
    }

    /// Rewinds; each try is dropped after a few polls, until one is not.
    async fn rewind(&self, partition: PartitionId, mark: &Checkpoint, mut polls: impl FnMut() -> Option<u64>) -> u64 {
        for tries in 0.. {
            let site = self.site(partition);
            self.store.open(partition, &site.owner, LEASE).await.unwrap();
            let mut told = |_| {};
            let done = cut_off(rewind(&site, Some(mark), &mut told), polls()).await;
            self.store.release(partition, &site.owner).await.unwrap();
            match done {
                Some(Ok(rewound)) => {
                    assert_eq!((rewound.next, rewound.left), (mark.next, Vec::new()));
                    return tries;
                }
                // A call of the try before came late: it was one of ours, and counts.
                Some(Err(RepairError::Store(StoreError::Refused { .. } | StoreError::NotOwner { .. }))) | None => {}
                Some(Err(error)) => panic!("{error}"),
            }
        }
        unreachable!("tries do not end")
    }
}

/// The future's output, or nothing if it was still pending after so many polls: then it is dropped where it is.
async fn cut_off<T>(future: impl Future<Output = T>, polls: Option<u64>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => match &mut left {
            None => Poll::Pending,
            Some(0) => Poll::Ready(None),
            Some(left) => {
                *left -= 1;
                Poll::Pending
            }
        },
    })
    .await
}

fn seed() -> u64 {
    let given = std::env::var("KHALA_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(rand::random)
}

/// Chunks are published and projected; after each stands a mark, and what the store held there.
async fn projected(bench: &Bench, seed: u64) -> BTreeMap<PartitionId, Vec<(Mark, Contents)>> {
    let mut messy = Messy::new(seed, Shape::of(1_500, PARTITIONS));
    let mut marks: BTreeMap<PartitionId, Vec<(Mark, Contents)>> = BTreeMap::new();
    for _ in 0..6 {
        bench.publish(messy.take(250)).await;
        for partition in (0..PARTITIONS).map(PartitionId) {
            bench.redo(partition).await;
            let checkpoint = bench.store.checkpoint(partition).await.unwrap().unwrap();
            bench.store.verify(partition, &checkpoint).await.unwrap();
            let mark = bench.store.history(partition, 1).await.unwrap().remove(0);
            let contents = bench.contents(partition).await;
            marks.entry(partition).or_default().push((mark, contents));
        }
    }
    marks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_to_any_mark_and_redone_is_as_never_having_gone_back() {
    let (seed, dir) = (seed(), tempfile::tempdir().unwrap());
    let bench = Bench::open(dir.path());
    let marks = projected(&bench, seed).await;
    for (partition, marks) in &marks {
        let (_, last) = marks.last().unwrap();
        assert!(last.documents.len() > 5, "seed {seed}: an empty pass");
        for (mark, contents) in marks {
            bench.rewind(*partition, &mark.checkpoint, || None).await;
            assert_eq!(
                bench.contents(*partition).await,
                *contents,
                "seed {seed}: at {}",
                mark.checkpoint.next
            );
            bench.redo(*partition).await;
            assert_eq!(
                bench.contents(*partition).await,
                *last,
                "seed {seed}: redone from {}",
                mark.checkpoint.next
            );
        }
        let earliest = Checkpoint::first(NextOffset::START, &last.checkpoint.topic_id, PARTITIONS);
        bench.rewind(*partition, &earliest, || None).await;
        assert!(bench.contents(*partition).await.documents.is_empty(), "seed {seed}");
        bench.redo(*partition).await;
        assert_eq!(
            bench.contents(*partition).await,
            *last,
            "seed {seed}: redone from the start"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewind_cut_off_anywhere_is_finished_by_the_next() {
    let (seed, dir) = (seed(), tempfile::tempdir().unwrap());
    let bench = Bench::open(dir.path());
    let marks = projected(&bench, seed).await;
    let mut cuts = 0;
    for (partition, marks) in &marks {
        let (_, last) = marks.last().unwrap();
        for (round, (mark, contents)) in marks.iter().enumerate() {
            // One poll more each time: cut off at every await once, until it comes through.
            let mut polls = round as u64 % 3;
            let step = || {
                polls += 1;
                Some(polls)
            };
            cuts += bench.rewind(*partition, &mark.checkpoint, step).await;
            assert_eq!(
                bench.contents(*partition).await,
                *contents,
                "seed {seed}: at {}",
                mark.checkpoint.next
            );
            bench.redo(*partition).await;
            assert_eq!(
                bench.contents(*partition).await,
                *last,
                "seed {seed}: redone from {}",
                mark.checkpoint.next
            );
        }
    }
    assert!(cuts > 20, "seed {seed}: only {cuts} cuts: an empty pass");
}

/// As after the store went back, or on to its newest copy, since the mark was chosen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_that_is_not_the_store_s_any_more_is_not_gone_back_to() {
    let (seed, dir) = (seed(), tempfile::tempdir().unwrap());
    let bench = Bench::open(dir.path());
    let marks = projected(&bench, seed).await;
    let (mark, _) = &marks[&PartitionId(0)][3];
    let mut of_another = mark.checkpoint.clone();
    of_another.digest = of_another.digest.moved(1, 2);
    let error = bench.refused(PartitionId(0), &of_another).await;
    assert!(
        matches!(error, RepairError::Store(StoreError::Refused { .. })),
        "seed {seed}: {error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_a_topic_that_is_no_more_are_not_made_of_another() {
    let (seed, dir, other_dir) = (seed(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bench = Bench::open(dir.path());
    let marks = projected(&bench, seed).await;
    let other = Bench::open(other_dir.path());
    projected(&other, seed + 1).await;
    let anew = Bench {
        log: other.log,
        ..bench
    };
    let topic = anew.log.topic().await.unwrap();
    for (partition, marks) in &marks {
        let (_, last) = marks.last().unwrap();
        assert_ne!(last.checkpoint.topic_id, topic.id, "seed {seed}: an empty pass");
        let earliest = Checkpoint::first(NextOffset::START, &last.checkpoint.topic_id, PARTITIONS);
        for mark in [&earliest, &marks[0].0.checkpoint] {
            let error = anew.refused(*partition, mark).await;
            assert!(error.to_string().contains("made anew"), "seed {seed}: {error}");
        }
    }
}

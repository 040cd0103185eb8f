//! The embedded log and store under kill -9 and flipped bits.
//! A child (this binary, started again) appends and commits, and says on stdout what was acknowledged; it is
//! killed after a random number of lines. Whatever it said must be there, and each checkpoint must cover
//! exactly the documents that are there. Again with the same kills: `KHALA_SEED=<seed>`.

#![expect(clippy::print_stdout, reason = "the child tells its parent what was acknowledged")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use khala::log::embedded::{self, EmbeddedLog, EmbeddedSettings as LogSettings};
use khala::log::{FetchLimits, Log, LogError, NewRecord, Role};
use khala::pure::checkpoint::Checkpoint;
use khala::pure::entity::Entity;
use khala::pure::place::{NextOffset, Offset, PartitionId, Partitioner};
use khala::store::embedded::{EmbeddedSettings as StoreSettings, EmbeddedStore};
use khala::store::{Batch, DocumentWrite, EventWrite, Owner, Store, StoreError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const CHILD_DIR: &str = "KHALA_CRASH_DIR";
const PARTITIONS: u32 = 3;
const KILLS: usize = 20;
const ENTITIES: u64 = 5;
const LEASE: Duration = Duration::from_secs(60);

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
    Batch {
        expected: (n > 0).then(|| at(n).identity()),
        checkpoint: at(n + 1),
        documents: vec![document(one_of(n)), document(shared())],
        events: vec![EventWrite {
            entity: shared(),
            seq: n + 1,
            json: all.clone(),
        }],
        parked: Vec::new(),
        mark: true,
        buffer,
    }
}

fn one_of(n: u64) -> Entity {
    Entity::parse(&format!("run/{}", n % ENTITIES)).expect("legal")
}

fn shared() -> Entity {
    Entity::parse("worker/shared").expect("legal")
}

/// Not a test of its own: what the killed process does. Does nothing unless a test below starts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else {
        return;
    };
    say("opening");
    let log = Arc::new(open_log(&dir).unwrap());
    let store = Arc::new(open_store(&dir).unwrap());
    say("open");
    let mut tasks = tokio::task::JoinSet::new();
    for partition in (0..PARTITIONS).map(PartitionId) {
        tasks.spawn(append(log.clone(), partition));
        tasks.spawn(commit(store.clone(), partition));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

async fn append(log: Arc<EmbeddedLog>, partition: PartitionId) {
    loop {
        let end = log.bounds(partition).await.unwrap().end.0;
        let records = (end..end + 1 + end % 7).map(|number| NewRecord {
            partition: Some(partition),
            key: Some(b"run/a".to_vec()),
            value: Some(value(partition, number).into_bytes()),
            headers: Vec::new(),
        });
        for done in log.append(Role::Events, records.collect()).await {
            let (partition, offset) = done.unwrap();
            say(&format!("appended {partition} {offset}"));
        }
    }
}

async fn commit(store: Arc<EmbeddedStore>, partition: PartitionId) {
    let opened = Store::open(&*store, partition, &owner(), LEASE).await.unwrap();
    let mut n = opened.checkpoint.map_or(0, |checkpoint| checkpoint.next.0);
    loop {
        store.commit(partition, &owner(), &step(n)).await.unwrap();
        say(&format!("committed {partition} {n}"));
        n += 1;
    }
}

/// One write, so that a kill cuts no line that was said.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// A child, killed when dropped.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD_DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let lines = BufReader::new(out).lines();
        Self { child, lines }
    }

    /// Its next line; `None` at its end.
    fn line(&mut self) -> Option<String> {
        self.lines.next().map(|line| line.unwrap())
    }

    fn wait_for(&mut self, wanted: &str) {
        while self.line().unwrap_or_else(|| panic!("ended before `{wanted}`")) != wanted {}
    }

    fn kill(&mut self) {
        self.child.kill().unwrap(); // SIGKILL
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// What a child said: by word and partition, the highest number.
#[derive(Default, Debug)]
struct Said(BTreeMap<(String, u32), u64>);

impl Said {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (Some(word @ ("appended" | "committed")), Some(partition), Some(number)) =
            (words.next(), words.next(), words.next())
        else {
            return;
        };
        let place = (word.to_owned(), partition.parse().unwrap());
        let number: u64 = number.parse().unwrap();
        let highest = self.0.entry(place).or_insert(number);
        *highest = number.max(*highest);
    }

    /// One past the highest number.
    fn next(&self, word: &str, partition: PartitionId) -> u64 {
        let highest = self.0.get(&(word.to_owned(), partition.0));
        highest.map_or(0, |number| number + 1)
    }
}

async fn ensure_log_is_whole(dir: &Path, said: &Said) {
    let log = open_log(dir).unwrap();
    for partition in (0..PARTITIONS).map(PartitionId) {
        let end = log.bounds(partition).await.unwrap().end.0;
        let acknowledged = said.next("appended", partition);
        assert!(
            end >= acknowledged,
            "partition {partition}: {acknowledged} acknowledged, {end} there"
        );
        let read = read_all(&log, partition).await.unwrap();
        let expected: Vec<_> = (0..end).map(|number| value(partition, number)).collect();
        assert!(
            read == expected,
            "partition {partition}: records are not what was appended"
        );
    }
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

async fn ensure_store_is_whole(dir: &Path, said: &Said) {
    let store = open_store(dir).unwrap();
    for partition in (0..PARTITIONS).map(PartitionId) {
        let next = covered(&store, partition).await.unwrap();
        let acknowledged = said.next("committed", partition);
        assert!(
            (acknowledged..=acknowledged + 1).contains(&next),
            "partition {partition}: {acknowledged} commits acknowledged, the checkpoint says {next}"
        );
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
    assert_eq!(store.history(partition, 1).await?, [checkpoint]);
    Ok(next)
}

fn seed() -> u64 {
    let given = std::env::var("KHALA_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("again: KHALA_SEED={seed} cargo test --test embedded_crash");
    seed
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_twenty_kills() {
    let mut random = StdRng::seed_from_u64(seed());
    let dir = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    for kill in 0..KILLS {
        let mut child = Running::start(dir.path());
        child.wait_for("opening");
        // Every fourth kill comes while it opens.
        let lines = if kill % 4 == 3 { 0 } else { random.random_range(1..2000) };
        for _ in 0..lines {
            said.hear(&child.line().expect("the child ended by itself"));
        }
        child.kill();
        while let Some(line) = child.line() {
            said.hear(&line);
        }
        ensure_log_is_whole(dir.path(), &said).await;
        ensure_store_is_whole(dir.path(), &said).await;
    }
    assert!(
        said.0.len() == 2 * PARTITIONS as usize,
        "the children did too little: {said:?}"
    );
}

#[tokio::test]
async fn a_running_owner_is_named_and_a_killed_one_leaves_the_directory_free() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Running::start(dir.path());
    child.wait_for("open");
    let pid = child.child.id();
    assert_eq!(embedded::in_use(dir.path()).map(|server| server.pid), Some(pid));
    let log = open_log(dir.path()).err().unwrap().to_string();
    let store = open_store(dir.path()).err().unwrap().to_string();
    assert!(log.contains(&format!("process {pid}")), "{log}");
    assert!(store.contains(&format!("process {pid}")), "{store}");
    child.kill();
    assert_eq!(embedded::in_use(dir.path()), None);
    open_log(dir.path()).unwrap();
    open_store(dir.path()).unwrap();
}

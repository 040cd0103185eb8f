//! A child (this binary, started again) appends and commits, and says on stdout what was acknowledged; it is
//! killed after a random number of lines.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use khala::log::embedded::{self, EmbeddedLog};
use khala::log::{Log, NewRecord, Role};
use khala::pure::place::PartitionId;
use khala::store::Store;
use khala::store::embedded::EmbeddedStore;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{LEASE, PARTITIONS, covered, open_log, open_store, owner, read_all, seed, step, value};

const CHILD_DIR: &str = "KHALA_CRASH_DIR";
const KILLS: usize = 20;

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
            timestamp_ms: None,
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
            .args(["--exact", "kills::child", "--nocapture"])
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

/// Notes what is there as said: the commit that a kill cut off before it was said is the next child's start.
async fn ensure_store_is_whole(dir: &Path, said: &mut Said) {
    let store = open_store(dir).unwrap();
    for partition in (0..PARTITIONS).map(PartitionId) {
        let next = covered(&store, partition).await.unwrap();
        let acknowledged = said.next("committed", partition);
        assert!(
            (acknowledged..=acknowledged + 1).contains(&next),
            "partition {partition}: {acknowledged} commits acknowledged, the checkpoint says {next}"
        );
        if next > acknowledged {
            said.hear(&format!("committed {partition} {acknowledged}"));
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_twenty_kills() {
    let mut random = StdRng::seed_from_u64(seed());
    let dir = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    for kill in 0..KILLS {
        let mut child = Running::start(dir.path());
        child.wait_for("opening");
        // Every fourth kill comes while it opens, the first while it makes the directory.
        let lines = if kill % 4 == 0 { 0 } else { random.random_range(1..2000) };
        for _ in 0..lines {
            said.hear(&child.line().expect("the child ended by itself"));
        }
        child.kill();
        while let Some(line) = child.line() {
            said.hear(&line);
        }
        ensure_log_is_whole(dir.path(), &said).await;
        ensure_store_is_whole(dir.path(), &mut said).await;
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

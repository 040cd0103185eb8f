//! The one thread that writes the log: many appends that wait share one batch and one sync.
//! In: appends and group offsets, through a bounded queue. Out: offsets, once they are on disk.
//! Invariant: ends move, and appends are answered, only after the sync.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fjall::OwnedWriteBatch;
use tokio::sync::{mpsc, oneshot};

use super::chunk::{self, Builder};
use super::topics::Tail;
use super::{Shared, index};
use crate::disk::{self, DiskError};
use crate::log::{GroupOffset, LogError, NewRecord, Role};
use crate::pure::place::{Offset, PartitionId, Partitioner};

/// How many appends may wait.
pub(super) const QUEUE: usize = 1024;
/// A commit takes no further append from here on.
const COMMIT_BYTES: usize = 16 << 20;
/// The largest record. Events are far smaller; this is what the log itself can hold.
pub(super) const RECORD_BYTES_MAX: usize = 64 << 20;

pub(super) type Appended = Vec<Result<(PartitionId, Offset), LogError>>;

/// What the thread is asked for.
pub(super) enum Request {
    Append {
        role: Role,
        records: Vec<NewRecord>,
        reply: oneshot::Sender<Appended>,
    },
    Group {
        offsets: Vec<GroupOffset>,
        reply: oneshot::Sender<Result<(), LogError>>,
    },
}

/// State of the thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    partitioner: Partitioner,
    tails: [Vec<Tail>; 3],
    /// Records without a key go to one partition after the other, a commit at a time.
    keyless: u32,
}

/// One commit being built.
struct Commit {
    batch: OwnedWriteBatch,
    open: BTreeMap<(usize, PartitionId), Builder>,
    now_ms: i64,
    synced: bool,
}

enum Reply {
    Append(oneshot::Sender<Appended>, Appended),
    Group(oneshot::Sender<Result<(), LogError>>),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, partitioner: Partitioner, tails: [Vec<Tail>; 3]) -> Self {
        Self {
            shared,
            partitioner,
            tails,
            keyless: 0,
        }
    }

    /// Serves until the last sender is gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut commit = self.begin();
            let mut bytes = bytes_of(&first);
            let mut replies = vec![self.take(&mut commit, first)];
            while bytes < COMMIT_BYTES {
                let Ok(request) = requests.try_recv() else { break };
                bytes += bytes_of(&request);
                replies.push(self.take(&mut commit, request));
            }
            let done = self.write(commit);
            for reply in replies {
                answer(reply, done.as_ref().err());
            }
        }
    }

    fn begin(&mut self) -> Commit {
        self.keyless = self.keyless.wrapping_add(1);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Commit {
            batch: self.shared.disk.batch(),
            open: BTreeMap::new(),
            now_ms: since.map_or(0, |since| since.as_millis() as i64),
            synced: false,
        }
    }

    fn take(&mut self, commit: &mut Commit, request: Request) -> Reply {
        match request {
            Request::Append { role, records, reply } => {
                commit.synced = true;
                let appended = records.iter().map(|record| self.append(commit, role, record)).collect();
                Reply::Append(reply, appended)
            }
            Request::Group { offsets, reply } => {
                for offset in &offsets {
                    let key = self.shared.group_key(offset.partition);
                    let text = [&offset.next.0.to_le_bytes(), offset.metadata.as_bytes()].concat();
                    commit
                        .batch
                        .insert(self.shared.disk.meta(), key.as_slice(), disk::seal(&key, &text));
                }
                Reply::Group(reply)
            }
        }
    }

    fn append(
        &mut self,
        commit: &mut Commit,
        role: Role,
        record: &NewRecord,
    ) -> Result<(PartitionId, Offset), LogError> {
        let topic = &self.shared.topics[index(role)];
        let size = chunk::size(record);
        if size > RECORD_BYTES_MAX {
            return Err(LogError::Refused(format!(
                "topic {}: a record of {size} bytes; the embedded log holds at most {RECORD_BYTES_MAX}",
                topic.name
            )));
        }
        let partition = record.partition.unwrap_or_else(|| match &record.key {
            Some(key) => self.partitioner.place(key, topic.partitions()),
            None => PartitionId(self.keyless % topic.partitions()),
        });
        topic.bounds(partition)?;
        let tail = &mut self.tails[index(role)][partition.0 as usize];
        tail.timestamp_ms = tail.timestamp_ms.max(commit.now_ms);
        let place = (index(role), partition);
        if commit.open.get(&place).is_some_and(Builder::is_full)
            && let Some(full) = commit.open.remove(&place)
        {
            commit.put(&self.shared, place, full);
        }
        let builder = commit
            .open
            .entry(place)
            .or_insert_with(|| Builder::new(tail.next, tail.timestamp_ms));
        let offset = builder.push(record);
        tail.next = builder.next();
        Ok((partition, offset))
    }

    fn write(&mut self, mut commit: Commit) -> Result<(), DiskError> {
        let touched: Vec<_> = commit.open.keys().copied().collect();
        for (place, builder) in std::mem::take(&mut commit.open) {
            commit.put(&self.shared, place, builder);
        }
        if commit.synced {
            self.shared.disk.commit(commit.batch)?;
        } else {
            // Group offsets alone: a hint for lag tools. Going back to an older one loses nothing.
            self.shared.disk.commit_unsynced(commit.batch)?;
        }
        for (topic, partition) in touched {
            let end = self.tails[topic][partition.0 as usize].next;
            self.shared.topics[topic].move_end(partition, end);
        }
        Ok(())
    }
}

impl Commit {
    fn put(&mut self, shared: &Shared, (topic, partition): (usize, PartitionId), builder: Builder) {
        let (key, value) = builder.finish(shared.topics[topic].number, partition);
        self.batch.insert(&shared.records, key.as_slice(), value);
    }
}

/// Whoever asked may be gone: its records are in the log all the same.
fn answer(reply: Reply, failed: Option<&DiskError>) {
    match (reply, failed) {
        (Reply::Append(reply, appended), None) => _ = reply.send(appended),
        (Reply::Append(reply, appended), Some(error)) => {
            let failed = appended.iter().map(|_| Err(error.clone().into()));
            _ = reply.send(failed.collect());
        }
        (Reply::Group(reply), failed) => {
            _ = reply.send(failed.map_or(Ok(()), |error| Err(error.clone().into())));
        }
    }
}

fn bytes_of(request: &Request) -> usize {
    match request {
        Request::Append { records, .. } => records.iter().map(chunk::size).sum(),
        Request::Group { .. } => 0,
    }
}

//! The embedded log: topics in a fjall database, for one process on one machine.
//! In: records to append. Out: the same, dense offsets per partition, durable over kill -9 and power cuts.
//! Invariant: acknowledged means on disk. After a failed write nothing is acknowledged until a restart.
//! Layout: `<dir>/log/`, keyspaces `records` (chunks, see `chunk`) and `meta` (topics, group offsets).

mod chunk;
mod group;
mod reader;
#[cfg(test)]
mod tests;
mod topics;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use fjall::{Keyspace, KeyspaceCreateOptions, KvSeparationOptions};
use tokio::sync::{mpsc, oneshot};

use super::{Bounds, FetchLimits, GroupOffset, Log, LogError, Membership, NewRecord, Reader, Role, Topic};
use crate::disk::{self, Disk, DiskError};
use crate::pure::place::{NextOffset, Offset, PartitionId, Partitioner};
use crate::pure::record::RecordIdentity;
use topics::TopicState;
use writer::{Request, Writer};

pub use crate::disk::{RunningServer, Serves, announce, in_use};

/// What an embedded log is opened with.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// The events' topic; dead letters go to `<topic>.dead-letters`.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Partitions of a topic that is made; one that is there keeps its own number.
    pub partitions: u32,
    /// Where records without a given partition go.
    pub partitioner: Partitioner,
}

const MEMTABLE_BYTES: u64 = 32 << 20;

/// See [`Log`]. The directory is free again when it and all its readers are dropped.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    group: group::Group,
    partitions_wanted: u32,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

/// What writer and readers share.
struct Shared {
    disk: Disk,
    records: Keyspace,
    /// By [`index`].
    topics: [TopicState; 3],
    group: String,
}

fn index(role: Role) -> usize {
    match role {
        Role::Events => 0,
        Role::DeadLetters => 1,
        Role::Documents => 2,
    }
}

impl Shared {
    fn group_key(&self, partition: PartitionId) -> Vec<u8> {
        format!("group\0{}\0{}\0{partition}", self.group, self.topics[0].name).into_bytes()
    }
}

impl From<DiskError> for LogError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Full(words) => Self::Full(words),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// Chunks stand beside the keys, so that compaction moves keys only. Memory for what is not yet in tables is bounded.
fn records_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .with_kv_separation(Some(KvSeparationOptions::default()))
        .max_memtable_size(MEMTABLE_BYTES)
}

impl EmbeddedLog {
    /// Opens the log in `<dir>/log/`, made if it is not there. Blocks.
    ///
    /// # Errors
    /// `Refused`: another process owns it (named by pid), or it is damaged (named by place).
    pub fn open(dir: &Path, settings: EmbeddedSettings) -> Result<Self, LogError> {
        let disk = Disk::open(dir, "log", &[("records", records_options)])?;
        let records = disk.keyspace("records")?;
        let partitions_wanted = settings.partitions;
        let (events, event_tails) = TopicState::open(&disk, &records, &settings.topic, partitions_wanted)?;
        let beside = |role: Role| TopicState::open(&disk, &records, &role.topic(&settings.topic), events.partitions());
        let (letters, letter_tails) = beside(Role::DeadLetters)?;
        let (documents, document_tails) = beside(Role::Documents)?;
        let group = group::Group::new(events.partitions());
        let shared = Arc::new(Shared {
            disk,
            records,
            topics: [events, letters, documents],
            group: settings.group,
        });
        let (sender, receiver) = mpsc::channel(writer::QUEUE);
        let writer = Writer::new(
            shared.clone(),
            settings.partitioner,
            [event_tails, letter_tails, document_tails],
        );
        let writer = std::thread::Builder::new()
            .name("khala-log".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|error| LogError::Refused(format!("no thread for the log: {error}")))?;
        Ok(Self {
            shared,
            group,
            partitions_wanted,
            requests: Some(sender),
            writer: Some(writer),
        })
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, LogError> {
        let ended = || LogError::Refused("the embedded log's writer has ended; restart Khala".to_owned());
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        requests.send(make(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the embedded log's writer ended by a panic");
        }
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn prepare(&self) -> Result<Vec<String>, LogError> {
        self.running()?;
        let mut lines = Vec::new();
        for topic in &self.shared.topics {
            let (name, partitions) = (&topic.name, topic.partitions());
            if topic.made {
                lines.push(format!("topic {name}: made, {partitions} partitions"));
            } else if partitions != self.partitions_wanted {
                let wanted = self.partitions_wanted;
                lines.push(format!(
                    "topic {name}: has {partitions} partitions, the settings say {wanted}; a topic keeps its number"
                ));
            }
        }
        Ok(lines)
    }

    fn running(&self) -> Result<(), LogError> {
        Ok(self.shared.disk.running()?)
    }

    async fn topic(&self) -> Result<Topic, LogError> {
        let topic = &self.shared.topics[index(Role::Events)];
        Ok(Topic {
            name: topic.name.clone(),
            partitions: topic.partitions(),
            id: topic.id.clone(),
        })
    }

    async fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError> {
        self.bounds_of(Role::Events, partition).await
    }

    async fn record_at(&self, partition: PartitionId, offset: Offset) -> Result<Option<RecordIdentity>, LogError> {
        let bounds = self.bounds(partition).await?;
        if offset.0 < bounds.first.0 || offset.0 >= bounds.end.0 {
            return Ok(None);
        }
        let read = reader::Read {
            shared: self.shared.clone(),
            role: Role::Events,
            partition,
            next: offset.0,
            end: bounds.end.0,
            limits: FetchLimits {
                records: 1,
                bytes: 1,
                wait: Duration::ZERO,
            },
        };
        let (batch, _) = blocking(move || read.run(None)).await?;
        Ok(batch.iter().next().map(|record| record.identity()))
    }

    async fn reader(&self, role: Role, partition: PartitionId, from: NextOffset) -> Result<Box<dyn Reader>, LogError> {
        self.bounds_of(role, partition).await?;
        let reader = reader::EmbeddedReader::new(self.shared.clone(), role, partition, from);
        Ok(Box::new(reader))
    }

    async fn append(&self, role: Role, records: Vec<NewRecord>) -> Vec<Result<(PartitionId, Offset), LogError>> {
        let count = records.len();
        if count == 0 {
            return Vec::new();
        }
        match self.ask(|reply| Request::Append { role, records, reply }).await {
            Ok(appended) => appended,
            Err(error) => {
                let words = error.to_string();
                (0..count).map(|_| Err(LogError::Refused(words.clone()))).collect()
            }
        }
    }

    async fn join(&self) -> Result<Box<dyn Membership>, LogError> {
        Ok(Box::new(self.group.join()))
    }

    async fn group_offset(&self, partition: PartitionId) -> Result<Option<NextOffset>, LogError> {
        let shared = self.shared.clone();
        blocking(move || {
            let key = shared.group_key(partition);
            let Some(value) = shared
                .disk
                .meta()
                .get(&key)
                .map_err(|error| shared.disk.failed(&error))?
            else {
                return Ok(None);
            };
            let next = disk::unseal(&key, &value)
                .and_then(|text| text.first_chunk::<8>())
                .ok_or_else(|| {
                    let topic = &shared.topics[0].name;
                    topics::refused(&shared.disk, topic, partition, "the group's offset is damaged")
                })?;
            Ok(Some(NextOffset(u64::from_le_bytes(*next))))
        })
        .await
    }

    async fn commit_group(&self, offsets: Vec<GroupOffset>) -> Result<(), LogError> {
        for offset in &offsets {
            self.bounds(offset.partition).await?;
        }
        self.ask(|reply| Request::Group { offsets, reply }).await?
    }

    async fn bounds_of(&self, role: Role, partition: PartitionId) -> Result<Bounds, LogError> {
        self.shared.topics[index(role)].bounds(partition)
    }
}

/// Runs what may block where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(LogError::Refused(format!("reading the embedded log failed: {error}"))),
    }
}

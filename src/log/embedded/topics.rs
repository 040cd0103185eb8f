//! The topics of the embedded log: number, id and partitions as stored, first offsets and ends as found.
//! Invariant: an end moves only after what is before it is on disk, so nobody reads what is not acknowledged.

use fjall::Keyspace;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::chunk::{self, Cursor};
use crate::disk::{self, Disk};
use crate::log::{Bounds, LogError};
use crate::pure::place::{NextOffset, PartitionId};

/// A limit as of Kafka's practice; each partition is looked at when the log opens.
const PARTITIONS_MAX: u32 = 4096;

/// What is stored of a topic.
#[derive(Serialize, Deserialize)]
struct Stored {
    number: u32,
    partitions: u32,
    id: String,
}

/// One topic.
pub(super) struct TopicState {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) id: String,
    /// Whether this opening made it.
    pub(super) made: bool,
    partitions: Vec<PartitionState>,
}

struct PartitionState {
    first: u64,
    end: watch::Sender<u64>,
}

/// Where a partition's writing goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) next: u64,
    pub(super) timestamp_ms: i64,
}

impl TopicState {
    /// Opens the topic, or makes it with `partitions` partitions.
    pub(super) fn open(
        disk: &Disk,
        records: &Keyspace,
        name: &str,
        partitions: u32,
    ) -> Result<(Self, Vec<Tail>), LogError> {
        let (stored, made) = match read(disk, name)? {
            Some(stored) => (stored, false),
            None => (make(disk, name, partitions)?, true),
        };
        let mut states = Vec::new();
        let mut tails = Vec::new();
        for partition in (0..stored.partitions).map(PartitionId) {
            let (first, tail) =
                ends(records, stored.number, partition).map_err(|what| refused(disk, name, partition, &what))?;
            states.push(PartitionState {
                first,
                end: watch::Sender::new(tail.next),
            });
            tails.push(tail);
        }
        let topic = Self {
            name: name.to_owned(),
            number: stored.number,
            id: stored.id,
            made,
            partitions: states,
        };
        Ok((topic, tails))
    }

    pub(super) fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    pub(super) fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError> {
        let state = self.state(partition)?;
        Ok(Bounds {
            first: NextOffset(state.first),
            end: NextOffset(*state.end.borrow()),
        })
    }

    /// A partition's end as it moves.
    pub(super) fn watch(&self, partition: PartitionId) -> Result<watch::Receiver<u64>, LogError> {
        Ok(self.state(partition)?.end.subscribe())
    }

    /// Tells readers of a new end.
    pub(super) fn move_end(&self, partition: PartitionId, end: u64) {
        if let Ok(state) = self.state(partition) {
            state.end.send_replace(end);
        }
    }

    fn state(&self, partition: PartitionId) -> Result<&PartitionState, LogError> {
        self.partitions.get(partition.0 as usize).ok_or_else(|| {
            LogError::Refused(format!(
                "topic {}: there is no partition {partition}, it has {}",
                self.name,
                self.partitions.len()
            ))
        })
    }
}

fn topic_key(name: &str) -> Vec<u8> {
    [b"topic\0", name.as_bytes()].concat()
}

fn read(disk: &Disk, name: &str) -> Result<Option<Stored>, LogError> {
    let key = topic_key(name);
    let Some(value) = disk.meta().get(&key).map_err(|error| disk.failed(&error))? else {
        return Ok(None);
    };
    let stored = disk::unseal(&key, &value).and_then(|text| serde_json::from_slice(text).ok());
    stored.map(Some).ok_or_else(|| {
        LogError::Refused(format!(
            "{}: what is stored of topic {name} is damaged; restore a copy of the directory",
            disk.place().display()
        ))
    })
}

fn make(disk: &Disk, name: &str, partitions: u32) -> Result<Stored, LogError> {
    if !(1..=PARTITIONS_MAX).contains(&partitions) {
        return Err(LogError::Refused(format!(
            "topic {name}: {partitions} partitions; it must be 1 to {PARTITIONS_MAX}"
        )));
    }
    let taken = disk.meta().prefix(b"topic\0").count();
    let stored = Stored {
        number: taken as u32,
        partitions,
        id: format!("{:032x}", rand::random::<u128>()),
    };
    let key = topic_key(name);
    let text = serde_json::to_vec(&stored).map_err(|error| disk.failed(&error))?;
    let mut batch = disk.batch();
    batch.insert(disk.meta(), key.as_slice(), disk::seal(&key, &text));
    disk.commit(batch)?;
    Ok(stored)
}

/// First offset and tail of a partition, from its first and last chunk.
fn ends(records: &Keyspace, topic: u32, partition: PartitionId) -> Result<(u64, Tail), String> {
    let all = chunk::key(topic, partition, 0)..=chunk::key(topic, partition, u64::MAX);
    let mut chunks = records.range(all);
    let Some(first) = chunks.next() else {
        return Ok((
            0,
            Tail {
                next: 0,
                timestamp_ms: 0,
            },
        ));
    };
    let first = opened(first)?;
    let last = chunks.next_back().map(opened).transpose()?;
    let base = first.next();
    let last = last.unwrap_or(first);
    let tail = Tail {
        next: last.end(),
        timestamp_ms: last.timestamp_ms(),
    };
    Ok((base, tail))
}

fn opened(guard: fjall::Guard) -> Result<Cursor, String> {
    let (key, value) = guard.into_inner().map_err(|error| error.to_string())?;
    Cursor::open(&key, value).map_err(|what| format!("the chunk at offset {}: {what}", base_of(&key)))
}

/// The offset in a chunk's key.
pub(super) fn base_of(key: &[u8]) -> u64 {
    let base = key.get(8..16).and_then(|bytes| bytes.try_into().ok());
    base.map_or(0, u64::from_be_bytes)
}

/// Something of a partition is damaged.
pub(super) fn refused(disk: &Disk, topic: &str, partition: PartitionId, what: &str) -> LogError {
    LogError::Refused(format!(
        "{}: topic {topic}, partition {partition}: {what}; restore a copy of the directory",
        disk.place().display()
    ))
}

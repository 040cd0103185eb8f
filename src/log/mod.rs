//! The seam to the log: what Khala needs of Kafka, and what the embedded log gives alike.
//! Invariant: an appended record is acknowledged only when the log has it for good
//! (all in-sync replicas, or synced to disk). The log knows nothing of documents.

pub mod embedded;
pub mod kafka;
mod ungrouped;

use std::convert::Infallible;
use std::time::Duration;

use async_trait::async_trait;

pub use self::ungrouped::Ungrouped;

use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::record::{RecordBatch, RecordIdentity};
use crate::telemetry::KafkaStatistics;

/// What the log says of the events' topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Its id (KIP-516), which changes when it is made anew; empty where the log does not tell.
    pub id: String,
}

/// A partition's first offset and its end: the offset that the next record will get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset still there.
    pub first: NextOffset,
    /// One past the last record.
    pub end: NextOffset,
}

/// Which of Khala's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `<topic>`.
    Events,
    /// `<topic>.dead-letters`.
    DeadLetters,
    /// `<topic>.documents`, compacted: snapshots.
    Documents,
}

impl Role {
    /// All of Khala's topics, the events' first.
    pub const ALL: [Self; 3] = [Self::Events, Self::DeadLetters, Self::Documents];

    /// The topic's name, beside the events' topic `events`.
    pub fn topic(self, events: &str) -> String {
        match self {
            Self::Events => events.to_owned(),
            Self::DeadLetters => format!("{events}.dead-letters"),
            Self::Documents => format!("{events}.documents"),
        }
    }

    /// The topic's `cleanup.policy`.
    pub fn cleanup(self) -> &'static str {
        match self {
            Self::Events | Self::DeadLetters => "delete",
            Self::Documents => "compact",
        }
    }
}

/// A record to append. It owns its bytes: it outlives the batch it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// The partition; `None`: by the key, with the configured partitioner.
    pub partition: Option<PartitionId>,
    /// The key; `None` is Kafka's null.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is Kafka's null.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; `None`: now. The embedded log knows only now.
    pub timestamp_ms: Option<i64>,
}

/// Bounds of one fetch.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// At most this many records.
    pub records: usize,
    /// Stop after the record that reaches this many bytes.
    pub bytes: usize,
    /// How long to wait for a first record.
    pub wait: Duration,
}

/// What the consumer group tells a member.
#[derive(Clone, Debug)]
pub enum Assignment {
    /// These are ours now, beside those we have.
    Assigned(Vec<PartitionId>),
    /// These are to be given up, or were lost without being asked: finish what was begun, then drop the handover.
    Revoked(Vec<PartitionId>, Handover),
}

/// While there is a clone of it, the group waits with the next owner of the partitions, for some seconds: one that
/// begins while a batch is under way would refuse it, do it again, and write its dead letters twice.
#[derive(Clone, Debug)]
pub struct Handover {
    _dropped: std::sync::mpsc::Sender<Infallible>,
}

impl Handover {
    /// One, and what tells (as disconnected) that its last clone was dropped.
    #[must_use]
    pub fn new() -> (Self, std::sync::mpsc::Receiver<Infallible>) {
        let (sender, dropped) = std::sync::mpsc::channel();
        (Self { _dropped: sender }, dropped)
    }
}

/// A position to commit for the group: a hint for lag tools, never the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// Which partition.
    pub partition: PartitionId,
    /// The checkpoint's offset.
    pub next: NextOffset,
    /// The checkpoint's digest, as text.
    pub metadata: String,
}

/// Variants differ in what the caller does.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No answer: try again later; nothing is known to have happened.
    #[error("the log at {address} does not answer: {detail}")]
    Unreachable {
        /// Broker addresses or a directory.
        address: String,
        /// The library's words.
        detail: String,
    },
    /// The place is not in the log (cut, retention, made anew), or its leader changed: compare the
    /// last applied record with the log before going on.
    #[error("partition {partition}: cannot read on at offset {at}: {detail}")]
    Moved {
        /// Which partition.
        partition: PartitionId,
        /// Where reading stopped.
        at: NextOffset,
        /// What was seen.
        detail: String,
    },
    /// The disk has no room: trying again helps as soon as a person has made some.
    #[error("{0}")]
    Full(String),
    /// Trying again does not help: bad settings, no right, a corrupt record. A person must act.
    #[error("{0}")]
    Refused(String),
}

/// A log of events.
#[async_trait]
pub trait Log: Send + Sync {
    /// Makes missing topics, checks the settings of those there are. Returns what was done and what
    /// deserves a warning, a line each.
    ///
    /// # Errors
    /// `Refused` names the topic, the setting, what it is and what it must be.
    async fn prepare(&self) -> Result<Vec<String>, LogError>;

    /// The events' topic as it is now.
    async fn topic(&self) -> Result<Topic, LogError>;

    /// First offset and end of a partition of the events' topic.
    async fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError>;

    /// The identity of the record at `offset`; `None` if there is no record at that very offset.
    async fn record_at(&self, partition: PartitionId, offset: Offset) -> Result<Option<RecordIdentity>, LogError>;

    /// Reads a topic's partition from `from` on, without a group.
    async fn reader(&self, role: Role, partition: PartitionId, from: NextOffset) -> Result<Box<dyn Reader>, LogError>;

    /// Appends records; returns when all are acknowledged or have failed, in the order given.
    async fn append(&self, role: Role, records: Vec<NewRecord>) -> Vec<Result<(PartitionId, Offset), LogError>>;

    /// Joins the consumer group.
    async fn join(&self) -> Result<Box<dyn Membership>, LogError>;

    /// The group's offset; `None` if it never committed one.
    async fn group_offset(&self, partition: PartitionId) -> Result<Option<NextOffset>, LogError>;

    /// Commits the group's offsets.
    async fn commit_group(&self, offsets: Vec<GroupOffset>) -> Result<(), LogError>;

    /// Whether it takes records. One that is away for a time does: this tells what ends only when a person acts.
    ///
    /// # Errors
    /// Why it takes none, and what helps.
    fn running(&self) -> Result<(), LogError> {
        Ok(())
    }

    /// What the client library last told of itself, for those who watch.
    fn statistics(&self) -> Option<KafkaStatistics> {
        None
    }

    /// Number of partitions of a topic and bounds of one, for topics other than the events'.
    async fn bounds_of(&self, role: Role, partition: PartitionId) -> Result<Bounds, LogError>;
}

/// Reads one partition in order. Dropping it frees what it holds.
#[async_trait]
pub trait Reader: Send {
    /// The next records, as soon as there is one; an empty batch after `limits.wait`.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Moved`: make a new reader after comparing. `Unreachable`: call again later.
    async fn fetch(&mut self, limits: FetchLimits) -> Result<RecordBatch, LogError>;

    /// The same; while the log has as much, waits a little for a batch as large as the limits allow. Another log than
    /// Kafka gives what it has at once.
    ///
    /// # Errors
    /// As of [`Self::fetch`].
    async fn fetch_much(&mut self, limits: FetchLimits) -> Result<RecordBatch, LogError> {
        self.fetch(limits).await
    }

    /// The partition's end as far as this reader knows without asking.
    fn end(&self) -> Option<NextOffset> {
        None
    }
}

/// Membership in the consumer group, kept alive in the background.
#[async_trait]
pub trait Membership: Send {
    /// The next change; dropping the future loses nothing.
    async fn next(&mut self) -> Result<Assignment, LogError>;

    /// Leaves the group, so that others take over at once.
    async fn leave(self: Box<Self>);
}

//! The seam to the store: documents and the checkpoint that covers them, in one atomic step.
//! Invariant: a commit is all or nothing, and happens only if owner and checkpoint are as expected.
//! The store knows nothing of the log, and nothing of how documents are made.

pub mod embedded;
mod heal;
pub mod redis;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::heal::{Heal, HealEntry, Healed, Healthy};
pub use crate::pure::batch::{Batch, DocumentWrite, EventWrite, Stored};
use crate::pure::checkpoint::{Checkpoint, Identity, Mark};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::telemetry::StoreMemory;

/// Who may write a partition: `projector/<instance>/<random>` or `operator/<who>/<random>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(pub String);

impl Owner {
    /// Whether this is an operator's lease, which a projector never takes.
    pub fn is_operator(&self) -> bool {
        self.0.starts_with("operator/")
    }
}

/// What the store holds of a partition when it is opened.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// The checkpoint, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// Marks of the history, newest first.
    pub marks: Vec<Mark>,
    /// Number of partitions the namespace was made with, from any checkpoint of it.
    pub namespace_partitions: Option<u32>,
    /// Parked entities and the first offset not applied to each.
    pub parked: Vec<(Entity, Offset)>,
}

/// A checkpoint, and entities with their last offsets at the same instant.
pub type Ahead = (Option<Checkpoint>, Vec<(Entity, Offset)>);

/// What the store holds of some entities, read at one instant.
#[derive(Clone, Debug)]
pub struct Peeked {
    /// The checkpoint of that instant.
    pub checkpoint: Option<Checkpoint>,
    /// In the order asked: the document, and the entity's place in the index.
    pub entities: Vec<(Stored, Option<Offset>)>,
    /// In the same order: the first offset not applied to it, if it is parked.
    pub parked: Vec<Option<Offset>>,
}

/// An entity whose document is taken away long after its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// Which.
    pub entity: Entity,
    /// Its place in the index, as it was seen.
    pub last: Offset,
    /// What stays of it.
    pub leaves: Leaves,
    /// The projection version of its document.
    pub version: u32,
}

/// What stays of an expired entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Its place in the index: the log has events of it still.
    Place,
    /// Nothing: the log has forgotten it.
    Nothing,
}

/// What stands in place of an expired entity's state, or document: it counts for this place in the index only.
fn expired_mark(last: Offset) -> String {
    format!("expired {last}")
}

/// A small fact that an operator tells projectors and readers: a text, kept with the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Batches of this partition that begin below this offset go on however many dead letters they have.
    Resume(PartitionId),
    /// What this partition's projector holds it for, where neither log nor store tells.
    Held(PartitionId),
    /// The namespace whose documents readers of this one get.
    Route,
    /// The rollout of a candidate: where it stands.
    Rollout,
    /// All steps of rollouts.
    RolloutRecord,
    /// Which process leads the rollout, and what it makes of the gates.
    RolloutLease,
    /// Of a candidate: how its projectors fare, while a rollout looks at them.
    Health,
}

impl Note {
    /// Those that are of a namespace and no partition of it.
    pub const OF_NAMESPACE: [Self; 5] = [
        Self::Route,
        Self::Rollout,
        Self::RolloutRecord,
        Self::RolloutLease,
        Self::Health,
    ];

    /// Its name, for one of a namespace.
    fn name(self) -> &'static str {
        match self {
            Self::Resume(_) => "resume",
            Self::Held(_) => "held",
            Self::Route => "route",
            Self::Rollout => "rollout",
            Self::RolloutRecord => "rollout:record",
            Self::RolloutLease => "rollout:lease",
            Self::Health => "health",
        }
    }
}

/// A note and its text; `None`: there is none.
pub type Told<'a> = (Note, Option<&'a str>);

/// Which documents a listing gives, newest first by their last offset within each partition.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Runs or workers.
    pub kind: Kind,
    /// Only those whose last offset is below; `None`: all.
    pub below: Option<Offset>,
    /// At most this many.
    pub limit: usize,
}

/// One entry of an entity's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its seq.
    pub seq: u64,
    /// The event as structured `CloudEvents` JSON.
    pub json: Vec<u8>,
}

/// Variants differ in what the caller does.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer, or a passing refusal (loading, out of memory, read-only replica): try again later.
    /// A commit may or may not have happened; sending the same one again is harmless.
    #[error("the store at {address} does not answer: {detail}")]
    Unreachable {
        /// Server address or directory, without secrets.
        address: String,
        /// The library's words.
        detail: String,
    },
    /// Another checkpoint than expected is there; nothing was written.
    #[error("partition {partition}: refused, the store's checkpoint is not the expected one")]
    Refused {
        /// Which partition.
        partition: PartitionId,
        /// What is there.
        found: Box<Option<Checkpoint>>,
    },
    /// Somebody else owns the partition; nothing was written. The checkpoint was as expected.
    #[error("partition {partition}: owned by {owner}")]
    NotOwner {
        /// Which partition.
        partition: PartitionId,
        /// Who does; empty if nobody does.
        owner: String,
    },
    /// What is there cannot be read as what it should be: a person must look.
    #[error("partition {partition}: {what} is unreadable: {detail}")]
    Corrupt {
        /// Which partition.
        partition: PartitionId,
        /// Key or part.
        what: String,
        /// Why.
        detail: String,
    },
    /// The disk has no room: trying again helps as soon as a person has made some.
    #[error("{0}")]
    Full(String),
    /// Trying again does not help: bad settings, no right.
    #[error("{0}")]
    Rejected(String),
}

/// A store of documents and checkpoints.
#[async_trait]
pub trait Store: Send + Sync {
    /// Checks that the store can be trusted (version, eviction policy, rights). Returns warnings.
    async fn check(&self) -> Result<Vec<String>, StoreError>;

    /// Whether it takes writes. One that is away for a time does: this tells what ends only when a person acts.
    ///
    /// # Errors
    /// Why it takes none, and what helps.
    fn running(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Memory in use, and its limit; `None` where the store has no such thing.
    async fn memory(&self) -> Result<Option<StoreMemory>, StoreError> {
        Ok(None)
    }

    /// Takes the partition for `owner`, unless an operator's lease is live, and tells what is there.
    ///
    /// # Errors
    /// `NotOwner` names the operator. `Corrupt`: the checkpoint cannot be read; the lease is taken.
    async fn open(&self, partition: PartitionId, owner: &Owner, lease: Duration) -> Result<Opened, StoreError>;

    /// Extends the lease and returns the checkpoint.
    ///
    /// # Errors
    /// `NotOwner`: the lease is gone.
    async fn renew(
        &self,
        partition: PartitionId,
        owner: &Owner,
        lease: Duration,
    ) -> Result<Option<Checkpoint>, StoreError>;

    /// Gives the partition up, if it is `owner`'s.
    async fn release(&self, partition: PartitionId, owner: &Owner) -> Result<(), StoreError>;

    /// Documents of `entities`, in their order, read in one step with the checkpoint: they count only
    /// if it is one of `expected` (`None` stands for no checkpoint).
    ///
    /// # Errors
    /// `Refused` if it is not.
    async fn load(
        &self,
        partition: PartitionId,
        expected: &[Option<Identity>],
        entities: &[Entity],
    ) -> Result<Vec<Stored>, StoreError>;

    /// Writes a batch: all or none.
    ///
    /// # Errors
    /// `Refused`, `NotOwner`: nothing was written. `Unreachable`: not known; send the same again.
    async fn commit(&self, partition: PartitionId, owner: &Owner, batch: &Batch) -> Result<(), StoreError>;

    /// The checkpoint.
    async fn checkpoint(&self, partition: PartitionId) -> Result<Option<Checkpoint>, StoreError>;

    /// Marks of the history, newest first.
    async fn history(&self, partition: PartitionId, limit: usize) -> Result<Vec<Mark>, StoreError>;

    /// Appends a mark to the history: an audit found the documents under this checkpoint equal to the log.
    async fn verify(&self, partition: PartitionId, checkpoint: &Checkpoint) -> Result<(), StoreError>;

    /// Takes marks out of the history.
    async fn forget_marks(&self, partition: PartitionId, ids: &[String]) -> Result<(), StoreError>;

    /// Entities of a kind whose last offset is `from` or past it, the lowest offset first, at most `limit`.
    async fn indexed(
        &self,
        partition: PartitionId,
        kind: Kind,
        from: NextOffset,
        limit: usize,
    ) -> Result<Vec<(Entity, Offset)>, StoreError>;

    /// The same of all kinds, at most `limit` of each, with the checkpoint of the same instant.
    async fn ahead(&self, partition: PartitionId, from: NextOffset, limit: usize) -> Result<Ahead, StoreError>;

    /// Number of documents whose last event lies below `offset`.
    async fn count_below(&self, partition: PartitionId, offset: NextOffset) -> Result<u64, StoreError>;

    /// Documents of `entities`, their places in the index and whether they are parked, with the checkpoint of the same
    /// instant.
    async fn peek(&self, partition: PartitionId, entities: &[Entity]) -> Result<Peeked, StoreError>;

    /// Puts entities right beside whoever projects: those that are still as they were seen.
    ///
    /// # Errors
    /// `Refused`: a rewind is under way, the documents are of another projection version than they were seen, or the
    /// checkpoint to be moved is not the expected one. `NotOwner`: an operator's lease. Nothing was written then.
    async fn heal(&self, partition: PartitionId, heal: &Heal) -> Result<Vec<Healed>, StoreError>;

    /// Takes documents and streams of those away that are still at their place, under a checkpoint of their version; returns
    /// of how many.
    ///
    /// # Errors
    /// `Refused`: a rewind is under way; nothing was changed.
    async fn expire(&self, partition: PartitionId, entities: &[Expiring]) -> Result<u64, StoreError>;

    /// Tells of every document key of the namespace, whether an index knows it or not; some may come twice.
    async fn scan(&self, visit: &mut (dyn FnMut(PartitionId, Entity) + Send)) -> Result<(), StoreError>;

    /// The same store's documents of another namespace.
    ///
    /// # Errors
    /// `Rejected`: the namespace is not a legal one.
    fn in_namespace(&self, namespace: &str) -> Result<Arc<dyn Store>, StoreError>;

    /// Namespaces with a checkpoint, by name. In a Redis Cluster those that the node that answers knows.
    async fn namespaces(&self) -> Result<Vec<String>, StoreError>;

    /// Takes all of this namespace away, which has at most so many partitions; nobody may project it.
    ///
    /// # Errors
    /// `Unreachable`: some may be left; doing it again is harmless.
    async fn clear(&self, partitions: u32) -> Result<(), StoreError>;

    /// What an operator told; `None`: nothing.
    async fn note(&self, note: Note) -> Result<Option<String>, StoreError>;

    /// Tells it; `None` takes it back.
    async fn set_note(&self, note: Note, text: Option<&str>) -> Result<(), StoreError>;

    /// Tells some notes of the namespace at once, if the first is `seen` as it is now; whether it was.
    async fn swap_notes(&self, seen: Told<'_>, notes: &[Told<'_>]) -> Result<bool, StoreError>;

    /// Who owns the partition now.
    async fn owner(&self, partition: PartitionId) -> Result<Option<Owner>, StoreError>;

    /// Parked entities and the first offset not applied to each.
    async fn parked(&self, partition: PartitionId) -> Result<Vec<(Entity, Offset)>, StoreError>;

    /// One document, as stored; `None` if there is none.
    async fn document(&self, partition: PartitionId, entity: &Entity) -> Result<Option<Vec<u8>>, StoreError>;

    /// Documents of one partition by descending last offset, with that offset; empty where the document is missing.
    async fn list(&self, partition: PartitionId, query: &ListQuery) -> Result<Vec<(Offset, Vec<u8>)>, StoreError>;

    /// An entity's accepted events with a seq above `after`, at most `limit`, waiting up to `wait`
    /// for a first one.
    async fn events(
        &self,
        partition: PartitionId,
        entity: &Entity,
        after: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<StreamEntry>, StoreError>;
}

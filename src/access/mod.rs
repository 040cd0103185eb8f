//! What commands and HTTP do alike: publish, read documents and streams, tell how things stand.
//! In: a log, a store, settings; in a server also its board. Out: values that serialise, or an error that says
//! what a caller does about it. Invariant: only repairs write to the store.

mod audit_board;
mod audits;
mod dead_letters;
mod documents;
mod forecast;
mod leading;
mod listing;
mod migrate;
mod namespaces;
mod open;
mod partitions;
mod publish;
mod rebuild;
mod redrive;
mod replay;
mod resume;
mod rollout;
mod routes;
mod snapshot;
mod snapshot_board;
mod status;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::audit_board::{AuditBoard, AuditStatus};
pub use self::audits::{AuditOrder, EntityOrder, Watch, healer};
pub use self::dead_letters::{DeadLetter, Header};
pub use self::documents::{StreamEvent, with_heartbeat_state};
pub use self::leading::{Heard, Leading};
pub use self::listing::{ListRequest, Page};
pub use self::migrate::{Migration, migrate};
pub use self::namespaces::NamespaceRow;
pub use self::open::{
    Opened, instance, kafka_settings, open, open_log, open_store, place, projector_settings, redis_settings, topics,
};
pub use self::partitions::PartitionCount;
pub use self::publish::{Publication, Published, prepare_event};
pub use self::rebuild::{RebuildProgress, RebuildReport, RebuildRequest, RebuiltPartition, TellRebuild};
pub use self::redrive::{Chosen, Effort, Fate, LETTERS_MAX, RedriveReport, RedriveRequest, RedrivenLetter};
pub use self::replay::{ReplayProgress, ReplayProof, ReplayReport, ReplayRequest, ReplayedPartition, Told};
pub use self::resume::{LetThrough, OtherHold, ResumeRequest, still_held};
pub use self::rollout::{HealthRow, RolloutOrder, RolloutReport, RolloutStart};
pub use self::routes::{Led, Route};
pub use self::snapshot::{RestoredRow, SnapshotRow};
pub use self::snapshot_board::{SnapshotBoard, SnapshotStatus};
pub use self::status::{CheckpointRow, PartitionRow, StatusReport, Totals};

use crate::config::Settings;
use crate::log::{Log, LogError};
use crate::projector::StatusBoard;
use crate::pure::checkpoint::Checkpoint;
use crate::pure::entity::Entity;
use crate::pure::place::PartitionId;
use crate::pure::recovery;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::messaging::Messaging;

/// The code of [`AccessError::Full`] in HTTP's answers.
pub const DISK_FULL: &str = "disk_full";

/// What went wrong, by what the caller does about it. The text is for people.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", content = "message", rename_all = "snake_case")]
pub enum AccessError {
    /// The request makes no sense; change it.
    #[error("{0}")]
    BadRequest(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// What is under way stands against it, or a gate is broken; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// Log or store are away; try again later.
    #[error("{0}")]
    Unreachable(String),
    /// A disk has no room; make some, then try again.
    #[error("{0}")]
    #[serde(rename = "disk_full", alias = "full")]
    Full(String),
    /// A person must act.
    #[error("{0}")]
    Failed(String),
}

impl AccessError {
    /// Documents of another projection version are not changed.
    fn other_version(partition: PartitionId, checkpoint: &Checkpoint) -> Self {
        let words = recovery::other_version(checkpoint.projection_version);
        Self::BadRequest(format!("partition {partition}: {words}"))
    }
}

/// Log or store are set up in a way that cannot be gone on with: a person must change it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl From<LogError> for AccessError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unreachable { .. } | LogError::Moved { .. } => Self::Unreachable(error.to_string()),
            LogError::Full(words) => Self::Full(words),
            LogError::Refused(words) => Self::Failed(words),
        }
    }
}

impl From<StoreError> for AccessError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unreachable { .. } => Self::Unreachable(error.to_string()),
            StoreError::Full(words) => Self::Full(words),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// What a running server has beside log and store.
#[derive(Clone)]
pub struct Serving {
    /// What its partitions do.
    pub board: Arc<StatusBoard>,
    /// Its instruments.
    pub metrics: Arc<Metrics>,
    /// What its background audit does.
    pub audit: Arc<AuditBoard>,
    /// What its snapshots have.
    pub snapshots: Arc<SnapshotBoard>,
    /// Its spans.
    pub spans: Messaging,
}

/// Log and store behind one door.
#[derive(Clone)]
pub struct Access {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// In a server.
    pub serving: Option<Serving>,
    /// How many partitions the log has.
    pub partition_count: Arc<PartitionCount>,
    /// Where readers get documents.
    pub route: Arc<Route>,
}

impl Access {
    /// The partition of the topic that an entity's events go to.
    ///
    /// # Errors
    /// The log does not answer.
    pub async fn place(&self, entity: &Entity) -> Result<PartitionId, AccessError> {
        let partitions = self.partition_count.get(&*self.log).await?;
        Ok(self.settings.partitioner.place(entity.subject().as_bytes(), partitions))
    }

    /// The partition that this namespace has an entity's document in: another one than its events', if the topic grew.
    ///
    /// # Errors
    /// As [`Self::place`].
    pub async fn home(&self, entity: &Entity) -> Result<PartitionId, AccessError> {
        self.home_in(None, &*self.store, entity).await
    }

    /// The same, where a view of the route leads its readers.
    ///
    /// # Errors
    /// As [`Self::place`].
    pub async fn home_of(&self, led: &Led, entity: &Entity) -> Result<PartitionId, AccessError> {
        self.home_in(led.source(entity), &**led.of(entity), entity).await
    }

    async fn home_in(
        &self,
        namespace: Option<&str>,
        store: &dyn Store,
        entity: &Entity,
    ) -> Result<PartitionId, AccessError> {
        let topic = self.partition_count.get(&*self.log).await?;
        let partitions = self.partition_count.made_with(namespace, store, topic).await;
        Ok(self.settings.partitioner.place(entity.subject().as_bytes(), partitions))
    }

    /// All partitions of the events' topic.
    ///
    /// # Errors
    /// The log does not answer.
    pub async fn partitions(&self) -> Result<Vec<PartitionId>, AccessError> {
        let partitions = self.partition_count.get(&*self.log).await?;
        Ok((0..partitions).map(PartitionId).collect())
    }
}

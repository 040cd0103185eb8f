//! A log without a consumer group: for who projects beside the group, so that the group's position stays what it is.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Bounds, GroupOffset, Log, LogError, Membership, NewRecord, Reader, Role, Topic};
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::record::RecordIdentity;

/// See the module.
pub struct Ungrouped(pub Arc<dyn Log>);

#[async_trait]
impl Log for Ungrouped {
    async fn prepare(&self) -> Result<Vec<String>, LogError> {
        self.0.prepare().await
    }

    fn running(&self) -> Result<(), LogError> {
        self.0.running()
    }

    async fn topic(&self) -> Result<Topic, LogError> {
        self.0.topic().await
    }

    async fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError> {
        self.0.bounds(partition).await
    }

    async fn record_at(&self, partition: PartitionId, offset: Offset) -> Result<Option<RecordIdentity>, LogError> {
        self.0.record_at(partition, offset).await
    }

    async fn reader(&self, role: Role, partition: PartitionId, from: NextOffset) -> Result<Box<dyn Reader>, LogError> {
        self.0.reader(role, partition, from).await
    }

    async fn append(&self, role: Role, records: Vec<NewRecord>) -> Vec<Result<(PartitionId, Offset), LogError>> {
        self.0.append(role, records).await
    }

    async fn join(&self) -> Result<Box<dyn Membership>, LogError> {
        Err(LogError::Refused("there is no group to join".to_owned()))
    }

    async fn group_offset(&self, _: PartitionId) -> Result<Option<NextOffset>, LogError> {
        Ok(None)
    }

    async fn commit_group(&self, _: Vec<GroupOffset>) -> Result<(), LogError> {
        Ok(())
    }

    async fn bounds_of(&self, role: Role, partition: PartitionId) -> Result<Bounds, LogError> {
        self.0.bounds_of(role, partition).await
    }
}

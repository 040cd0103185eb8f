//! The seam to the store with a valve in its writes. Invariant: reads always pass; a commit that fails while the
//! valve is shut is counted; of all commits the one with the most records is known.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use super::sink::Gatekeeper;
use crate::pure::checkpoint::{Checkpoint, Identity, Mark};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::store::{
    Ahead, Batch, Expiring, Heal, Healed, ListQuery, Note, Opened, Owner, Peeked, Store, StoreError, Stored,
    StreamEntry, Told,
};
use crate::telemetry::StoreMemory;

pub(super) struct Valve {
    inner: Arc<dyn Store>,
    keeper: Arc<Gatekeeper>,
}

impl Valve {
    pub(super) fn new(inner: Arc<dyn Store>, keeper: Arc<Gatekeeper>) -> Self {
        Self { inner, keeper }
    }

    /// The store, for a write.
    fn writable(&self) -> Result<&Arc<dyn Store>, StoreError> {
        if self.keeper.is_cut.load(Ordering::SeqCst) && self.keeper.refuses.load(Ordering::SeqCst) {
            return Err(StoreError::Unreachable {
                address: "the gate".to_owned(),
                detail: "every write is refused on purpose".to_owned(),
            });
        }
        Ok(&self.inner)
    }
}

#[async_trait]
impl Store for Valve {
    async fn check(&self) -> Result<Vec<String>, StoreError> {
        self.inner.check().await
    }

    fn running(&self) -> Result<(), StoreError> {
        self.inner.running()
    }

    async fn memory(&self) -> Result<Option<StoreMemory>, StoreError> {
        self.inner.memory().await
    }

    async fn open(&self, partition: PartitionId, owner: &Owner, lease: Duration) -> Result<Opened, StoreError> {
        self.writable()?.open(partition, owner, lease).await
    }

    async fn renew(
        &self,
        partition: PartitionId,
        owner: &Owner,
        lease: Duration,
    ) -> Result<Option<Checkpoint>, StoreError> {
        self.writable()?.renew(partition, owner, lease).await
    }

    async fn release(&self, partition: PartitionId, owner: &Owner) -> Result<(), StoreError> {
        self.writable()?.release(partition, owner).await
    }

    async fn load(
        &self,
        partition: PartitionId,
        expected: &[Option<Identity>],
        entities: &[Entity],
    ) -> Result<Vec<Stored>, StoreError> {
        self.inner.load(partition, expected, entities).await
    }

    async fn commit(&self, partition: PartitionId, owner: &Owner, batch: &Batch) -> Result<(), StoreError> {
        let from = batch
            .expected
            .as_ref()
            .map_or(NextOffset::START, |expected| expected.next);
        self.keeper
            .behind
            .fetch_max(from.until(batch.checkpoint.next), Ordering::SeqCst);
        let committed = match self.writable() {
            Ok(store) => store.commit(partition, owner, batch).await,
            Err(refused) => Err(refused),
        };
        if committed.is_err() && self.keeper.is_cut.load(Ordering::SeqCst) {
            self.keeper.failed_commits.fetch_add(1, Ordering::SeqCst);
        }
        committed
    }

    async fn checkpoint(&self, partition: PartitionId) -> Result<Option<Checkpoint>, StoreError> {
        self.inner.checkpoint(partition).await
    }

    async fn history(&self, partition: PartitionId, limit: usize) -> Result<Vec<Mark>, StoreError> {
        self.inner.history(partition, limit).await
    }

    async fn verify(&self, partition: PartitionId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.writable()?.verify(partition, checkpoint).await
    }

    async fn forget_marks(&self, partition: PartitionId, ids: &[String]) -> Result<(), StoreError> {
        self.writable()?.forget_marks(partition, ids).await
    }

    async fn indexed(
        &self,
        partition: PartitionId,
        kind: Kind,
        from: NextOffset,
        limit: usize,
    ) -> Result<Vec<(Entity, Offset)>, StoreError> {
        self.inner.indexed(partition, kind, from, limit).await
    }

    async fn ahead(&self, partition: PartitionId, from: NextOffset, limit: usize) -> Result<Ahead, StoreError> {
        self.inner.ahead(partition, from, limit).await
    }

    async fn count_below(&self, partition: PartitionId, offset: NextOffset) -> Result<u64, StoreError> {
        self.inner.count_below(partition, offset).await
    }

    async fn peek(&self, partition: PartitionId, entities: &[Entity]) -> Result<Peeked, StoreError> {
        self.inner.peek(partition, entities).await
    }

    async fn heal(&self, partition: PartitionId, heal: &Heal) -> Result<Vec<Healed>, StoreError> {
        self.writable()?.heal(partition, heal).await
    }

    async fn expire(&self, partition: PartitionId, entities: &[Expiring]) -> Result<u64, StoreError> {
        self.writable()?.expire(partition, entities).await
    }

    async fn scan(&self, visit: &mut (dyn FnMut(PartitionId, Entity) + Send)) -> Result<(), StoreError> {
        self.inner.scan(visit).await
    }

    fn in_namespace(&self, namespace: &str) -> Result<Arc<dyn Store>, StoreError> {
        let inner = self.inner.in_namespace(namespace)?;
        Ok(Arc::new(Self::new(inner, Arc::clone(&self.keeper))))
    }

    async fn namespaces(&self) -> Result<Vec<String>, StoreError> {
        self.inner.namespaces().await
    }

    async fn clear(&self, partitions: u32) -> Result<(), StoreError> {
        self.writable()?.clear(partitions).await
    }

    async fn note(&self, note: Note) -> Result<Option<String>, StoreError> {
        self.inner.note(note).await
    }

    async fn set_note(&self, note: Note, text: Option<&str>) -> Result<(), StoreError> {
        self.writable()?.set_note(note, text).await
    }

    async fn swap_notes(&self, seen: Told<'_>, notes: &[Told<'_>]) -> Result<bool, StoreError> {
        self.writable()?.swap_notes(seen, notes).await
    }

    async fn owner(&self, partition: PartitionId) -> Result<Option<Owner>, StoreError> {
        self.inner.owner(partition).await
    }

    async fn parked(&self, partition: PartitionId) -> Result<Vec<(Entity, Offset)>, StoreError> {
        self.inner.parked(partition).await
    }

    async fn document(&self, partition: PartitionId, entity: &Entity) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.document(partition, entity).await
    }

    async fn list(&self, partition: PartitionId, query: &ListQuery) -> Result<Vec<(Offset, Vec<u8>)>, StoreError> {
        self.inner.list(partition, query).await
    }

    async fn events(
        &self,
        partition: PartitionId,
        entity: &Entity,
        after: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<StreamEntry>, StoreError> {
        self.inner.events(partition, entity, after, limit, wait).await
    }
}

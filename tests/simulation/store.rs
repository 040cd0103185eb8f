//! The store as Khala sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use khala::pure::checkpoint::{Checkpoint, Identity, Mark, PROJECTION_VERSION};
use khala::pure::entity::{Entity, Kind};
use khala::pure::place::{NextOffset, Offset, PartitionId};
use khala::store::{
    Ahead, Batch, Expiring, Heal, Healed, ListQuery, Note, Opened, Owner, Peeked, Store, StoreError, Stored,
    StreamEntry, Told,
};

use super::part::Part;
use super::sea::{PARTITION, Sea};
use super::weak::Weak;

pub struct SimStore(pub Sea);

/// What the simulation has no use for.
fn not_simulated<T>() -> Result<T, StoreError> {
    Err(StoreError::Rejected("not simulated".to_owned()))
}

impl SimStore {
    /// The checkpoint first, the documents after it: what must never be.
    async fn commit_first(&self, owner: &Owner, batch: &Batch) -> Result<(), StoreError> {
        let whole = self.0.version.seen(batch.clone());
        let (owner, mut checkpoint) = (owner.clone(), whole.clone());
        checkpoint.documents.clear();
        self.0
            .change(move |part, weak| part.commit(&owner, &checkpoint, weak))
            .await?;
        let documents = move |part: &mut Part, _| {
            part.write_documents(&whole);
            Ok(())
        };
        self.0.change(documents).await
    }
}

#[async_trait]
impl Store for SimStore {
    async fn check(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn open(&self, _: PartitionId, owner: &Owner, _lease: Duration) -> Result<Opened, StoreError> {
        let mut group = self.0.lock().group;
        let mut opened = self
            .0
            .call(|part, weak| {
                if let (Weak::StartAtGroup, None, Some(group)) = (weak, &part.checkpoint, group.take()) {
                    part.checkpoint = Some(Checkpoint::first(NextOffset(group), "id", 1));
                }
                part.open(owner)
            })
            .await?;
        if let (Weak::VersionIgnored, Some(checkpoint)) = (self.0.lock().weak, &mut opened.checkpoint) {
            checkpoint.projection_version = PROJECTION_VERSION;
        }
        Ok(opened)
    }

    async fn renew(&self, _: PartitionId, owner: &Owner, _: Duration) -> Result<Option<Checkpoint>, StoreError> {
        self.0.call(|part, _| part.renew(owner)).await
    }

    async fn release(&self, _: PartitionId, owner: &Owner) -> Result<(), StoreError> {
        let owner = owner.clone();
        let release = move |part: &mut Part, _| {
            if part.owner.as_ref() == Some(&owner) {
                part.owner = None;
            }
            Ok(())
        };
        self.0.call(release).await
    }

    async fn load(
        &self,
        _: PartitionId,
        expected: &[Option<Identity>],
        entities: &[Entity],
    ) -> Result<Vec<Stored>, StoreError> {
        let expected = self.0.version.seen(expected.to_vec());
        self.0.call(|part, weak| part.load(&expected, entities, weak)).await
    }

    async fn commit(&self, _: PartitionId, owner: &Owner, batch: &Batch) -> Result<(), StoreError> {
        if self.0.lock().weak == Weak::CommitFirst {
            return self.commit_first(owner, batch).await;
        }
        let (owner, batch) = (owner.clone(), self.0.version.seen(batch.clone()));
        self.0.change(move |part, weak| part.commit(&owner, &batch, weak)).await
    }

    async fn checkpoint(&self, _: PartitionId) -> Result<Option<Checkpoint>, StoreError> {
        self.0.call(|part, _| Ok(part.checkpoint.clone())).await
    }

    async fn history(&self, _: PartitionId, limit: usize) -> Result<Vec<Mark>, StoreError> {
        let newest = |part: &mut Part, _| Ok(part.newest_marks().into_iter().take(limit).collect());
        self.0.call(newest).await
    }

    async fn verify(&self, _: PartitionId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let checkpoint = self.0.version.seen(checkpoint.clone());
        let verify = move |part: &mut Part, _| {
            part.mark(&checkpoint, true);
            Ok(())
        };
        self.0.change(verify).await
    }

    async fn forget_marks(&self, _: PartitionId, ids: &[String]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        let forget = move |part: &mut Part, _| {
            part.marks.retain(|mark| !ids.contains(&mark.id));
            Ok(())
        };
        self.0.change(forget).await
    }

    async fn indexed(
        &self,
        _: PartitionId,
        kind: Kind,
        from: NextOffset,
        limit: usize,
    ) -> Result<Vec<(Entity, Offset)>, StoreError> {
        self.0.call(|part, _| Ok(part.indexed(kind, from, limit))).await
    }

    async fn ahead(&self, _: PartitionId, from: NextOffset, limit: usize) -> Result<Ahead, StoreError> {
        let ahead = |part: &mut Part, _| {
            let of = |kind| part.indexed(kind, from, limit);
            let entities = Kind::ALL.into_iter().flat_map(of).collect();
            Ok((part.checkpoint.clone(), entities))
        };
        self.0.call(ahead).await
    }

    async fn count_below(&self, _: PartitionId, _: NextOffset) -> Result<u64, StoreError> {
        not_simulated()
    }

    async fn peek(&self, _: PartitionId, entities: &[Entity]) -> Result<Peeked, StoreError> {
        self.0.call(|part, weak| Ok(part.peek(entities, weak))).await
    }

    async fn heal(&self, _: PartitionId, heal: &Heal) -> Result<Vec<Healed>, StoreError> {
        let heal = self.0.version.seen(heal.clone());
        self.0.change(move |part, weak| part.heal(&heal, weak)).await
    }

    async fn expire(&self, _: PartitionId, entities: &[Expiring]) -> Result<u64, StoreError> {
        let entities = self.0.version.seen(entities.to_vec());
        self.0.change(move |part, _| part.expire(&entities)).await
    }

    async fn scan(&self, visit: &mut (dyn FnMut(PartitionId, Entity) + Send)) -> Result<(), StoreError> {
        let all = |part: &mut Part, _| Ok(part.documents.keys().cloned().collect::<Vec<_>>());
        let entities = self.0.call(all).await?;
        entities.into_iter().for_each(|entity| visit(PARTITION, entity));
        Ok(())
    }

    fn in_namespace(&self, _: &str) -> Result<Arc<dyn Store>, StoreError> {
        not_simulated()
    }

    async fn namespaces(&self) -> Result<Vec<String>, StoreError> {
        not_simulated()
    }

    async fn clear(&self, _: u32) -> Result<(), StoreError> {
        not_simulated()
    }

    async fn note(&self, _: Note) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    async fn set_note(&self, _: Note, _: Option<&str>) -> Result<(), StoreError> {
        not_simulated()
    }

    async fn swap_notes(&self, _: Told<'_>, _: &[Told<'_>]) -> Result<bool, StoreError> {
        not_simulated()
    }

    async fn owner(&self, _: PartitionId) -> Result<Option<Owner>, StoreError> {
        self.0.call(|part, _| Ok(part.owner.clone())).await
    }

    async fn parked(&self, _: PartitionId) -> Result<Vec<(Entity, Offset)>, StoreError> {
        self.0
            .call(|part, _| Ok(part.parked.clone().into_iter().collect()))
            .await
    }

    async fn document(&self, _: PartitionId, _: &Entity) -> Result<Option<Vec<u8>>, StoreError> {
        not_simulated()
    }

    async fn list(&self, _: PartitionId, _: &ListQuery) -> Result<Vec<(Offset, Vec<u8>)>, StoreError> {
        not_simulated()
    }

    async fn events(
        &self,
        _: PartitionId,
        entity: &Entity,
        after: u64,
        limit: usize,
        _: Duration,
    ) -> Result<Vec<StreamEntry>, StoreError> {
        self.0.call(|part, _| Ok(part.stream(entity, after, limit))).await
    }
}

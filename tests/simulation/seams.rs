//! Log and store as Khala sees them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use khala::log::{Bounds, FetchLimits, GroupOffset, Log, LogError, Membership, NewRecord, Reader, Role, Topic};
use khala::pure::checkpoint::{Checkpoint, Identity, Mark};
use khala::pure::entity::{Entity, Kind};
use khala::pure::place::{NextOffset, Offset, PartitionId};
use khala::pure::record::{RecordBatch, RecordIdentity};
use khala::store::{
    Batch, Expiring, Heal, Healed, ListQuery, Note, Opened, Owner, Peeked, Store, StoreError, Stored, StreamEntry, Told,
};

use super::sea::{PARTITION, Sea, Weak, yield_once};
use crate::reference::Rec;

pub struct SimLog(pub Sea);
pub struct SimStore(pub Sea);

struct SimReader {
    sea: Sea,
    cuts: u64,
    next: u64,
}

/// What the simulation has no use for.
fn not_simulated<T>() -> Result<T, StoreError> {
    Err(StoreError::Rejected("not simulated".to_owned()))
}

fn copy(record: &Rec, into: &mut RecordBatch) {
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    into.push(Offset(record.offset), record.timestamp_ms, key, value);
    for (name, value) in &record.headers {
        into.push_header(name.as_bytes(), value.as_deref());
    }
}

#[async_trait]
impl Log for SimLog {
    async fn prepare(&self) -> Result<Vec<String>, LogError> {
        Ok(Vec::new())
    }

    async fn topic(&self) -> Result<Topic, LogError> {
        yield_once().await;
        Ok(Topic {
            name: "events".to_owned(),
            partitions: 1,
            id: "id".to_owned(),
        })
    }

    async fn bounds(&self, _partition: PartitionId) -> Result<Bounds, LogError> {
        yield_once().await;
        Ok(Bounds {
            first: NextOffset::START,
            end: NextOffset(self.0.lock().end()),
        })
    }

    async fn record_at(&self, _partition: PartitionId, offset: Offset) -> Result<Option<RecordIdentity>, LogError> {
        yield_once().await;
        let state = self.0.lock();
        if state.weak == Weak::NoLastRecord {
            return Ok(None); // as if compaction had taken it: nothing to compare
        }
        let record = state.records.iter().find(|record| record.offset == offset.0);
        Ok(record.map(|record| {
            let mut batch = RecordBatch::default();
            copy(record, &mut batch);
            batch.get(0).identity()
        }))
    }

    async fn reader(&self, _role: Role, _: PartitionId, from: NextOffset) -> Result<Box<dyn Reader>, LogError> {
        yield_once().await;
        let (sea, cuts) = (self.0.clone(), self.0.lock().cuts);
        Ok(Box::new(SimReader {
            sea,
            cuts,
            next: from.0,
        }))
    }

    async fn append(&self, role: Role, records: Vec<NewRecord>) -> Vec<Result<(PartitionId, Offset), LogError>> {
        yield_once().await;
        let mut state = self.0.lock();
        if role == Role::Documents {
            let keys = records.iter().filter_map(|record| record.key.clone());
            state
                .appended
                .extend(keys.filter_map(|key| String::from_utf8(key).ok()));
        } else {
            state.dead_letters += records.len() as u64;
        }
        records.iter().map(|_| Ok((PARTITION, Offset(0)))).collect()
    }

    async fn join(&self) -> Result<Box<dyn Membership>, LogError> {
        Err(LogError::Refused("the world assigns".to_owned()))
    }

    async fn group_offset(&self, _partition: PartitionId) -> Result<Option<NextOffset>, LogError> {
        yield_once().await;
        Ok(self.0.lock().group.map(NextOffset))
    }

    async fn commit_group(&self, offsets: Vec<GroupOffset>) -> Result<(), LogError> {
        self.0.lock().group = offsets.last().map(|offset| offset.next.0);
        Ok(())
    }

    async fn bounds_of(&self, role: Role, partition: PartitionId) -> Result<Bounds, LogError> {
        match role {
            Role::Documents => Ok(Bounds {
                first: NextOffset::START,
                end: NextOffset::START,
            }), // no snapshots in this world
            Role::Events | Role::DeadLetters => self.bounds(partition).await,
        }
    }
}

#[async_trait]
impl Reader for SimReader {
    async fn fetch(&mut self, _limits: FetchLimits) -> Result<RecordBatch, LogError> {
        yield_once().await;
        let mut state = self.sea.lock();
        if state.cuts != self.cuts || self.next > state.end() {
            return Err(LogError::Moved {
                partition: PARTITION,
                at: NextOffset(self.next),
                detail: "another leader epoch".to_owned(),
            });
        }
        let most = 1 + state.dice.below(6) as usize;
        let mut batch = RecordBatch::default();
        let from = state.records.iter().filter(|record| record.offset >= self.next);
        from.take(most).for_each(|record| copy(record, &mut batch));
        self.next = batch.next().map_or(self.next, |next| next.0);
        Ok(batch)
    }
}

#[async_trait]
impl Store for SimStore {
    async fn check(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn open(&self, _: PartitionId, owner: &Owner, _lease: Duration) -> Result<Opened, StoreError> {
        self.0.call(|part, _| part.open(owner)).await
    }

    async fn renew(&self, _: PartitionId, owner: &Owner, _: Duration) -> Result<Option<Checkpoint>, StoreError> {
        self.0.call(|part, _| part.renew(owner)).await
    }

    async fn release(&self, _: PartitionId, owner: &Owner) -> Result<(), StoreError> {
        let owner = owner.clone();
        let release = move |part: &mut super::part::Part, _| {
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
        self.0.call(|part, weak| part.load(expected, entities, weak)).await
    }

    async fn commit(&self, _: PartitionId, owner: &Owner, batch: &Batch) -> Result<(), StoreError> {
        let (owner, batch) = (owner.clone(), batch.clone());
        self.0.change(move |part, weak| part.commit(&owner, &batch, weak)).await
    }

    async fn checkpoint(&self, _: PartitionId) -> Result<Option<Checkpoint>, StoreError> {
        self.0.call(|part, _| Ok(part.checkpoint.clone())).await
    }

    async fn history(&self, _: PartitionId, limit: usize) -> Result<Vec<Mark>, StoreError> {
        let newest = |part: &mut super::part::Part, _| Ok(part.newest_marks().into_iter().take(limit).collect());
        self.0.call(newest).await
    }

    async fn verify(&self, _: PartitionId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let checkpoint = checkpoint.clone();
        let verify = move |part: &mut super::part::Part, _| {
            part.verify(&checkpoint);
            Ok(())
        };
        self.0.change(verify).await
    }

    async fn forget_marks(&self, _: PartitionId, _: &[String]) -> Result<(), StoreError> {
        not_simulated()
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

    async fn count_below(&self, _: PartitionId, _: NextOffset) -> Result<u64, StoreError> {
        not_simulated()
    }

    async fn peek(&self, _: PartitionId, entities: &[Entity]) -> Result<Peeked, StoreError> {
        self.0.call(|part, weak| Ok(part.peek(entities, weak))).await
    }

    async fn heal(&self, _: PartitionId, heal: &Heal) -> Result<Vec<Healed>, StoreError> {
        let heal = heal.clone();
        self.0.change(move |part, weak| part.heal(&heal, weak)).await
    }

    async fn expire(&self, _: PartitionId, _: &[Expiring]) -> Result<u64, StoreError> {
        not_simulated()
    }

    async fn scan(&self, visit: &mut (dyn FnMut(PartitionId, Entity) + Send)) -> Result<(), StoreError> {
        let all = |part: &mut super::part::Part, _| Ok(part.documents.keys().cloned().collect::<Vec<_>>());
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

    async fn list(&self, _: PartitionId, _: &ListQuery) -> Result<Vec<(NextOffset, Vec<u8>)>, StoreError> {
        not_simulated()
    }

    async fn events(
        &self,
        _: PartitionId,
        _: &Entity,
        _: u64,
        _: usize,
        _: Duration,
    ) -> Result<Vec<StreamEntry>, StoreError> {
        not_simulated()
    }
}

//! Documents in Redis. In: batches. Out: one script per batch and partition, which compares owner and checkpoint
//! before its first write, so that a batch is there as a whole or not at all; one transaction with the same
//! guard, if the batch is large.
//! Invariant: a script that was sent twice writes once. Scripts are called by hash and loaded when the server
//! does not know them (restart, failover, SCRIPT FLUSH).

mod address;
mod commit;
mod connect;
mod dump;
mod expire;
mod heal;
mod history;
mod keys;
mod load;
mod payload;
mod read;
mod remove;
mod reply;
mod script;
mod slow;
mod survey;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

pub use self::dump::Dumped;
pub use self::keys::document_key;
use async_trait::async_trait;
use futures_util::future::try_join_all;
use tokio::sync::OnceCell;

use self::connect::{BATCH_LANES, CONTROL_LANE, Connections, READ_LANE};
use self::keys::Keys;
use self::reply::Reply;
use self::script::Call;
use super::{
    Ahead, Batch, Expiring, Heal, Healed, ListQuery, Note, Opened, Owner, Peeked, Store, StoreError, Stored,
    StreamEntry, Told,
};
use crate::pure::checkpoint::{Checkpoint, Identity, Mark};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::telemetry::StoreMemory;

/// The most marks read when a partition is opened.
const MARKS_MAX: usize = 1000;

/// What a Redis store is made with.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://…`, `rediss://…`, `redis+cluster://…`, `redis+sentinel://…`; may hold a password.
    pub url: String,
    /// One complete set of documents and checkpoints.
    pub namespace: String,
    /// How long one call may take.
    pub timeout: Duration,
    /// Events kept per entity's stream.
    pub events_kept: u64,
    /// Marks kept in the history.
    pub history_kept: usize,
    /// Go on although Redis may evict keys.
    pub allow_eviction: bool,
    /// Documents and events from which on a batch goes by a transaction, for a script costs the server more.
    pub large: usize,
}

impl RedisSettings {
    /// A transaction takes a round trip more.
    pub const LARGE: usize = 32;
}

/// A store of documents in Redis.
pub struct RedisStore {
    settings: RedisSettings,
    connections: Connections,
    /// Whether the server takes a stream as one value.
    restores: OnceCell<bool>,
}

impl RedisStore {
    /// A store that connects when it is first used.
    ///
    /// # Errors
    /// `Rejected`: the address is not one.
    pub fn new(settings: RedisSettings) -> Result<Self, StoreError> {
        let connections = Connections::new(&settings.url, settings.timeout)?;
        Ok(Self {
            settings,
            connections,
            restores: OnceCell::new(),
        })
    }

    fn keys(&self, partition: PartitionId) -> Keys {
        Keys::new(&self.settings.namespace, partition)
    }

    async fn call(&self, lane: usize, partition: PartitionId, call: Call<'_>) -> Result<Reply, StoreError> {
        match call.send(&self.connections, lane).await {
            Ok(value) => Reply::read(partition, value),
            Err(StoreError::Unreachable { detail, .. }) if detail.contains("WRONGTYPE") => Err(reply::corrupt(
                partition,
                "owner, checkpoint, checkpoints or parked",
                detail,
            )),
            Err(error) => Err(error),
        }
    }

    /// The number of partitions that any other checkpoint of the namespace was made with. All are asked for at once: over
    /// a slow connection one after the other takes as long as a lease lives.
    async fn partitions_of_others(&self) -> Result<Option<u32>, StoreError> {
        let ask = async |partition| {
            let mut command = redis::cmd("HGET");
            command
                .arg(self.keys(PartitionId(partition)).checkpoint())
                .arg("partitions");
            self.connections.query(CONTROL_LANE, &command).await
        };
        let values = try_join_all((0..PARTITIONS_LOOKED_AT).map(ask)).await?;
        Ok(values.iter().filter_map(reply::text).find_map(|text| text.parse().ok()))
    }
}

/// Checkpoints looked at for the number of partitions: with that many idle partitions there is no key to be moved.
const PARTITIONS_LOOKED_AT: u32 = 64;

fn lane(partition: PartitionId) -> usize {
    partition.0 as usize % BATCH_LANES
}

/// Place of a kind's index among the keys of a script, 1-based.
fn index_key(kind: Kind, runs: u8) -> String {
    match kind {
        Kind::Run => runs.to_string(),
        Kind::Worker => (runs + 1).to_string(),
    }
}

fn push_identity(call: &mut Call<'_>, identity: Option<&Identity>) {
    match identity {
        None => (0..=Identity::FIELDS.len()).for_each(|_| call.argument("")),
        Some(identity) => {
            call.argument("1");
            identity.fields().into_iter().for_each(|field| call.argument(field));
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn check(&self) -> Result<Vec<String>, StoreError> {
        read::check(&self.connections, &self.settings).await
    }

    async fn memory(&self) -> Result<Option<StoreMemory>, StoreError> {
        read::memory(&self.connections).await
    }

    async fn open(&self, partition: PartitionId, owner: &Owner, lease: Duration) -> Result<Opened, StoreError> {
        let keys = self.keys(partition);
        let mut call = Call::open();
        for key in [keys.owner(), keys.checkpoint(), keys.checkpoints(), keys.parked()] {
            call.key(key);
        }
        call.argument(owner.0.as_str());
        call.argument(lease.as_millis().to_string());
        call.argument(MARKS_MAX.to_string());
        let opened = self.call(CONTROL_LANE, partition, call).await?;
        let (checkpoint, parked, marks) = opened.opened(partition, &keys)?;
        let namespace_partitions = match &checkpoint {
            Some(checkpoint) => Some(checkpoint.partitions),
            None => self.partitions_of_others().await?,
        };
        Ok(Opened {
            checkpoint,
            marks,
            namespace_partitions,
            parked,
        })
    }

    async fn renew(
        &self,
        partition: PartitionId,
        owner: &Owner,
        lease: Duration,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let keys = self.keys(partition);
        let mut call = Call::renew();
        call.key(keys.owner());
        call.key(keys.checkpoint());
        call.argument(owner.0.as_str());
        call.argument(lease.as_millis().to_string());
        let renewed = self.call(CONTROL_LANE, partition, call).await?;
        renewed.checkpoint(partition, &keys)
    }

    async fn release(&self, partition: PartitionId, owner: &Owner) -> Result<(), StoreError> {
        let mut call = Call::release();
        call.key(self.keys(partition).owner());
        call.argument(owner.0.as_str());
        self.call(CONTROL_LANE, partition, call).await.map(|_| ())
    }

    async fn load(
        &self,
        partition: PartitionId,
        expected: &[Option<Identity>],
        entities: &[Entity],
    ) -> Result<Vec<Stored>, StoreError> {
        load::load(self, partition, expected, entities).await
    }

    async fn commit(&self, partition: PartitionId, owner: &Owner, batch: &Batch) -> Result<(), StoreError> {
        if self.transact(partition, owner, batch).await? {
            return Ok(());
        }
        self.commit_by_script(partition, owner, batch).await
    }

    async fn checkpoint(&self, partition: PartitionId) -> Result<Option<Checkpoint>, StoreError> {
        read::checkpoint(&self.connections, partition, &self.keys(partition)).await
    }

    async fn history(&self, partition: PartitionId, limit: usize) -> Result<Vec<Mark>, StoreError> {
        history::history(&self.connections, partition, &self.keys(partition), limit).await
    }

    async fn verify(&self, partition: PartitionId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let kept = self.settings.history_kept;
        history::verify(&self.connections, partition, &self.keys(partition), checkpoint, kept).await
    }

    async fn forget_marks(&self, partition: PartitionId, ids: &[String]) -> Result<(), StoreError> {
        history::forget(&self.connections, &self.keys(partition), ids).await
    }

    async fn indexed(
        &self,
        partition: PartitionId,
        kind: Kind,
        from: NextOffset,
        limit: usize,
    ) -> Result<Vec<(Entity, Offset)>, StoreError> {
        let index = self.keys(partition).index(kind);
        survey::indexed(&self.connections, partition, &index, (kind, from), limit).await
    }

    async fn ahead(&self, partition: PartitionId, from: NextOffset, limit: usize) -> Result<Ahead, StoreError> {
        let keys = self.keys(partition);
        let mut call = Call::ahead();
        for key in [keys.checkpoint(), keys.index(Kind::Run), keys.index(Kind::Worker)] {
            call.key(key);
        }
        call.argument(from.to_string());
        call.argument(limit.to_string());
        self.call(READ_LANE, partition, call).await?.ahead(partition, &keys)
    }

    async fn count_below(&self, partition: PartitionId, offset: NextOffset) -> Result<u64, StoreError> {
        let mut count = 0;
        for kind in Kind::ALL {
            let mut command = redis::cmd("ZCOUNT");
            command
                .arg(self.keys(partition).index(kind))
                .arg("-inf")
                .arg(format!("({offset}"));
            let value = self.connections.query(CONTROL_LANE, &command).await?;
            count += reply::number(&value).unwrap_or(0).max(0) as u64;
        }
        Ok(count)
    }

    async fn peek(&self, partition: PartitionId, entities: &[Entity]) -> Result<Peeked, StoreError> {
        let keys = self.keys(partition);
        let mut call = Call::peek();
        for key in [
            keys.checkpoint(),
            keys.index(Kind::Run),
            keys.index(Kind::Worker),
            keys.parked(),
        ] {
            call.key(key);
        }
        for entity in entities {
            call.key(keys.document(entity));
            call.key(keys.state(entity));
            call.argument(index_key(entity.kind(), 2));
            call.argument(entity.id());
            call.argument(entity.subject());
        }
        self.call(READ_LANE, partition, call).await?.peeked(partition, &keys)
    }

    async fn heal(&self, partition: PartitionId, heal: &Heal) -> Result<Vec<Healed>, StoreError> {
        heal::heal(self, partition, heal).await
    }

    async fn expire(&self, partition: PartitionId, entities: &[Expiring]) -> Result<u64, StoreError> {
        expire::expire(self, partition, entities).await
    }

    async fn scan(&self, visit: &mut (dyn FnMut(PartitionId, Entity) + Send)) -> Result<(), StoreError> {
        survey::scan(&self.connections, &self.settings.namespace, visit).await
    }

    fn in_namespace(&self, namespace: &str) -> Result<Arc<dyn Store>, StoreError> {
        let settings = RedisSettings {
            namespace: namespace.to_owned(),
            ..self.settings.clone()
        };
        Ok(Arc::new(Self::new(settings)?))
    }

    async fn namespaces(&self) -> Result<Vec<String>, StoreError> {
        survey::namespaces(&self.connections).await
    }

    async fn clear(&self, partitions: u32) -> Result<(), StoreError> {
        self.remove(partitions).await
    }

    async fn note(&self, note: Note) -> Result<Option<String>, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(Keys::note(&self.settings.namespace, note));
        let value = self.connections.query(CONTROL_LANE, &command).await?;
        Ok(reply::text(&value).map(str::to_owned))
    }

    async fn set_note(&self, note: Note, text: Option<&str>) -> Result<(), StoreError> {
        let key = Keys::note(&self.settings.namespace, note);
        let mut command = redis::cmd(if text.is_some() { "SET" } else { "DEL" });
        command.arg(key);
        if let Some(text) = text {
            command.arg(text);
        }
        self.connections.query(CONTROL_LANE, &command).await.map(|_| ())
    }

    async fn swap_notes(&self, seen: Told<'_>, notes: &[Told<'_>]) -> Result<bool, StoreError> {
        let mut call = Call::swap();
        for (note, text) in [seen].iter().chain(notes) {
            call.key(Keys::note(&self.settings.namespace, *note));
            call.argument(text.unwrap_or_default());
        }
        let answer = call.send(&self.connections, CONTROL_LANE).await?;
        Ok(matches!(Reply::read(PartitionId(0), answer)?, Reply::Ok(_)))
    }

    async fn owner(&self, partition: PartitionId) -> Result<Option<Owner>, StoreError> {
        read::owner(&self.connections, partition, &self.keys(partition)).await
    }

    async fn parked(&self, partition: PartitionId) -> Result<Vec<(Entity, Offset)>, StoreError> {
        read::parked(&self.connections, partition, &self.keys(partition)).await
    }

    async fn document(&self, partition: PartitionId, entity: &Entity) -> Result<Option<Vec<u8>>, StoreError> {
        read::document(&self.connections, partition, &self.keys(partition), entity).await
    }

    async fn list(&self, partition: PartitionId, query: &ListQuery) -> Result<Vec<(Offset, Vec<u8>)>, StoreError> {
        read::list(&self.connections, partition, &self.keys(partition), query).await
    }

    async fn events(
        &self,
        partition: PartitionId,
        entity: &Entity,
        after: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<StreamEntry>, StoreError> {
        read::events(
            &self.connections,
            partition,
            &self.keys(partition).events(entity),
            (after, limit),
            wait,
        )
        .await
    }
}

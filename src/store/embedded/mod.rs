//! The embedded store: documents and checkpoints in a fjall database, for one process on one machine.
//! In: batches. Out: documents, streams, checkpoints, as the Redis store gives them.
//! Invariant: a batch is one atomic, synced write, made only if owner and checkpoint are as expected.
//! After a failed write nothing is acknowledged until a restart. Owners live as long as the process.
//! Layout: `<dir>/store/`, see `keys`.

mod expire;
mod heal;
mod keys;
mod namespaces;
mod news;
mod notes;
mod read;
mod survey;
#[cfg(test)]
mod tests;
mod write;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use fjall::{Keyspace, KeyspaceCreateOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{
    Ahead, Batch, Expiring, Heal, Healed, ListQuery, Note, Opened, Owner, Peeked, Store, StoreError, Stored,
    StreamEntry, Told,
};
use crate::disk::{Disk, DiskError};
use crate::pure::checkpoint::{Checkpoint, Identity, Mark};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, Offset, PartitionId};
use news::News;
use read::View;
use writer::{Commit, Request, Target, Writer};

/// What an embedded store is opened with.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedSettings {
    /// Events kept per entity; 0 turns streams off.
    pub events_kept: u64,
    /// Marks kept per partition.
    pub history_kept: usize,
}

/// See [`Store`]. The directory is free again when the last one of it is dropped.
pub struct EmbeddedStore {
    backend: Arc<Backend>,
    namespace: Arc<str>,
    settings: EmbeddedSettings,
}

/// The database and its writer, for all namespaces in it.
struct Backend {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

/// What writer and readers share.
struct Shared {
    disk: Disk,
    documents: Keyspace,
    index: Keyspace,
    events: Keyspace,
    news: News,
}

/// Keys read by one step of a scan.
const SCAN_CHUNK: usize = 1000;
/// Memory of each keyspace for what is not yet in tables.
const MEMTABLE_BYTES: u64 = 24 << 20;

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Full(words) => Self::Full(words),
            other => Self::Rejected(other.to_string()),
        }
    }
}

impl EmbeddedStore {
    /// Opens the store in `<dir>/store/`, made if it is not there. Blocks.
    ///
    /// # Errors
    /// `Rejected`: another process owns it (named by pid), it is damaged (named by place), or the
    /// namespace is not a legal one.
    pub fn open(dir: &Path, namespace: &str, settings: EmbeddedSettings) -> Result<Self, StoreError> {
        namespaces::ensure_legal(namespace)?;
        let room = |name| (name, options as fn() -> KeyspaceCreateOptions);
        let disk = Disk::open(dir, "store", &["documents", "index", "events"].map(room))?;
        let shared = Arc::new(Shared {
            documents: disk.keyspace("documents")?,
            index: disk.keyspace("index")?,
            events: disk.keyspace("events")?,
            news: News::new(),
            disk,
        });
        let (sender, receiver) = mpsc::channel(writer::QUEUE);
        let writer = Writer::new(shared.clone());
        let writer = std::thread::Builder::new()
            .name("khala-store".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|error| StoreError::Rejected(format!("no thread for the store: {error}")))?;
        Ok(Self {
            backend: Arc::new(Backend {
                shared,
                requests: Some(sender),
                writer: Some(writer),
            }),
            namespace: Arc::from(namespace),
            settings,
        })
    }

    /// Another namespace in the same directory, which only one process can open, and only once.
    ///
    /// # Errors
    /// `Rejected`: the namespace is not a legal one.
    pub fn with_namespace(&self, namespace: &str) -> Result<Self, StoreError> {
        namespaces::ensure_legal(namespace)?;
        Ok(Self {
            backend: self.backend.clone(),
            namespace: Arc::from(namespace),
            settings: self.settings,
        })
    }

    fn target(&self, partition: PartitionId) -> Target {
        Target {
            namespace: self.namespace.clone(),
            partition,
            place: keys::Place::new(&self.namespace, partition),
        }
    }

    async fn ask<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let ended = || StoreError::Rejected("the embedded store's writer has ended; restart Khala".to_owned());
        let (reply, answer) = oneshot::channel();
        let requests = self.backend.requests.as_ref().ok_or_else(ended)?;
        requests.send(make(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Reads on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        partition: PartitionId,
        work: impl FnOnce(&View) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (shared, namespace) = (self.backend.shared.clone(), self.namespace.clone());
        let read = tokio::task::spawn_blocking(move || work(&View::new(shared, &namespace, partition)));
        match read.await {
            Ok(done) => done,
            Err(error) => Err(StoreError::Rejected(format!(
                "reading the embedded store failed: {error}"
            ))),
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the embedded store's writer ended by a panic");
        }
    }
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn check(&self) -> Result<Vec<String>, StoreError> {
        self.running()?;
        Ok(Vec::new())
    }

    fn running(&self) -> Result<(), StoreError> {
        Ok(self.backend.shared.disk.running()?)
    }

    async fn open(&self, partition: PartitionId, owner: &Owner, lease: Duration) -> Result<Opened, StoreError> {
        let (target, owner) = (self.target(partition), owner.clone());
        self.ask(|reply| Request::Take(target, owner, lease, reply)).await?;
        let (namespace, kept) = (self.namespace.clone(), self.settings.history_kept);
        self.read(partition, move |view| {
            Ok(Opened {
                checkpoint: view.checkpoint()?,
                marks: view.marks(kept)?,
                namespace_partitions: view.namespace_partitions(&namespace),
                parked: view.parked()?,
            })
        })
        .await
    }

    async fn renew(
        &self,
        partition: PartitionId,
        owner: &Owner,
        lease: Duration,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let (target, owner) = (self.target(partition), owner.clone());
        self.ask(|reply| Request::Renew(target, owner, lease, reply)).await
    }

    async fn release(&self, partition: PartitionId, owner: &Owner) -> Result<(), StoreError> {
        let (target, owner) = (self.target(partition), owner.clone());
        self.ask(|reply| Request::Release(target, owner, reply)).await
    }

    async fn load(
        &self,
        partition: PartitionId,
        expected: &[Option<Identity>],
        entities: &[Entity],
    ) -> Result<Vec<Stored>, StoreError> {
        let (expected, entities) = (expected.to_vec(), entities.to_vec());
        self.read(partition, move |view| view.load(&expected, &entities)).await
    }

    async fn commit(&self, partition: PartitionId, owner: &Owner, batch: &Batch) -> Result<(), StoreError> {
        let EmbeddedSettings {
            events_kept,
            history_kept,
        } = self.settings;
        let commit = Commit::new(self.target(partition), owner, batch, events_kept, history_kept as u64);
        self.ask(|reply| Request::Commit(Box::new(commit), reply)).await
    }

    async fn checkpoint(&self, partition: PartitionId) -> Result<Option<Checkpoint>, StoreError> {
        self.read(partition, View::checkpoint).await
    }

    async fn history(&self, partition: PartitionId, limit: usize) -> Result<Vec<Mark>, StoreError> {
        let limit = limit.min(self.settings.history_kept);
        self.read(partition, move |view| view.marks(limit)).await
    }

    async fn verify(&self, partition: PartitionId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let (target, checkpoint) = (self.target(partition), checkpoint.clone());
        let kept = self.settings.history_kept as u64;
        self.ask(|reply| Request::Verify(target, Box::new(checkpoint), kept, reply))
            .await
    }

    async fn forget_marks(&self, partition: PartitionId, ids: &[String]) -> Result<(), StoreError> {
        let numbers = ids.iter().filter_map(|id| id.parse().ok()).collect();
        let target = self.target(partition);
        self.ask(|reply| Request::ForgetMarks(target, numbers, reply)).await
    }

    async fn indexed(
        &self,
        partition: PartitionId,
        kind: Kind,
        from: NextOffset,
        limit: usize,
    ) -> Result<Vec<(Entity, Offset)>, StoreError> {
        self.read(partition, move |view| view.indexed(kind, from, limit)).await
    }

    async fn ahead(&self, partition: PartitionId, from: NextOffset, limit: usize) -> Result<Ahead, StoreError> {
        self.read(partition, move |view| view.ahead(from, limit)).await
    }

    async fn count_below(&self, partition: PartitionId, offset: NextOffset) -> Result<u64, StoreError> {
        self.read(partition, move |view| view.count_below(offset)).await
    }

    async fn peek(&self, partition: PartitionId, entities: &[Entity]) -> Result<Peeked, StoreError> {
        let entities = entities.to_vec();
        self.read(partition, move |view| view.peek(&entities)).await
    }

    async fn heal(&self, partition: PartitionId, heal: &Heal) -> Result<Vec<Healed>, StoreError> {
        let (target, heal, kept) = (
            self.target(partition),
            Box::new(heal.clone()),
            self.settings.events_kept,
        );
        self.ask(|reply| Request::Heal(target, heal, kept, reply)).await
    }

    async fn expire(&self, partition: PartitionId, entities: &[Expiring]) -> Result<u64, StoreError> {
        let (target, entities) = (self.target(partition), entities.to_vec());
        self.ask(|reply| Request::Expire(target, entities, reply)).await
    }

    async fn scan(&self, visit: &mut (dyn FnMut(PartitionId, Entity) + Send)) -> Result<(), StoreError> {
        self.visit(visit).await
    }

    fn in_namespace(&self, namespace: &str) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(self.with_namespace(namespace)?))
    }

    async fn namespaces(&self) -> Result<Vec<String>, StoreError> {
        self.known().await
    }

    async fn clear(&self, _: u32) -> Result<(), StoreError> {
        self.purge().await
    }

    async fn note(&self, note: Note) -> Result<Option<String>, StoreError> {
        let key = keys::note(&self.namespace, note);
        self.read(PartitionId(0), move |view| view.note(&key)).await
    }

    async fn set_note(&self, note: Note, text: Option<&str>) -> Result<(), StoreError> {
        self.tell(note, text).await
    }

    async fn swap_notes(&self, seen: Told<'_>, notes: &[Told<'_>]) -> Result<bool, StoreError> {
        self.swap(seen, notes).await
    }

    async fn owner(&self, partition: PartitionId) -> Result<Option<Owner>, StoreError> {
        let target = self.target(partition);
        self.ask(|reply| Request::Owner(target, reply)).await
    }

    async fn parked(&self, partition: PartitionId) -> Result<Vec<(Entity, Offset)>, StoreError> {
        self.read(partition, View::parked).await
    }

    async fn document(&self, partition: PartitionId, entity: &Entity) -> Result<Option<Vec<u8>>, StoreError> {
        let entity = entity.clone();
        self.read(partition, move |view| view.document(&entity)).await
    }

    async fn list(&self, partition: PartitionId, query: &ListQuery) -> Result<Vec<(Offset, Vec<u8>)>, StoreError> {
        let query = query.clone();
        self.read(partition, move |view| view.list(&query)).await
    }

    async fn events(
        &self,
        partition: PartitionId,
        entity: &Entity,
        after: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<StreamEntry>, StoreError> {
        let until = Instant::now() + wait;
        let mut bell = self.backend.shared.news.bell(entity).subscribe();
        let kept = self.settings.events_kept;
        loop {
            bell.borrow_and_update();
            let entity = entity.clone();
            let events = self
                .read(partition, move |view| view.events(&entity, after, limit, kept))
                .await?;
            if !events.is_empty() || limit == 0 {
                return Ok(events);
            }
            if !matches!(tokio::time::timeout_at(until, bell.changed()).await, Ok(Ok(()))) {
                return Ok(events);
            }
        }
    }
}

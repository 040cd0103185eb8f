//! The one thread that writes the store, and keeps who owns which partition.
//! In: batches and leases, through a bounded queue, in the order asked. Out: answers, after the sync.
//! Invariant: a batch is checked whole before anything of it is written; commits of several partitions
//! share one atomic write and one sync, two of the same partition never do.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::OwnedWriteBatch;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::keys::{self, Place};
use super::read::View;
use crate::disk;
use crate::pure::checkpoint::{Checkpoint, Identity};
use crate::pure::entity::Entity;
use crate::pure::place::{Offset, PartitionId};
use crate::store::{Batch, Owner, StoreError};

/// How many requests may wait. Each partition has at most a few under way.
pub(super) const QUEUE: usize = 256;
/// A write takes no further commit from here on.
const WRITE_BYTES: usize = 32 << 20;

/// A partition in a request.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) namespace: Arc<str>,
    pub(super) partition: PartitionId,
    pub(super) place: Place,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the thread is asked for.
pub(super) enum Request {
    Take(Target, Owner, Duration, Reply<()>),
    Renew(Target, Owner, Duration, Reply<Option<Checkpoint>>),
    Release(Target, Owner, Reply<()>),
    Owner(Target, Reply<Option<Owner>>),
    Commit(Box<Commit>, Reply<()>),
}

/// A batch with its keys and values made, so that the thread only looks and writes.
pub(super) struct Commit {
    target: Target,
    owner: Owner,
    expected: Option<Identity>,
    checkpoint: Checkpoint,
    documents: Vec<(Entity, Offset, Vec<u8>)>,
    events: Vec<(Entity, u64, Vec<u8>)>,
    parked: Vec<(Entity, Offset)>,
    mark: bool,
    events_kept: u64,
    history_kept: u64,
    bytes: usize,
}

impl Commit {
    pub(super) fn new(target: Target, owner: &Owner, batch: &Batch, events_kept: u64, history_kept: u64) -> Self {
        let place = &target.place;
        let documents = batch.documents.iter().map(|write| {
            let state = write.state.as_ref().map(|state| batch.text(state));
            let value = keys::document(&place.document(&write.entity), batch.text(&write.json), state);
            (write.entity.clone(), write.offset, value)
        });
        let events = batch.events.iter().filter(|_| events_kept > 0).map(|write| {
            let value = disk::seal(&place.event(&write.entity, write.seq), batch.text(&write.json));
            (write.entity.clone(), write.seq, value)
        });
        Self {
            documents: documents.collect(),
            events: events.collect(),
            owner: owner.clone(),
            expected: batch.expected.clone(),
            checkpoint: batch.checkpoint.clone(),
            parked: batch.parked.clone(),
            mark: batch.mark,
            events_kept,
            history_kept,
            bytes: batch.buffer.len(),
            target,
        }
    }
}

struct Lease {
    owner: Owner,
    until: Instant,
}

/// State of the thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    leases: HashMap<Place, Lease>,
    /// Number of the newest mark, where it was needed.
    marks: HashMap<Place, u64>,
}

/// What is sent after the sync, or instead of it if it failed.
type Answer = Box<dyn FnOnce(Option<&StoreError>) + Send>;

/// One write being built.
struct Write {
    batch: OwnedWriteBatch,
    answers: Vec<Answer>,
    places: HashSet<Place>,
    bytes: usize,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            leases: HashMap::new(),
            marks: HashMap::new(),
        }
    }

    /// Serves until the last sender is gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut carried = None;
        while let Some(first) = carried.take().or_else(|| requests.blocking_recv()) {
            let mut write = Write {
                batch: self.shared.disk.batch(),
                answers: Vec::new(),
                places: HashSet::new(),
                bytes: 0,
            };
            let mut next = Some(first);
            while let Some(request) = next {
                if !write.has_room_for(&request) {
                    carried = Some(request);
                    break;
                }
                self.take(&mut write, request);
                next = requests.try_recv().ok();
            }
            self.finish(write);
        }
    }

    fn finish(&self, write: Write) {
        let failed = if write.places.is_empty() {
            None
        } else {
            self.shared.disk.commit(write.batch).err().map(StoreError::from)
        };
        for answer in write.answers {
            answer(failed.as_ref());
        }
    }

    fn take(&mut self, write: &mut Write, request: Request) {
        match request {
            Request::Take(target, owner, lease, reply) => write.answer(reply, self.give(target, owner, lease)),
            Request::Renew(target, owner, lease, reply) => write.answer(reply, self.renew(target, owner, lease)),
            Request::Release(target, owner, reply) => {
                if self.live(&target.place) == Some(&owner) {
                    self.leases.remove(&target.place);
                }
                write.answer(reply, Ok(()));
            }
            Request::Owner(target, reply) => write.answer(reply, Ok(self.live(&target.place).cloned())),
            Request::Commit(commit, reply) => {
                let touched: Vec<_> = commit.events.iter().map(|(entity, ..)| entity.clone()).collect();
                let taken = self.commit(write, &commit);
                let (shared, accepted) = (self.shared.clone(), taken.is_ok());
                write.answer(reply, taken);
                if accepted {
                    write.answers.push(Box::new(move |failed| {
                        if failed.is_none() {
                            shared.news.tell(&touched);
                        }
                    }));
                }
            }
        }
    }

    fn live(&self, place: &Place) -> Option<&Owner> {
        let lease = self.leases.get(place)?;
        (Instant::now() < lease.until).then_some(&lease.owner)
    }

    fn give(&mut self, target: Target, owner: Owner, lease: Duration) -> Result<(), StoreError> {
        if let Some(other) = self.live(&target.place)
            && other.is_operator()
            && *other != owner
        {
            return Err(not_owner(&target, Some(other)));
        }
        let until = Instant::now() + lease;
        self.leases.insert(target.place, Lease { owner, until });
        Ok(())
    }

    fn renew(&mut self, target: Target, owner: Owner, lease: Duration) -> Result<Option<Checkpoint>, StoreError> {
        self.ensure_owner(&target, &owner)?;
        let found = View::new(self.shared.clone(), &target.namespace, target.partition).checkpoint();
        let until = Instant::now() + lease;
        self.leases.insert(target.place, Lease { owner, until });
        found
    }

    fn ensure_owner(&self, target: &Target, owner: &Owner) -> Result<(), StoreError> {
        let found = self.live(&target.place);
        if found == Some(owner) {
            Ok(())
        } else {
            Err(not_owner(target, found))
        }
    }

    /// Checks the whole batch, then adds it to the write.
    fn commit(&mut self, write: &mut Write, commit: &Commit) -> Result<(), StoreError> {
        let target = &commit.target;
        self.shared.disk.running()?;
        let view = View::new(self.shared.clone(), &target.namespace, target.partition);
        let found = view.checkpoint()?;
        if found.as_ref().map(Checkpoint::identity) != commit.expected {
            return Err(StoreError::Refused {
                partition: target.partition,
                found: Box::new(found),
            });
        }
        self.ensure_owner(target, &commit.owner)?;
        let mut before = Vec::with_capacity(commit.documents.len());
        for (entity, ..) in &commit.documents {
            before.push(view.last_offset(entity)?);
        }
        let newest_mark = match self.marks.get(&target.place) {
            _ if !commit.mark => None,
            Some(number) => Some(*number),
            None => Some(view.newest_mark_number()?),
        };
        drop(view);

        write.bytes += commit.bytes;
        write.places.insert(target.place.clone());
        if let Some(number) = newest_mark {
            self.marks.insert(target.place.clone(), number + 1);
            write.mark(&self.shared, commit, number + 1);
        }
        write.documents(&self.shared, commit, &before);
        write.events(&self.shared, commit);
        let key = commit.target.place.checkpoint();
        let value = keys::checkpoint(&key, &commit.checkpoint);
        write.batch.insert(self.shared.disk.meta(), key, value);
        for (entity, offset) in &commit.parked {
            let key = commit.target.place.parked(entity.subject());
            let value = keys::number(&key, offset.0);
            write.batch.insert(self.shared.disk.meta(), key, value);
        }
        Ok(())
    }
}

impl Write {
    /// Checks read what is on disk, so a write holds at most one commit of a partition.
    fn has_room_for(&self, request: &Request) -> bool {
        match request {
            Request::Commit(commit, _) => self.bytes < WRITE_BYTES && !self.places.contains(&commit.target.place),
            Request::Renew(target, ..) => !self.places.contains(&target.place),
            Request::Take(..) | Request::Release(..) | Request::Owner(..) => true,
        }
    }

    /// Whoever asked may be gone; what was asked for is done all the same.
    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, done: Result<T, StoreError>) {
        self.answers.push(Box::new(move |failed| {
            let answer = match failed {
                Some(error) if done.is_ok() => Err(StoreError::Rejected(error.to_string())),
                _ => done,
            };
            _ = reply.send(answer);
        }));
    }

    fn documents(&mut self, shared: &Shared, commit: &Commit, before: &[Option<Offset>]) {
        let place = &commit.target.place;
        for ((entity, offset, value), before) in commit.documents.iter().zip(before) {
            self.batch
                .insert(&shared.documents, place.document(entity), value.as_slice());
            if *before == Some(*offset) {
                continue;
            }
            if let Some(before) = before {
                self.batch.remove(&shared.index, place.by_offset(entity, *before));
            }
            self.batch
                .insert(&shared.index, place.by_offset(entity, *offset), [].as_slice());
            let key = place.by_subject(entity);
            let value = keys::number(&key, offset.0);
            self.batch.insert(&shared.index, key, value);
        }
    }

    /// Each event takes the place of the one that is now too old: streams keep their length without a scan.
    fn events(&mut self, shared: &Shared, commit: &Commit) {
        let place = &commit.target.place;
        for (entity, seq, value) in &commit.events {
            self.batch
                .insert(&shared.events, place.event(entity, *seq), value.as_slice());
            if let Some(old) = seq.checked_sub(commit.events_kept).filter(|old| *old > 0) {
                self.batch.remove(&shared.events, place.event(entity, old));
            }
        }
    }

    fn mark(&mut self, shared: &Shared, commit: &Commit, number: u64) {
        let place = &commit.target.place;
        let key = place.mark(number);
        let value = keys::checkpoint(&key, &commit.checkpoint);
        self.batch.insert(shared.disk.meta(), key, value);
        if let Some(old) = number.checked_sub(commit.history_kept).filter(|old| *old > 0) {
            self.batch.remove(shared.disk.meta(), place.mark(old));
        }
    }
}

fn not_owner(target: &Target, found: Option<&Owner>) -> StoreError {
    StoreError::NotOwner {
        partition: target.partition,
        owner: found.map_or_else(String::new, |owner| owner.0.clone()),
    }
}

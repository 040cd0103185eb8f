//! The one thread that writes the store, and keeps who owns which partition.
//! In: batches and leases, through a bounded queue, in the order asked. Out: answers, after the sync.
//! Invariant: a batch is checked whole before anything of it is written; commits of several partitions
//! share one atomic write and one sync, two of the same partition never do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::heal;
use super::keys::{self, Place};
use super::namespaces::Purge;
use super::read::View;
use super::write::Write;
use crate::disk;
use crate::pure::checkpoint::{Checkpoint, Identity};
use crate::pure::entity::Entity;
use crate::pure::place::{Offset, PartitionId};
use crate::store::{Batch, Expiring, Heal, Healed, Owner, StoreError};

/// How many requests may wait. Each partition has at most a few under way.
pub(super) const QUEUE: usize = 256;

/// A partition in a request.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) namespace: Arc<str>,
    pub(super) partition: PartitionId,
    pub(super) place: Place,
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the thread is asked for.
pub(super) enum Request {
    Take(Target, Owner, Duration, Reply<()>),
    Renew(Target, Owner, Duration, Reply<Option<Checkpoint>>),
    Release(Target, Owner, Reply<()>),
    Owner(Target, Reply<Option<Owner>>),
    Commit(Box<Commit>, Reply<()>),
    /// Add a mark to the history, of which so many are kept.
    Verify(Target, Box<Checkpoint>, u64, Reply<()>),
    /// Put entities right; streams keep so many events.
    Heal(Target, Box<Heal>, u64, Reply<Vec<Healed>>),
    /// Take marks out of the history.
    ForgetMarks(Target, Vec<u64>, Reply<()>),
    /// A key of `meta`, and its sealed value.
    Note(Target, Vec<u8>, Option<Vec<u8>>, Reply<()>),
    /// Notes told at once.
    Swap(Target, Swap, Reply<bool>),
    /// Take documents away that have long ended.
    Expire(Target, Vec<Expiring>, Reply<u64>),
    /// Take keys away.
    Purge(Target, Box<Purge>, Reply<()>),
}

/// Notes told at once, if one is as it was seen.
pub(super) struct Swap {
    pub(super) key: Vec<u8>,
    pub(super) seen: Option<String>,
    pub(super) notes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A batch with its keys and values made, so that the thread only looks and writes.
pub(super) struct Commit {
    pub(super) target: Target,
    pub(super) owner: Owner,
    pub(super) expected: Option<Identity>,
    pub(super) checkpoint: Checkpoint,
    pub(super) documents: Vec<(Entity, Offset, Vec<u8>)>,
    pub(super) events: Vec<(Entity, u64, Vec<u8>)>,
    pub(super) parked: Vec<(Entity, Offset)>,
    pub(super) removed: Vec<Entity>,
    pub(super) cut: Vec<(Entity, u64)>,
    pub(super) unparked: Vec<Entity>,
    pub(super) mark: bool,
    pub(super) events_kept: u64,
    pub(super) history_kept: u64,
    pub(super) bytes: usize,
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
            removed: batch.removed.clone(),
            cut: batch.cut.clone(),
            unparked: batch.unparked.clone(),
            mark: batch.mark,
            events_kept,
            history_kept,
            bytes: batch.buffer.len(),
            target,
        }
    }
}

pub(super) struct Lease {
    owner: Owner,
    until: Instant,
}

/// State of the thread.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) leases: HashMap<Place, Lease>,
    /// Number of the newest mark, where it was needed.
    marks: HashMap<Place, u64>,
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
            let mut write = Write::new(&self.shared);
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
            self.shared.disk.commit(write.batch).err()
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
            Request::Verify(target, checkpoint, kept, reply) => {
                let done = self.verify(write, &target, &checkpoint, kept);
                write.answer(reply, done);
            }
            Request::ForgetMarks(target, numbers, reply) => {
                for number in numbers {
                    write.batch.remove(self.shared.disk.meta(), target.place.mark(number));
                }
                write.places.insert(target.place);
                write.answer(reply, Ok(()));
            }
            Request::Note(target, key, value, reply) => {
                match value {
                    Some(value) => write.batch.insert(self.shared.disk.meta(), key, value),
                    None => write.batch.remove(self.shared.disk.meta(), key),
                }
                write.places.insert(target.place);
                write.answer(reply, Ok(()));
            }
            Request::Swap(target, swap, reply) => self.swap(write, target, swap, reply),
            Request::Expire(target, entities, reply) => {
                let expired = self.expire(write, &target, &entities);
                write.answer(reply, expired);
            }
            Request::Purge(target, keys, reply) => {
                self.marks.clear();
                write.purge(&self.shared, *keys);
                write.places.insert(target.place);
                write.answer(reply, Ok(()));
            }
            Request::Heal(target, wanted, kept, reply) => {
                let healed = self.heal(write, &target, &wanted, kept);
                let touched = healed
                    .as_ref()
                    .map_or_else(|_| Vec::new(), |healed| heal::touched(&wanted, healed));
                write.answer(reply, healed);
                self.tell_of(write, touched);
            }
            Request::Commit(commit, reply) => {
                let touched: Vec<_> = commit.events.iter().map(|(entity, ..)| entity.clone()).collect();
                let taken = self.commit(write, &commit);
                let accepted = taken.is_ok();
                write.answer(reply, taken);
                if accepted {
                    self.tell_of(write, touched);
                }
            }
        }
    }

    /// Wakes those who wait for events of these entities, once they are there.
    fn tell_of(&self, write: &mut Write, touched: Vec<Entity>) {
        let shared = self.shared.clone();
        write.answers.push(Box::new(move |failed| {
            if failed.is_none() {
                shared.news.tell(&touched);
            }
        }));
    }

    pub(super) fn live(&self, place: &Place) -> Option<&Owner> {
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
        let removed_from = commit
            .removed
            .iter()
            .map(|entity| view.last_offset(entity))
            .collect::<Result<Vec<_>, _>>()?;
        let cut = cut_events(&view, commit)?;
        let newest_mark = if commit.mark {
            Some(self.newest_mark(&view, target)?)
        } else {
            None
        };
        drop(view);

        write.bytes += commit.bytes;
        write.places.insert(target.place.clone());
        if let Some(number) = newest_mark {
            self.marks.insert(target.place.clone(), number + 1);
            write.mark(
                &self.shared,
                target,
                (&commit.checkpoint, false),
                number + 1,
                commit.history_kept,
            );
        }
        write.documents(&self.shared, commit, &before);
        write.events(&self.shared, commit);
        cut.into_iter()
            .for_each(|key| write.batch.remove(&self.shared.events, key));
        write.removed(&self.shared, commit, &removed_from);
        let key = commit.target.place.checkpoint();
        let value = keys::checkpoint(&key, &commit.checkpoint);
        write.batch.insert(self.shared.disk.meta(), key, value);
        for (entity, offset) in &commit.parked {
            let key = commit.target.place.parked(entity.subject());
            let value = keys::number(&key, offset.0);
            write.batch.insert(self.shared.disk.meta(), key, value);
        }
        for entity in &commit.unparked {
            let key = commit.target.place.parked(entity.subject());
            write.batch.remove(self.shared.disk.meta(), key);
        }
        Ok(())
    }

    fn newest_mark(&self, view: &View, target: &Target) -> Result<u64, StoreError> {
        match self.marks.get(&target.place) {
            Some(number) => Ok(*number),
            None => view.newest_mark_number(),
        }
    }

    fn verify(
        &mut self,
        write: &mut Write,
        target: &Target,
        checkpoint: &Checkpoint,
        kept: u64,
    ) -> Result<(), StoreError> {
        self.shared.disk.running()?;
        let view = View::new(self.shared.clone(), &target.namespace, target.partition);
        let number = self.newest_mark(&view, target)? + 1;
        self.marks.insert(target.place.clone(), number);
        write.places.insert(target.place.clone());
        write.mark(&self.shared, target, (checkpoint, true), number, kept);
        Ok(())
    }
}

/// Keys of the events that the batch cuts off, and of all events of those it removes.
fn cut_events(view: &View, commit: &Commit) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = Vec::new();
    let removed = commit.removed.iter().map(|entity| (entity, 0));
    for (entity, seq) in commit.cut.iter().map(|(entity, seq)| (entity, *seq)).chain(removed) {
        keys.extend(view.event_keys_above(entity, seq)?);
    }
    Ok(keys)
}

pub(super) fn not_owner(target: &Target, found: Option<&Owner>) -> StoreError {
    StoreError::NotOwner {
        partition: target.partition,
        owner: found.map_or_else(String::new, |owner| owner.0.clone()),
    }
}

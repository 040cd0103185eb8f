//! One atomic write being built: what is written by each commit, and what is answered after the sync.
//! Invariant: it holds at most one commit of a partition, for checks read what is on disk.

use std::collections::HashSet;

use fjall::OwnedWriteBatch;

use super::Shared;
use super::keys::{self, Place};
use super::namespaces::Purge;
use super::writer::{Commit, Reply, Request, Target};
use crate::disk::DiskError;
use crate::pure::checkpoint::Checkpoint;
use crate::pure::place::Offset;
use crate::store::StoreError;

/// A write takes no further commit from here on.
const WRITE_BYTES: usize = 32 << 20;

/// What is sent after the sync, or instead of it if it failed.
pub(super) type Answer = Box<dyn FnOnce(Option<&DiskError>) + Send>;

/// One write being built.
pub(super) struct Write {
    pub(super) batch: OwnedWriteBatch,
    pub(super) answers: Vec<Answer>,
    pub(super) places: HashSet<Place>,
    pub(super) bytes: usize,
}

impl Write {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            batch: shared.disk.batch(),
            answers: Vec::new(),
            places: HashSet::new(),
            bytes: 0,
        }
    }

    /// Checks read what is on disk, so a write holds at most one commit of a partition.
    pub(super) fn has_room_for(&self, request: &Request) -> bool {
        match request {
            Request::Commit(commit, _) => self.bytes < WRITE_BYTES && !self.places.contains(&commit.target.place),
            Request::Renew(target, ..)
            | Request::Heal(target, ..)
            | Request::Expire(target, ..)
            | Request::Verify(target, ..)
            | Request::Swap(target, ..)
            | Request::ForgetMarks(target, ..) => !self.places.contains(&target.place),
            Request::Purge(..) => self.places.is_empty(),
            Request::Take(..) | Request::Release(..) | Request::Owner(..) | Request::Note(..) => true,
        }
    }

    /// Whoever asked may be gone; what was asked for is done all the same.
    pub(super) fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, done: Result<T, StoreError>) {
        self.answers.push(Box::new(move |failed| {
            let answer = match failed {
                Some(error) if done.is_ok() => Err(error.clone().into()),
                _ => done,
            };
            _ = reply.send(answer);
        }));
    }

    pub(super) fn purge(&mut self, shared: &Shared, keys: Purge) {
        let rooms = [&shared.documents, &shared.index, &shared.events, shared.disk.meta()];
        for (room, keys) in rooms.into_iter().zip(keys) {
            keys.into_iter().for_each(|key| self.batch.remove(room, key));
        }
    }

    pub(super) fn documents(&mut self, shared: &Shared, commit: &Commit, before: &[Option<Offset>]) {
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
    pub(super) fn events(&mut self, shared: &Shared, commit: &Commit) {
        let place = &commit.target.place;
        for (entity, seq, value) in &commit.events {
            self.batch
                .insert(&shared.events, place.event(entity, *seq), value.as_slice());
            if let Some(old) = seq.checked_sub(commit.events_kept).filter(|old| *old > 0) {
                self.batch.remove(&shared.events, place.event(entity, old));
            }
        }
    }

    pub(super) fn removed(&mut self, shared: &Shared, commit: &Commit, before: &[Option<Offset>]) {
        let place = &commit.target.place;
        for (entity, before) in commit.removed.iter().zip(before) {
            self.batch.remove(&shared.documents, place.document(entity));
            self.batch.remove(&shared.index, place.by_subject(entity));
            if let Some(before) = before {
                self.batch.remove(&shared.index, place.by_offset(entity, *before));
            }
        }
    }

    pub(super) fn mark(
        &mut self,
        shared: &Shared,
        target: &Target,
        (checkpoint, verified): (&Checkpoint, bool),
        number: u64,
        kept: u64,
    ) {
        let place = &target.place;
        let key = place.mark(number);
        let value = keys::mark(&key, checkpoint, verified);
        self.batch.insert(shared.disk.meta(), key, value);
        if let Some(old) = number.checked_sub(kept).filter(|old| *old > 0) {
            self.batch.remove(shared.disk.meta(), place.mark(old));
        }
    }
}

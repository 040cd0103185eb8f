//! Reading the embedded store: one snapshot per call, so that documents and checkpoint belong together.
//! All of it may block.

use std::sync::Arc;

use fjall::{Readable, Snapshot};

use super::Shared;
use super::keys::{self, Place};
use crate::disk;
use crate::pure::checkpoint::{Checkpoint, Identity, Mark};
use crate::pure::entity::Entity;
use crate::pure::place::{Offset, PartitionId};
use crate::store::{ListQuery, StoreError, Stored, StreamEntry, expired_mark};

/// A view of one partition as it was at one instant.
pub(super) struct View {
    pub(super) shared: Arc<Shared>,
    pub(super) snapshot: Snapshot,
    partition: PartitionId,
    pub(super) place: Place,
}

impl View {
    pub(super) fn new(shared: Arc<Shared>, namespace: &str, partition: PartitionId) -> Self {
        Self {
            snapshot: shared.disk.database().snapshot(),
            shared,
            partition,
            place: Place::new(namespace, partition),
        }
    }

    pub(super) fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        let key = self.place.checkpoint();
        let value = self.snapshot.get(self.shared.disk.meta(), &key);
        let value = value.map_err(|error| self.corrupt("checkpoint", &error))?;
        let read = value.map(|value| keys::read_checkpoint(&key, &value)).transpose();
        read.map_err(|what| self.corrupt("checkpoint", &what))
    }

    pub(super) fn marks(&self, limit: usize) -> Result<Vec<Mark>, StoreError> {
        let marks = self.snapshot.range(self.shared.disk.meta(), self.place.marks());
        marks
            .rev()
            .take(limit)
            .map(|mark| {
                let (key, value) = mark.into_inner().map_err(|error| self.corrupt("history", &error))?;
                let read = keys::read_mark(&key, &value);
                let (checkpoint, verified) = read.map_err(|what| self.corrupt("history", &what))?;
                let id = keys::number_at_end(&key).unwrap_or(0).to_string();
                Ok(Mark {
                    id,
                    checkpoint,
                    verified,
                })
            })
            .collect()
    }

    pub(super) fn newest_mark_number(&self) -> Result<u64, StoreError> {
        let mut marks = self.snapshot.range(self.shared.disk.meta(), self.place.marks());
        let Some(newest) = marks.next_back() else { return Ok(0) };
        let key = newest.key().map_err(|error| self.corrupt("history", &error))?;
        Ok(keys::number_at_end(&key).unwrap_or(0))
    }

    pub(super) fn note(&self, key: &[u8]) -> Result<Option<String>, StoreError> {
        let value = self.snapshot.get(self.shared.disk.meta(), key);
        let value = value.map_err(|error| self.corrupt("note", &error))?;
        let read = |value: fjall::Slice| {
            let text = disk::unseal(key, &value).map(<[u8]>::to_vec);
            text.and_then(|text| String::from_utf8(text).ok())
                .ok_or_else(|| self.corrupt("note", &"its checksum does not fit: bits have flipped"))
        };
        value.map(read).transpose()
    }

    pub(super) fn parked(&self) -> Result<Vec<(Entity, Offset)>, StoreError> {
        let beginning = self.place.parked("");
        let parked = self.snapshot.prefix(self.shared.disk.meta(), &beginning);
        parked
            .map(|entry| {
                let (key, value) = entry.into_inner().map_err(|error| self.corrupt("parked", &error))?;
                let entity = std::str::from_utf8(&key[beginning.len()..])
                    .ok()
                    .and_then(Entity::parse);
                let offset = keys::read_number(&key, &value).map(Offset);
                entity
                    .zip(offset)
                    .ok_or_else(|| self.corrupt("parked", &"its checksum does not fit: bits have flipped"))
            })
            .collect()
    }

    /// The first offset that is not applied to the entity, if it is parked.
    pub(super) fn waits(&self, entity: &Entity) -> Result<Option<Offset>, StoreError> {
        let key = self.place.parked(entity.subject());
        let value = self.snapshot.get(self.shared.disk.meta(), &key);
        let value = value.map_err(|error| self.corrupt("parked", &error))?;
        let read = value.map(|value| keys::read_number(&key, &value).map(Offset));
        match read {
            Some(None) => Err(self.corrupt("parked", &"its checksum does not fit: bits have flipped")),
            waits => Ok(waits.flatten()),
        }
    }

    /// From any checkpoint of the namespace that can be read.
    pub(super) fn namespace_partitions(&self, namespace: &str) -> Option<u32> {
        let all = keys::checkpoints_of(namespace);
        let mut checkpoints = self.snapshot.prefix(self.shared.disk.meta(), all);
        checkpoints.find_map(|entry| {
            let (key, value) = entry.into_inner().ok()?;
            Some(keys::read_checkpoint(&key, &value).ok()?.partitions)
        })
    }

    pub(super) fn load(&self, expected: &[Option<Identity>], entities: &[Entity]) -> Result<Vec<Stored>, StoreError> {
        let found = self.checkpoint()?;
        if !expected.contains(&found.as_ref().map(Checkpoint::identity)) {
            return Err(StoreError::Refused {
                partition: self.partition,
                found: Box::new(found),
            });
        }
        entities.iter().map(|entity| self.stored(entity)).collect()
    }

    pub(super) fn stored(&self, entity: &Entity) -> Result<Stored, StoreError> {
        let key = self.place.document(entity);
        match self.snapshot.get(&self.shared.documents, &key) {
            Ok(Some(value)) => Ok(match keys::read_document(&key, &value) {
                Some((b"", state)) => {
                    let mark = self.last_offset(entity)?.map(expired_mark);
                    match mark {
                        Some(mark) if state == Some(mark.as_bytes()) => Stored::Expired,
                        _ => Stored::Lost,
                    }
                }
                Some((json, state)) => Stored::Document {
                    json: json.to_vec(),
                    state: state.map(<[u8]>::to_vec),
                },
                None => Stored::Unreadable("its checksum does not fit: bits have flipped"),
            }),
            Ok(None) if self.last_offset(entity)?.is_some() => Ok(Stored::Lost),
            Ok(None) => Ok(Stored::Absent),
            Err(error) if is_io(&error) => Err(self.corrupt(&entity.document_id(), &error)),
            Err(_) => Ok(Stored::Unreadable("its block in the database is damaged")),
        }
    }

    /// The entity's place in the index.
    pub(super) fn last_offset(&self, entity: &Entity) -> Result<Option<Offset>, StoreError> {
        let key = self.place.by_subject(entity);
        let value = self.snapshot.get(&self.shared.index, &key);
        let value = value.map_err(|error| self.corrupt(&entity.document_id(), &error))?;
        let read = value.map(|value| {
            keys::read_number(&key, &value)
                .map(Offset)
                .ok_or_else(|| self.corrupt(&format!("index of {entity}"), &"its checksum does not fit"))
        });
        read.transpose()
    }

    pub(super) fn document(&self, entity: &Entity) -> Result<Option<Vec<u8>>, StoreError> {
        match self.stored(entity)? {
            Stored::Document { json, .. } => Ok(Some(json)),
            Stored::Absent | Stored::Expired => Ok(None),
            Stored::Lost => Err(self.corrupt(&entity.document_id(), &"the index knows it, but there is no document")),
            Stored::Unreadable(what) => Err(self.corrupt(&entity.document_id(), &what)),
        }
    }

    pub(super) fn list(&self, query: &ListQuery) -> Result<Vec<(Offset, Vec<u8>)>, StoreError> {
        let (beginning, wanted) = self.place.before_offset(query.kind, query.below);
        let mut documents = Vec::new();
        if wanted.is_empty() {
            return Ok(documents);
        }
        let index = self.snapshot.range(&self.shared.index, wanted);
        for entry in index.rev().take(query.limit) {
            let key = entry.key().map_err(|error| self.corrupt("index", &error))?;
            let Some((offset, entity)) = keys::offset_and_subject(&key, beginning) else {
                continue;
            };
            match self.stored(&entity)? {
                Stored::Document { json, .. } => documents.push((offset, json)),
                Stored::Absent | Stored::Lost | Stored::Expired => documents.push((offset, Vec::new())),
                Stored::Unreadable(what) => {
                    tracing::warn!(partition = self.partition.0, document = %entity.document_id(), what, "left out");
                    documents.push((offset, Vec::new()));
                }
            }
        }
        Ok(documents)
    }

    pub(super) fn events(
        &self,
        entity: &Entity,
        after: u64,
        limit: usize,
        kept: u64,
    ) -> Result<Vec<StreamEntry>, StoreError> {
        let what = || format!("events of {entity}");
        let all = self.place.event(entity, 0)..=self.place.event(entity, u64::MAX);
        let Some(last) = self.snapshot.range(&self.shared.events, all).next_back() else {
            return Ok(Vec::new());
        };
        let last = last.key().map_err(|error| self.corrupt(&what(), &error))?;
        // Entries from a time when more were kept are still there, and no part of the stream.
        let floor = keys::number_at_end(&last).unwrap_or(0).saturating_sub(kept);
        let from = self.place.event(entity, after.max(floor).saturating_add(1));
        let wanted = from..=self.place.event(entity, u64::MAX);
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let entries = self.snapshot.range(&self.shared.events, wanted).take(limit);
        entries
            .map(|entry| {
                let (key, value) = entry.into_inner().map_err(|error| self.corrupt(&what(), &error))?;
                let json = disk::unseal(&key, &value);
                let (seq, json) = keys::number_at_end(&key)
                    .zip(json)
                    .ok_or_else(|| self.corrupt(&what(), &"a checksum does not fit: bits have flipped"))?;
                Ok(StreamEntry {
                    seq,
                    json: json.to_vec(),
                })
            })
            .collect()
    }

    pub(super) fn corrupt(&self, what: &str, detail: &dyn std::fmt::Display) -> StoreError {
        StoreError::Corrupt {
            partition: self.partition,
            what: what.to_owned(),
            detail: format!("{} ({})", detail, self.shared.disk.place().display()),
        }
    }
}

/// Whether the disk failed, rather than one block of it.
fn is_io(error: &fjall::Error) -> bool {
    matches!(
        error,
        fjall::Error::Io(_) | fjall::Error::Storage(fjall::LsmError::Io(_))
    )
}

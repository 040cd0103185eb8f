//! Which documents there are: by the index, and by the keys themselves. All of it may block.

use fjall::Readable;

use super::keys;
use super::namespaces::Purge;
use super::read::View;
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::store::{Ahead, Peeked, StoreError};

impl View {
    /// Entities by ascending last offset, from `from` on.
    pub(super) fn indexed(
        &self,
        kind: Kind,
        from: NextOffset,
        limit: usize,
    ) -> Result<Vec<(Entity, Offset)>, StoreError> {
        let (beginning, range) = self.place.behind_offset(kind, from);
        let entries = self.snapshot.range(&self.shared.index, range);
        let read = entries.map(|entry| {
            let key = entry.key().map_err(|error| self.corrupt("index", &error))?;
            keys::offset_and_subject(&key, beginning)
                .map(|(offset, entity)| (entity, offset))
                .ok_or_else(|| self.corrupt("index", &"a key is not of its form"))
        });
        read.take(limit).collect()
    }

    /// Entities whose last offset is `from` or past it, and the checkpoint.
    pub(super) fn ahead(&self, from: NextOffset, limit: usize) -> Result<Ahead, StoreError> {
        let mut ahead = Vec::new();
        for kind in Kind::ALL {
            ahead.extend(self.indexed(kind, from, limit)?);
        }
        Ok((self.checkpoint()?, ahead))
    }

    /// Number of documents whose last event lies below `offset`.
    pub(super) fn count_below(&self, offset: NextOffset) -> Result<u64, StoreError> {
        let mut count = 0;
        for kind in Kind::ALL {
            let (beginning, range) = self.place.behind_offset(kind, NextOffset::START);
            for entry in self.snapshot.range(&self.shared.index, range) {
                let key = entry.key().map_err(|error| self.corrupt("index", &error))?;
                match keys::offset_and_subject(&key, beginning) {
                    Some((last, _)) if offset.is_past(last) => count += 1,
                    _ => break,
                }
            }
        }
        Ok(count)
    }

    /// Documents, their places in the index and which are parked, with the checkpoint.
    pub(super) fn peek(&self, entities: &[Entity]) -> Result<Peeked, StoreError> {
        let read = |entity| Ok((self.stored(entity)?, self.last_offset(entity)?));
        let waits = |entity| self.waits(entity);
        Ok(Peeked {
            checkpoint: self.checkpoint()?,
            entities: entities.iter().map(read).collect::<Result<_, StoreError>>()?,
            parked: entities.iter().map(waits).collect::<Result<_, StoreError>>()?,
        })
    }

    /// Keys of an entity's events with a seq above this.
    pub(super) fn event_keys_above(&self, entity: &Entity, seq: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let above = self.place.event(entity, seq.saturating_add(1))..=self.place.event(entity, u64::MAX);
        let entries = self.snapshot.range(&self.shared.events, above);
        let key = |entry: fjall::Guard| entry.key().map(|key| key.to_vec());
        let keys: Result<Vec<_>, _> = entries.map(key).collect();
        keys.map_err(|error| self.corrupt(&format!("events of {entity}"), &error))
    }

    /// Keys that begin so, at most `limit` of each of documents, index, events and `meta`.
    pub(super) fn keys_under(&self, beginnings: [&[&[u8]]; 4], limit: usize) -> Result<Purge, StoreError> {
        let shared = &self.shared;
        let rooms = [&shared.documents, &shared.index, &shared.events, shared.disk.meta()];
        let mut found = Purge::default();
        for ((room, beginnings), found) in rooms.into_iter().zip(beginnings).zip(&mut found) {
            for beginning in beginnings {
                let room_left = limit - found.len();
                for entry in self.snapshot.prefix(room, beginning).take(room_left) {
                    let key = entry.key().map_err(|error| self.corrupt("a key", &error))?;
                    found.push(key.to_vec());
                }
            }
        }
        Ok(found)
    }

    /// Partition and entity of every document of the namespace, a bounded number at a time from behind `after`.
    pub(super) fn documents_of(
        &self,
        namespace: &str,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, PartitionId, Entity)>, StoreError> {
        let (beginning, range) = keys::documents_of(namespace, after);
        let entries = self.snapshot.range(&self.shared.documents, range).take(limit);
        let mut found = Vec::new();
        for entry in entries {
            let key = entry.key().map_err(|error| self.corrupt("documents", &error))?;
            if let Some((partition, entity)) = keys::partition_and_subject(&key, beginning) {
                found.push((key.to_vec(), partition, entity));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{P0, at, batch, entity, listed, owned, put, seqs};
    use super::*;
    use crate::store::{Batch, Store, Stored};

    fn names(found: &[(Entity, Offset)]) -> Vec<(&str, u64)> {
        found
            .iter()
            .map(|(entity, offset)| (entity.subject(), offset.0))
            .collect()
    }

    #[tokio::test]
    async fn the_index_is_read_upwards_from_an_offset() {
        let dir = tempfile::tempdir().unwrap();
        let store = owned(dir.path()).await;
        put(
            &store,
            &batch(None, 9, &[("run/a", 3), ("worker/w", 5), ("run/b", 2), ("run/c", 8)]),
        )
        .await;
        let runs = store.indexed(P0, Kind::Run, NextOffset(3), 10).await.unwrap();
        assert_eq!(names(&runs), [("run/a", 3), ("run/c", 8)]);
        let runs = store.indexed(P0, Kind::Run, NextOffset(0), 2).await.unwrap();
        assert_eq!(names(&runs), [("run/b", 2), ("run/a", 3)]);
        let mut seen = Vec::new();
        let mut visit = |_, entity: Entity| seen.push(entity.subject().to_owned());
        store.scan(&mut visit).await.unwrap();
        seen.sort();
        assert_eq!(seen, ["run/a", "run/b", "run/c", "worker/w"]);
        store
            .in_namespace("khala2")
            .unwrap()
            .scan(&mut |_, entity| panic!("{entity}"))
            .await
            .unwrap();
        let peeked = store.peek(P0, &[entity("run/c"), entity("run/none")]).await.unwrap();
        assert_eq!(peeked.checkpoint, Some(at(9)));
        assert!(matches!(peeked.entities[0], (Stored::Document { .. }, Some(Offset(8)))));
        assert_eq!(peeked.entities[1], (Stored::Absent, None));
    }

    #[tokio::test]
    async fn what_is_removed_is_gone_with_its_stream_and_what_is_cut_may_grow_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = owned(dir.path()).await;
        let parked = vec![(entity("run/p"), Offset(1))];
        put(
            &store,
            &Batch {
                parked,
                ..batch(None, 4, &[("run/a", 0), ("run/b", 1), ("run/b", 2)])
            },
        )
        .await;
        let back = Batch {
            removed: vec![entity("run/a")],
            cut: vec![(entity("run/b"), 2)],
            unparked: vec![entity("run/p")],
            ..batch(Some(4), 2, &[("run/b", 1)])
        };
        put(
            &store,
            &Batch {
                events: Vec::new(),
                ..back
            },
        )
        .await;
        assert_eq!(store.document(P0, &entity("run/a")).await.unwrap(), None);
        assert_eq!(seqs(&store, "run/a", 0).await, [0; 0]);
        assert_eq!(seqs(&store, "run/b", 0).await, [2]);
        assert_eq!(store.parked(P0).await.unwrap(), []);
        assert_eq!(listed(&store, None, 10).await.len(), 1);
        let runs = store.indexed(P0, Kind::Run, NextOffset(0), 10).await.unwrap();
        assert_eq!(names(&runs), [("run/b", 1)]);
        put(&store, &batch(Some(2), 3, &[("run/b", 2)])).await;
        assert_eq!(seqs(&store, "run/b", 0).await, [2, 3]);
    }

    #[tokio::test]
    async fn marks_are_verified_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = owned(dir.path()).await;
        put(&store, &batch(None, 1, &[])).await;
        store.verify(P0, &at(1)).await.unwrap();
        let marks = store.history(P0, 10).await.unwrap();
        let told: Vec<_> = marks
            .iter()
            .map(|mark| (mark.checkpoint.next.0, mark.verified))
            .collect();
        assert_eq!(told, [(1, true), (1, false)]);
        store.forget_marks(P0, &[marks[1].id.clone()]).await.unwrap();
        assert_eq!(store.history(P0, 10).await.unwrap(), marks[..1]);
    }
}

//! Putting entities right beside whoever projects, in the writer's thread: so nothing is written in between.

use std::collections::BTreeSet;

use super::Shared;
use super::keys;
use super::read::View;
use super::write::Write;
use super::writer::{Target, Writer, not_owner};
use crate::disk;
use crate::pure::checkpoint::Checkpoint;
use crate::pure::entity::Entity;
use crate::pure::intent::Intent;
use crate::pure::place::Offset;
use crate::store::{Heal, HealEntry, Healed, StoreError};

impl Writer {
    /// Checks all, then adds what is still as it was seen to the write.
    pub(super) fn heal(
        &mut self,
        write: &mut Write,
        target: &Target,
        heal: &Heal,
        events_kept: u64,
    ) -> Result<Vec<Healed>, StoreError> {
        self.shared.disk.running()?;
        let owner = self.live(&target.place);
        let foreign = owner.is_some_and(|owner| owner.is_operator() && Some(owner) != heal.owner.as_ref());
        if foreign || (heal.owner.is_some() && heal.owner.as_ref() != owner) {
            return Err(not_owner(target, owner));
        }
        let is_projectors = owner.is_some_and(|owner| !owner.is_operator());
        let view = View::new(self.shared.clone(), &target.namespace, target.partition);
        ensure_still(&view, target, heal)?;
        let mut healed = Vec::with_capacity(heal.entries.len());
        for entry in &heal.entries {
            let same = view.stored(&entry.entity)? == entry.seen && view.last_offset(&entry.entity)? == entry.index;
            healed.push(if same { Healed::Done } else { Healed::Changed });
        }
        if heal.moves.is_some() && healed.contains(&Healed::Changed) {
            return Ok(vec![Healed::Changed; healed.len()]);
        }
        // A batch must not hold a key twice: what is written anew is not removed before.
        let mut stale = BTreeSet::new();
        for entry in done(&heal.entries, &healed) {
            stale.extend(view.event_keys_above(&entry.entity, 0)?);
            for (seq, _) in entry.becomes.iter().flat_map(|healthy| &healthy.events) {
                stale.remove(&target.place.event(&entry.entity, *seq));
            }
        }
        drop(view);
        if !healed.contains(&Healed::Done) {
            return Ok(healed);
        }
        write.places.insert(target.place.clone());
        stale
            .into_iter()
            .for_each(|key| write.batch.remove(&self.shared.events, key));
        for entry in done(&heal.entries, &healed) {
            write.heal(&self.shared, target, entry, events_kept);
        }
        if let Some((_, checkpoint)) = &heal.moves {
            let key = target.place.checkpoint();
            let value = keys::checkpoint(&key, checkpoint);
            write.batch.insert(self.shared.disk.meta(), key, value);
        }
        if is_projectors {
            self.leases.remove(&target.place);
        }
        Ok(healed)
    }
}

/// Entities that were put right.
pub(super) fn touched(heal: &Heal, healed: &[Healed]) -> Vec<Entity> {
    done(&heal.entries, healed).map(|entry| entry.entity.clone()).collect()
}

fn done<'a>(entries: &'a [HealEntry], healed: &'a [Healed]) -> impl Iterator<Item = &'a HealEntry> {
    let pairs = entries.iter().zip(healed);
    pairs.filter_map(|(entry, healed)| (*healed == Healed::Done).then_some(entry))
}

/// No rewind is under way, the documents are of the version seen, and the checkpoint is the expected one where it moves.
fn ensure_still(view: &View, target: &Target, heal: &Heal) -> Result<(), StoreError> {
    let found = ensure_no_rewind(view, target)?;
    let identity = found.as_ref().map(Checkpoint::identity);
    let version = found.as_ref().map(|found| found.projection_version);
    let moved = heal
        .moves
        .as_ref()
        .is_some_and(|(expected, _)| identity.as_ref() != Some(expected));
    if moved || version != heal.version {
        Err(refused(target, found))
    } else {
        Ok(())
    }
}

/// The checkpoint, unless a rewind is under way.
pub(super) fn ensure_no_rewind(view: &View, target: &Target) -> Result<Option<Checkpoint>, StoreError> {
    let found = view.checkpoint()?;
    let intent = found.as_ref().map_or(Ok(None), |found| Intent::parse(&found.intent));
    let busy = intent.map_or(true, |intent| intent.as_ref().is_some_and(Intent::is_under_way));
    if busy { Err(refused(target, found)) } else { Ok(found) }
}

fn refused(target: &Target, found: Option<Checkpoint>) -> StoreError {
    StoreError::Refused {
        partition: target.partition,
        found: Box::new(found),
    }
}

impl Write {
    fn heal(&mut self, shared: &Shared, target: &Target, entry: &HealEntry, events_kept: u64) {
        let (place, entity) = (&target.place, &entry.entity);
        let after = entry.becomes.as_ref().map(|healthy| healthy.offset);
        if let Some(before) = entry.index.filter(|before| Some(*before) != after) {
            self.batch.remove(&shared.index, place.by_offset(entity, before));
        }
        if entry.unpark {
            self.batch.remove(shared.disk.meta(), place.parked(entity.subject()));
        }
        let Some(healthy) = &entry.becomes else {
            self.batch.remove(&shared.documents, place.document(entity));
            return self.batch.remove(&shared.index, place.by_subject(entity));
        };
        let key = place.document(entity);
        let value = keys::document(&key, &healthy.json, healthy.state.as_deref());
        self.bytes += value.len();
        self.batch.insert(&shared.documents, key, value);
        self.index(shared, target, entity, healthy.offset);
        for (seq, json) in healthy.events.iter().filter(|_| events_kept > 0) {
            let key = place.event(entity, *seq);
            let value = disk::seal(&key, json);
            self.bytes += value.len();
            self.batch.insert(&shared.events, key, value);
        }
    }

    fn index(&mut self, shared: &Shared, target: &Target, entity: &Entity, offset: Offset) {
        let place = &target.place;
        self.batch
            .insert(&shared.index, place.by_offset(entity, offset), [].as_slice());
        let key = place.by_subject(entity);
        let value = keys::number(&key, offset.0);
        self.batch.insert(&shared.index, key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{P0, at, batch, entity, owned, projector, put, seqs};
    use super::*;
    use crate::pure::checkpoint::Digest;
    use crate::pure::entity::Kind;
    use crate::pure::place::NextOffset;
    use crate::store::{Batch, Healthy, Owner, Store, Stored};
    use std::time::Duration;

    async fn entry(store: &dyn Store, subject: &str, becomes: Option<u64>) -> HealEntry {
        let peeked = store.peek(P0, &[entity(subject)]).await.unwrap();
        let (seen, index) = peeked.entities[0].clone();
        HealEntry {
            entity: entity(subject),
            seen,
            index,
            becomes: becomes.map(|offset| Healthy {
                offset: Offset(offset),
                json: b"{\"right\":1}".to_vec(),
                state: None,
                events: vec![(6, b"{}".to_vec()), (7, b"{}".to_vec())],
            }),
            unpark: true,
        }
    }

    #[tokio::test]
    async fn what_is_as_it_was_seen_becomes_right_and_the_rest_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = owned(dir.path()).await;
        let parked = vec![(entity("run/a"), Offset(1))];
        let first = batch(None, 9, &[("run/a", 3), ("run/b", 4), ("run/c", 5), ("worker/w", 6)]);
        put(&store, &Batch { parked, ..first }).await;
        let peeked = store.peek(P0, &[entity("run/a"), entity("run/b")]).await.unwrap();
        assert_eq!(peeked.parked, [Some(Offset(1)), None]);
        let entries = vec![
            entry(&store, "run/a", Some(2)).await,
            entry(&store, "run/b", None).await,
            entry(&store, "run/c", Some(5)).await,
        ];
        put(&store, &batch(Some(9), 10, &[("run/c", 8)])).await;
        let heal = Heal {
            version: Some(at(10).projection_version),
            entries,
            ..Heal::default()
        };
        let healed = store.heal(P0, &heal).await.unwrap();
        assert_eq!(healed, [Healed::Done, Healed::Done, Healed::Changed]);
        assert_eq!(store.owner(P0).await.unwrap(), None, "the projector's lease ended");
        let right = store.document(P0, &entity("run/a")).await.unwrap();
        assert_eq!(right, Some(b"{\"right\":1}".to_vec()));
        assert_eq!(store.document(P0, &entity("run/b")).await.unwrap(), None);
        assert_eq!(
            (seqs(&store, "run/a", 0).await, seqs(&store, "run/b", 0).await),
            (vec![6, 7], vec![])
        );
        let runs = store.indexed(P0, Kind::Run, NextOffset(0), 10).await.unwrap();
        assert_eq!(runs, [(entity("run/a"), Offset(2)), (entity("run/c"), Offset(8))]);
        assert_eq!(store.parked(P0).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_move_of_the_checkpoint_is_all_or_nothing_and_an_operator_is_not_disturbed() {
        let dir = tempfile::tempdir().unwrap();
        let store = owned(dir.path()).await;
        put(&store, &batch(None, 9, &[("run/a", 3)])).await;
        let moved = Checkpoint {
            digest: Digest(77),
            ..at(9)
        };
        let heal = |expected: u64, entries| Heal {
            version: Some(moved.projection_version),
            moves: Some((at(expected).identity(), moved.clone())),
            entries,
            owner: None,
        };
        let good = entry(&store, "run/a", Some(3)).await;
        let refused = store.heal(P0, &heal(8, vec![good.clone()])).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
        let other = HealEntry {
            seen: Stored::Absent,
            ..good.clone()
        };
        let none = store.heal(P0, &heal(9, vec![good.clone(), other])).await.unwrap();
        assert_eq!(none, [Healed::Changed; 2]);
        let operator = Owner("operator/me@here/now/1".to_owned());
        store.open(P0, &operator, Duration::from_mins(1)).await.unwrap();
        let refused = store.heal(P0, &heal(9, vec![good.clone()])).await;
        assert!(matches!(refused, Err(StoreError::NotOwner { .. })), "{refused:?}");
        let own = Heal {
            owner: Some(operator.clone()),
            ..heal(9, vec![good])
        };
        assert_eq!(store.heal(P0, &own).await.unwrap(), [Healed::Done]);
        assert_eq!(store.checkpoint(P0).await.unwrap(), Some(moved.clone()));
        assert_eq!(store.owner(P0).await.unwrap(), Some(operator));
    }

    #[tokio::test]
    async fn what_was_made_upon_another_versions_documents_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = owned(dir.path()).await;
        put(&store, &batch(None, 1, &[])).await;
        let theirs = Checkpoint {
            projection_version: at(1).projection_version + 1,
            ..at(1)
        };
        let late = Batch {
            expected: Some(theirs.identity()),
            ..batch(None, 2, &[("run/a", 1)])
        };
        let done = store.commit(P0, &projector(), &late).await;
        assert!(matches!(done, Err(StoreError::Refused { .. })), "{done:?}");
        let loaded = store.load(P0, &[Some(theirs.identity())], &[entity("run/a")]).await;
        assert!(matches!(loaded, Err(StoreError::Refused { .. })), "{loaded:?}");
        // One that was not there tells no version itself.
        let heal = |entry: HealEntry, version| Heal {
            version,
            entries: vec![entry],
            ..Heal::default()
        };
        for version in [Some(theirs.projection_version), None] {
            let seen = entry(&store, "run/a", Some(1)).await;
            let healed = store.heal(P0, &heal(seen, version)).await;
            assert!(matches!(healed, Err(StoreError::Refused { .. })), "{healed:?}");
        }
        put(&store, &batch(Some(1), 2, &[("run/a", 1)])).await;
    }
}

//! What the store holds of the one partition, and its atomic steps.

use std::collections::{BTreeMap, BTreeSet};

use khala::pure::checkpoint::{Checkpoint, Identity, Mark};
use khala::pure::entity::{Entity, Kind};
use khala::pure::intent::Intent;
use khala::pure::place::{NextOffset, Offset};
use khala::store::{Batch, Heal, HealEntry, Healed, Opened, Owner, Peeked, StoreError, Stored};

use super::sea::{PARTITION, Weak};

#[derive(Clone, Debug, Default)]
pub struct Part {
    pub checkpoint: Option<Checkpoint>,
    pub marks: Vec<Mark>,
    pub documents: BTreeMap<Entity, (Vec<u8>, Option<Vec<u8>>)>,
    pub index: BTreeMap<Entity, Offset>,
    /// Entries, and the last id, which Redis remembers.
    pub events: BTreeMap<Entity, (BTreeMap<u64, Vec<u8>>, u64)>,
    pub parked: BTreeMap<Entity, Offset>,
    pub owner: Option<Owner>,
    /// Lost or spoilt on purpose, and not written since.
    pub damaged: BTreeSet<Entity>,
}

impl Part {
    fn refused(&self) -> StoreError {
        StoreError::Refused {
            partition: PARTITION,
            found: Box::new(self.checkpoint.clone()),
        }
    }

    fn not_owner(&self) -> StoreError {
        StoreError::NotOwner {
            partition: PARTITION,
            owner: self.owner.as_ref().map_or_else(String::new, |owner| owner.0.clone()),
        }
    }

    fn identity(&self) -> Option<Identity> {
        self.checkpoint.as_ref().map(Checkpoint::identity)
    }

    fn is_as_expected(&self, expected: Option<&Identity>, weak: Weak) -> bool {
        let found = self.identity();
        match (weak, &found, expected) {
            (Weak::NoCompare, ..) => true,
            _ => found.as_ref() == expected,
        }
    }

    pub fn open(&mut self, owner: &Owner) -> Result<Opened, StoreError> {
        if self
            .owner
            .as_ref()
            .is_some_and(|other| other.is_operator() && other != owner)
        {
            return Err(self.not_owner());
        }
        self.owner = Some(owner.clone());
        Ok(Opened {
            checkpoint: self.checkpoint.clone(),
            marks: self.newest_marks(),
            namespace_partitions: self.checkpoint.as_ref().map(|checkpoint| checkpoint.partitions),
            parked: self.parked.clone().into_iter().collect(),
        })
    }

    pub fn verify(&mut self, checkpoint: &Checkpoint) {
        self.marks.push(Mark {
            id: self.marks.len().to_string(),
            checkpoint: checkpoint.clone(),
            verified: true,
        });
    }

    pub fn newest_marks(&self) -> Vec<Mark> {
        self.marks.iter().rev().cloned().collect()
    }

    pub fn renew(&mut self, owner: &Owner) -> Result<Option<Checkpoint>, StoreError> {
        if self.owner.as_ref() == Some(owner) {
            Ok(self.checkpoint.clone())
        } else {
            Err(self.not_owner())
        }
    }

    pub fn load(
        &self,
        expected: &[Option<Identity>],
        entities: &[Entity],
        weak: Weak,
    ) -> Result<Vec<Stored>, StoreError> {
        if weak != Weak::LoadUnchecked && !expected.contains(&self.identity()) {
            return Err(self.refused());
        }
        Ok(entities.iter().map(|entity| self.stored(entity, weak)).collect())
    }

    pub fn peek(&self, entities: &[Entity], weak: Weak) -> Peeked {
        let read = |entity| (self.stored(entity, weak), self.index.get(entity).copied());
        Peeked {
            checkpoint: self.checkpoint.clone(),
            entities: entities.iter().map(read).collect(),
        }
    }

    fn stored(&self, entity: &Entity, weak: Weak) -> Stored {
        match self.documents.get(entity) {
            Some((json, state)) => Stored::Document {
                json: json.clone(),
                state: state.clone(),
            },
            None if self.index.contains_key(entity) && weak != Weak::NoIndex => Stored::Lost,
            None => Stored::Absent,
        }
    }

    pub fn indexed(&self, kind: Kind, from: NextOffset, limit: usize) -> Vec<(Entity, Offset)> {
        let of_kind = self.index.iter().filter(|(entity, _)| entity.kind() == kind);
        let mut found: Vec<(Entity, Offset)> = of_kind
            .filter(|(_, offset)| !from.is_past(**offset))
            .map(|(entity, offset)| (entity.clone(), *offset))
            .collect();
        found.sort_by_key(|(_, offset)| *offset);
        found.truncate(limit);
        found
    }

    pub fn commit(&mut self, owner: &Owner, batch: &Batch, weak: Weak) -> Result<(), StoreError> {
        if !self.is_as_expected(batch.expected.as_ref(), weak) {
            return Err(self.refused());
        }
        if weak != Weak::NoCompare && self.owner.as_ref() != Some(owner) {
            return Err(self.not_owner());
        }
        let torn = weak == Weak::Torn && batch.checkpoint.next.0.is_multiple_of(20);
        for write in batch.documents.iter().filter(|_| !torn) {
            let state = write.state.as_ref().map(|range| batch.text(range).to_vec());
            let json = batch.text(&write.json).to_vec();
            self.documents.insert(write.entity.clone(), (json, state));
            self.index.insert(write.entity.clone(), write.offset);
            self.damaged.remove(&write.entity);
        }
        for write in &batch.events {
            let (entries, last) = self.events.entry(write.entity.clone()).or_default();
            if write.seq > *last {
                entries.insert(write.seq, batch.text(&write.json).to_vec());
                *last = write.seq;
            }
        }
        self.parked.extend(batch.parked.iter().cloned());
        for (entity, seq) in &batch.cut {
            if let Some((entries, last)) = self.events.get_mut(entity) {
                entries.retain(|kept, _| kept <= seq);
                *last = *seq;
            }
        }
        for entity in &batch.removed {
            self.documents.remove(entity);
            self.damaged.remove(entity);
            self.index.remove(entity);
            self.events.remove(entity);
        }
        for entity in &batch.unparked {
            self.parked.remove(entity);
        }
        self.checkpoint = Some(batch.checkpoint.clone());
        if batch.mark {
            let id = self.marks.len().to_string();
            self.marks.push(Mark {
                id,
                checkpoint: batch.checkpoint.clone(),
                verified: false,
            });
        }
        Ok(())
    }

    pub fn heal(&mut self, heal: &Heal, weak: Weak) -> Result<Vec<Healed>, StoreError> {
        let is_operators = self.owner.as_ref().is_some_and(Owner::is_operator);
        if (is_operators || heal.owner.is_some()) && self.owner != heal.owner {
            return Err(self.not_owner());
        }
        let moved = heal
            .moves
            .as_ref()
            .map(|(expected, _)| Some(expected) != self.identity().as_ref());
        if self.is_rewinding() || moved == Some(true) {
            return Err(self.refused());
        }
        let is_same = |entry: &HealEntry| {
            let (entity, index) = (&entry.entity, self.index.get(&entry.entity).copied());
            weak == Weak::HealUnseen || index == entry.index && self.stored(entity, Weak::Nothing) == entry.seen
        };
        let same: Vec<bool> = heal.entries.iter().map(is_same).collect();
        if heal.moves.is_some() && same.contains(&false) || !same.contains(&true) {
            return Ok(vec![Healed::Changed; same.len()]);
        }
        for (entry, _) in heal.entries.iter().zip(&same).filter(|(_, same)| **same) {
            self.put_right(entry);
        }
        if let Some((_, checkpoint)) = &heal.moves {
            self.checkpoint = Some(checkpoint.clone());
        }
        self.owner.take_if(|owner| !owner.is_operator());
        let outcome = |same: &bool| if *same { Healed::Done } else { Healed::Changed };
        Ok(same.iter().map(outcome).collect())
    }

    fn put_right(&mut self, entry: &HealEntry) {
        let entity = &entry.entity;
        self.damaged.remove(entity);
        if entry.unpark {
            self.parked.remove(entity);
        }
        let Some(healthy) = &entry.becomes else {
            self.documents.remove(entity);
            self.index.remove(entity);
            self.events.remove(entity);
            return;
        };
        self.documents
            .insert(entity.clone(), (healthy.json.clone(), healthy.state.clone()));
        self.index.insert(entity.clone(), healthy.offset);
        let last = healthy.events.last().map_or(0, |(seq, _)| *seq);
        self.events
            .insert(entity.clone(), (healthy.events.iter().cloned().collect(), last));
    }

    /// Whether documents may be between two states now.
    pub fn is_rewinding(&self) -> bool {
        let intent = self
            .checkpoint
            .as_ref()
            .map(|checkpoint| Intent::parse(&checkpoint.intent));
        matches!(intent, Some(Ok(Some(intent))) if intent.is_under_way())
    }
}

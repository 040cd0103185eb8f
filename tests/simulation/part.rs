//! What the store holds of the one partition, and its atomic steps.

use std::collections::{BTreeMap, BTreeSet};

use khala::pure::checkpoint::{Checkpoint, Identity, Mark};
use khala::pure::entity::{Entity, Kind};
use khala::pure::intent::Intent;
use khala::pure::place::{NextOffset, Offset};
use khala::store::{
    Batch, Expiring, Heal, HealEntry, Healed, Leaves, Opened, Owner, Peeked, StoreError, Stored, StreamEntry,
};

use super::oracle::{first_offset_of, hash_of};
use super::sea::PARTITION;
use super::weak::Weak;

#[derive(Clone, Debug, Default)]
pub struct Part {
    pub checkpoint: Option<Checkpoint>,
    pub marks: Vec<Mark>,
    pub marks_made: u64,
    pub documents: BTreeMap<Entity, (Vec<u8>, Option<Vec<u8>>)>,
    pub index: BTreeMap<Entity, Offset>,
    /// Entries, and the last id, which Redis remembers.
    pub events: BTreeMap<Entity, (BTreeMap<u64, Vec<u8>>, u64)>,
    pub parked: BTreeMap<Entity, Offset>,
    pub owner: Option<Owner>,
    /// Taken away long after their end, at that place.
    pub expired: BTreeMap<Entity, Offset>,
    /// Lost or spoilt on purpose, and not written since.
    pub damaged: BTreeSet<Entity>,
    /// What the digest must count for each entity: the first 16 bytes of its last document's hash.
    pub counted: BTreeMap<Entity, u128>,
    /// And for those that expired and left nothing.
    pub forgotten: u128,
    /// Which those are, with what is counted and their last places, and which expired at all.
    pub gone: BTreeMap<Entity, (u128, Offset)>,
    pub ever_expired: BTreeSet<Entity>,
    /// It came from a snapshot, which has no event streams.
    pub restored: bool,
    /// Entities whose documents it had not, or of an earlier place.
    pub aside: BTreeSet<Entity>,
    /// Documents were put back: those that could not be are further on than the redo.
    pub rewound: bool,
    /// What the digest counts that no document tells, when one that could not be read went on from a snapshot: others
    /// that cannot be read, or that expired and left nothing.
    pub untold: usize,
    /// Lost or spoilt documents that an audit put right since the last check.
    pub healed: BTreeSet<Entity>,
    /// Of how many of them the log had forgotten a part by then.
    pub partly_healed: usize,
    /// They are of records that were cut away, and retention took what stood in the last one's place: nothing tells.
    pub blind: bool,
    /// What one version wrote into documents of another.
    pub mixed: Option<String>,
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
        let under_way = |identity: &Identity| identity.intent.starts_with("rewind ");
        match (weak, &found, expected) {
            (Weak::NoCompare, ..) => true,
            (Weak::OffsetOnly, Some(found), Some(expected)) => found.next == expected.next,
            (Weak::VersionIgnored, Some(found), Some(expected)) => {
                let mut expected = expected.clone();
                expected.projection_version = found.projection_version;
                *found == expected
            }
            (Weak::NoDigest, Some(found), Some(expected)) => {
                let mut expected = expected.clone();
                expected.digest = found.digest;
                *found == expected
            }
            (Weak::AnyIntent, Some(found), Some(expected)) if under_way(found) && under_way(expected) => true,
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

    pub fn mark(&mut self, checkpoint: &Checkpoint, verified: bool) {
        self.marks_made += 1;
        self.marks.push(Mark {
            id: self.marks_made.to_string(),
            checkpoint: checkpoint.clone(),
            verified,
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
        let is_there = |expected: &Option<Identity>| match weak {
            Weak::VersionIgnored => self.is_as_expected(expected.as_ref(), weak),
            _ => *expected == self.identity(),
        };
        if weak != Weak::LoadUnchecked && !expected.iter().any(is_there) {
            return Err(self.refused());
        }
        Ok(entities.iter().map(|entity| self.stored(entity, weak)).collect())
    }

    pub fn peek(&self, entities: &[Entity], weak: Weak) -> Peeked {
        let forgets = weak == Weak::LostInRestore && self.is_restoring();
        let read = |entity| match self.index.get(entity).copied() {
            Some(_) if forgets && !self.documents.contains_key(entity) => (Stored::Absent, None),
            index => (self.stored(entity, weak), index),
        };
        Peeked {
            parked: entities.iter().map(|entity| self.parked.get(entity).copied()).collect(),
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
            None if !self.index.contains_key(entity) => Stored::Absent,
            None if self.expired.get(entity) == self.index.get(entity) => Stored::Expired,
            None if weak != Weak::NoIndex => Stored::Lost,
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
        self.stays_of_one_version(&batch.checkpoint);
        if weak != Weak::Torn || !batch.checkpoint.next.0.is_multiple_of(20) {
            self.write_documents(batch);
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
            self.take_out(entity);
        }
        for entity in &batch.unparked {
            self.parked.remove(entity);
        }
        if batch.checkpoint.intent.starts_with("restore ") {
            if !self.is_restoring() {
                (self.forgotten, self.untold, self.partly_healed) = (0, 0, 0); // it begins with nothing
                self.gone.clear();
            }
            self.restored = true;
            self.aside.extend(batch.parked.iter().map(|(entity, _)| entity.clone()));
        }
        if batch.checkpoint.intent.starts_with("rewound ") {
            self.rewound = true;
            if batch.checkpoint.intent.contains("guessed-") {
                self.untold += self.damaged.len() + self.gone.len();
            }
        }
        let digest = self.checkpoint.as_ref().map(|before| before.digest);
        self.checkpoint = Some(batch.checkpoint.clone());
        if let (Weak::DigestStale, Some(before), Some(now)) = (weak, digest, &mut self.checkpoint) {
            now.digest = before;
        }
        if batch.mark {
            self.mark(&batch.checkpoint, false);
        }
        Ok(())
    }

    fn stays_of_one_version(&mut self, becomes: &Checkpoint) {
        let (now, then) = (self.checkpoint.as_ref(), becomes.projection_version);
        if let Some(now) = now.filter(|now| now.projection_version != then) {
            let (of, at) = (now.projection_version, now.next);
            self.mixed = Some(format!(
                "documents of version {of}, at {at}: version {then} is mixed in"
            ));
        }
    }

    pub fn write_documents(&mut self, batch: &Batch) {
        for write in &batch.documents {
            let state = write.state.as_ref().map(|range| batch.text(range).to_vec());
            let json = batch.text(&write.json).to_vec();
            // Who has one in memory that has gone goes on from there: nothing of it is forgotten.
            if let Some((hash, last)) = self.gone.get_mut(&write.entity)
                && first_offset_of(&json).is_some_and(|first| first <= last.0)
            {
                self.forgotten = self.forgotten.wrapping_sub(std::mem::take(hash));
            }
            self.put(&write.entity, write.offset, (json, state));
        }
    }

    fn put(&mut self, entity: &Entity, offset: Offset, document: (Vec<u8>, Option<Vec<u8>>)) {
        self.counted.insert(entity.clone(), hash_of(&document.0));
        self.documents.insert(entity.clone(), document);
        self.index.insert(entity.clone(), offset);
        self.damaged.remove(entity);
        self.expired.remove(entity);
    }

    fn take_out(&mut self, entity: &Entity) {
        self.documents.remove(entity);
        self.index.remove(entity);
        self.events.remove(entity);
        self.damaged.remove(entity);
        self.expired.remove(entity);
        self.counted.remove(entity);
    }

    pub fn expire(&mut self, entities: &[Expiring]) -> Result<u64, StoreError> {
        if self.is_rewinding() {
            return Err(self.refused());
        }
        let mut done = 0;
        for one in entities {
            let entity = &one.entity;
            let version = self.checkpoint.as_ref().map(|now| now.projection_version);
            if self.index.get(entity) != Some(&one.last) || version != Some(one.version) {
                continue;
            }
            done += 1;
            self.ever_expired.insert(entity.clone());
            match one.leaves {
                Leaves::Place => {
                    self.documents.remove(entity);
                    self.events.remove(entity);
                    self.expired.insert(entity.clone(), one.last);
                }
                Leaves::Nothing => {
                    let counted = self.counted.get(entity).copied().unwrap_or(0);
                    self.forgotten = self.forgotten.wrapping_add(counted);
                    self.gone.insert(entity.clone(), (counted, one.last));
                    self.take_out(entity);
                }
            }
        }
        Ok(done)
    }

    /// An entity's accepted events above `after`.
    pub fn stream(&self, entity: &Entity, after: u64, limit: usize) -> Vec<StreamEntry> {
        let entries = self.events.get(entity).map(|(entries, _)| entries.range(after + 1..));
        let entries = entries.into_iter().flatten().take(limit);
        let entry = |(seq, json): (&u64, &Vec<u8>)| StreamEntry {
            seq: *seq,
            json: json.clone(),
        };
        entries.map(entry).collect()
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
        let version = self.checkpoint.as_ref().map(|now| now.projection_version);
        if self.is_rewinding() || moved == Some(true) || version != heal.version {
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
            self.stays_of_one_version(checkpoint);
            self.checkpoint = Some(checkpoint.clone());
        }
        self.owner.take_if(|owner| !owner.is_operator());
        let outcome = |same: &bool| if *same { Healed::Done } else { Healed::Changed };
        Ok(same.iter().map(outcome).collect())
    }

    fn put_right(&mut self, entry: &HealEntry) {
        let entity = &entry.entity;
        if entry.unpark {
            self.parked.remove(entity);
        }
        if self.damaged.contains(entity) {
            self.healed.insert(entity.clone());
        }
        let Some(healthy) = &entry.becomes else {
            return self.take_out(entity);
        };
        self.put(entity, healthy.offset, (healthy.json.clone(), healthy.state.clone()));
        let last = healthy.events.last().map_or(0, |(seq, _)| *seq);
        self.events
            .insert(entity.clone(), (healthy.events.iter().cloned().collect(), last));
    }

    pub fn is_restoring(&self) -> bool {
        let intent = self.checkpoint.as_ref().map(|checkpoint| checkpoint.intent.as_str());
        intent.is_some_and(|intent| intent.starts_with("restore "))
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

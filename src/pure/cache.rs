//! Documents kept in memory, so that a batch costs one write each and no read.
//! In: entities as they are touched. Out: slots. Invariant: bounded in bytes; a slot that the batch in
//! hand or the one on its way has touched stays. The sweep is CLOCK's (Corbató, 1968), and so deterministic.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::document::Document;
use super::entity::Entity;
use super::place::PartitionId;

/// Number of a slot; stays the same while the slot is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId(u32);

/// Number of a batch, counted by the machine.
pub type Turn = u64;

/// One entity in memory.
pub struct Slot {
    /// Whose it is.
    pub entity: Entity,
    /// The document as of everything folded so far.
    pub document: Document,
    /// First 16 bytes of the stored document's hash, as counted in the digest; 0: not counted.
    pub counted: u128,
    /// The document cannot be read: its events wait for a repair.
    pub parked: bool,
    /// The batch in hand has changed the document.
    pub touched: bool,
    /// The batch that touched it last.
    turn: Turn,
    seen_by_hand: bool,
    bytes: usize,
}

/// Whether a miss needs the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// The cache holds every document of the partition: what is not here is new.
    Whole,
    /// Some were never loaded, or were let go.
    Part,
}

/// All documents in memory of one partition.
pub struct Cache {
    partition: PartitionId,
    hasher: DefaultHashBuilder,
    table: HashTable<u32>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    hand: usize,
    bytes: usize,
    coverage: Coverage,
}

/// Bytes a slot costs beside its document.
const SLOT_BYTES: usize = size_of::<Option<Slot>>() + 2 * size_of::<u32>();

impl Cache {
    /// An empty cache.
    pub fn new(partition: PartitionId, coverage: Coverage) -> Self {
        Self {
            partition,
            hasher: DefaultHashBuilder::default(),
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bytes: 0,
            coverage,
        }
    }

    /// Whose documents it holds.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Whether a miss needs the store.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// Number of documents held.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes held, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The slot of a subject, now touched by `turn`; `None` if it is not held.
    pub fn find(&mut self, subject: &[u8], turn: Turn) -> Option<SlotId> {
        let hash = self.hasher.hash_one(subject);
        let slots = &self.slots;
        let same = |&i: &u32| {
            slots[i as usize]
                .as_ref()
                .is_some_and(|slot| slot.entity.subject().as_bytes() == subject)
        };
        let id = *self.table.find(hash, same)?;
        let slot = self.slots[id as usize].as_mut()?;
        slot.turn = turn;
        slot.seen_by_hand = false;
        Some(SlotId(id))
    }

    /// Adds an empty document for an entity that is not held.
    pub fn insert(&mut self, entity: Entity, turn: Turn) -> SlotId {
        let hash = self.hasher.hash_one(entity.subject().as_bytes());
        let document = Document::new(entity.clone(), self.partition);
        let bytes = document.bytes() + SLOT_BYTES;
        let slot = Slot {
            entity,
            document,
            counted: 0,
            parked: false,
            touched: false,
            turn,
            seen_by_hand: false,
            bytes,
        };
        let id = if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(slot);
            id
        } else {
            self.slots.push(Some(slot));
            (self.slots.len() - 1) as u32
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash = |&i: &u32| {
            let subject = slots[i as usize].as_ref().map_or("", |slot| slot.entity.subject());
            hasher.hash_one(subject.as_bytes())
        };
        self.table.insert_unique(hash, id, rehash);
        self.bytes += bytes;
        SlotId(id)
    }

    /// A slot that `find` or `insert` gave in this batch.
    ///
    /// # Panics
    /// If it was let go since: the machine asked for a slot of an older batch.
    pub fn slot(&mut self, id: SlotId) -> &mut Slot {
        self.slots[id.0 as usize]
            .as_mut()
            .expect("a slot of this batch is pinned")
    }

    /// Takes note of how large a document has become.
    pub fn measure(&mut self, id: SlotId) {
        if let Some(slot) = &mut self.slots[id.0 as usize] {
            let bytes = slot.document.bytes() + SLOT_BYTES;
            self.bytes = self.bytes + bytes - slot.bytes;
            slot.bytes = bytes;
        }
    }

    /// Lets a document go at once: it turned out to hold nothing.
    pub fn remove(&mut self, id: SlotId) {
        let Some(slot) = self.slots[id.0 as usize].take() else {
            return;
        };
        let hash = self.hasher.hash_one(slot.entity.subject().as_bytes());
        if let Ok(found) = self.table.find_entry(hash, |&i| i == id.0) {
            found.remove();
        }
        self.bytes -= slot.bytes;
        self.free.push(id.0);
    }

    /// Lets a document go that holds nothing and waits for nothing: its records were no events.
    pub fn drop_if_empty(&mut self, id: SlotId) {
        let empty = self.slots[id.0 as usize]
            .as_ref()
            .is_some_and(|slot| slot.document.is_empty() && !slot.parked);
        if empty {
            self.remove(id);
        }
    }

    /// Lets documents go until at most `bytes_max` are held; those that `pinned` or a later batch touched stay.
    pub fn shrink(&mut self, bytes_max: usize, pinned: Turn) {
        let mut left = 2 * self.slots.len();
        while self.bytes > bytes_max && left > 0 {
            left -= 1;
            self.hand = if self.hand + 1 < self.slots.len() {
                self.hand + 1
            } else {
                0
            };
            let Some(slot) = &mut self.slots[self.hand] else {
                continue;
            };
            if slot.turn >= pinned || !slot.seen_by_hand {
                slot.seen_by_hand = true;
                continue;
            }
            self.coverage = Coverage::Part;
            self.remove(SlotId(self.hand as u32));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(i: usize) -> Entity {
        Entity::parse(&format!("run/{i}")).expect("legal")
    }

    fn filled(n: usize) -> Cache {
        let mut cache = Cache::new(PartitionId(0), Coverage::Whole);
        for i in 0..n {
            cache.insert(entity(i), i as Turn);
        }
        cache
    }

    #[test]
    fn what_was_put_in_is_found_also_after_growing() {
        let mut cache = filled(1000);
        for i in 0..1000 {
            let id = cache.find(entity(i).subject().as_bytes(), 1000).expect("held");
            assert_eq!(cache.slot(id).entity, entity(i));
        }
        assert!(cache.find(b"run/1000", 1000).is_none());
    }

    #[test]
    fn shrinking_keeps_the_bound_and_what_is_pinned() {
        let mut cache = filled(1000);
        let bytes_max = cache.bytes() / 10;
        cache.shrink(bytes_max, 990);
        assert!(cache.bytes() <= bytes_max, "{} > {bytes_max}", cache.bytes());
        for i in 990..1000 {
            assert!(
                cache.find(entity(i).subject().as_bytes(), 1001).is_some(),
                "{i} was pinned"
            );
        }
        assert_eq!(cache.coverage(), Coverage::Part);
        cache.shrink(0, 0);
        let free = cache.free.len();
        assert_eq!(cache.len() + free, cache.slots.len());
    }

    #[test]
    fn a_freed_slot_is_used_again() {
        let mut cache = filled(3);
        let id = cache.find(b"run/1", 3).expect("held");
        cache.remove(id);
        assert!(cache.find(b"run/1", 3).is_none());
        cache.insert(entity(7), 4);
        assert_eq!((cache.len(), cache.slots.len()), (3, 3));
    }
}

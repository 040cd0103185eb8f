//! Folds chosen entities out of a log, each from its own events up to its own end.
//! In: what is wanted, then records in log order. Out: each entity's document at its end, as soon as it is there.
//! Invariant: the document of an entity wanted `until` U is the fold of its accepted events below U, whatever
//! else the log holds; an entity that was handed out costs its entry and no document.

mod slice;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use hashbrown::HashMap;

pub use self::slice::Slice;
use super::document::{Applied, Document};
use super::entity::Entity;
use super::event::{self, Event, Rules};
use super::place::{NextOffset, Offset, PartitionId};
use super::record::{Record, RecordBatch};
use super::time::Time;

/// How far one entity is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Events below this are folded in.
    pub until: NextOffset,
    /// From here on accepted events and duplicates are counted, and the hash as it was before is told:
    /// a parked entity's first offset not applied. `START` counts all.
    pub split: NextOffset,
}

impl Want {
    /// Everything below `until`.
    pub fn until(until: NextOffset) -> Self {
        Self {
            until,
            split: NextOffset::START,
        }
    }
}

/// One of the last accepted events of an entity, for its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEvent {
    /// Its place in the entity's stream.
    pub seq: u64,
    /// The event as structured `CloudEvents` JSON.
    pub json: Vec<u8>,
}

/// One entity at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refolded<T> {
    /// Whose it is.
    pub entity: Entity,
    /// What came with the wish.
    pub tag: T,
    /// The fold of its events; empty if the log has none of them.
    pub document: Document,
    /// First 16 bytes of the hash that the document had before `split`; 0 if there was none.
    pub hash_at_split: u128,
    /// Events accepted from `split` on.
    pub accepted: u64,
    /// Events seen before, from `split` on.
    pub duplicates: u64,
    /// The last accepted events, ascending, at most as many as are kept.
    pub events: Vec<KeptEvent>,
}

/// What one batch of records brought to its end.
#[derive(Clone, Debug, Default)]
pub struct Fed<T> {
    /// Entities at their ends.
    pub done: Vec<Refolded<T>>,
    /// Entities that nobody wanted and that have an event in the watched range; each is told once.
    pub unknown: Vec<(Entity, Offset)>,
    /// Entities that were handed out and have an event past their end and before the range's, accepted or not;
    /// each is told once.
    pub later: Vec<(Entity, Offset)>,
}

struct Wanted<T> {
    want: Want,
    tag: T,
    fold: Option<Box<Fold>>,
}

struct Fold {
    document: Document,
    hash_at_split: u128,
    split: bool,
    accepted: u64,
    duplicates: u64,
    events: VecDeque<KeptEvent>,
    event_bytes: usize,
    bytes: usize,
}

enum Entry<T> {
    Wanted(Wanted<T>),
    /// Handed out, or never wanted.
    Done {
        /// Nothing more is told of it.
        told: bool,
    },
}

/// Bytes an entry costs beside its document: key, entry, the allocation of the subject, a table's spare room.
fn entry_bytes<T>(entity: &Entity) -> usize {
    (size_of::<(Entity, Entry<T>)>() + 1) * 8 / 5 + entity.subject().len() + 2 * size_of::<usize>()
}

/// Entities being folded.
pub struct Refold<T> {
    setup: Setup,
    entries: HashMap<Entity, Entry<T>>,
    open: usize,
    watched: Option<(Range<NextOffset>, Slice)>,
    bytes: usize,
}

struct Setup {
    partition: PartitionId,
    rules: Rules,
    events_kept: usize,
    /// Room to render in.
    text: Vec<u8>,
}

impl<T> Refold<T> {
    /// Nothing wanted yet. Of each entity's accepted events the last `events_kept` are handed out too.
    pub fn new(partition: PartitionId, rules: Rules, events_kept: usize) -> Self {
        Self {
            setup: Setup {
                partition,
                rules,
                events_kept,
                text: Vec::new(),
            },
            entries: HashMap::new(),
            open: 0,
            watched: None,
            bytes: 0,
        }
    }

    /// Wants an entity; a second wish for the same one replaces the first. Before the first record.
    pub fn want(&mut self, entity: Entity, want: Want, tag: T) {
        let bytes = entry_bytes::<T>(&entity);
        let wanted = Wanted { want, tag, fold: None };
        let before = self.entries.insert(entity, Entry::Wanted(wanted));
        match &before {
            None => self.bytes += bytes,
            Some(Entry::Wanted(Wanted { fold: Some(fold), .. })) => self.bytes -= fold.bytes,
            Some(_) => {}
        }
        if !matches!(before, Some(Entry::Wanted(_))) {
            self.open += 1;
        }
    }

    /// As [`Self::want`], for an entity whose beginning the log has lost: what is in `document` is believed, with the
    /// last of its `events`, and what comes behind it is folded in.
    pub fn want_onto(&mut self, document: Document, events: Vec<KeptEvent>, want: Want, tag: T) {
        let entity = document.entity().clone();
        let mut fold = Fold::new(&entity, self.setup.partition);
        fold.document = document;
        for event in events {
            fold.keep(event, self.setup.events_kept);
        }
        fold.bytes = fold.bytes();
        self.want(entity.clone(), want, tag);
        if let Some(Entry::Wanted(wanted)) = self.entries.get_mut(&entity) {
            self.bytes += fold.bytes;
            wanted.fold = Some(Box::new(fold));
        }
    }

    /// Tells of entities of `slice` too that nobody wants and that have an event in `range`.
    pub fn watch(&mut self, range: Range<NextOffset>, slice: Slice) {
        self.watched = Some((range, slice));
    }

    /// Tells nothing of this entity, whatever the log has of it. Before the first record.
    pub fn pass_over(&mut self, entity: Entity) {
        let bytes = entry_bytes::<T>(&entity);
        match self.entries.insert(entity, Entry::Done { told: true }) {
            None => self.bytes += bytes,
            Some(Entry::Wanted(wanted)) => {
                self.bytes -= wanted.fold.map_or(0, |fold| fold.bytes);
                self.open -= 1;
            }
            Some(Entry::Done { .. }) => {}
        }
    }

    /// Whether an entity is wanted, was, or is passed over.
    pub fn knows(&self, entity: &Entity) -> bool {
        self.entries.contains_key(entity)
    }

    /// Bytes held, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many wanted entities were not handed out yet.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Takes the next records of the log. Records of other entities cost a look at their key.
    pub fn feed(&mut self, records: &RecordBatch) -> Fed<T> {
        let mut fed = Fed {
            done: Vec::new(),
            unknown: Vec::new(),
            later: Vec::new(),
        };
        for record in records.iter() {
            let Ok(key) = std::str::from_utf8(record.key.unwrap_or_default()) else {
                continue;
            };
            match self.entries.get_key_value_mut(key) {
                Some((_, Entry::Done { told: true })) => {}
                Some((_, Entry::Done { told: false })) => fed.later.extend(self.later(key, &record)),
                Some((entity, Entry::Wanted(wanted))) => {
                    let until = wanted.want.until;
                    if until.is_past(record.offset) {
                        let before = wanted.fold.as_ref().map_or(0, |fold| fold.bytes);
                        self.bytes = self.bytes - before + wanted.take(entity, &record, &mut self.setup);
                    }
                    if record.offset.next() >= until {
                        fed.done.extend(self.hand_out(key));
                    }
                    if !until.is_past(record.offset) {
                        fed.later.extend(self.later(key, &record));
                    }
                }
                None => fed.unknown.extend(self.unknown(key, &record)),
            }
        }
        fed
    }

    /// Hands out what is left, ordered by subject: the log has nothing more of it below its end.
    pub fn finish(&mut self) -> Vec<Refolded<T>> {
        let left: BTreeSet<Entity> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Wanted(_)))
            .map(|(entity, _)| entity.clone())
            .collect();
        left.into_iter()
            .filter_map(|entity| self.hand_out(entity.subject()))
            .collect()
    }

    fn hand_out(&mut self, key: &str) -> Option<Refolded<T>> {
        let (entity, entry) = self.entries.get_key_value_mut(key)?;
        let Entry::Wanted(wanted) = std::mem::replace(entry, Entry::Done { told: false }) else {
            return None;
        };
        self.open -= 1;
        let mut fold = wanted
            .fold
            .unwrap_or_else(|| Box::new(Fold::new(entity, self.setup.partition)));
        self.bytes -= fold.bytes;
        if !fold.split {
            fold.split_here(&mut self.setup.text);
        }
        Some(Refolded {
            entity: entity.clone(),
            tag: wanted.tag,
            document: fold.document,
            hash_at_split: fold.hash_at_split,
            accepted: fold.accepted,
            duplicates: fold.duplicates,
            events: fold.events.into(),
        })
    }

    /// An entity that was handed out, if this record is an event of it before the end of what is watched.
    fn later(&mut self, key: &str, record: &Record<'_>) -> Option<(Entity, Offset)> {
        let (range, _) = self.watched.as_ref()?;
        if !range.end.is_past(record.offset) || !self.setup.is_event(record) {
            return None;
        }
        let (entity, entry) = self.entries.get_key_value_mut(key)?;
        *entry = Entry::Done { told: true };
        Some((entity.clone(), record.offset))
    }

    /// An entity that nobody wants, if this record is an event of it in the watched range.
    fn unknown(&mut self, key: &str, record: &Record<'_>) -> Option<(Entity, Offset)> {
        let (range, slice) = self.watched.as_ref()?;
        let inside = range.end.is_past(record.offset) && !range.start.is_past(record.offset);
        if !inside || !slice.contains(key.as_bytes()) {
            return None;
        }
        let entity = Entity::parse(key).filter(|_| self.setup.is_event(record))?;
        self.bytes += entry_bytes::<T>(&entity);
        self.entries.insert(entity.clone(), Entry::Done { told: true });
        Some((entity, record.offset))
    }
}

impl Setup {
    fn is_event(&self, record: &Record<'_>) -> bool {
        event::decode(record, self.partition, &self.rules).is_ok()
    }
}

impl<T> Wanted<T> {
    /// Folds a record in, if it is an event; returns the bytes held since.
    fn take(&mut self, entity: &Entity, record: &Record<'_>, setup: &mut Setup) -> usize {
        let mut room = Vec::new();
        let decoded = event::decode_clean(record, setup.partition, &setup.rules, &mut room);
        let Ok((event, record, _)) = decoded else {
            return self.fold.as_ref().map_or(0, |fold| fold.bytes);
        };
        let fold = self
            .fold
            .get_or_insert_with(|| Box::new(Fold::new(entity, setup.partition)));
        fold.take(&event, &record, !self.want.split.is_past(record.offset), setup);
        fold.bytes = fold.bytes();
        fold.bytes
    }
}

impl Fold {
    fn new(entity: &Entity, partition: PartitionId) -> Self {
        Self {
            document: Document::new(entity.clone(), partition),
            hash_at_split: 0,
            split: false,
            accepted: 0,
            duplicates: 0,
            events: VecDeque::new(),
            event_bytes: 0,
            bytes: 0,
        }
    }

    fn take(&mut self, event: &Event<'_>, record: &Record<'_>, is_past_split: bool, setup: &mut Setup) {
        if is_past_split && !self.split {
            self.split_here(&mut setup.text);
        }
        match self.document.apply(event, record.offset, record.timestamp_ms) {
            Applied::Duplicate => self.duplicates += u64::from(self.split),
            Applied::Accepted { seq } => {
                self.accepted += u64::from(self.split);
                if setup.events_kept > 0 {
                    let mut json = Vec::new();
                    event.write_structured(record, setup.rules.redact, &mut json);
                    self.keep(KeptEvent { seq, json }, setup.events_kept);
                }
            }
        }
    }

    fn split_here(&mut self, text: &mut Vec<u8>) {
        self.split = true;
        self.hash_at_split = hash(&self.document, text);
    }

    fn keep(&mut self, event: KeptEvent, most: usize) {
        let bytes = |event: &KeptEvent| size_of::<KeptEvent>() + event.json.capacity();
        if self.events.len() >= most {
            self.event_bytes -= self.events.pop_front().as_ref().map_or(0, bytes);
        }
        self.event_bytes += bytes(&event);
        self.events.push_back(event);
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.document.bytes() + self.event_bytes
    }
}

/// First 16 bytes of a document's hash; 0 if it is empty. `text` is room to write in.
pub fn hash(document: &Document, text: &mut Vec<u8>) -> u128 {
    if document.is_empty() {
        return 0;
    }
    text.clear();
    document.render(Time::EPOCH, text)
}

#[cfg(test)]
mod tests;

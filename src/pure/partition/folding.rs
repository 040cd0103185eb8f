//! One batch on its way from records to a commit.
//! In: records, the cache, loaded documents. Out: the batch that the store writes, and the dead letters.
//! Invariant: documents, digest and counts depend on the records alone, not on how they are cut into batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Action, DeadLetter, Setup, Streams, TIMESTAMPS_MAX};
use crate::pure::batch::{Batch, EventWrite, Stored};
use crate::pure::cache::{Cache, Coverage, SlotId, Turn};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::document::{Applied, Document};
use crate::pure::entity::Entity;
use crate::pure::event::{self, Event};
use crate::pure::place::Offset;
use crate::pure::record::{Record, RecordBatch};
use crate::pure::redact::Redact;
use crate::pure::time::Time;

/// Why an entity waits whose document had expired: no drift, an event came late.
pub const EXPIRED: &str = "expired";

/// How far a batch is.
pub(super) enum Stage {
    /// Documents that were not in memory are being read.
    Loading,
    /// Dead letters are being appended.
    Appending,
    /// It may be committed.
    Ready,
}

/// A batch in hand.
pub(super) struct Folding {
    records: Arc<RecordBatch>,
    /// The slot of each record's key; `None`: the key is no legal subject.
    slots: Vec<Option<SlotId>>,
    /// Slots to be loaded, in the order of first touch.
    wanted: Vec<(Entity, SlotId)>,
    pub(super) stage: Stage,
    pub(super) folded: Option<Folded>,
}

/// A folded batch.
pub(super) struct Folded {
    pub(super) batch: Option<Batch>,
    pub(super) timestamps_ms: Vec<i64>,
    pub(super) terminals: u64,
}

impl Folded {
    pub(super) fn first_ms(&self) -> Option<i64> {
        self.timestamps_ms.first().copied()
    }
}

/// What the fold of one batch gathers.
struct Gathered {
    batch: Batch,
    letters: Vec<DeadLetter>,
    touched: Vec<SlotId>,
    terminals: u64,
}

impl Folding {
    /// Finds the slots of all records; those that are not in memory are wanted.
    pub(super) fn begin(
        records: RecordBatch,
        cache: &mut Cache,
        parked: &BTreeMap<Entity, Offset>,
        turn: Turn,
    ) -> Self {
        let mut slots = Vec::with_capacity(records.len());
        let mut wanted = Vec::new();
        for record in records.iter() {
            let key = record.key.unwrap_or_default();
            if let Some(id) = cache.find(key, turn) {
                slots.push(Some(id));
                continue;
            }
            let Some(entity) = std::str::from_utf8(key).ok().and_then(Entity::parse) else {
                slots.push(None);
                continue;
            };
            let is_parked = parked.contains_key(&entity);
            let id = cache.insert(entity.clone(), turn);
            cache.slot(id).parked = is_parked;
            if !is_parked && cache.coverage() == Coverage::Part {
                wanted.push((entity, id));
            }
            slots.push(Some(id));
        }
        Self {
            records: Arc::new(records),
            slots,
            wanted,
            stage: Stage::Loading,
            folded: None,
        }
    }

    pub(super) fn records(&self) -> Arc<RecordBatch> {
        Arc::clone(&self.records)
    }

    pub(super) fn first_ms(&self) -> Option<i64> {
        (!self.records.is_empty()).then(|| self.records.get(0).timestamp_ms)
    }

    /// Whose documents must be read before the fold.
    pub(super) fn missing(&self) -> Vec<Entity> {
        self.wanted.iter().map(|(entity, _)| entity.clone()).collect()
    }

    /// Puts what was read into the cache; what cannot be read parks its entity.
    pub(super) fn take_loaded(&mut self, stored: Vec<Stored>, cache: &mut Cache, actions: &mut Vec<Action>) {
        let partition = cache.partition();
        assert_eq!(stored.len(), self.wanted.len(), "a load answers for each entity asked");
        for ((entity, id), stored) in std::mem::take(&mut self.wanted).into_iter().zip(stored) {
            let slot = cache.slot(id);
            let (reason, detail) = match stored {
                Stored::Absent => continue,
                Stored::Lost => (
                    "missing_document",
                    "the index knows it, its document is not there".to_owned(),
                ),
                Stored::Expired => (EXPIRED, "it comes back, folded from its own events".to_owned()),
                Stored::Unreadable(detail) => ("document_corrupt", detail.to_owned()),
                Stored::Document { json, state } => {
                    match Document::parse(&entity, partition, &json, state.as_deref()) {
                        Ok((document, hash)) => {
                            slot.document = document;
                            slot.counted = hash;
                            cache.measure(id);
                            continue;
                        }
                        Err(unreadable) => (unreadable.drift(), unreadable.to_string()),
                    }
                }
            };
            slot.parked = true;
            actions.push(Action::Drifted { entity, reason, detail });
        }
    }

    /// Folds all records: documents in the cache move on, `position` with them. Returns the dead letters.
    pub(super) fn fold(
        &mut self,
        setup: &Setup,
        cache: &mut Cache,
        parked: &mut BTreeMap<Entity, Offset>,
        position: &mut Checkpoint,
        now_ms: i64,
    ) -> Vec<DeadLetter> {
        // Kept events are copied, and their documents come behind them.
        let room = match setup.streams {
            Streams::Kept => self.records.bytes() + self.records.bytes() / 4,
            Streams::Off => 0,
        };
        let mut gathered = Gathered {
            batch: Batch {
                buffer: Vec::with_capacity(room),
                ..Batch::new(None, position.clone())
            },
            letters: Vec::new(),
            touched: Vec::new(),
            terminals: 0,
        };
        let records = Arc::clone(&self.records);
        for (index, record) in records.iter().enumerate() {
            gathered.take(setup, cache, parked, &record, (index, self.slots[index]));
        }
        for id in std::mem::take(&mut self.slots).into_iter().flatten() {
            cache.drop_if_empty(id);
        }
        gathered.finish(cache, &records, now_ms);
        *position = gathered.batch.checkpoint.clone();
        self.folded = Some(Folded {
            batch: Some(gathered.batch),
            timestamps_ms: sample(&records),
            terminals: gathered.terminals,
        });
        gathered.letters
    }
}

impl Gathered {
    /// One record: an event, a duplicate, a dead letter, or one that waits for a repair.
    fn take(
        &mut self,
        setup: &Setup,
        cache: &mut Cache,
        parked: &mut BTreeMap<Entity, Offset>,
        record: &Record<'_>,
        (index, slot): (usize, Option<SlotId>),
    ) {
        self.batch.checkpoint.records += 1;
        let mut room = Vec::new();
        let (event, record, secrets) = match event::decode_clean(record, setup.partition, &setup.rules, &mut room) {
            Ok(decoded) => decoded,
            Err(rejection) => {
                self.batch.checkpoint.dead_letters += 1;
                self.letters.push(DeadLetter {
                    index,
                    reason: rejection.reason,
                    detail: rejection.detail,
                });
                return;
            }
        };
        self.batch.redactions += secrets;
        let id = slot.expect("a legal event's key is a legal subject");
        let slot = cache.slot(id);
        if slot.parked {
            if !parked.contains_key(&slot.entity) {
                parked.insert(slot.entity.clone(), record.offset);
                self.batch.parked.push((slot.entity.clone(), record.offset));
            }
            return;
        }
        if slot.document.includes(record.offset) {
            self.batch.checkpoint.duplicates += 1;
            return;
        }
        match slot.document.apply(&event, record.offset, record.timestamp_ms) {
            Applied::Duplicate => self.batch.checkpoint.duplicates += 1,
            Applied::Accepted { seq } => {
                self.batch.checkpoint.accepted += 1;
                self.terminals += u64::from(event.is_terminal());
                if !slot.touched {
                    slot.touched = true;
                    self.touched.push(id);
                }
                if setup.streams == Streams::Kept {
                    let entity = slot.entity.clone();
                    self.keep_event(entity, seq, setup.rules.redact, (&event, &record));
                }
            }
        }
    }

    fn keep_event(&mut self, entity: Entity, seq: u64, redact: Redact, (event, record): (&Event<'_>, &Record<'_>)) {
        let start = self.batch.buffer.len() as u32;
        event.write_structured(record, redact, &mut self.batch.buffer);
        let json = start..self.batch.buffer.len() as u32;
        self.batch.events.push(EventWrite { entity, seq, json });
    }

    /// Writes each touched document once, and the checkpoint that covers them.
    fn finish(&mut self, cache: &mut Cache, records: &RecordBatch, now_ms: i64) {
        let now = Time::from_ms(now_ms).unwrap_or_else(|| Time::from_ms(0).expect("1970 is a time"));
        for id in self.touched.drain(..) {
            let slot = cache.slot(id);
            slot.touched = false;
            let hash = self.batch.write(&slot.document, now);
            self.batch.checkpoint.digest = self.batch.checkpoint.digest.moved(slot.counted, hash);
            slot.counted = hash;
            cache.measure(id);
        }
        let checkpoint = &mut self.batch.checkpoint;
        if let Some(last) = records.len().checked_sub(1) {
            checkpoint.last_record = Some(records.get(last).identity());
        }
        checkpoint.next = records.next().unwrap_or(checkpoint.next);
        checkpoint.written_at_ms = now_ms;
    }
}

/// Log timestamps of at most [`TIMESTAMPS_MAX`] records, evenly spread, the first among them.
fn sample(records: &RecordBatch) -> Vec<i64> {
    let every = records.len().div_ceil(TIMESTAMPS_MAX).max(1);
    (0..records.len())
        .step_by(every)
        .map(|i| records.get(i).timestamp_ms)
        .collect()
}

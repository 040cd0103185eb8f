//! A log and a store in memory, a driver that does a machine's bidding under faults, and the fold to compare with.

use std::collections::{BTreeMap, VecDeque};

use super::super::{Action, Effect, Failure, Input, Outcome, Partition, Remembered, Setup, ShareLimit, State, Streams};
use super::store::StoreState;
use crate::pure::checkpoint::{Checkpoint, Digest};
use crate::pure::document::{Applied, Document};
use crate::pure::entity::Entity;
use crate::pure::event::{self, Rules};
use crate::pure::place::{NextOffset, Offset, PartitionId, Partitioner};
use crate::pure::record::{Record, RecordBatch};
use crate::pure::recovery::{Called, LastRecord, Survey};
use crate::pure::time::Time;

pub const PARTITION: PartitionId = PartitionId(0);
/// All is written at this instant, so that equal documents are equal bytes.
const NOW_MS: i64 = 1_700_000_000_000;

/// Numbers from a seed (xorshift*, Vigna 2016).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Records as a messy producer writes them.
pub fn messy_log(dice: &mut Dice, n: usize) -> RecordBatch {
    let mut log = RecordBatch::default();
    let mut offset = 0;
    for i in 0..n {
        offset += if dice.one_in(20) { 3 } else { 1 }; // holes
        let subject = ["run/a", "run/b", "run/c", "worker/w", "run/d"][dice.below(5) as usize];
        let source = ["s1", "s1", "s2"][dice.below(3) as usize];
        let sequence = i as u64 / 4 + dice.below(6) + 1;
        let worker = subject.starts_with('w');
        let kind = match (worker, dice.below(8)) {
            (true, 0) => r#""worker.started","data":{"adapter":"x","metadata":{"b":1.50,"a":[2]}}"#,
            (true, _) => r#""worker.heartbeat""#,
            (false, 0) => r#""run.started","data":{"thread_id":"t"}"#,
            (false, 1) if dice.one_in(3) => r#""run.finished","data":{"status":"failed","reason":"r"}"#,
            (false, _) => r#""run.delta","data":{"delta":"é\n"}"#,
        };
        let sequence = if dice.one_in(3) {
            String::new()
        } else {
            format!(r#","sequence":"{sequence}""#)
        };
        let id = if dice.one_in(4) { i / 3 } else { i };
        let mut value = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"{source}","type":{kind},"subject":"{subject}"{sequence}}}"#
        );
        if dice.one_in(25) {
            value.truncate(value.len() / 2);
        }
        let key = if dice.one_in(40) { "run/other" } else { subject };
        log.push(
            Offset(offset),
            NOW_MS + i as i64,
            Some(key.as_bytes()),
            Some(value.as_bytes()),
        );
    }
    log
}

pub fn rules() -> Rules {
    Rules {
        partitioner: Partitioner::Murmur2,
        partitions: 1,
        max_event_bytes: 1 << 20,
        redact: crate::pure::redact::Redact::Secrets,
    }
}

/// Documents after the records below `end`: slow and obvious.
pub fn fold(log: &RecordBatch, end: NextOffset) -> (BTreeMap<Entity, Vec<u8>>, Checkpoint) {
    let mut documents: BTreeMap<Entity, Document> = BTreeMap::new();
    let mut checkpoint = Checkpoint::first(NextOffset::START, "topic", 1);
    for record in log.iter().filter(|record| end.is_past(record.offset)) {
        checkpoint.records += 1;
        checkpoint.next = record.offset.next();
        checkpoint.last_record = Some(record.identity());
        let Ok(event) = event::decode(&record, PARTITION, &rules()) else {
            checkpoint.dead_letters += 1;
            continue;
        };
        let entity = Entity::parse(event.subject()).expect("legal");
        let document = documents
            .entry(entity.clone())
            .or_insert_with(|| Document::new(entity, PARTITION));
        match document.apply(&event, record.offset, record.timestamp_ms) {
            Applied::Accepted { .. } => checkpoint.accepted += 1,
            Applied::Duplicate => checkpoint.duplicates += 1,
        }
    }
    let now = Time::from_ms(NOW_MS).expect("in range");
    let mut rendered = BTreeMap::new();
    for (entity, document) in documents {
        let mut json = Vec::new();
        let hash = document.render(now, &mut json);
        checkpoint.digest = Digest(checkpoint.digest.0.wrapping_add(hash));
        rendered.insert(entity, json);
    }
    (rendered, checkpoint)
}

/// Log, store, group offset and the machine in between.
pub struct World {
    pub log: RecordBatch,
    pub first: NextOffset,
    pub store: StoreState,
    pub group: Option<NextOffset>,
    pub dead_letters: Vec<Offset>,
    pub named: Vec<Called>,
    pub drifted: Vec<(Entity, &'static str)>,
    pub machine: Partition,
    cache_bytes: usize,
    pub effects: VecDeque<Effect>,
    pub place: Option<NextOffset>,
    released: bool,
    abandoned: bool,
    pub let_through: NextOffset,
}

impl World {
    pub fn new(log: RecordBatch, cache_bytes: usize) -> Self {
        let mut world = Self {
            log,
            first: NextOffset::START,
            let_through: NextOffset::START,
            store: StoreState::default(),
            group: None,
            dead_letters: Vec::new(),
            named: Vec::new(),
            drifted: Vec::new(),
            machine: machine(cache_bytes),
            cache_bytes,
            effects: VecDeque::new(),
            place: None,
            released: false,
            abandoned: false,
        };
        world.input(Input::Assigned);
        world
    }

    pub fn end(&self) -> NextOffset {
        self.log.next().unwrap_or(NextOffset::START)
    }

    /// The process dies; another takes the partition.
    pub fn crash(&mut self) {
        self.machine = machine(self.cache_bytes);
        self.effects.clear();
        self.place = None;
        self.input(Input::Assigned);
    }

    pub fn input(&mut self, input: Input) {
        for action in self.machine.on(input, NOW_MS) {
            match action {
                Action::Do { effect, .. } => self.effects.push_back(effect),
                Action::Abandon => {
                    self.abandoned = true;
                    self.effects.clear();
                    self.place = None;
                }
                Action::Read(from) => self.place = Some(from),
                Action::Recovered { called, .. } => self.named.push(called),
                Action::Drifted { entity, reason, .. } => self.drifted.push((entity, reason)),
                Action::Visible(_) | Action::Rewound(_) => {}
                Action::Release => self.released = true,
            }
        }
    }

    /// Hands over at most `records_max` records, if any are wanted; tells whether it did.
    pub fn feed(&mut self, records_max: usize) -> bool {
        let Some(place) = self.place.filter(|_| self.machine.wants_records()) else {
            return false;
        };
        let mut batch = RecordBatch::default();
        for record in self
            .log
            .iter()
            .filter(|record| !place.is_past(record.offset))
            .take(records_max)
        {
            copy(&record, &mut batch);
        }
        let Some(next) = batch.next() else { return false };
        self.place = Some(next);
        self.input(Input::Records(batch));
        true
    }

    /// Does the oldest effect, with luck: its answer may be lost, before or after it was done.
    pub fn perform(&mut self, dice: &mut Dice, fault_in: u64) -> bool {
        let Some(effect) = self.effects.pop_front() else {
            return false;
        };
        if dice.one_in(fault_in) {
            self.input(Input::Done(Outcome::Failed(
                effect,
                Failure::Away("not sent".to_owned()),
            )));
            return true;
        }
        let outcome = self.outcome(&effect);
        if dice.one_in(fault_in) {
            let away = Failure::Away("no answer".to_owned());
            self.input(Input::Done(Outcome::Failed(effect, away)));
            return true;
        }
        if matches!(outcome, Outcome::Committed) && !dice.one_in(3) {
            self.group = self.store.checkpoint.as_ref().map(|checkpoint| checkpoint.next);
        }
        self.input(Input::Done(outcome));
        true
    }

    /// Does the oldest effect, and hands over `before` ahead of its outcome.
    pub fn perform_after(&mut self, before: Input) -> bool {
        let Some(effect) = self.effects.pop_front() else {
            return false;
        };
        let outcome = self.outcome(&effect);
        self.abandoned = false;
        self.input(before);
        if !self.abandoned {
            self.input(Input::Done(outcome));
        }
        true
    }

    fn outcome(&mut self, effect: &Effect) -> Outcome {
        match effect {
            Effect::Survey { .. } => Outcome::Surveyed(Box::new(self.survey())),
            Effect::Load { expected, entities } => {
                let have = self.store.checkpoint.as_ref().map(Checkpoint::identity);
                if !expected.contains(&have) {
                    let found = Box::new(self.store.checkpoint.clone());
                    return Outcome::Failed(effect.clone(), Failure::Refused(found));
                }
                Outcome::Loaded(entities.iter().map(|entity| self.store.load(entity)).collect())
            }
            Effect::AppendDeadLetters {
                records,
                letters,
                known,
            } => {
                let is_there = known.filter(|(_, named)| self.log.iter().any(|record| record.identity() == *named));
                let offsets = letters.iter().map(|letter| records.get(letter.index).offset);
                let unknown = offsets.filter(|at| is_there.is_none_or(|(below, _)| !below.is_past(*at)));
                self.dead_letters.extend(unknown);
                let (failed, detail) = Default::default();
                Outcome::Appended { failed, detail }
            }
            Effect::Commit(batch) => match self.store.commit(batch) {
                Ok(()) => Outcome::Committed,
                Err(failure) => Outcome::Failed(effect.clone(), failure),
            },
            Effect::Rewind { .. } => panic!("no mark is ever good here"),
            Effect::Restore => Outcome::NoSnapshot(self.store.next()),
            Effect::Renew => Outcome::Renewed(self.store.checkpoint.clone()),
        }
    }

    pub fn survey(&self) -> Survey {
        let named = self
            .store
            .checkpoint
            .as_ref()
            .and_then(|checkpoint| checkpoint.last_record);
        let in_log = named.and_then(|named| self.log.iter().find(|record| record.offset == named.offset));
        Survey {
            checkpoint: self.store.checkpoint.clone(),
            last_record: LastRecord::compare(named, in_log.map(|record| record.identity())),
            group: self.group,
            first: self.first,
            end: self.end(),
            topic_id: "topic".to_owned(),
            partitions: 1,
            namespace_partitions: self.store.checkpoint.as_ref().map(|checkpoint| checkpoint.partitions),
            good_mark: None,
            parked: self.store.parked.clone().into_iter().collect(),
            let_through: self.let_through,
            letters: LastRecord::Gone,
        }
    }

    /// No more faults: all must be applied within bounded steps.
    pub fn settle(&mut self, dice: &mut Dice) {
        for _ in 0..20 * self.log.len() + 200 {
            let fed = self.feed(7);
            if !self.perform(dice, u64::MAX) && !fed {
                self.input(Input::Tick {
                    cache_bytes: self.cache_bytes,
                });
                let done = self
                    .store
                    .checkpoint
                    .as_ref()
                    .is_some_and(|checkpoint| checkpoint.next == self.end());
                if self.effects.len() == 1 && done && matches!(self.machine.view().state, State::Running) {
                    self.perform(dice, u64::MAX);
                    if self.effects.is_empty() {
                        return;
                    }
                }
            }
        }
        panic!(
            "stuck: {:?} of {:?}, {:?}",
            self.store.checkpoint,
            self.end(),
            self.machine.view()
        );
    }

    /// Rule 3, at every instant: a document equals the fold of its events up to its own offset.
    pub fn check_documents(&self) {
        for (entity, (json, _)) in &self.store.documents {
            let (expected, _) = fold(&self.log, self.store.index[entity].next());
            assert_eq!(
                expected.get(entity).map(|json| text(json)),
                Some(text(json)),
                "{entity}"
            );
        }
    }

    /// All is as if nothing had ever happened.
    pub fn check_all(&self) {
        let (documents, checkpoint) = fold(&self.log, self.end());
        let ours: BTreeMap<_, _> = self
            .store
            .documents
            .iter()
            .map(|(e, (json, _))| (e.clone(), text(json)))
            .collect();
        let theirs: BTreeMap<_, _> = documents.iter().map(|(e, json)| (e.clone(), text(json))).collect();
        assert_eq!(ours, theirs);
        let have = self.store.checkpoint.clone().expect("a checkpoint");
        assert_eq!(
            Checkpoint {
                written_at_ms: 0,
                ..have
            },
            checkpoint
        );
        let mut dead = self.dead_letters.clone();
        dead.sort_unstable();
        dead.dedup();
        assert_eq!(dead.len() as u64, checkpoint.dead_letters);
        for (entity, stream) in &self.store.events {
            assert!(
                stream.keys().copied().eq(1..=stream.len() as u64),
                "{entity}'s stream has a gap"
            );
        }
    }
}

fn machine(cache_bytes: usize) -> Partition {
    let setup = Setup {
        partition: PARTITION,
        rules: rules(),
        streams: Streams::Kept,
        cache_bytes,
        dead_letter_share: ShareLimit {
            permille_max: 500,
            records_min: 30,
        },
    };
    Partition::new(setup, Remembered::default())
}

fn text(json: &[u8]) -> String {
    String::from_utf8_lossy(json).into_owned()
}

fn copy(record: &Record<'_>, into: &mut RecordBatch) {
    into.push(record.offset, record.timestamp_ms, record.key, record.value);
}

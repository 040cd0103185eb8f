//! What every document, count and dead letter must be: an independent fold of the log as it is, also of what retention
//! took. Where a loss was named, documents may also be folds without the events that were lost.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::losses::is_fold_without;
use crate::reference::Rec;
use crate::reference::decode::Rules;
use crate::reference::fold::{Outcome, Partition as Fold};

/// Folded ahead at most: each loss doubles them, but for one that holds those before it.
const WAYS: usize = 64;

/// A fold of the log without some ranges of it.
#[derive(Default)]
struct Way {
    holes: BTreeSet<(u64, u64)>,
    fold: Fold,
    /// Offsets of each entity's accepted events.
    accepted: BTreeMap<String, Vec<u64>>,
}

#[derive(Default)]
pub struct Oracle {
    /// The first is the fold of all.
    ways: Vec<Way>,
    records: Vec<Rec>,
    /// What was named as lost.
    losses: Vec<(u64, u64)>,
    /// There are some that were not folded ahead.
    has_more: bool,
    /// What was found of documents with these losses.
    searched: RefCell<HashMap<String, bool>>,
    /// Hashes of an entity's document by the offset of its last event.
    allowed: HashMap<(String, u64), HashSet<String>>,
    /// Records, accepted, duplicates, dead letters below an offset.
    counts: BTreeMap<u64, [u64; 4]>,
    /// Offsets and values.
    pub letters: Vec<(u64, Option<Vec<u8>>)>,
    /// Events below may be in no document: a loss was named.
    pub lost_below: u64,
}

impl Way {
    fn last_below(&self, subject: &str, next: u64) -> Option<u64> {
        let offsets = self.accepted.get(subject)?;
        offsets[..offsets.partition_point(|offset| *offset < next)]
            .last()
            .copied()
    }
}

impl Oracle {
    /// Takes in what is new in the log.
    pub fn fold_on(&mut self, records: &[Rec]) {
        if self.ways.is_empty() {
            self.ways.push(Way::default());
        }
        for record in &records[self.records.len()..] {
            for i in 0..self.ways.len() {
                self.fold_one(i, record);
            }
        }
        self.records.extend_from_slice(&records[self.records.len()..]);
    }

    /// The log was cut: what it has now is all there ever was. Losses stay.
    pub fn cut(&mut self, records: &[Rec]) {
        let ways = std::mem::take(&mut self.ways).into_iter().map(|way| way.holes);
        let ways = ways.map(|holes| Way {
            holes,
            ..Way::default()
        });
        *self = Self {
            ways: ways.collect(),
            lost_below: self.lost_below,
            losses: std::mem::take(&mut self.losses),
            has_more: self.has_more,
            ..Self::default()
        };
        self.fold_on(records);
    }

    /// Whether the log ever had any between these places.
    pub fn has_records(&self, from: u64, to: u64) -> bool {
        self.records.iter().any(|record| (from..to).contains(&record.offset))
    }

    /// Somebody named it: events of `[from, to)` may be in no document.
    pub fn lose(&mut self, from: u64, to: u64) {
        if !self.has_records(from, to) {
            return;
        }
        self.lost_below = self.lost_below.max(to);
        self.losses.push((from, to));
        self.searched.take();
        let records = std::mem::take(&mut self.records);
        let known: Vec<BTreeSet<(u64, u64)>> = self.ways.iter().map(|way| way.holes.clone()).collect();
        for mut holes in known {
            holes.retain(|hole| !(from <= hole.0 && hole.1 <= to));
            if !holes.iter().any(|hole| hole.0 <= from && to <= hole.1) {
                holes.insert((from, to));
            }
            if self.ways.len() >= WAYS || self.ways.iter().any(|way| way.holes == holes) {
                continue;
            }
            self.ways.push(Way {
                holes,
                ..Way::default()
            });
            let way = self.ways.len() - 1;
            for record in &records {
                self.fold_one(way, record);
            }
        }
        self.records = records;
    }

    /// The same of one document or another, not worth a fold ahead.
    pub fn lose_of_one(&mut self, from: u64, to: u64) {
        if !self.losses.contains(&(from, to)) {
            self.losses.push((from, to));
            self.has_more = true;
            self.searched.take();
        }
    }

    fn fold_one(&mut self, at: usize, record: &Rec) {
        let way = &mut self.ways[at];
        let is_lost = |hole: &(u64, u64)| (hole.0..hole.1).contains(&record.offset);
        if way.holes.iter().any(is_lost) {
            return;
        }
        let outcome = way.fold.apply(record, &Rules::of(1));
        let is_first = at == 0;
        if let Outcome::Accepted { subject, .. } = &outcome {
            let hash = way.fold.entities[subject].summary_hash();
            let key = (subject.clone(), record.offset);
            self.allowed.entry(key).or_default().insert(hash);
            way.accepted.entry(subject.clone()).or_default().push(record.offset);
        }
        if is_first {
            if let Outcome::DeadLetter(_) = outcome {
                self.letters.push((record.offset, record.value.clone()));
            }
            let (fold, dead) = (&way.fold, way.fold.dead_letters.len() as u64);
            let counts = [fold.records, fold.accepted, fold.duplicates, dead];
            self.counts.insert(record.offset + 1, counts);
        }
    }

    /// Whether a document with that last offset and that text is a fold of its events.
    pub fn allows(&self, subject: &str, offset: u64, text: &str) -> bool {
        let hashes = self.allowed.get(&(subject.to_owned(), offset));
        let is_known = hashes.is_some_and(|hashes| hashes.iter().any(|hash| text.contains(hash.as_str())));
        is_known || (self.has_more || self.ways.len() >= WAYS) && self.may_lack(subject, offset, text)
    }

    fn may_lack(&self, subject: &str, offset: u64, text: &str) -> bool {
        let found = self.searched.borrow().get(text).copied();
        found.unwrap_or_else(|| {
            let found = is_fold_without(&self.losses, &self.records, (subject, offset, text));
            self.searched.borrow_mut().insert(text.to_owned(), found);
            found
        })
    }

    /// Offsets of each entity's accepted events, in the fold of all.
    pub fn accepted(&self) -> &BTreeMap<String, Vec<u64>> {
        &self.ways[0].accepted
    }

    /// An entity's last event below `next`, in the fold of all.
    pub fn last_below(&self, subject: &str, next: u64) -> Option<u64> {
        self.ways[0].last_below(subject, next)
    }

    /// Whether in a fold that lacks what was lost an entity's last event below `next` lies there: without what was lost
    /// a later event may be one that came twice.
    pub fn may_end_at(&self, subject: &str, next: u64, last: u64) -> bool {
        self.ways.iter().any(|way| way.last_below(subject, next) == Some(last))
    }

    /// Where an entity's document had a hash that begins so.
    pub fn offset_of(&self, subject: &str, hash: u128) -> Option<String> {
        let begins = format!("sha256:{hash:032x}");
        let found = |(of, hashes): (&(String, u64), &HashSet<String>)| {
            let fits = of.0 == subject && hashes.iter().any(|hash| hash.starts_with(&begins));
            fits.then_some(of.1)
        };
        let offset = self.allowed.iter().find_map(found);
        offset
            .map(|offset| offset.to_string())
            .or_else(|| (hash == 0).then(|| "never".to_owned()))
    }

    /// Whether an entity's first event lies below an offset.
    pub fn began_before(&self, subject: &str, offset: u64) -> bool {
        self.accepted().get(subject).is_some_and(|offsets| offsets[0] < offset)
    }

    pub fn counts_below(&self, next: u64) -> [u64; 4] {
        let below = self.counts.range(..=next).next_back();
        below.map_or([0; 4], |(_, counts)| *counts)
    }

    /// The fold of all of the log.
    pub fn fold(&self) -> &Fold {
        &self.ways[0].fold
    }

    /// Records folded.
    pub fn folded(&self) -> usize {
        self.records.len()
    }

    pub fn has_losses(&self) -> bool {
        self.ways.len() > 1
    }
}

/// Where a document begins.
pub fn first_offset_of(json: &[u8]) -> Option<u64> {
    let document: serde_json::Value = serde_json::from_slice(json).ok()?;
    document["runtime_source"]["first_offset"].as_u64()
}

/// The first 16 bytes of a document's hash, as it says itself.
pub fn hash_of(json: &[u8]) -> u128 {
    const BEFORE: &str = "\"summary_hash\":\"sha256:";
    let text = String::from_utf8_lossy(json);
    let digits = text.split(BEFORE).nth(1).and_then(|rest| rest.get(..32));
    digits
        .and_then(|digits| u128::from_str_radix(digits, 16).ok())
        .unwrap_or(0)
}

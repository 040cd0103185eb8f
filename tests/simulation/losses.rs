//! Whether a document is the fold of its events but for some that were lost. A history of many losses has more ways to
//! lack events than can be folded ahead: here those of one entity are tried, until one fits.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::reference::Rec;
use crate::reference::decode::Rules;
use crate::reference::fold::{Entity, Outcome, Partition as Fold};

/// More folds than a document has needed yet.
const TRIES: u32 = 50_000;
/// INTERFACE.md §2: sources that a document remembers.
const SOURCES_MAX: usize = 64;

/// What the document says of itself, which rules most ways out.
struct Claims {
    events: u64,
    first_offset: u64,
    /// With the highest sequence of each.
    sources: Map<String, Value>,
    hash: String,
}

impl Claims {
    fn of(text: &str) -> Option<Self> {
        let document: Value = serde_json::from_str(text).ok()?;
        Some(Self {
            events: document["event_count"].as_u64()?,
            first_offset: document["runtime_source"]["first_offset"].as_u64()?,
            sources: document["runtime_source"]["sources"].as_object()?.clone(),
            hash: document["summary_hash"].as_str()?.to_owned(),
        })
    }

    /// Whether the document may come of what is folded so far.
    fn may_follow(&self, so_far: &Entity) -> bool {
        let sources = so_far.document["runtime_source"]["sources"].as_object();
        let is_in = |(name, source): (&String, &Value)| {
            let claimed = self.sources.get(name).and_then(|source| source["max"].as_u64());
            claimed >= source["max"].as_u64() && claimed.is_some()
        };
        // Of more than are remembered some were dropped.
        self.sources.len() >= SOURCES_MAX || sources.is_none_or(|sources| sources.iter().all(is_in))
    }
}

struct Search<'a> {
    subject: &'a str,
    /// Of this entity, the last one in the document.
    records: Vec<&'a Rec>,
    /// Which of them a loss took: from, to.
    holes: Vec<(usize, usize)>,
    claims: Claims,
    /// Folded so far, at which record.
    seen: HashSet<(usize, String)>,
    tries: u32,
}

/// Whether `text`, which ends at `offset`, is the fold of `subject`'s records without those of some of the losses.
pub fn is_fold_without(losses: &[(u64, u64)], records: &[Rec], (subject, offset, text): (&str, u64, &str)) -> bool {
    let Some(claims) = Claims::of(text) else {
        return false;
    };
    let its = |record: &&Rec| record.offset <= offset && record.key.as_deref() == Some(subject.as_bytes());
    let records: Vec<&Rec> = records.iter().filter(its).collect();
    let at = |bound: u64| records.partition_point(|record| record.offset < bound);
    let mut holes: Vec<(usize, usize)> = losses.iter().map(|(from, to)| (at(*from), at(*to))).collect();
    holes.retain(|(from, to)| from < to && *to < records.len());
    holes.sort_unstable();
    holes.dedup();
    let mut search = Search {
        subject,
        records,
        holes,
        claims,
        seen: HashSet::new(),
        tries: 0,
    };
    search.goes_on(0, &Fold::default())
}

impl Search<'_> {
    /// Whether the records from `at` on can be kept or lost so that the document comes of it.
    fn goes_on(&mut self, at: usize, fold: &Fold) -> bool {
        if self.keeps(at, fold) {
            return true;
        }
        let ends: Vec<usize> = (at + 1..self.records.len()).collect();
        ends.into_iter()
            .any(|end| self.is_lost(at, end) && self.keeps(end, fold))
    }

    /// Whether losses took just that.
    fn is_lost(&self, from: usize, to: usize) -> bool {
        let within = self.holes.iter().filter(|hole| from <= hole.0 && hole.1 <= to);
        within.fold(from, |lost, hole| if hole.0 <= lost { lost.max(hole.1) } else { lost }) == to
    }

    fn keeps(&mut self, at: usize, before: &Fold) -> bool {
        let mut fold = before.clone();
        self.tries += 1;
        let outcome = fold.apply(self.records[at], &Rules::of(1));
        let (offset, claims) = (self.records[at].offset, &self.claims);
        if before.accepted == 0 && matches!(outcome, Outcome::Accepted { .. }) && offset != claims.first_offset {
            return false;
        }
        let left = (self.records.len() - at - 1) as u64;
        if fold.accepted > claims.events || fold.accepted + left < claims.events || self.tries > TRIES {
            return false;
        }
        let Some(entity) = fold.entities.get(self.subject) else {
            return left > 0 && self.goes_on(at + 1, &fold);
        };
        let hash = entity.summary_hash();
        if left == 0 {
            return hash == claims.hash;
        }
        claims.may_follow(entity) && self.seen.insert((at, hash)) && self.goes_on(at + 1, &fold)
    }
}

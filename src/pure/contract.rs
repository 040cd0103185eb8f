//! What each producer breaks of the contract: illegal events, gaps, duplicates, large ones, clocks that are off, secrets.
//! In: events as they come, from a file or a log. Out: one line per producer. Bounded: so many producers and sequences;
//! what overflows is told as `others`, or forgotten, and never taken for a gap.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use super::accept::{Accepted, Seen, Source};
use super::event::Event;

/// Producers told apart.
const PRODUCERS_MAX: usize = 1_000;
/// Pairs of source and subject remembered.
const PAIRS_MAX: usize = 200_000;
const OTHERS: &str = "others";

/// How one producer (`source`) keeps to the contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Producer {
    /// Who it says it is; empty if an illegal event does not tell.
    pub source: String,
    /// Legal events.
    pub events: u64,
    /// Illegal events, by reason.
    pub bad: BTreeMap<&'static str, u64>,
    /// Why the last illegal one is.
    pub last_detail: Option<String>,
    /// Sequences that were jumped over and have not come since.
    pub missing: u64,
    /// Events seen before, by their sequence.
    pub duplicates: u64,
    /// Events without a sequence: their losses are not noticed.
    pub unnumbered: u64,
    /// Secrets in them.
    pub secrets: u64,
    /// The largest event.
    pub bytes_max: u64,
    /// The furthest that `time` is from the log's clock, behind it (positive) or before it.
    pub skew_ms: i64,
}

impl Producer {
    /// Whether nothing is to be mended.
    pub fn is_clean(&self) -> bool {
        self.bad.is_empty() && self.missing == 0 && self.secrets == 0
    }
}

/// One event's size and secrets, and the log's clock if it came from a log.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Bytes of its value.
    pub bytes: usize,
    /// Secrets in it.
    pub secrets: u64,
    /// The record's timestamp.
    pub logged_ms: Option<i64>,
}

/// All producers seen.
#[derive(Debug, Default)]
pub struct Contract {
    producers: BTreeMap<String, Producer>,
    accepted: HashMap<(String, String), Accepted>,
    /// Sources count from 1 here: what is missing before the first is missing.
    from_the_start: bool,
}

impl Contract {
    /// Of a log or file that is read from its first event on.
    pub fn from_the_start() -> Self {
        Self {
            from_the_start: true,
            ..Self::default()
        }
    }

    /// Takes a legal event.
    pub fn take(&mut self, event: &Event<'_>, facts: Facts) {
        let pair = (event.source().to_owned(), event.subject().to_owned());
        if self.accepted.len() >= PAIRS_MAX && !self.accepted.contains_key(&pair) {
            self.accepted.clear();
            self.from_the_start = false; // what was forgotten is no gap
        }
        let joined_at = event.sequence().filter(|_| !self.from_the_start);
        let accepted = self
            .accepted
            .entry(pair)
            .or_insert_with(|| joined(event.source(), joined_at));
        let before = accepted.missing_events();
        let seen = accepted.take(event.source(), event.sequence(), event.id());
        let after = accepted.missing_events();
        let producer = self.producer(event.source());
        producer.events += 1;
        producer.missing = (producer.missing + after).saturating_sub(before);
        producer.duplicates += u64::from(seen == Seen::Before);
        producer.unnumbered += u64::from(event.sequence().is_none());
        producer.secrets += facts.secrets;
        producer.bytes_max = producer.bytes_max.max(facts.bytes as u64);
        if let (Some(logged_ms), Some(time)) = (facts.logged_ms, event.time()) {
            let skew_ms = logged_ms - time.ms();
            if skew_ms.abs() > producer.skew_ms.abs() {
                producer.skew_ms = skew_ms;
            }
        }
    }

    /// Takes an illegal event.
    pub fn refuse(&mut self, source: &str, reason: &'static str, detail: &str) {
        let producer = self.producer(source);
        *producer.bad.entry(reason).or_default() += 1;
        producer.last_detail = Some(detail.to_owned());
    }

    /// Each producer, those with something to mend first.
    pub fn producers(&self) -> Vec<&Producer> {
        let mut all: Vec<&Producer> = self.producers.values().collect();
        all.sort_by_key(|producer| producer.is_clean());
        all
    }

    fn producer(&mut self, source: &str) -> &mut Producer {
        let is_known = self.producers.contains_key(source) || self.producers.len() < PRODUCERS_MAX;
        let source = if is_known { source } else { OTHERS };
        let producer = self.producers.entry(source.to_owned()).or_default();
        source.clone_into(&mut producer.source);
        producer
    }
}

/// A source that is joined in its middle: what came before its first event is not missing.
fn joined(source: &str, first: Option<u64>) -> Accepted {
    let known = first.map(|first| Source {
        name: Box::from(source),
        max: first - 1,
        missing: Vec::new(),
        forgotten: 0,
    });
    Accepted::restored(known.into_iter().collect(), VecDeque::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::event::decode_structured;

    fn take(contract: &mut Contract, source: &str, sequence: Option<u64>) {
        let sequence = sequence.map_or("null".to_owned(), |number| number.to_string());
        let text = format!(
            r#"{{"specversion":"1.0","id":"i","source":"{source}","type":"run.delta","subject":"run/a","sequence":{sequence}}}"#
        );
        let event = decode_structured(text.as_bytes(), 1 << 20).expect("legal");
        let facts = Facts {
            bytes: text.len(),
            secrets: 0,
            logged_ms: None,
        };
        contract.take(&event, facts);
    }

    #[test]
    fn gaps_duplicates_and_what_fills_a_gap_are_told_by_producer() {
        let mut contract = Contract::from_the_start();
        for sequence in [1, 2, 5, 5, 3] {
            take(&mut contract, "a", Some(sequence));
        }
        take(&mut contract, "b", None);
        contract.refuse("b", "bad_type", "why");
        let producers = contract.producers();
        let of = |source: &str| producers.iter().find(|one| one.source == source).expect("it is told");
        assert_eq!(
            (of("b").unnumbered, of("b").bad["bad_type"], of("b").is_clean()),
            (1, 1, false)
        );
        assert_eq!(
            (of("a").events, of("a").missing, of("a").duplicates),
            (5, 1, 1),
            "4 is missing, 5 came twice"
        );
    }

    #[test]
    fn a_live_topic_is_joined_in_its_middle() {
        let mut contract = Contract::default();
        for sequence in [17, 18, 20] {
            take(&mut contract, "a", Some(sequence));
        }
        assert_eq!(contract.producers()[0].missing, 1);
    }
}

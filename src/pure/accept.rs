//! Which events are accepted: each once, by sequence per source, or by (source, id) (INTERFACE.md §1).
//! In: source, sequence, id. Out: accepted or duplicate. Invariant: bounded; what is forgotten is counted.
//! The least recently accepted source goes first, and its missing and forgotten sequences are added to the
//! newcomer's `forgotten`; the lowest missing range goes first.

use std::collections::VecDeque;

use sha2::{Digest as _, Sha256};

use super::event::SEQUENCE_MAX;

/// The most sources kept per entity.
pub const SOURCES_MAX: usize = 64;
/// The most missing ranges kept per source.
pub const RANGES_MAX: usize = 32;
/// How many events without a sequence are remembered.
pub const RECENT_MAX: usize = 32;

/// What one source has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: Box<str>,
    /// The highest sequence seen.
    pub max: u64,
    /// Ranges below `max` that were not seen, ascending, both ends included.
    pub missing: Vec<(u64, u64)>,
    /// Missing sequences that are not remembered any more.
    pub forgotten: u64,
}

impl Source {
    /// Sequences known to be missing.
    pub fn missing_events(&self) -> u64 {
        self.missing.iter().map(|(first, last)| last - first + 1).sum()
    }

    fn take(&mut self, sequence: u64) -> Seen {
        if sequence == self.max + 1 {
            self.max = sequence;
            return Seen::First;
        }
        if sequence > self.max {
            self.missing.push((self.max + 1, sequence - 1));
            self.max = sequence;
            self.forget_lowest();
            return Seen::First;
        }
        let at = self.missing.partition_point(|(_, last)| *last < sequence);
        let Some(&(first, last)) = self.missing.get(at).filter(|(first, _)| *first <= sequence) else {
            return Seen::Before;
        };
        let left = (first < sequence).then(|| (first, sequence - 1));
        let right = (sequence < last).then(|| (sequence + 1, last));
        self.missing.splice(at..=at, left.into_iter().chain(right));
        self.forget_lowest();
        Seen::First
    }

    fn forget_lowest(&mut self) {
        if self.missing.len() > RANGES_MAX {
            let (first, last) = self.missing.remove(0);
            self.forgotten = counted(self.forgotten + last - first + 1);
        }
    }
}

/// Whether an event was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is accepted.
    First,
    /// It is a duplicate, and changes nothing.
    Before,
}

/// What one entity remembers of its accepted events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The least recently accepted first.
    sources: Vec<Source>,
    /// Hashes of (source, id) of the last ones without a sequence, the oldest first.
    recent: VecDeque<u128>,
}

impl Accepted {
    /// What was remembered: sources, the least recently accepted first, and recent hashes, the oldest first.
    pub fn restored(sources: Vec<Source>, recent: VecDeque<u128>) -> Self {
        Self { sources, recent }
    }

    /// Takes note of an event, unless it was seen before.
    pub fn take(&mut self, source: &str, sequence: Option<u64>, id: &str) -> Seen {
        let Some(sequence) = sequence else {
            return self.take_recent(source, id);
        };
        let Some(at) = self.sources.iter().rposition(|known| *known.name == *source) else {
            self.add(source).take(sequence);
            return Seen::First;
        };
        let seen = self.sources[at].take(sequence);
        if seen == Seen::First && at + 1 < self.sources.len() {
            self.sources[at..].rotate_left(1);
        }
        seen
    }

    fn add(&mut self, name: &str) -> &mut Source {
        let mut forgotten = 0;
        if self.sources.len() == SOURCES_MAX {
            let oldest = self.sources.remove(0);
            forgotten = counted(oldest.missing_events() + oldest.forgotten);
        }
        let at = self.sources.len();
        self.sources.push(Source {
            name: Box::from(name),
            max: 0,
            missing: Vec::new(),
            forgotten,
        });
        &mut self.sources[at]
    }

    fn take_recent(&mut self, source: &str, id: &str) -> Seen {
        let hash = hash(source, id);
        if self.recent.contains(&hash) {
            return Seen::Before;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(hash);
        Seen::First
    }

    /// All sources, the least recently accepted first.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Hashes of recent events without a sequence, the oldest first.
    pub fn recent(&self) -> &VecDeque<u128> {
        &self.recent
    }

    /// Sequences known to be missing, over all sources.
    pub fn missing_events(&self) -> u64 {
        counted(self.sources.iter().map(Source::missing_events).sum())
    }

    /// Bytes on the heap, roughly.
    pub fn bytes(&self) -> usize {
        let per_source = |source: &Source| size_of::<Source>() + source.name.len() + source.missing.capacity() * 16;
        self.sources.iter().map(per_source).sum::<usize>() + self.recent.capacity() * 16
    }
}

/// Counts stop where JSON numbers stop being exact.
fn counted(count: u64) -> u64 {
    count.min(SEQUENCE_MAX)
}

/// First 16 bytes of SHA-256 over the length of the source (8 bytes, big endian), source, id.
fn hash(source: &str, id: &str) -> u128 {
    let length = (source.len() as u64).to_be_bytes();
    let digest = Sha256::new()
        .chain_update(length)
        .chain_update(source)
        .chain_update(id)
        .finalize();
    digest
        .iter()
        .take(16)
        .fold(0, |hash, byte| hash << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn sent(accepted: &mut Accepted, sequences: &[u64]) -> Vec<bool> {
        sequences
            .iter()
            .map(|n| accepted.take("s", Some(*n), "") == Seen::First)
            .collect()
    }

    #[test]
    fn a_late_event_fills_its_place_once() {
        let mut accepted = Accepted::default();
        assert_eq!(
            sent(&mut accepted, &[1, 2, 5, 4, 4, 3, 3, 5, 2, 6]),
            [true, true, true, true, false, true, false, false, false, true]
        );
        assert_eq!(accepted.sources()[0].missing, []);
        assert_eq!(sent(&mut accepted, &[10, 8]), [true, true]);
        assert_eq!(accepted.sources()[0].missing, [(7, 7), (9, 9)]);
        assert_eq!(accepted.missing_events(), 2);
    }

    #[test]
    fn a_first_event_above_one_misses_those_before_it() {
        let mut accepted = Accepted::default();
        sent(&mut accepted, &[4]);
        assert_eq!(accepted.sources()[0].missing, [(1, 3)]);
    }

    #[test]
    fn the_lowest_range_is_forgotten_first_and_counted() {
        let mut accepted = Accepted::default();
        let odd: Vec<u64> = (0..34).map(|i| 3 * i + 3).collect(); // ranges of two
        sent(&mut accepted, &odd);
        let source = &accepted.sources()[0];
        assert_eq!(
            (source.missing.len(), source.forgotten, source.missing[0]),
            (RANGES_MAX, 4, (7, 8))
        );
        assert_eq!(sent(&mut accepted, &[1]), [false], "what is forgotten counts as seen");
        assert_eq!(sent(&mut accepted, &[8]), [true]);
    }

    #[test]
    fn the_least_recently_accepted_source_is_forgotten_first() {
        let mut accepted = Accepted::default();
        for i in 0..SOURCES_MAX {
            accepted.take(&format!("s{i}"), Some(3), "");
        }
        accepted.take("s0", Some(4), "");
        accepted.take("new", Some(1), "");
        let names: Vec<_> = accepted.sources().iter().map(|source| &*source.name).collect();
        assert_eq!(names.len(), SOURCES_MAX);
        assert!(names.contains(&"s0") && !names.contains(&"s1"), "{names:?}");
        assert_eq!(accepted.sources()[SOURCES_MAX - 1].forgotten, 2);
    }

    #[test]
    fn without_a_sequence_the_last_32_ids_count() {
        let mut accepted = Accepted::default();
        for i in 0..40 {
            assert_eq!(accepted.take("s", None, &i.to_string()), Seen::First);
        }
        assert_eq!(accepted.take("s", None, "8"), Seen::Before);
        assert_eq!(accepted.take("t", None, "8"), Seen::First);
        assert_eq!(accepted.take("s", None, "7"), Seen::First);
    }

    proptest! {
        /// While nothing is forgotten, accepted are exactly those not seen before.
        #[test]
        fn each_sequence_is_accepted_once(sequences in prop::collection::vec(1_u64..30, 0..60)) {
            let (mut accepted, mut seen) = (Accepted::default(), BTreeSet::new());
            for n in sequences {
                prop_assert_eq!(accepted.take("s", Some(n), "") == Seen::First, seen.insert(n));
            }
            let max = seen.last().copied().unwrap_or(0);
            prop_assert_eq!(accepted.missing_events(), max - seen.len() as u64);
        }
    }
}

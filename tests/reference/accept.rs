//! Which events are accepted (INTERFACE.md §1): once per (source, sequence), or per recent (source, id).
//! `forgotten` counts sequences that fell out of the bounds: 32 missing ranges a source, 64 sources.

use std::collections::BTreeMap;

/// What is known of one source of an entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub max: u64,
    /// Ascending, apart, both ends included.
    pub missing: Vec<(u64, u64)>,
    pub forgotten: u64,
}

/// What one entity remembers to tell new events from old ones.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub sources: BTreeMap<String, Source>,
    /// Names of the sources, the one that was accepted longest ago first.
    order: Vec<String>,
    /// (source, id) of the last 32 accepted without a sequence, oldest first.
    recent: Vec<(String, String)>,
}

impl Source {
    /// Number of sequences in the missing ranges.
    pub fn missing_count(&self) -> u64 {
        self.missing.iter().map(|(a, b)| b - a + 1).sum()
    }

    fn accept(&mut self, n: u64) -> bool {
        if n > self.max {
            if n > self.max + 1 {
                self.missing.push((self.max + 1, n - 1));
            }
            self.max = n;
        } else {
            let Some(at) = self.missing.iter().position(|(a, b)| (*a..=*b).contains(&n)) else {
                return false;
            };
            let (a, b) = self.missing.remove(at);
            if n < b {
                self.missing.insert(at, (n + 1, b));
            }
            if a < n {
                self.missing.insert(at, (a, n - 1));
            }
        }
        while self.missing.len() > 32 {
            let (a, b) = self.missing.remove(0);
            self.forgotten += b - a + 1;
        }
        true
    }
}

impl Memory {
    /// Whether the event is accepted; if it is, it is remembered.
    pub fn accept(&mut self, source: &str, id: &str, sequence: Option<u64>) -> bool {
        let Some(n) = sequence else {
            return self.accept_without_sequence(source, id);
        };
        if !self.sources.contains_key(source) {
            let forgotten = self.make_room();
            let newcomer = Source {
                forgotten,
                ..Source::default()
            };
            self.sources.insert(source.to_owned(), newcomer);
        }
        let known = self.sources.get_mut(source).expect("inserted above");
        if !known.accept(n) {
            return false;
        }
        self.order.retain(|name| name != source);
        self.order.push(source.to_owned());
        true
    }

    fn accept_without_sequence(&mut self, source: &str, id: &str) -> bool {
        let it = (source.to_owned(), id.to_owned());
        if self.recent.contains(&it) {
            return false;
        }
        self.recent.push(it);
        if self.recent.len() > 32 {
            self.recent.remove(0);
        }
        true
    }

    /// Drops a source if there are 64; returns how many sequences are forgotten with it.
    fn make_room(&mut self) -> u64 {
        if self.sources.len() < 64 {
            return 0;
        }
        let oldest = self.order.remove(0);
        let dropped = self.sources.remove(&oldest).expect("order names sources");
        dropped.missing_count() + dropped.forgotten
    }
}

//! The newest events of one entity that somebody follows, shared by all its readers.
//! Invariant: entries are in order and without a hole; whoever needs older ones reads the store.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Bytes kept of one entity.
const FEED_BYTES_MAX: usize = 64 << 10;
/// Bytes kept over all entities; past it readers read the store.
const ALL_BYTES_MAX: usize = 64 << 20;
/// Entries handed to a reader at once.
const ENTRIES_MAX: usize = 256;

/// One event: its seq and JSON.
pub(in crate::serve) type Entry = (u64, Arc<[u8]>);

/// What a feed knows of the time behind a seq.
pub(in crate::serve) enum Known {
    /// Nothing new is known.
    UpToDate,
    /// These came next.
    Entries(Vec<Entry>),
    /// Something came that is not kept here.
    ReadStore,
}

pub(in crate::serve) struct Feed {
    recent: Mutex<Recent>,
    news: watch::Sender<u64>,
    followers: AtomicUsize,
    all_bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Recent {
    latest: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Feed {
    pub(super) fn new(latest: u64, all_bytes: Arc<AtomicUsize>) -> Self {
        let recent = Recent {
            latest,
            ..Recent::default()
        };
        Self {
            recent: Mutex::new(recent),
            news: watch::channel(0).0,
            followers: AtomicUsize::new(0),
            all_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    pub(super) fn followed(&self) {
        self.followers.fetch_add(1, Ordering::SeqCst);
    }

    /// One follower less; how many are left.
    pub(super) fn left(&self) -> usize {
        self.followers.fetch_sub(1, Ordering::SeqCst) - 1
    }

    /// There is something to look at that is no event.
    pub(super) fn wake(&self) {
        self.news.send_modify(|number| *number += 1);
    }

    /// The highest seq that is known.
    pub(super) fn latest(&self) -> u64 {
        self.lock().latest
    }

    /// A commit of ours holds this event. A seq that is known already is a redo, and what was known behind it is
    /// history only if it is redone too.
    pub(super) fn commit(&self, seq: u64, json: &[u8]) {
        let mut recent = self.lock();
        let known = recent
            .entries
            .iter()
            .any(|(known, text)| *known == seq && **text == *json);
        if seq <= recent.latest && !known {
            self.forget(&mut recent);
            recent.latest = seq.saturating_sub(1);
        }
        drop(recent);
        self.push(seq, json);
    }

    /// An event was found in the store. What is known already is no news.
    pub(super) fn push(&self, seq: u64, json: &[u8]) {
        let mut recent = self.lock();
        if seq <= recent.latest {
            return;
        }
        if seq > recent.latest + 1 {
            self.forget(&mut recent);
        }
        recent.latest = seq;
        let fits = json.len() <= FEED_BYTES_MAX && self.all_bytes.load(Ordering::Relaxed) < ALL_BYTES_MAX;
        if fits {
            recent.entries.push_back((seq, Arc::from(json)));
            recent.bytes += json.len();
            self.all_bytes.fetch_add(json.len(), Ordering::Relaxed);
        } else {
            self.forget(&mut recent);
        }
        while recent.bytes > FEED_BYTES_MAX {
            let oldest = recent.entries.pop_front().map_or(0, |(_, json)| json.len());
            recent.bytes -= oldest;
            self.all_bytes.fetch_sub(oldest, Ordering::Relaxed);
        }
        drop(recent);
        self.news.send_modify(|number| *number += 1);
    }

    fn forget(&self, recent: &mut Recent) {
        self.all_bytes.fetch_sub(recent.bytes, Ordering::Relaxed);
        recent.entries.clear();
        recent.bytes = 0;
    }

    /// A reader found this in the store: it is no news to anybody who asks for what comes behind.
    pub(in crate::serve) fn seen(&self, seq: u64) {
        let mut recent = self.lock();
        if seq > recent.latest {
            self.forget(&mut recent);
            recent.latest = seq;
            drop(recent);
            self.news.send_modify(|number| *number += 1);
        }
    }

    /// What came behind `after`.
    pub(in crate::serve) fn behind(&self, after: u64) -> Known {
        let recent = self.lock();
        if after >= recent.latest {
            return Known::UpToDate;
        }
        match recent.entries.front() {
            Some((first, _)) if *first <= after + 1 => {
                let new = recent.entries.iter().filter(|(seq, _)| *seq > after);
                Known::Entries(new.take(ENTRIES_MAX).cloned().collect())
            }
            _ => Known::ReadStore,
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut recent = Recent::default();
        std::mem::swap(&mut recent, &mut self.lock());
        self.all_bytes.fetch_sub(recent.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seqs(feed: &Feed, after: u64) -> Option<Vec<u64>> {
        match feed.behind(after) {
            Known::UpToDate => Some(Vec::new()),
            Known::Entries(entries) => Some(entries.into_iter().map(|(seq, _)| seq).collect()),
            Known::ReadStore => None,
        }
    }

    #[test]
    fn a_reader_gets_what_came_behind_it_or_is_sent_to_the_store() {
        let feed = Feed::new(4, Arc::default());
        assert_eq!(seqs(&feed, 4), Some(vec![]));
        feed.push(5, b"{}");
        feed.push(6, b"{}");
        feed.push(6, b"again");
        assert_eq!(seqs(&feed, 4), Some(vec![5, 6]));
        assert_eq!(seqs(&feed, 5), Some(vec![6]));
        assert_eq!(seqs(&feed, 3), None, "older than what is kept");
        feed.push(9, b"{}"); // 7 and 8 were missed
        assert_eq!((seqs(&feed, 6), seqs(&feed, 8)), (None, Some(vec![9])));
    }

    #[test]
    fn a_redo_takes_the_place_of_what_was_known() {
        let feed = Feed::new(0, Arc::default());
        (1..=5).for_each(|seq| feed.commit(seq, b"old"));
        feed.commit(4, b"old");
        assert_eq!(feed.latest(), 5, "the same again is no news");
        feed.commit(4, b"new");
        assert_eq!(
            (feed.latest(), seqs(&feed, 3), seqs(&feed, 2)),
            (4, Some(vec![4]), None)
        );
    }

    #[test]
    fn what_is_kept_has_a_bound_and_is_given_back() {
        let all = Arc::new(AtomicUsize::new(0));
        let feed = Feed::new(0, Arc::clone(&all));
        for seq in 1..=1000 {
            feed.push(seq, &[b'x'; 1000]);
        }
        assert!(all.load(Ordering::Relaxed) <= FEED_BYTES_MAX);
        assert_eq!(seqs(&feed, 1), None);
        feed.push(1001, &vec![b'x'; FEED_BYTES_MAX + 1]);
        assert_eq!(seqs(&feed, 1000), None, "too large to be kept");
        feed.seen(1002);
        assert_eq!(seqs(&feed, 1002), Some(vec![]));
        drop(feed);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}

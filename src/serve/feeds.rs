//! One source of news for all readers of this process: who waits for an entity, a position or any change hears of it
//! here, and nobody asks the store by himself. In: batches that this process commits, and one look at the store for
//! partitions of others (and, more rarely, of our own, in case a commit's answer was lost).
//! Invariant: news may come twice and never goes missing: a reader that missed something reads the store.

mod feed;
mod poll;
mod watched;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast, watch};

pub(super) use self::feed::{Entry, Feed, Known};
use self::watched::{Source, Watched};
use crate::access::Led;
use crate::pure::batch::Batch;
use crate::pure::entity::Entity;
use crate::pure::place::{NextOffset, PartitionId};

/// Batches that a listener to all changes may be behind.
const CHANGES_QUEUE: usize = 16;
/// Documents of one batch that listeners to all changes get; past it they are told to list anew.
const CHANGES_OF_A_BATCH_MAX: usize = 1000;

/// Documents that changed.
#[derive(Clone, Debug)]
pub(super) struct Changes {
    /// Each with its entity, as stored.
    pub documents: Vec<(Entity, Vec<u8>)>,
    /// More changed than stand here.
    pub more: bool,
}

/// All feeds of this process.
pub(super) struct Feeds {
    /// The view of the route under which changes are told. Locked before `watched`.
    view: Mutex<Option<Led>>,
    watched: Mutex<BTreeMap<PartitionId, Watched>>,
    changes: broadcast::Sender<Arc<Changes>>,
    /// Guests and listeners: while there is none, a commit costs one look at this number.
    interest: AtomicUsize,
    /// Bytes of entries kept for readers, over all feeds.
    kept_bytes: Arc<AtomicUsize>,
    awake: Notify,
}

impl Feeds {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            view: Mutex::default(),
            watched: Mutex::default(),
            changes: broadcast::channel(CHANGES_QUEUE).0,
            interest: AtomicUsize::new(0),
            kept_bytes: Arc::default(),
            awake: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> MutexGuard<'_, Option<Led>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on news are told as this view has them. Who listens to all changes lists anew, and readers of single
    /// entities look whether they are led elsewhere.
    pub(super) fn see(&self, led: &Led) {
        let mut view = self.view();
        let is_first = view.is_none();
        if view.as_ref().is_some_and(|view| !led.is_newer(view)) {
            return;
        }
        *view = Some(led.clone());
        if is_first {
            return; // nothing was told before
        }
        for watched in self.lock().values_mut() {
            watched.forget();
            watched
                .feeds
                .values()
                .flat_map(HashMap::values)
                .for_each(|feed| feed.wake());
        }
        self.tell(Vec::new(), true);
    }

    /// Follows an entity, as this view has it, of which everything up to seq `after` is known already.
    pub(super) fn follow(
        self: &Arc<Self>,
        partition: PartitionId,
        (led, entity): (&Led, &Entity),
        after: u64,
    ) -> Following {
        self.see(led);
        let guest = self.guest(partition);
        let mut watched = self.lock();
        let source = led.source(entity).map(str::to_owned);
        let all = &mut watched.entry(partition).or_insert_with(Watched::new).feeds;
        let feed = all
            .entry(source.clone())
            .or_default()
            .entry(entity.clone())
            .or_insert_with(|| Arc::new(Feed::new(after, Arc::clone(&self.kept_bytes))));
        feed.followed();
        Following {
            feed: Arc::clone(feed),
            news: feed.news(),
            source,
            entity: entity.clone(),
            guest,
        }
    }

    /// Follows the position of a partition.
    pub(super) fn watch(self: &Arc<Self>, partition: PartitionId) -> (Guest, watch::Receiver<Option<NextOffset>>) {
        let guest = self.guest(partition);
        let mut watched = self.lock();
        let position = &watched.entry(partition).or_insert_with(Watched::new).position;
        let position = position.subscribe();
        (guest, position)
    }

    /// Hears of every changed document, as this view has it, until another one is told by a reset.
    pub(super) fn listen(self: &Arc<Self>, led: &Led) -> Listening {
        self.see(led);
        self.interest.fetch_add(1, Ordering::SeqCst);
        self.awake.notify_one();
        Listening {
            changes: self.changes.subscribe(),
            feeds: Arc::clone(self),
        }
    }

    fn guest(self: &Arc<Self>, partition: PartitionId) -> Guest {
        self.lock().entry(partition).or_insert_with(Watched::new).guests += 1;
        self.interest.fetch_add(1, Ordering::SeqCst);
        self.awake.notify_one();
        Guest {
            partition,
            feeds: Arc::clone(self),
        }
    }

    /// A batch of ours is in the store.
    pub(super) fn committed(&self, partition: PartitionId, batch: &Batch) {
        if self.interest.load(Ordering::SeqCst) == 0 {
            return;
        }
        let view = self.view(); // held, so that nothing of ours is told once another view is
        // Who looks at the store sees to the rest, while some readers are led elsewhere.
        let is_own = view.as_ref().is_none_or(Led::is_own);
        if let Some(watched) = self.lock().get_mut(&partition) {
            if let Some(feeds) = watched.feeds.get(&None) {
                for event in &batch.events {
                    if let Some(feed) = feeds.get(&event.entity) {
                        feed.commit(event.seq, batch.text(&event.json));
                    }
                }
            }
            if is_own {
                let before = batch.expected.as_ref().map(|expected| expected.next);
                watched.committed(before, batch.checkpoint.next);
            }
        }
        if is_own && self.changes.receiver_count() > 0 {
            let documents = batch.documents.iter().rev().take(CHANGES_OF_A_BATCH_MAX);
            let documents = documents.map(|write| (write.entity.clone(), batch.text(&write.json).to_vec()));
            self.tell(documents.collect(), batch.documents.len() > CHANGES_OF_A_BATCH_MAX);
        }
    }

    fn tell(&self, documents: Vec<(Entity, Vec<u8>)>, more: bool) {
        if !documents.is_empty() || more {
            let _ = self.changes.send(Arc::new(Changes { documents, more }));
        }
    }
}

/// Somebody who waits for news of a partition, until dropped.
pub(super) struct Guest {
    partition: PartitionId,
    feeds: Arc<Feeds>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.feeds.interest.fetch_sub(1, Ordering::SeqCst);
        let mut all = self.feeds.lock();
        if let Some(watched) = all.get_mut(&self.partition) {
            watched.guests -= 1;
            if watched.guests == 0 && self.feeds.changes.receiver_count() == 0 {
                all.remove(&self.partition);
            }
        }
    }
}

/// A follower of one entity, until dropped.
pub(super) struct Following {
    pub feed: Arc<Feed>,
    /// Changes with every piece of news.
    pub news: watch::Receiver<u64>,
    source: Source,
    entity: Entity,
    guest: Guest,
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut all = self.guest.feeds.lock();
        if let Some(watched) = all.get_mut(&self.guest.partition) {
            // The last follower takes the feed with it.
            if self.feed.left() == 0
                && let Some(feeds) = watched.feeds.get_mut(&self.source)
            {
                feeds.remove(&self.entity);
                if feeds.is_empty() {
                    watched.feeds.remove(&self.source);
                }
            }
        }
    }
}

/// A listener to all changes, until dropped.
pub(super) struct Listening {
    pub changes: broadcast::Receiver<Arc<Changes>>,
    feeds: Arc<Feeds>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.feeds.interest.fetch_sub(1, Ordering::SeqCst);
        if self.feeds.changes.receiver_count() <= 1 {
            self.feeds.lock().retain(|_, watched| watched.guests > 0);
        }
    }
}

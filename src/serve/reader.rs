//! Reads one entity's events from some seq on, as they come: from the store where it must, from the shared feed where
//! it can. Invariant: events come in order, none twice, and a hole is told, never jumped over.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::App;
use super::feeds::{Entry, Following, Known};
use crate::access::{AccessError, Led};
use crate::pure::entity::Entity;
use crate::pure::place::PartitionId;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// With the first event that is kept.
    Kept,
    /// Behind this seq, or not at all.
    After(u64),
}

/// What came.
pub(super) enum News {
    /// Events, in order.
    Entries(Vec<Entry>),
    /// Nothing in the time given, or before the server stops.
    Quiet,
    /// Nothing more will: readers of the entity are led to another namespace by now.
    LedElsewhere,
    /// What comes next is not kept any more: `floor` is the first seq that is.
    Breach { floor: u64 },
}

pub(super) struct Reader {
    app: App,
    /// The route as it was when the answer began: all of it comes from one namespace.
    led: Led,
    pub(super) partition: PartitionId,
    pub(super) entity: Entity,
    following: Following,
    /// Up to where the reader has read.
    pub(super) cursor: u64,
    begin: Begin,
    /// Whether the store was read to its end once: from then on the feed knows what is new.
    caught_up: bool,
}

impl Reader {
    /// A reader of an entity.
    ///
    /// # Errors
    /// The log does not answer.
    pub(super) async fn open(app: &App, entity: &Entity, begin: Begin) -> Result<Self, AccessError> {
        let led = app.access.led().await?;
        let partition = app.access.home_of(&led, entity).await?;
        let cursor = match begin {
            Begin::Kept => 0,
            Begin::After(after) => after,
        };
        Ok(Self {
            app: app.clone(),
            partition,
            entity: entity.clone(),
            following: app.feeds.follow(partition, (&led, entity), cursor),
            led,
            cursor,
            begin,
            caught_up: false,
        })
    }

    /// What comes next, at most `limit` events, waiting up to `patience` for a first one, or until the server stops.
    ///
    /// # Errors
    /// The store does not answer. The reader can be asked again.
    pub(super) async fn next(&mut self, limit: usize, patience: Duration) -> Result<News, AccessError> {
        let until = Instant::now() + patience;
        loop {
            self.following.news.borrow_and_update();
            if self.is_led_elsewhere() {
                return Ok(News::LedElsewhere);
            }
            let known = if self.caught_up {
                self.following.feed.behind(self.cursor)
            } else {
                Known::ReadStore
            };
            let mut entries = match known {
                Known::UpToDate => Vec::new(),
                Known::Entries(entries) => entries,
                Known::ReadStore => self.read_store(limit).await?,
            };
            if !entries.is_empty() {
                entries.truncate(limit);
                return Ok(self.hand_out(entries));
            }
            let changed = tokio::select! {
                biased;
                changed = timeout_at(until, self.following.news.changed()) => changed,
                () = self.app.stop.cancelled() => return Ok(News::Quiet),
            };
            if !matches!(changed, Ok(Ok(()))) {
                return Ok(News::Quiet);
            }
        }
    }

    /// Reads the store next, whatever the feed knows.
    pub(super) fn look_again(&mut self) {
        self.caught_up = false;
    }

    /// Whether readers of the entity are led elsewhere by now.
    fn is_led_elsewhere(&self) -> bool {
        let now = self.app.access.led_last();
        now.is_some_and(|now| now.source(&self.entity) != self.led.source(&self.entity))
    }

    async fn read_store(&mut self, limit: usize) -> Result<Vec<Entry>, AccessError> {
        let found = self
            .led
            .of(&self.entity)
            .events(self.partition, &self.entity, self.cursor, limit, Duration::ZERO)
            .await?;
        self.caught_up |= found.is_empty();
        if let Some(last) = found.last() {
            self.following.feed.seen(last.seq);
        }
        Ok(found
            .into_iter()
            .map(|entry| (entry.seq, Arc::from(entry.json)))
            .collect())
    }

    fn hand_out(&mut self, entries: Vec<Entry>) -> News {
        let floor = entries[0].0;
        let hole = floor > self.cursor + 1;
        if hole && self.begin != Begin::Kept {
            return News::Breach { floor };
        }
        self.begin = Begin::After(floor);
        self.cursor = entries[entries.len() - 1].0;
        News::Entries(entries)
    }

    /// The document as it is now.
    ///
    /// # Errors
    /// As [`crate::access::Access::document`].
    pub(super) async fn document(&self) -> Result<Value, AccessError> {
        self.app
            .access
            .document_of(&self.led, &self.entity, crate::projector::now_ms())
            .await
    }

    /// Whether the entity ended, and the reader has read all of it.
    pub(super) fn is_over(&self, document: &Value) -> bool {
        let status = document["status"].as_str().unwrap_or_default();
        let ended = matches!(status, "succeeded" | "failed" | "canceled" | "stopped");
        ended
            && document["latest_seq"]
                .as_u64()
                .is_some_and(|latest| latest <= self.cursor)
    }
}

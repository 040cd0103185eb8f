//! Looks at the store for all readers at once: partitions that others project, and now and then our own.
//! In: checkpoints, and what the index says has changed since the last look. Out: the same news as a commit of ours.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::watched::{News, Watched};
use super::{CHANGES_OF_A_BATCH_MAX, Feed, Feeds};
use crate::access::{Access, AccessError, Led};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, PartitionId};
use crate::store::Stored;

/// How often partitions of others are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often our own are.
const LOOK_AT_OURS_EVERY: Duration = Duration::from_secs(1);
/// The pause after a look that failed.
const AWAY_PAUSE: Duration = Duration::from_secs(1);
/// Changed entities asked for at a look; past it, all that are followed are read.
const CHANGED_MAX: usize = 10_000;
/// Events of one entity fetched at a look.
const EVENTS_MAX: usize = 500;

impl Feeds {
    /// Looks until `stop`; sleeps while nobody is interested.
    pub(in crate::serve) async fn poll(self: Arc<Self>, access: Access, stop: CancellationToken) {
        let mut ours_due = Instant::now();
        loop {
            if self.interest.load(Ordering::SeqCst) == 0 {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.awake.notified() => {}
                }
            }
            let ours_too = Instant::now() >= ours_due;
            if ours_too {
                ours_due = Instant::now() + LOOK_AT_OURS_EVERY;
            }
            let pause = match self.look(&access, ours_too).await {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    debug!(%error, "readers get no news");
                    AWAY_PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Takes note of where the store is: from now on a listener hears of all that changes. Where the store does not answer,
    /// the listener is told to list anew once it does.
    ///
    /// # Errors
    /// It does not answer.
    pub(in crate::serve) async fn begin(&self, access: &Access, led: &Led) -> Result<(), AccessError> {
        for partition in access.partitions().await? {
            let is_known = |all: &mut BTreeMap<_, _>| all.entry(partition).or_insert_with(Watched::new).is_known();
            if is_known(&mut self.lock()) {
                continue;
            }
            let now = standing(led, partition).await?.unwrap_or(NextOffset::START);
            if let Some(watched) = self.lock().get_mut(&partition) {
                watched.begin(now);
            }
        }
        Ok(())
    }

    async fn look(&self, access: &Access, ours_too: bool) -> Result<(), AccessError> {
        let led = access.led().await?;
        self.see(&led);
        let ours: Vec<PartitionId> = match &access.serving {
            Some(serving) if led.is_own() => serving.board.snapshot().iter().map(|status| status.partition).collect(),
            _ => Vec::new(),
        };
        let partitions: Vec<PartitionId> = if self.changes.receiver_count() > 0 {
            access.partitions().await?
        } else {
            self.lock().keys().copied().collect()
        };
        for partition in partitions
            .into_iter()
            .filter(|partition| ours_too || !ours.contains(partition))
        {
            self.look_at(&led, partition, ours.contains(&partition)).await?;
        }
        Ok(())
    }

    async fn look_at(&self, led: &Led, partition: PartitionId, ours: bool) -> Result<(), AccessError> {
        let Some(now) = standing(led, partition).await? else {
            return Ok(());
        };
        let look = self
            .lock()
            .entry(partition)
            .or_insert_with(Watched::new)
            .look(now, ours);
        let Some(news) = look else {
            return Ok(());
        };
        let told = self.tell_news(led, partition, news).await;
        let is_outdated = self.is_outdated(led);
        if let Some(watched) = self.lock().get_mut(&partition) {
            match &told {
                _ if is_outdated => watched.forget(), // the next look is under the new view
                Ok(()) => watched.looked(now, ours),
                Err(_) => watched.failed(news),
            }
        }
        told
    }

    /// To all who want them.
    async fn tell_news(&self, led: &Led, partition: PartitionId, news: News) -> Result<(), AccessError> {
        self.fetch(led, partition, news).await?;
        if self.changes.receiver_count() == 0 {
            return Ok(());
        }
        match news {
            News::Since(since) => self.fetch_documents(led, partition, since).await?,
            News::All => self.tell(Vec::new(), true),
        }
        Ok(())
    }

    /// New events of entities that somebody follows.
    async fn fetch(&self, led: &Led, partition: PartitionId, news: News) -> Result<(), AccessError> {
        let followed: Vec<(Entity, Arc<Feed>)> = match self.lock().get(&partition) {
            Some(watched) => watched
                .feeds
                .iter()
                .flat_map(|(source, feeds)| feeds.iter().map(move |(entity, feed)| (source, entity, feed)))
                // Readers who are led elsewhere by now hear nothing more: they come again.
                .filter(|(source, entity, _)| led.source(entity) == source.as_deref())
                .map(|(_, entity, feed)| (entity.clone(), Arc::clone(feed)))
                .collect(),
            None => Vec::new(),
        };
        if followed.is_empty() {
            return Ok(());
        }
        let changed = match news {
            News::Since(since) => {
                Some(changed_since(led, partition, since).await?).filter(|all| all.len() < CHANGED_MAX)
            }
            News::All => None,
        };
        for (entity, feed) in followed {
            if changed.as_ref().is_some_and(|changed| !changed.contains(&entity)) {
                continue;
            }
            let after = feed.latest();
            for entry in led
                .of(&entity)
                .events(partition, &entity, after, EVENTS_MAX, Duration::ZERO)
                .await?
            {
                feed.push(entry.seq, &entry.json);
            }
        }
        Ok(())
    }

    /// Documents that changed since then, for those who listen to all changes.
    async fn fetch_documents(&self, led: &Led, partition: PartitionId, since: NextOffset) -> Result<(), AccessError> {
        let changed = changed_since(led, partition, since).await?;
        let more = changed.len() > CHANGES_OF_A_BATCH_MAX;
        let entities: Vec<Entity> = changed.into_iter().take(CHANGES_OF_A_BATCH_MAX).collect();
        let mut documents = Vec::new();
        for (is_other, store) in led.stores() {
            let here: Vec<Entity> = entities
                .iter()
                .filter(|entity| led.is_away(entity) == is_other)
                .cloned()
                .collect();
            let peeked = store.peek(partition, &here).await?;
            let found = here.into_iter().zip(peeked.entities);
            documents.extend(found.filter_map(|(entity, (stored, _))| match stored {
                Stored::Document { json, .. } => Some((entity, json)),
                _ => None,
            }));
        }
        let view = self.view(); // held, so that nothing is told under another view than it was read
        if view.as_ref().is_none_or(|view| !view.is_newer(led)) {
            self.tell(documents, more);
        }
        Ok(())
    }

    /// Whether another view has come meanwhile.
    fn is_outdated(&self, led: &Led) -> bool {
        self.view().as_ref().is_some_and(|view| view.is_newer(led))
    }
}

/// Entities with an event at `since` or later, at most [`CHANGED_MAX`] of each kind.
async fn changed_since(led: &Led, partition: PartitionId, since: NextOffset) -> Result<HashSet<Entity>, AccessError> {
    let mut changed = HashSet::new();
    for (is_other, store) in led.stores() {
        for kind in Kind::ALL {
            let found = store.indexed(partition, kind, since, CHANGED_MAX).await?;
            let found = found.into_iter().map(|(entity, _)| entity);
            changed.extend(found.filter(|entity| led.is_away(entity) == is_other));
        }
    }
    Ok(changed)
}

/// Up to where all namespaces are that readers may be led to.
async fn standing(led: &Led, partition: PartitionId) -> Result<Option<NextOffset>, AccessError> {
    let mut least: Option<NextOffset> = None;
    for (_, store) in led.stores() {
        let Some(checkpoint) = store.checkpoint(partition).await? else {
            return Ok(None);
        };
        least = Some(least.map_or(checkpoint.next, |least| least.min(checkpoint.next)));
    }
    Ok(least)
}

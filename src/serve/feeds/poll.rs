//! Looks at the store for all readers at once: partitions that others project, and now and then our own.
//! In: checkpoints, and what the index says has changed since the last look. Out: the same news as a commit of ours.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{CHANGES_OF_A_BATCH_MAX, Feed, Feeds, Watched};
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
        let told = self.lock().entry(partition).or_insert_with(Watched::new).told;
        if told == Some(now) {
            return Ok(());
        }
        self.fetch(led, partition, told).await?;
        if !ours && self.changes.receiver_count() > 0 {
            match told {
                Some(told) => self.fetch_documents(led, partition, told).await?,
                None => self.tell(Vec::new(), true),
            }
        }
        if self.is_outdated(led) {
            return Ok(()); // the next look is under the new view
        }
        if let Some(watched) = self.lock().get_mut(&partition) {
            // A commit of ours meanwhile went further, or will be seen at the next look.
            if watched.told == told {
                watched.told = Some(now);
            }
            watched.position.send_if_modified(|position| {
                let news = position.is_none_or(|position| position < now || !ours);
                if news {
                    *position = Some(now);
                }
                news
            });
        }
        Ok(())
    }

    /// Events that came since `told`, of entities that somebody follows.
    async fn fetch(&self, led: &Led, partition: PartitionId, told: Option<NextOffset>) -> Result<(), AccessError> {
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
        let changed = match told {
            Some(told) => Some(changed_since(led, partition, told).await?).filter(|all| all.len() < CHANGED_MAX),
            None => None,
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

    /// Documents that changed since `told`, for those who listen to all changes.
    async fn fetch_documents(&self, led: &Led, partition: PartitionId, told: NextOffset) -> Result<(), AccessError> {
        let changed = changed_since(led, partition, told).await?;
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

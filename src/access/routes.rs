//! Where readers get documents. In: the route that the store has, looked at again and again. Out: for each answer one
//! view of it. Invariant: an answer has one view from its beginning to its end, and so takes each entity from one
//! namespace.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::{Access, AccessError};
use crate::pure::entity::Entity;
use crate::pure::place::PartitionId;
use crate::rollout::CohortRoute;
use crate::store::{Note, Store};

/// How long a route is believed: with the patience below, readers follow within 250 ms.
const BELIEVED: Duration = Duration::from_millis(100);
/// So long readers wait at most at each look until the namespace that they are led to has what they may have seen.
const LEVEL_PATIENCE: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Reads that the gates of a rollout look at.
const READS_KEPT: usize = 512;

/// One answer's view of the route.
#[derive(Clone)]
pub struct Led {
    own: Arc<dyn Store>,
    other: Option<(Arc<CohortRoute>, Arc<dyn Store>)>,
    /// Counts up with each other view of this process.
    number: u64,
}

impl Led {
    /// The store that readers of this entity get its document and stream from.
    #[must_use]
    pub fn of(&self, entity: &Entity) -> &Arc<dyn Store> {
        match &self.other {
            Some((route, other)) if route.leads(entity) => other,
            _ => &self.own,
        }
    }

    /// Whether readers of this entity are led to another namespace.
    #[must_use]
    pub fn is_away(&self, entity: &Entity) -> bool {
        self.other.as_ref().is_some_and(|(route, _)| route.leads(entity))
    }

    /// The namespace that readers of this entity are led to; `None`: this one.
    #[must_use]
    pub fn source(&self, entity: &Entity) -> Option<&str> {
        self.told()
            .filter(|route| route.leads(entity))
            .map(|route| route.candidate.as_str())
    }

    /// Whether this view is newer than `other`.
    #[must_use]
    pub fn is_newer(&self, other: &Self) -> bool {
        self.number > other.number
    }

    /// Whether all readers get documents of this namespace itself.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.other.is_none()
    }

    /// All stores that somebody may be led to, and whether it is another namespace's.
    pub fn stores(&self) -> impl Iterator<Item = (bool, &Arc<dyn Store>)> {
        let own = match &self.other {
            Some((route, _)) if route.percent >= 100 => None,
            _ => Some((false, &self.own)),
        };
        own.into_iter()
            .chain(self.other.as_ref().map(|(_, other)| (true, other)))
    }

    fn told(&self) -> Option<&CohortRoute> {
        self.other.as_ref().map(|(route, _)| &**route)
    }
}

/// How the last reads of the other namespace went.
#[derive(Default)]
pub struct Reads(RwLock<(Vec<(bool, Duration)>, usize)>);

impl Reads {
    /// One read ended.
    pub fn add(&self, is_ok: bool, took: Duration) {
        let mut reads = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let (kept, next) = &mut *reads;
        if kept.len() < READS_KEPT {
            kept.push((is_ok, took));
        } else {
            kept[*next % READS_KEPT] = (is_ok, took);
        }
        *next += 1;
    }

    /// How many failed, and the 95th percentile in ms; `None`: nobody has read.
    #[must_use]
    pub fn tell(&self) -> Option<(f64, f64)> {
        let reads = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let failed = reads.0.iter().filter(|(is_ok, _)| !is_ok).count();
        let mut took: Vec<Duration> = reads.0.iter().map(|(_, took)| *took).collect();
        took.sort_unstable();
        let p95 = took.get((took.len() * 95).div_ceil(100).saturating_sub(1))?;
        Some((failed as f64, p95.as_secs_f64() * 1000.0))
    }

    /// Those of an earlier rollout count no more.
    pub fn forget(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }
}

/// Where readers get documents, as it was told last.
#[derive(Default)]
pub struct Route {
    known: Mutex<Option<(Instant, Led)>>,
    /// The same, for those who can't wait.
    last: RwLock<Option<Led>>,
    /// How reads of the other namespace went.
    pub reads: Reads,
}

impl Access {
    /// Where readers get documents: of another namespace, once `rebuild --swap` or a rollout has led them there. An
    /// answer that does not come leaves the route as it was; another namespace that is behind is not gone over to.
    ///
    /// # Errors
    /// The store does not answer, or the route names what is no namespace.
    pub async fn led(&self) -> Result<Led, AccessError> {
        let mut known = self.route.known.lock().await;
        if let Some((asked, led)) = &*known
            && asked.elapsed() < BELIEVED
        {
            return Ok(led.clone());
        }
        let before = known.as_ref().map(|(_, led)| led.clone());
        let told = match (self.store.note(Note::Route).await, &before) {
            (Ok(text), _) => text.map(|text| CohortRoute::read(&text)).transpose(),
            (Err(_), Some(before)) => Ok(before.told().cloned()),
            (Err(_), None) => Ok(None), // what is read next fails too
        };
        let told = told.map_err(AccessError::Failed)?;
        let led = match before {
            Some(before) if before.told() == told.as_ref() => before,
            before => self.lead(before, told).await?,
        };
        *self.route.last.write().unwrap_or_else(PoisonError::into_inner) = Some(led.clone());
        *known = Some((Instant::now(), led.clone()));
        Ok(led)
    }

    /// The view of the last look, whose age is not known; `None`: there was none.
    pub fn led_last(&self) -> Option<Led> {
        self.route.last.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The view of a new route; the one before, if another namespace that readers are led to is behind.
    async fn lead(&self, before: Option<Led>, told: Option<CohortRoute>) -> Result<Led, AccessError> {
        let known = before.as_ref().and_then(|before| before.other.as_ref());
        let other = match told {
            Some(route) => {
                let store = match known {
                    Some((known, store)) if known.candidate == route.candidate => Arc::clone(store),
                    _ => self.store.in_namespace(&route.candidate)?,
                };
                Some((Arc::new(route), store))
            }
            None => None,
        };
        let led = Led {
            own: Arc::clone(&self.store),
            other,
            number: before.as_ref().map_or(0, |before| before.number + 1),
        };
        if let Some(before) = &before {
            let is_level = self.are_level(before, &led).await.unwrap_or(false);
            // The way back is never barred, whatever readers have seen: that is what a rollback is for.
            if !is_level && !led.is_own() {
                return Ok(before.clone());
            }
        }
        if self.serving.is_some() && (before.is_some() || !led.is_own()) {
            let (to, percent) = match led.told() {
                Some(route) => (route.candidate.as_str(), route.percent),
                None => ("their own", 100),
            };
            tracing::warn!(namespace = to, percent, "readers are led over");
        }
        Ok(led)
    }

    /// Waits until all that readers will be led to has what they may have seen.
    async fn are_level(&self, before: &Led, after: &Led) -> Result<bool, AccessError> {
        for (was_other, seen) in before.stores() {
            for (is_other, store) in after.stores() {
                if was_other != is_other && !self.is_level(&**seen, &**store, LEVEL_PATIENCE).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Waits until `store` has come to where `seen` is now.
    pub(super) async fn is_level(
        &self,
        seen: &dyn Store,
        store: &dyn Store,
        patience: Duration,
    ) -> Result<bool, AccessError> {
        let until = Instant::now() + patience;
        for partition in self.partitions().await? {
            let Some(seen) = seen.checkpoint(partition).await? else {
                continue;
            };
            while store
                .checkpoint(partition)
                .await?
                .is_none_or(|now| now.next < seen.next)
            {
                if Instant::now() >= until {
                    return Ok(false);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(true)
    }

    /// Whether all that readers may be led to has come past a record.
    ///
    /// # Errors
    /// A store does not answer.
    pub async fn is_past(&self, led: &Led, partition: PartitionId, offset: u64) -> Result<bool, AccessError> {
        for (_, store) in led.stores() {
            let checkpoint = store.checkpoint(partition).await?;
            if checkpoint.is_none_or(|checkpoint| checkpoint.next.0 <= offset) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reads_count() {
        let reads = Reads::default();
        assert_eq!(reads.tell(), None);
        reads.add(false, Duration::from_secs(9));
        for _ in 0..READS_KEPT {
            reads.add(true, Duration::from_millis(2));
        }
        assert_eq!(reads.tell(), Some((0.0, 2.0)));
        for _ in 0..30 {
            reads.add(false, Duration::from_millis(500));
        }
        assert_eq!(reads.tell(), Some((30.0, 500.0)));
    }
}

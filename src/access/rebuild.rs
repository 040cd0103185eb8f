//! Rebuild: everything once more into another namespace, beside the one that serves; then both are compared, and
//! readers may be led over. In: the new namespace's name. Out: progress, then a report.
//! Invariant: nothing of the old namespace changes but its route, and that only once all is equal or was accepted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::{Access, AccessError, projector_settings};
use crate::log::Ungrouped;
use crate::projector;
use crate::pure::place::{NextOffset, PartitionId};
use crate::repair::snapshot::{Source, restore};
use crate::repair::{Parity, compare_namespaces, operator};
use crate::store::{Note, Store};

/// Partitions rebuilt at once.
const AT_ONCE: usize = 4;
/// How often progress is told.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The log grows meanwhile: so often what came is taken in before the comparison, unless it is less than this.
const ROUNDS_MAX: u32 = 10;
const LAG_EVENTS: u64 = 1_000;
/// So long a swap waits until the new namespace has what readers of the old one may have seen.
const SWAP_PATIENCE: Duration = Duration::from_secs(2);
/// A live projector of the new namespace that makes no headway for so long is told of.
const STALLED: Duration = Duration::from_secs(30);

/// What to rebuild.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebuildRequest {
    /// The new namespace.
    pub into: String,
    /// Lead readers of the old namespace to the new one when both are equal.
    #[serde(default)]
    pub swap: bool,
    /// Lead them there although documents differ, as those of a new projection version do.
    #[serde(default)]
    pub accept_differences: bool,
}

/// How far a rebuild is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RebuildProgress {
    /// `restoring`, `folding`, `comparing`.
    pub phase: String,
    /// Records folded so far, or documents compared.
    pub done: u64,
    /// Of how many; 0: not known.
    pub of: u64,
    /// A second, in this phase.
    pub per_second: f64,
    /// Time left of this phase; null while it cannot be told.
    pub seconds_left: Option<f64>,
}

/// One partition of the new namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RebuiltPartition {
    /// Which.
    pub partition: u32,
    /// Where it began: the log's first offset, where an earlier rebuild had come to, or a snapshot's place.
    pub from: u64,
    /// Where it was when both were compared.
    pub until: u64,
    /// Documents that came from a snapshot, for the log had forgotten their beginnings.
    pub restored: u64,
}

/// What was rebuilt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RebuildReport {
    /// The new namespace.
    pub into: String,
    /// By number.
    pub partitions: Vec<RebuiltPartition>,
    /// Records folded.
    pub records: u64,
    /// How long that took.
    pub seconds: f64,
    /// Both namespaces against each other.
    pub parity: Parity,
    /// Whether readers of the old namespace get the new one's documents now.
    pub swapped: bool,
    /// Why not, if it was asked for.
    pub not_swapped: Option<String>,
}

/// Told about progress.
pub type TellRebuild<'a> = &'a mut (dyn FnMut(RebuildProgress) + Send);

impl Access {
    /// Rebuilds everything into another namespace; what an interrupted rebuild has done counts.
    ///
    /// # Errors
    /// `BadRequest`: the namespace is none, is the one that serves, or somebody is at work on it; nothing was changed.
    pub async fn rebuild(&self, request: &RebuildRequest, told: TellRebuild<'_>) -> Result<RebuildReport, AccessError> {
        let into = self.beside(&request.into)?;
        if request.swap {
            self.ensure_no_rollout().await?;
        }
        let partitions = self.partitions().await?;
        self.ensure_there().await?;
        self.ensure_of_this_log(&partitions).await?;
        let mut rows = self.begin_rebuild(&into, &partitions, told).await?;
        let began = Instant::now();
        for round in 0..ROUNDS_MAX {
            let behind = self.fold_on(&into, &partitions, (&rows, began), told).await?;
            if behind < LAG_EVENTS && round > 0 {
                break;
            }
        }
        for row in &mut rows {
            row.until = place(&*into.store, PartitionId(row.partition))
                .await?
                .map_or(row.from, |next| next.0);
        }
        let mut report = RebuildReport {
            into: request.into.clone(),
            records: rows.iter().map(|row| row.until.saturating_sub(row.from)).sum(),
            partitions: rows,
            seconds: began.elapsed().as_secs_f64(),
            ..RebuildReport::default()
        };
        let began = Instant::now();
        let mut compared = |_, parity: &Parity| told(progress("comparing", (parity.documents, 0), began));
        report.parity = compare_namespaces(&*self.store, &*into.store, &partitions, &mut compared).await?;
        if request.swap {
            report.not_swapped = self.why_no_swap(&into, &partitions, (&report.parity, request)).await?;
            if report.not_swapped.is_none() {
                self.store.set_note(Note::Route, Some(&request.into)).await?;
                tracing::warn!(
                    from = self.settings.namespace,
                    to = request.into,
                    "readers are led to another namespace"
                );
                report.swapped = true;
            }
        }
        Ok(report)
    }

    /// The namespace that serves must be of this very topic: else there is nothing to compare with.
    async fn ensure_of_this_log(&self, partitions: &[PartitionId]) -> Result<(), AccessError> {
        let (namespace, topic) = (&self.settings.namespace, self.log.topic().await?);
        for &partition in partitions {
            let Some(checkpoint) = self.store.checkpoint(partition).await? else {
                continue;
            };
            if !checkpoint.may_be_of(&topic.id) || checkpoint.partitions != topic.partitions {
                return Err(AccessError::BadRequest(format!(
                    "namespace {namespace} was made from another topic than {} is now; nothing was changed; `khala serve` \
                     with a new --namespace makes documents of this one",
                    topic.name
                )));
            }
        }
        Ok(())
    }

    /// The same log and store, as another namespace sees them.
    fn beside(&self, namespace: &str) -> Result<Self, AccessError> {
        if namespace == self.settings.namespace {
            return Err(AccessError::BadRequest(format!(
                "namespace {namespace} is the one that serves; --into names another one"
            )));
        }
        let mut settings = (*self.settings).clone();
        settings.namespace = crate::config::namespace(namespace).map_err(AccessError::BadRequest)?;
        Ok(Self {
            log: Arc::new(Ungrouped(Arc::clone(&self.log))),
            store: self.store.in_namespace(namespace)?,
            settings: Arc::new(settings),
            serving: None,
            route: Arc::default(),
            ..self.clone()
        })
    }

    /// Where each partition of the new namespace begins. What the log has forgotten comes from the snapshot.
    async fn begin_rebuild(
        &self,
        into: &Self,
        partitions: &[PartitionId],
        told: TellRebuild<'_>,
    ) -> Result<Vec<RebuiltPartition>, AccessError> {
        let mut rows = Vec::new();
        for &partition in partitions {
            let first = self.log.bounds(partition).await?.first;
            let mut row = RebuiltPartition {
                partition: partition.0,
                from: first.0,
                until: first.0,
                restored: 0,
            };
            match place(&*into.store, partition).await? {
                Some(next) => row.from = next.0,
                None if first > NextOffset::START => {
                    told(progress("restoring", (0, 0), Instant::now()));
                    let site = into.site(partition, operator());
                    let opened = into.store.open(partition, &site.owner, site.lease).await;
                    opened.map_err(super::replay::busy)?;
                    let restored = restore(&site, &Source::Topic, &mut |_| {}).await;
                    into.store.release(partition, &site.owner).await?;
                    if let Some(restored) = restored?.done() {
                        (row.from, row.restored) = (restored.next.0, restored.documents);
                    }
                }
                None => {}
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// Folds up to the log's present end, or waits for who projects the new namespace; tells what has come meanwhile.
    async fn fold_on(
        &self,
        into: &Self,
        partitions: &[PartitionId],
        (rows, began): (&[RebuiltPartition], Instant),
        told: TellRebuild<'_>,
    ) -> Result<u64, AccessError> {
        let mut ends = Vec::new();
        for &partition in partitions {
            ends.push((partition, self.log.bounds(partition).await?.end));
        }
        let of: u64 = ends
            .iter()
            .zip(rows)
            .map(|((_, end), row)| end.0.saturating_sub(row.from))
            .sum();
        let mut watch = Watch {
            into,
            ends: &ends,
            rows,
            began,
            of,
        };
        for chunk in ends.chunks(AT_ONCE) {
            let mut folding = Box::pin(try_join_all(
                chunk.iter().map(|(partition, end)| into.fold_to(*partition, *end)),
            ));
            loop {
                tokio::select! {
                    folded = &mut folding => {
                        folded?;
                        break;
                    }
                    () = tokio::time::sleep(LOOK_EVERY) => told(watch.progress().await?),
                }
            }
        }
        let mut behind = 0;
        for (partition, end) in ends {
            behind += end.until(self.log.bounds(partition).await?.end);
        }
        Ok(behind)
    }

    /// Folds one partition here, unless somebody projects it: then that one is waited for.
    async fn fold_to(&self, partition: PartitionId, end: NextOffset) -> Result<(), AccessError> {
        let (mut stood, mut since) = (None, Instant::now());
        loop {
            let now = place(&*self.store, partition).await?;
            if now.is_some_and(|now| now >= end) || end == self.log.bounds(partition).await?.first && now.is_none() {
                return Ok(());
            }
            let Some(owner) = self.store.owner(partition).await? else {
                let settings = projector_settings(&self.settings, "rebuild");
                let (log, store) = (Arc::clone(&self.log), Arc::clone(&self.store));
                let folded = projector::redo(log, store, settings, partition, end).await;
                return folded.map_err(|error| AccessError::Failed(format!("{error:#}")));
            };
            if now != stood {
                (stood, since) = (now, Instant::now());
            }
            if since.elapsed() > STALLED {
                return Err(AccessError::Failed(format!(
                    "partition {partition}: {} has it and makes no headway; `khala status --namespace {}` tells why",
                    owner.0, self.settings.namespace
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What stands against leading readers over.
    async fn why_no_swap(
        &self,
        into: &Self,
        partitions: &[PartitionId],
        (parity, request): (&Parity, &RebuildRequest),
    ) -> Result<Option<String>, AccessError> {
        if parity.differing > 0 && !request.accept_differences {
            return Ok(Some(format!(
                "{} documents differ; --accept-differences swaps all the same",
                parity.differing
            )));
        }
        for &partition in partitions {
            let owner = into.store.owner(partition).await?;
            if owner.is_none_or(|owner| owner.is_operator()) {
                return Ok(Some(format!(
                    "nobody projects partition {partition} of namespace {0}: readers would get documents that stand \
                     still; start `khala serve --namespace {0}` and ask again",
                    request.into
                )));
            }
        }
        if !self.is_level(&*self.store, &*into.store, SWAP_PATIENCE).await? {
            return Ok(Some(format!(
                "namespace {} is behind; `khala status --namespace {0}` tells how far; ask again",
                request.into
            )));
        }
        Ok(None)
    }
}

/// What a rebuild's progress is told from.
struct Watch<'a> {
    into: &'a Access,
    ends: &'a [(PartitionId, NextOffset)],
    rows: &'a [RebuiltPartition],
    began: Instant,
    of: u64,
}

impl Watch<'_> {
    async fn progress(&mut self) -> Result<RebuildProgress, AccessError> {
        let mut done = 0;
        for ((partition, end), row) in self.ends.iter().zip(self.rows) {
            let next = place(&*self.into.store, *partition).await?;
            done += next.map_or(0, |next| next.0.min(end.0).saturating_sub(row.from));
        }
        Ok(progress("folding", (done, self.of), self.began))
    }
}

async fn place(store: &dyn Store, partition: PartitionId) -> Result<Option<NextOffset>, AccessError> {
    Ok(store.checkpoint(partition).await?.map(|checkpoint| checkpoint.next))
}

fn progress(phase: &str, (done, of): (u64, u64), began: Instant) -> RebuildProgress {
    let per_second = done as f64 / began.elapsed().as_secs_f64().max(0.001);
    RebuildProgress {
        phase: phase.to_owned(),
        done,
        of,
        per_second,
        seconds_left: (per_second > 0.0 && of > 0).then(|| of.saturating_sub(done) as f64 / per_second),
    }
}

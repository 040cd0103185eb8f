//! Rewind, the one primitive of repair: a partition's documents go back to what they were at a mark.
//! In: a mark. Out: the checkpoint at the mark, its redo to be picked up by whoever projects next.
//! Invariant: the intent is in the checkpoint before the first document changes and until the last one has, every
//! step is a compare-and-set on it, and doing a step twice does no harm: whoever finds an intent finishes it.

use std::collections::{BTreeMap, BTreeSet};

use super::marks::{forget_since, is_known, is_made_since};
use super::site::{Lease, RepairError, Site, now, read_through};
use super::snapshot::{self, Restored, Source};
use super::survey::{last_record_of, of_another};
use crate::log::{Bounds, Topic};
use crate::pure::batch::Batch;
use crate::pure::checkpoint::{Checkpoint, Mark};
use crate::pure::entity::{Entity, Kind};
use crate::pure::event::Rules;
use crate::pure::intent::{Intent, Target};
use crate::pure::partition::Rewound;
use crate::pure::place::{NextOffset, Offset};
use crate::pure::recovery::LastRecord;
use crate::pure::refold::{Refold, Refolded};
use crate::store::StoreError;

/// Entities put back by one pass over the log: a bound on memory.
pub(super) const SLICE_ENTITIES: usize = 20_000;
/// Entities read or written by one call to the store.
pub(super) const CHUNK_ENTITIES: usize = 1_000;
/// Marks looked at for a lower one.
const MARKS_MAX: usize = 1_000;

/// How tokens begin: see `new_token`.
const PARKED: &str = "parked-";
const WHOLE: &str = "whole-";
/// And goes on, once documents go on from snapshots.
pub(super) const ONTO: &str = "onto-";
/// How they go on where one of those documents could not be read: what the digest counts for it is a guess.
pub(super) const GUESSED: &str = "guessed-";

/// How far a rewind is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entities put back so far.
    pub entities: u64,
    /// Records read so far.
    pub records: u64,
}

/// Puts a partition's documents back to the mark `to`, under the site's lease; or finishes what was begun.
/// Without a mark, and with nothing begun, nothing is done.
///
/// # Errors
/// `Store`, `Log`: call again; what is done so far counts. `NoMark`: the log was cut below every mark, or is another.
pub async fn rewind(
    site: &Site,
    to: Option<&Checkpoint>,
    told: &mut (dyn FnMut(Progress) + Send),
) -> Result<Rewound, RepairError> {
    if let Some(rewound) = finish_restore(site).await? {
        return Ok(rewound);
    }
    let Some(mut work) = Work::begin(site, to).await? else {
        let checkpoint = site.store.checkpoint(site.partition).await?;
        let next = checkpoint.map_or(NextOffset::START, |checkpoint| checkpoint.next);
        return Ok(Rewound {
            next,
            ..Rewound::default()
        });
    };
    loop {
        work.put_back(told).await?;
        if work.target_holds().await? && work.is_back().await? {
            return work.finish().await;
        }
    }
}

/// A restore that was begun is finished first: its documents are none of any mark's.
async fn finish_restore(site: &Site) -> Result<Option<Rewound>, RepairError> {
    if !snapshot::is_begun(site).await? {
        return Ok(None);
    }
    let restored = snapshot::restore(site, &Source::Topic, &mut |_| {}).await?;
    Ok(restored.done().map(Rewound::from))
}

impl From<Restored> for Rewound {
    fn from(restored: Restored) -> Self {
        Self {
            next: restored.next,
            entities: restored.documents,
            records: restored.records,
            over: restored.over,
            left: restored.aside,
            disturbed: restored.disturbed,
        }
    }
}

pub(super) struct Work<'a> {
    pub(super) site: &'a Site,
    pub(super) rules: Rules,
    pub(super) lease: Lease<'a>,
    pub(super) bounds: Bounds,
    /// The store's checkpoint, with the intent.
    pub(super) current: Checkpoint,
    pub(super) target: Target,
    token: String,
    pub(super) left: BTreeSet<Entity>,
    pub(super) progress: Progress,
}

impl<'a> Work<'a> {
    /// Takes up the intent that is there, or writes one.
    async fn begin(site: &'a Site, to: Option<&Checkpoint>) -> Result<Option<Self>, RepairError> {
        let topic = site.log.topic().await?;
        let renewed = site.store.renew(site.partition, &site.owner, site.lease).await?;
        let current = site.ours(renewed.ok_or_else(|| refused(site, None))?)?;
        of_this(site, &topic, &current)?;
        let intent = Intent::parse(&current.intent).map_err(|error| unknown(site, &error.to_string()))?;
        let (begun, target, token) = match (intent, to) {
            (Some(Intent::Rewind { mark, token }), _) => (true, *mark, token),
            // Of a store that went back since it was asked: whoever surveys it anew finishes that.
            (Some(Intent::Restore { .. }), _) => return Err(refused(site, Some(current)).into()),
            (_, None) => return Ok(None),
            // Done, and nobody was told: the mark may be of a time in which entities were parked that no longer are.
            (Some(Intent::Rewound { .. }), Some(mark)) if is_at(&current, mark) => return Ok(None),
            // The store was rolled back below the mark in the meantime: its documents are none of the mark's.
            (_, Some(mark)) if mark.next > current.next => return Err(refused(site, Some(current)).into()),
            (_, Some(mark)) => (false, Target::of(mark), String::new()),
        };
        if !begun && !is_known(&*site.store, site.partition, &target).await? {
            return Err(refused(site, Some(current)).into());
        }
        let mut work = Self {
            rules: Rules {
                partitions: topic.partitions,
                ..site.rules
            },
            lease: Lease::new(site),
            bounds: site.log.bounds(site.partition).await?,
            site,
            current,
            target,
            token,
            left: BTreeSet::new(),
            progress: Progress::default(),
        };
        if !begun {
            work.token = work.new_token().await?;
            work.write(Batch::new(None, work.current.clone())).await?;
        }
        if !work.target_holds().await? {
            tracing::warn!(partition = %site.partition, to = %work.target.next, "the log was cut again: a lower mark");
        }
        Ok(Some(work))
    }

    /// Writes a batch under the intent, which names the target as it is now.
    async fn write(&mut self, mut batch: Batch) -> Result<(), RepairError> {
        batch.expected = Some(self.current.identity());
        let intent = Intent::Rewind {
            mark: Box::new(self.target.clone()),
            token: self.token.clone(),
        };
        batch.checkpoint.intent = intent.to_string();
        batch.checkpoint.written_at_ms = now().ms();
        self.commit(&batch).await
    }

    /// One of unknown outcome is sent again: the comparison makes that harmless, and tells.
    async fn commit(&mut self, batch: &Batch) -> Result<(), RepairError> {
        self.lease.keep().await?;
        let site = self.site;
        match site.store.commit(site.partition, &site.owner, batch).await {
            Err(StoreError::Refused { found, .. })
                if (*found).as_ref().map(Checkpoint::identity) == Some(batch.checkpoint.identity()) => {}
            other => other?,
        }
        self.current = batch.checkpoint.clone();
        Ok(())
    }

    /// Whether the target is in the log; if not, a lower mark takes its place, and all is to be looked at again.
    async fn target_holds(&mut self) -> Result<bool, RepairError> {
        let site = self.site;
        self.bounds = site.log.bounds(site.partition).await?;
        same_topic(site, &self.current).await?;
        let bounds = (self.bounds.first, self.bounds.end);
        let as_mark = self.target.checkpoint(&self.current);
        let found = last_record_of(&*site.log, site.partition, &as_mark, bounds).await?;
        if self.target.next <= self.bounds.end && found != LastRecord::Differs {
            return Ok(true);
        }
        for mark in site.store.history(site.partition, MARKS_MAX).await? {
            let mark = mark.checkpoint;
            let ours = mark.projection_version == self.current.projection_version;
            let lower = ours && mark.next < self.target.next && mark.next <= self.bounds.end;
            if lower && last_record_of(&*site.log, site.partition, &mark, bounds).await? == LastRecord::Matches {
                self.target = Target::of(&mark);
                self.token = self.new_token().await?;
                self.write(Batch::new(None, self.current.clone())).await?;
                return Ok(false);
            }
        }
        Err(RepairError::NoMark {
            partition: site.partition,
            detail: format!(
                "no mark of the history is in the log ({}..{}) any more",
                bounds.0, bounds.1
            ),
        })
    }

    /// Says whether the target was made while what is parked now was parked already: then its counts lack what waits.
    async fn new_token(&self) -> Result<String, RepairError> {
        let site = self.site;
        let parked = site.store.parked(site.partition).await?.into_iter();
        let parked: Vec<Offset> = parked.map(|(_, at)| at).collect();
        let target = self.target.next;
        let is_target = |mark: &Mark| Target::of(&mark.checkpoint) == self.target;
        let of_parked = self.target.last_record.is_some() // else it is the log's first offset, and no mark
            && is_made_since(&*site.store, site.partition, (target, is_target), &parked).await?;
        let kind = if of_parked { PARKED } else { WHOLE };
        let said: String = [GUESSED, ONTO].into_iter().filter(|word| self.says(word)).collect();
        Ok(format!("{kind}{said}{:016x}", rand::random::<u64>()))
    }

    /// From the next write on the token says so, to whoever finishes this.
    pub(super) fn say(&mut self, word: &str) {
        if !self.says(word) {
            self.token = self.token.replacen('-', &format!("-{word}"), 1);
        }
    }

    /// Whether the token says so.
    pub(super) fn says(&self, word: &str) -> bool {
        self.token.contains(word)
    }

    /// Puts back parked entities, and all whose last offset is at or past the target.
    async fn put_back(&mut self, told: &mut (dyn FnMut(Progress) + Send)) -> Result<(), RepairError> {
        let site = self.site;
        let parked: BTreeMap<Entity, Offset> = site.store.parked(site.partition).await?.into_iter().collect();
        forget_since(&*site.store, site.partition, parked.values().copied()).await?;
        let waiting: Vec<Entity> = parked.keys().cloned().collect();
        for slice in waiting.chunks(SLICE_ENTITIES) {
            self.slice(slice, &parked, told).await?;
        }
        for kind in Kind::ALL {
            let mut from = self.target.next;
            loop {
                let found = site.store.indexed(site.partition, kind, from, SLICE_ENTITIES).await?;
                let Some((_, last)) = found.last() else { break };
                from = last.next();
                let entities: Vec<Entity> = found.into_iter().map(|(entity, _)| entity).collect();
                // Those that wait and were left come again: what the digest counts for them ends where they were parked.
                self.slice(&entities, &parked, told).await?;
            }
        }
        Ok(())
    }

    /// Whether all documents are as of the target, but for those that are left: what was listed may have been listed of
    /// another store, one that failed over to an old copy and back.
    async fn is_back(&self) -> Result<bool, RepairError> {
        let (site, most) = (self.site, self.left.len() + 1);
        let (found, ahead) = site.store.ahead(site.partition, self.target.next, most).await?;
        if found.as_ref().map(Checkpoint::identity) != Some(self.current.identity()) {
            return Err(refused(site, found).into());
        }
        Ok(ahead.iter().all(|(entity, _)| self.left.contains(entity)))
    }

    /// One pass over the log for some entities, then their documents as they were.
    async fn slice(
        &mut self,
        entities: &[Entity],
        parked: &BTreeMap<Entity, Offset>,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), RepairError> {
        let site = self.site;
        let mut refold = Refold::new(site.partition, self.rules, 0);
        let mut wishes = self.wishes(entities, parked).await?;
        let from = self.want(&mut wishes, &mut refold).await?;
        let (mut folded, until) = (Vec::new(), self.target.next);
        let take = |records: &_| folded.extend(refold.feed(records).done);
        self.progress.records += read_through(site, (from, until), &mut self.lease, take).await?;
        folded.extend(refold.finish());
        same_topic(site, &self.current).await?;
        for chunk in folded.chunks(CHUNK_ENTITIES) {
            self.write_folded(chunk, parked).await?;
            told(self.progress);
        }
        for chunk in wishes.gone.chunks(CHUNK_ENTITIES) {
            let mut batch = Batch::new(None, self.current.clone());
            for (entity, counted) in chunk {
                batch.checkpoint.digest = batch.checkpoint.digest.moved(*counted, 0);
                batch.removed.push(entity.clone());
            }
            self.progress.entities += chunk.len() as u64;
            self.write(batch).await?;
            told(self.progress);
        }
        Ok(())
    }

    async fn write_folded(
        &mut self,
        folded: &[Refolded<u128>],
        parked: &BTreeMap<Entity, Offset>,
    ) -> Result<(), RepairError> {
        let mut batch = Batch::new(None, self.current.clone());
        for one in folded {
            let hash = batch.write(&one.document, now());
            batch.checkpoint.digest = batch.checkpoint.digest.moved(one.tag, hash);
            if one.document.is_empty() {
                batch.removed.push(one.entity.clone());
            } else {
                batch.cut.push((one.entity.clone(), one.document.seq()));
            }
            if let Some(at) = parked.get(&one.entity) {
                batch.unparked.push(one.entity.clone());
                if self.target.next.is_past(*at) && !self.token.starts_with(WHOLE) {
                    // The mark counted it as it was parked; now it is what the log says.
                    self.target.digest = self.target.digest.moved(one.hash_at_split, hash);
                    self.target.counts[1] += one.accepted;
                    self.target.counts[2] += one.duplicates;
                }
            }
        }
        self.progress.entities += folded.len() as u64;
        self.write(batch).await
    }

    /// The mark becomes the checkpoint.
    async fn finish(mut self) -> Result<Rewound, RepairError> {
        let was_cut = self.was_cut().await?;
        let token = self.token.clone();
        let from = if was_cut { self.target.next } else { self.current.next };
        let mut checkpoint = self.target.checkpoint(&self.current);
        checkpoint.digest = self.digest().await?;
        checkpoint.intent = Intent::Rewound { from, token }.to_string();
        checkpoint.written_at_ms = now().ms();
        let mut batch = Batch::new(Some(self.current.identity()), checkpoint);
        batch.mark = true;
        self.commit(&batch).await?;
        Ok(Rewound {
            next: self.target.next,
            entities: self.progress.entities,
            records: self.progress.records,
            over: None,
            left: self.left.into_iter().collect(),
            disturbed: Vec::new(),
        })
    }

    /// Whether the log lost what was applied: what it has now past the target was never seen.
    pub(super) async fn was_cut(&self) -> Result<bool, RepairError> {
        let site = self.site;
        let bounds = (self.bounds.first, self.bounds.end);
        let last = last_record_of(&*site.log, site.partition, &self.current, bounds).await?;
        Ok(self.current.next > self.bounds.end || last == LastRecord::Differs)
    }
}

/// What was read so far was read of the documents' topic: of another no document is made.
async fn same_topic(site: &Site, current: &Checkpoint) -> Result<(), RepairError> {
    of_this(site, &site.log.topic().await?, current)
}

fn of_this(site: &Site, topic: &Topic, current: &Checkpoint) -> Result<(), RepairError> {
    let partition = site.partition;
    let no_mark = |detail| Err(RepairError::NoMark { partition, detail });
    of_another(topic, current).map_or(Ok(()), no_mark)
}

fn is_at(current: &Checkpoint, mark: &Checkpoint) -> bool {
    (current.next, current.last_record) == (mark.next, mark.last_record)
}

pub(super) fn refused(site: &Site, found: Option<Checkpoint>) -> StoreError {
    StoreError::Refused {
        partition: site.partition,
        found: Box::new(found),
    }
}

fn unknown(site: &Site, detail: &str) -> StoreError {
    StoreError::Corrupt {
        partition: site.partition,
        what: "the checkpoint's intent".to_owned(),
        detail: detail.to_owned(),
    }
}

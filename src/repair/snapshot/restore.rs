//! Restore: a partition without documents, or with such as the log does not reach any more, gets those of a snapshot,
//! exactly as of one place of the log.
//! In: a snapshot. Out: documents, and a checkpoint whose redo is to be picked up by whoever projects next.
//! Documents of a snapshot are as of its marker, and some are further on (it was written beside a live projector): the
//! log's records up to the furthest are applied here, so that all are as of one place and the counts are exact.
//! Invariant: the intent is in the checkpoint before the first document and until the last; each step may be done
//! twice. While it is, `accepted` counts the events in the documents, `duplicates` all events of the log. A document that
//! is lost meanwhile is never made from what comes later: all begins again, with nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::rewind::refused;
use super::super::site::{Lease, RepairError, Site, now};
use super::super::survey::last_record_of;
use super::begun::{Restored, Restoring, is_restore, nothing, unfinished};
use super::clear::{CLEARING, begin_at, told_over};
use super::source::{Found, Pieces, Source};
use super::tail::newest;
use crate::log::Bounds;
use crate::pure::batch::Batch;
use crate::pure::checkpoint::Checkpoint;
use crate::pure::document::Document;
use crate::pure::entity::Entity;
use crate::pure::event::Rules;
use crate::pure::intent::Intent;
use crate::pure::place::{NextOffset, Offset};
use crate::pure::recovery::LastRecord;
use crate::pure::snapshot::{Marker, Piece};
use crate::store::StoreError;

/// Entities read or written by one call to the store.
pub(super) const CHUNK: usize = 1000;
/// How often it begins again by itself.
const AGAIN_MAX: usize = 3;

/// Restores a partition, under the site's lease, or finishes what was begun. One that has documents as of a place below
/// the log's first record gets those of a snapshot that is further on: nothing else brings them there.
///
/// # Errors
/// `Store`, `Log`: call again; what is done so far counts. `Refused`: the log has what its documents lack.
pub async fn restore(
    site: &Site,
    source: &Source,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<Restoring, RepairError> {
    let topic = site.log.topic().await?;
    let bounds = site.log.bounds(site.partition).await?;
    let fits = |marker: &Marker| {
        let of = &marker.checkpoint;
        of.partitions == topic.partitions && of.may_be_of(&topic.id)
    };
    let there = site.store.checkpoint(site.partition).await?;
    let there = there.map(|there| site.ours(there)).transpose()?;
    let begun = there.as_ref().is_some_and(is_restore);
    let Some(marker) = newest(&*site.log, site.partition, source, fits).await?.marker else {
        return nothing(site, there.as_ref());
    };
    let last = last_record_of(
        &*site.log,
        site.partition,
        &marker.checkpoint,
        (bounds.first, bounds.end),
    )
    .await?;
    if marker.next() > bounds.end || last == LastRecord::Differs {
        tracing::warn!(partition = %site.partition, at = %marker.next(), "the log was cut below the snapshot: not used");
        return nothing(site, there.as_ref());
    }
    let is_in_vain = |there: &Checkpoint| there.next < bounds.first && !is_further(&marker, there);
    if !begun && there.as_ref().is_some_and(is_in_vain) {
        return nothing(site, there.as_ref());
    }
    let mut work = Work::begin(site, source, marker, bounds, topic.partitions).await?;
    let mut disturbed = Vec::new();
    loop {
        match work.write_all(source, told).await {
            Err(RepairError::Lost { entity, reason, .. }) if disturbed.len() < AGAIN_MAX => {
                tracing::warn!(partition = %site.partition, %entity, reason, "lost while it is restored: all begins again");
                disturbed.push((entity, reason));
                let begun = work.current.clone();
                work.clear(Some(&begun)).await?;
            }
            other => {
                other?;
                return work.finish(disturbed).await.map(Restoring::Done);
            }
        }
    }
}

/// Whether a snapshot is of the same log as these documents, and further on.
fn is_further(marker: &Marker, there: &Checkpoint) -> bool {
    let of = &marker.checkpoint;
    there.may_be_of(&of.topic_id) && there.partitions == of.partitions && there.next < of.next
}

/// A document that is further on than the marker: the log must have its last record.
pub(super) struct Ahead {
    pub(super) offset: Offset,
    pub(super) updated_at: String,
}

pub(super) struct Work<'a> {
    pub(super) site: &'a Site,
    pub(super) lease: Lease<'a>,
    pub(super) rules: Rules,
    pub(super) bounds: Bounds,
    pub(super) marker: Marker,
    pub(super) current: Checkpoint,
    /// See [`Restored`].
    pub(super) over: Option<NextOffset>,
    /// How tokens begin.
    pub(super) kind: &'static str,
    pub(super) token: String,
    pub(super) ahead: BTreeMap<Entity, Ahead>,
    pub(super) parked: BTreeMap<Entity, Offset>,
    pub(super) documents: u64,
    pub(super) records: u64,
}

impl<'a> Work<'a> {
    /// Takes up the intent that is there, or writes one.
    async fn begin(
        site: &'a Site,
        source: &Source,
        marker: Marker,
        bounds: Bounds,
        partitions: u32,
    ) -> Result<Self, RepairError> {
        let renewed = site.store.renew(site.partition, &site.owner, site.lease).await?;
        let kind = match source {
            Source::Topic => "topic-",
            Source::File(_) => "file-",
        };
        let mut work = Self {
            site,
            lease: Lease::new(site),
            rules: Rules {
                partitions,
                ..site.rules
            },
            bounds,
            current: begin_at(&marker),
            over: None,
            kind,
            token: String::new(),
            marker,
            ahead: BTreeMap::new(),
            parked: BTreeMap::new(),
            documents: 0,
            records: 0,
        };
        let Some(found) = renewed else {
            work.clear(None).await?;
            return Ok(work);
        };
        let found = site.ours(found)?;
        match Intent::parse(&found.intent) {
            Ok(Some(Intent::Restore { token })) if token.starts_with(kind) => {
                work.over = told_over(&token);
                (work.token, work.current) = (token, found.clone());
                if work.token[kind.len()..].starts_with(CLEARING) {
                    work.clear(Some(&found)).await?;
                } else {
                    work.parked = site.store.parked(site.partition).await?.into_iter().collect();
                }
                Ok(work)
            }
            Ok(Some(Intent::Restore { .. })) => Err(unfinished(site).into()),
            Ok(intent) if !intent.as_ref().is_some_and(Intent::is_under_way) && work.is_below_the_log(&found) => {
                work.over = Some(found.next);
                work.clear(Some(&found)).await?;
                Ok(work)
            }
            _ => Err(refused(site, Some(found)).into()),
        }
    }

    /// Whether nothing but the snapshot brings these documents further: the log has forgotten what they lack.
    fn is_below_the_log(&self, found: &Checkpoint) -> bool {
        found.next < self.bounds.first && is_further(&self.marker, found)
    }

    async fn write_all(&mut self, source: &Source, told: &mut (dyn FnMut(u64) + Send)) -> Result<(), RepairError> {
        self.documents(source, told).await?;
        self.vouch().await?;
        self.level().await
    }

    /// Writes a batch under the intent; a call of unknown outcome may be sent again.
    pub(super) async fn write(&mut self, mut batch: Batch, expected: Option<&Checkpoint>) -> Result<(), RepairError> {
        self.lease.keep().await?;
        batch.expected = expected.map(Checkpoint::identity);
        let intent = Intent::Restore {
            token: self.token.clone(),
        };
        batch.checkpoint.intent = intent.to_string();
        self.commit(batch).await
    }

    async fn commit(&mut self, mut batch: Batch) -> Result<(), RepairError> {
        batch.checkpoint.written_at_ms = now().ms();
        let site = self.site;
        match site.store.commit(site.partition, &site.owner, &batch).await {
            Err(StoreError::Refused { found, .. })
                if (*found).as_ref().map(Checkpoint::identity) == Some(batch.checkpoint.identity()) => {}
            other => other?,
        }
        self.current = batch.checkpoint;
        Ok(())
    }

    /// Writes the snapshot's documents, of each entity the one that is furthest on: a writer that was late wrote an
    /// older one behind it.
    async fn documents(&mut self, source: &Source, told: &mut (dyn FnMut(u64) + Send)) -> Result<(), RepairError> {
        let mut pieces = Pieces::open(&*self.site.log, self.site.partition, source).await?;
        let mut chunk: BTreeMap<Entity, Piece> = BTreeMap::new();
        let (mut passed, mut others) = (false, BTreeSet::new());
        while let Some(found) = pieces.next().await? {
            for found in found {
                match found {
                    Found::Marker(marker) if marker == self.marker => {
                        self.put(std::mem::take(&mut chunk), passed).await?; // to be compared with what comes behind
                        passed = true;
                    }
                    Found::Marker(_) => {}
                    // Of another epoch: before our marker it is of a log that was cut; behind it, somebody has begun anew.
                    Found::Piece(piece) if piece.epoch == self.marker.epoch || passed => {
                        if piece.epoch != self.marker.epoch && chunk.contains_key(&piece.entity) {
                            self.put(std::mem::take(&mut chunk), passed).await?; // with what our epoch has
                        }
                        if !chunk
                            .get(&piece.entity)
                            .is_some_and(|there| self.is_older(&piece, there))
                        {
                            chunk.insert(piece.entity.clone(), piece);
                        }
                    }
                    Found::Piece(_) => {}
                    Found::Other(entity) if passed => _ = others.insert(entity),
                    Found::Other(_) => {} // ours came again behind it
                }
            }
            if chunk.len() >= CHUNK {
                self.put(std::mem::take(&mut chunk), passed).await?;
                told(self.documents);
            }
        }
        self.put(chunk, passed).await?;
        told(self.documents);
        let others: Vec<Entity> = others.into_iter().collect();
        for chunk in others.chunks(CHUNK) {
            self.overwritten(chunk).await?;
        }
        Ok(())
    }

    /// Where another version wrote its document over ours, and compaction took ours: nobody has it.
    async fn overwritten(&mut self, entities: &[Entity]) -> Result<(), RepairError> {
        let stored = self.read(entities).await?;
        let mut batch = Batch::new(None, self.current.clone());
        for (entity, _) in entities.iter().zip(stored).filter(|(_, ours)| ours.is_none()) {
            self.park(&mut batch, entity, Offset(0));
        }
        if batch.parked.is_empty() {
            return Ok(());
        }
        let expected = self.current.clone();
        self.write(batch, Some(&expected)).await
    }

    fn is_older(&self, piece: &Piece, than: &Piece) -> bool {
        let place = |piece: &Piece| {
            let read = Document::parse(&piece.entity, self.site.partition, &piece.json, piece.state.as_deref());
            read.ok().and_then(|(document, _)| document.offset())
        };
        place(piece).is_some_and(|at| Some(at) < place(than)) // one that cannot be read may be the newest
    }

    /// Writes documents; `is_behind`: they come behind the marker.
    async fn put(&mut self, chunk: BTreeMap<Entity, Piece>, is_behind: bool) -> Result<(), RepairError> {
        let partition = self.site.partition;
        let entities: Vec<Entity> = chunk.keys().cloned().collect();
        let stored = self.read(&entities).await?;
        let mut batch = Batch::new(None, self.current.clone());
        for (piece, before) in chunk.into_values().zip(stored) {
            let entity = piece.entity;
            let parsed = Document::parse(&entity, partition, &piece.json, piece.state.as_deref());
            let Ok((document, _)) = parsed else {
                self.park(&mut batch, &entity, Offset(0));
                continue;
            };
            let Some(offset) = document.offset() else { continue };
            let there = before.as_ref().and_then(|(there, _)| there.offset());
            let is_there = there >= Some(offset);
            let is_ahead = !self.marker.next().is_past(offset);
            if is_ahead {
                let updated_at = document.updated_at().map_or_else(String::new, |at| at.to_string());
                self.ahead.insert(entity.clone(), Ahead { offset, updated_at });
            } else if (piece.epoch != self.marker.epoch && there != Some(offset)) || (is_behind && !is_there) {
                self.park(&mut batch, &entity, Offset(offset.0 + 1)); // it may be behind the marker
            }
            if is_there {
                continue;
            }
            let (seq, counted) = before.map_or((0, 0), |(there, hash)| (there.seq(), hash));
            let hash = batch.write(&document, now());
            batch.checkpoint.digest = batch.checkpoint.digest.moved(counted, hash);
            batch.checkpoint.accepted = batch.checkpoint.accepted + document.seq() - seq;
            self.documents += u64::from(counted == 0);
            if let Some(at) = self.parked.get_mut(&entity).filter(|at| **at <= offset) {
                *at = Offset(offset.0 + 1);
                batch.parked.push((entity, *at));
            }
        }
        if batch.documents.is_empty() && batch.parked.is_empty() {
            return Ok(());
        }
        let expected = self.current.clone();
        self.write(batch, Some(&expected)).await
    }

    pub(super) fn park(&mut self, batch: &mut Batch, entity: &Entity, from: Offset) {
        if !self.parked.contains_key(entity) {
            self.parked.insert(entity.clone(), from);
            batch.parked.push((entity.clone(), from));
        }
    }

    /// All documents are as of one place: what follows is to be redone.
    async fn finish(mut self, disturbed: Vec<(Entity, &'static str)>) -> Result<Restored, RepairError> {
        let group = self.site.log.group_offset(self.site.partition).await?;
        let mut checkpoint = self.current.clone();
        checkpoint.duplicates = checkpoint.duplicates.saturating_sub(checkpoint.accepted);
        let from = group.unwrap_or(checkpoint.next).max(checkpoint.next);
        checkpoint.intent = Intent::Rewound {
            from,
            token: self.token.clone(),
        }
        .to_string();
        let mut batch = Batch::new(Some(self.current.identity()), checkpoint);
        batch.mark = true;
        self.commit(batch).await?;
        Ok(Restored {
            next: self.current.next,
            documents: self.documents,
            records: self.records,
            aside: self.parked.into_keys().collect(),
            over: self.over,
            disturbed,
        })
    }
}

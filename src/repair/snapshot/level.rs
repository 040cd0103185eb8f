//! Brings the documents of a snapshot to one place: those that are further on than the marker are compared with the
//! log, and what lies between is applied to all others.

use std::collections::{BTreeMap, BTreeSet};

use super::super::reading::Steady;
use super::super::site::{FETCH, RepairError, now, read_through};
use super::restore::{CHUNK, Work};
use crate::log::Role;
use crate::pure::batch::Batch;
use crate::pure::document::{Applied, Document};
use crate::pure::entity::Entity;
use crate::pure::event;
use crate::pure::place::{NextOffset, Offset};
use crate::pure::record::RecordBatch;
use crate::pure::time::Time;

impl Work<'_> {
    /// Where the documents that are furthest on stand.
    fn furthest(&self) -> NextOffset {
        let ends = self.ahead.values().map(|ahead| ahead.offset.next());
        ends.max().unwrap_or(self.current.next).min(self.bounds.end)
    }

    /// Documents that are further on than the marker count only if the log still has their last record: it may have
    /// been cut. Those that it does not vouch for go, and their entities are parked, also those that were parked already: a
    /// restore that is gone on with writes once more what it had taken out.
    pub(super) async fn vouch(&mut self) -> Result<(), RepairError> {
        let (from, to) = (self.current.next.max(self.bounds.first), self.furthest());
        let mut unsure: BTreeMap<Offset, (Entity, String)> = BTreeMap::new();
        for (entity, ahead) in &self.ahead {
            let readable = from <= NextOffset(ahead.offset.0);
            if readable {
                unsure.insert(ahead.offset, (entity.clone(), ahead.updated_at.clone()));
            }
        }
        let take = |records: &RecordBatch| {
            for record in records.iter() {
                let Some((entity, updated_at)) = unsure.get(&record.offset) else {
                    continue;
                };
                let at = Time::from_ms(record.timestamp_ms).map(|time| time.to_string());
                if record.key == Some(entity.subject().as_bytes()) && at.as_deref().unwrap_or("") == updated_at {
                    unsure.remove(&record.offset);
                }
            }
        };
        read_through(self.site, (from, to), &mut self.lease, take).await?;
        let refused: Vec<Entity> = unsure.into_values().map(|(entity, _)| entity).collect();
        for chunk in refused.chunks(CHUNK) {
            let stored = self.read(chunk).await?;
            let mut batch = Batch::new(None, self.current.clone());
            for (entity, there) in chunk.iter().zip(stored) {
                if let Some((there, hash)) = there {
                    batch.checkpoint.digest = batch.checkpoint.digest.moved(hash, 0);
                    batch.checkpoint.accepted -= there.seq();
                    self.documents = self.documents.saturating_sub(1); // of a restore that was gone on with
                }
                batch.removed.push(entity.clone());
                self.ahead.remove(entity);
                self.parked.insert(entity.clone(), Offset(0));
                batch.parked.push((entity.clone(), Offset(0)));
            }
            let expected = self.current.clone();
            self.write(batch, Some(&expected)).await?;
        }
        Ok(())
    }

    /// Applies the records between the marker and the furthest document, as a projector would.
    pub(super) async fn level(&mut self) -> Result<(), RepairError> {
        let (from, to) = (self.current.next, self.furthest());
        if from >= to || from < self.bounds.first {
            return Ok(()); // a gap is the recovery table's to name
        }
        let mut reader = Steady::open(&*self.site.log, Role::Events, self.site.partition, from).await?;
        while self.current.next < to {
            self.lease.keep().await?;
            let records = reader.fetch(FETCH).await?;
            if records.next().is_some() {
                self.apply(&records, to).await?;
            }
        }
        Ok(())
    }

    async fn apply(&mut self, records: &RecordBatch, to: NextOffset) -> Result<(), RepairError> {
        let partition = self.site.partition;
        let mut batch = Batch::new(None, self.current.clone());
        let mut events = Vec::new();
        for record in records.iter().filter(|record| to.is_past(record.offset)) {
            self.records += 1;
            batch.checkpoint.records += 1;
            batch.checkpoint.last_record = Some(record.identity());
            let Ok(event) = event::decode(&record, partition, &self.rules) else {
                batch.checkpoint.dead_letters += 1;
                continue;
            };
            let Some(entity) = Entity::parse(event.subject()) else {
                continue;
            };
            if !self.parked.contains_key(&entity) {
                batch.checkpoint.duplicates += 1;
                events.push((entity, event, record.offset, record.timestamp_ms));
            }
        }
        batch.checkpoint.next = records.next().map_or(to, |next| next.min(to));
        let touched: BTreeSet<Entity> = events.iter().map(|(entity, ..)| entity.clone()).collect();
        let touched: Vec<Entity> = touched.into_iter().collect();
        let mut documents: BTreeMap<Entity, (Document, u128, u64)> = BTreeMap::new();
        for chunk in touched.chunks(CHUNK) {
            let stored = self.read(chunk).await?;
            for (entity, there) in chunk.iter().zip(stored) {
                let (document, hash) = there.unwrap_or_else(|| (Document::new(entity.clone(), partition), 0));
                let seq = document.seq();
                documents.insert(entity.clone(), (document, hash, seq));
            }
        }
        for (entity, event, offset, timestamp_ms) in &events {
            if let Some((document, ..)) = documents.get_mut(entity) {
                let _: Applied = document.apply(event, *offset, *timestamp_ms);
            }
        }
        for (document, counted, seq) in documents
            .into_values()
            .filter(|(document, _, seq)| document.seq() > *seq)
        {
            self.documents += u64::from(counted == 0);
            let hash = batch.write(&document, now());
            batch.checkpoint.digest = batch.checkpoint.digest.moved(counted, hash);
            batch.checkpoint.accepted += document.seq() - seq;
        }
        let expected = self.current.clone();
        self.write(batch, Some(&expected)).await
    }
}

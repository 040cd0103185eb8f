//! A restore begins with nothing: what lies there without a checkpoint, below the log, or of a try that lost a document, goes.
//! Invariant: until all is gone the token says so, and whoever finds it goes on with that; only then is anything counted.

use super::super::rewind::refused;
use super::super::site::RepairError;
use super::restore::{CHUNK, Work};
use crate::pure::batch::{Batch, Stored};
use crate::pure::checkpoint::{Checkpoint, Digest};
use crate::pure::document::Document;
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, Offset};
use crate::pure::snapshot::Marker;

/// How the token goes on behind its kind while what is there is taken away.
pub(super) const CLEARING: &str = "clear-";
/// And then, before the offset, where documents stood that the snapshot takes the place of.
const OVER: &str = "over-";

/// The checkpoint before the first document: what the marker counted is counted, and no document is there.
pub(super) fn begin_at(marker: &Marker) -> Checkpoint {
    Checkpoint {
        digest: Digest::default(),
        accepted: 0,
        duplicates: marker.checkpoint.accepted + marker.checkpoint.duplicates,
        ..marker.checkpoint.clone()
    }
}

/// What a token says of where the documents stood.
pub(super) fn told_over(token: &str) -> Option<NextOffset> {
    let (_, told) = token.split_once(OVER)?;
    let (at, _) = told.split_once('-')?;
    at.parse().ok().map(NextOffset)
}

impl Work<'_> {
    /// Takes away all documents, and begins at the marker.
    pub(super) async fn clear(&mut self, expected: Option<&Checkpoint>) -> Result<(), RepairError> {
        let (site, start) = (self.site, begin_at(&self.marker));
        self.token = self.new_token(CLEARING);
        self.write(Batch::new(None, start.clone()), expected).await?;
        loop {
            for kind in Kind::ALL {
                while self.clear_some(kind).await? {}
            }
            // What was listed may have been listed of another store, one that failed over to an old copy and back.
            let (found, left) = site.store.ahead(site.partition, NextOffset::START, 1).await?;
            self.is_under(found)?;
            if left.is_empty() {
                break;
            }
        }
        let opened = site.store.open(site.partition, &site.owner, site.lease).await?;
        self.is_under(opened.checkpoint)?;
        // What was aside comes as of an earlier place, or not at all: nothing of it is applied yet.
        let aside = self.marker.aside.iter().map(|(entity, _)| (entity.clone(), Offset(0)));
        self.parked = aside.collect();
        let mut batch = Batch::new(None, start);
        batch.parked = self.parked.clone().into_iter().collect();
        let waited = opened.parked.into_iter().map(|(entity, _)| entity);
        batch.unparked = waited.filter(|entity| !self.parked.contains_key(entity)).collect();
        self.ahead.clear();
        (self.documents, self.records) = (0, 0);
        self.token = self.new_token("");
        let cleared = self.current.clone();
        self.write(batch, Some(&cleared)).await
    }

    /// It says where the documents stood, to whoever finishes this.
    fn new_token(&self, stage: &str) -> String {
        let over = self.over.map_or_else(String::new, |at| format!("{OVER}{at}-"));
        format!("{}{stage}{over}{:016x}", self.kind, rand::random::<u64>())
    }

    async fn clear_some(&mut self, kind: Kind) -> Result<bool, RepairError> {
        let site = self.site;
        let found = site
            .store
            .indexed(site.partition, kind, NextOffset::START, CHUNK)
            .await?;
        if found.is_empty() {
            return Ok(false);
        }
        let current = self.current.clone();
        let mut batch = Batch::new(None, current.clone());
        batch.removed = found.into_iter().map(|(entity, _)| entity).collect();
        self.write(batch, Some(&current)).await?;
        Ok(true)
    }

    /// Documents as this restore wrote them, with what is counted for each; `None`: it wrote none.
    ///
    /// # Errors
    /// `Lost`: one is not there any more, or is another: what comes later must not be taken for all of it.
    pub(super) async fn read(&self, entities: &[Entity]) -> Result<Vec<Option<(Document, u128)>>, RepairError> {
        let peeked = self.site.store.peek(self.site.partition, entities).await?;
        self.is_under(peeked.checkpoint)?;
        let read = |(entity, (stored, index)): (&Entity, (Stored, Option<Offset>))| match index {
            None => Ok(None),
            Some(_) => self.readable(entity, stored, index).map(Some),
        };
        entities.iter().zip(peeked.entities).map(read).collect()
    }

    fn readable(
        &self,
        entity: &Entity,
        stored: Stored,
        index: Option<Offset>,
    ) -> Result<(Document, u128), RepairError> {
        let partition = self.site.partition;
        let reason = match stored {
            Stored::Document { json, state } => match Document::parse(entity, partition, &json, state.as_deref()) {
                Ok(read) if read.0.offset() == index => return Ok(read),
                Ok(_) => "summary_hash_mismatch", // one of another time
                Err(unreadable) => unreadable.drift(),
            },
            Stored::Unreadable(_) => "document_corrupt",
            Stored::Absent | Stored::Lost | Stored::Expired => "missing_document",
        };
        Err(RepairError::Lost {
            partition,
            entity: entity.clone(),
            reason,
        })
    }

    fn is_under(&self, found: Option<Checkpoint>) -> Result<(), RepairError> {
        if found.as_ref().map(Checkpoint::identity) == Some(self.current.identity()) {
            return Ok(());
        }
        Err(refused(self.site, found).into())
    }
}

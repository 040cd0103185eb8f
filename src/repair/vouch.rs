//! Which digest a rewind ends with: its mark's, or the one that was moved along with each document that was put back.
//! In: a mark, and documents that are as of it. Out: a digest.
//! Invariant: the mark's counts just what the log gives back. The other one is off where what was put back had been
//! altered; the mark's where documents are made of snapshots: they may have lain past it when it was made, or have lost
//! other events than what it counts. So may have what cannot be read and goes on from a snapshot: what the other one
//! counts for it is then a guess. The documents' sum tells, if each can be read; where each tells, all tell the same.

use super::rewind::{CHUNK_ENTITIES, GUESSED, ONTO, Work, refused};
use super::site::RepairError;
use crate::pure::batch::Stored;
use crate::pure::checkpoint::{Checkpoint, Digest};
use crate::pure::document::Document;
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::NextOffset;

impl Work<'_> {
    /// See the module.
    pub(super) async fn digest(&mut self) -> Result<Digest, RepairError> {
        let (moved, of_mark) = (self.current.digest, self.target.digest);
        // Of the log's first offset nothing is known but that: if it was cut, documents lie below it.
        let is_first = self.target.last_record.is_none() && self.bounds.first > NextOffset::START;
        let is_guessed = self.says(GUESSED);
        if !is_guessed && (!self.left.is_empty() || is_first || moved == of_mark) {
            return Ok(moved);
        }
        match self.sum().await? {
            Some(sum) if is_guessed || sum == moved || sum == of_mark => Ok(sum),
            _ if self.says(ONTO) => Ok(moved),
            _ => Ok(of_mark),
        }
    }

    /// Of what the documents are; `None`: one cannot be read. It lies below the mark, and was not put back.
    async fn sum(&mut self) -> Result<Option<Digest>, RepairError> {
        let (site, mut sum) = (self.site, Digest::default());
        for kind in Kind::ALL {
            let mut from = NextOffset::START;
            loop {
                self.lease.keep().await?;
                let found = site.store.indexed(site.partition, kind, from, CHUNK_ENTITIES).await?;
                let Some((_, last)) = found.last() else { break };
                from = last.next();
                let entities: Vec<Entity> = found.into_iter().map(|(entity, _)| entity).collect();
                let peeked = site.store.peek(site.partition, &entities).await?;
                if peeked.checkpoint.as_ref().map(Checkpoint::identity) != Some(self.current.identity()) {
                    return Err(refused(site, peeked.checkpoint).into());
                }
                for (entity, (stored, _)) in entities.iter().zip(peeked.entities) {
                    let Stored::Document { json, state } = stored else {
                        return Ok(None);
                    };
                    let Ok((_, hash)) = Document::parse(entity, site.partition, &json, state.as_deref()) else {
                        return Ok(None);
                    };
                    sum = sum.moved(0, hash);
                }
            }
        }
        Ok(Some(sum))
    }
}

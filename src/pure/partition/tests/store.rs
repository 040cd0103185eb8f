//! A store in memory: one atomic step a batch, refused unless the checkpoint is the expected one.

use std::collections::BTreeMap;

use crate::pure::batch::{Batch, Stored};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::entity::Entity;
use crate::pure::partition::Failure;
use crate::pure::place::{NextOffset, Offset};

#[derive(Clone, Default)]
pub struct StoreState {
    pub checkpoint: Option<Checkpoint>,
    pub documents: BTreeMap<Entity, (Vec<u8>, Option<Vec<u8>>)>,
    pub index: BTreeMap<Entity, Offset>,
    pub events: BTreeMap<Entity, BTreeMap<u64, Vec<u8>>>,
    pub parked: BTreeMap<Entity, Offset>,
}

impl StoreState {
    pub fn commit(&mut self, batch: &Batch) -> Result<(), Failure> {
        let have = self.checkpoint.as_ref().map(Checkpoint::identity);
        if have != batch.expected {
            return Err(Failure::Refused(Box::new(self.checkpoint.clone())));
        }
        for write in &batch.documents {
            let state = write.state.as_ref().map(|range| batch.text(range).to_vec());
            let json = batch.text(&write.json).to_vec();
            self.documents.insert(write.entity.clone(), (json, state));
            self.index.insert(write.entity.clone(), write.offset);
        }
        for write in &batch.events {
            let stream = self.events.entry(write.entity.clone()).or_default();
            stream
                .entry(write.seq)
                .or_insert_with(|| batch.text(&write.json).to_vec());
        }
        self.parked.extend(batch.parked.iter().cloned());
        self.checkpoint = Some(batch.checkpoint.clone());
        Ok(())
    }

    /// Where it stands.
    pub fn next(&self) -> NextOffset {
        self.checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.next)
            .unwrap_or_default()
    }

    pub fn load(&self, entity: &Entity) -> Stored {
        match self.documents.get(entity) {
            Some((json, state)) => Stored::Document {
                json: json.clone(),
                state: state.clone(),
            },
            None if self.index.contains_key(entity) => Stored::Lost,
            None => Stored::Absent,
        }
    }
}

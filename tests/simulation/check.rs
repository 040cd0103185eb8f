//! What must be so: at each step a document is the fold of its events up to its own offset and the checkpoint claims
//! nothing that the documents lack; at the end all is as if nothing had ever happened.

use std::collections::BTreeMap;

use khala::pure::checkpoint::Checkpoint;
use khala::pure::document::Document;
use khala::pure::entity::Entity;
use khala::pure::place::Offset;

use super::part::Part;
use super::sea::PARTITION;
use super::world::World;
use crate::reference::Rec;

impl World {
    /// Rule 3 and rule 2, at this instant.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let state = self.sea.lock();
        let now = state.part.checkpoint.as_ref().map(Checkpoint::identity);
        let faults = self.history.trace.len();
        if now == self.looked_at.0 && faults == self.looked_at.1 {
            return Ok(());
        }
        self.looked_at = (now, faults);
        let rewinding = state.part.is_rewinding();
        let checkpoint = state.part.checkpoint.as_ref();
        if self.any_cut && (rewinding || checkpoint.is_some_and(|now| !is_good(now, &state.records))) {
            return Ok(()); // documents may hold what the log lost, until a recovery finds out
        }
        self.all_right(&state.part)
    }

    fn all_right(&self, part: &Part) -> Result<(), String> {
        let rewinding = part.is_rewinding();
        for (entity, (json, state)) in &part.documents {
            if part.damaged.contains(entity) {
                continue;
            }
            let offset = part.index.get(entity).copied().unwrap_or(Offset(0));
            let read = Document::parse(entity, PARTITION, json, state.as_deref());
            let document = read.map_err(|error| format!("{entity} is unreadable: {error}"))?.0;
            if document.offset() != Some(offset) {
                return Err(format!(
                    "{entity}: the index says {offset}, the document {:?}",
                    document.offset()
                ));
            }
            let text = String::from_utf8_lossy(json);
            let wanted = self.expected.get(&(entity.subject().to_owned(), offset.0));
            if wanted.is_none_or(|hash| !text.contains(hash.as_str())) {
                return Err(format!("{entity} at {offset} is not the fold of its events: {text}"));
            }
        }
        let Some(checkpoint) = part.checkpoint.as_ref().filter(|_| !rewinding) else {
            return Ok(());
        };
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for (subject, offset) in self.expected.keys() {
            if checkpoint.next.is_past(Offset(*offset)) {
                let newest = last.entry(subject).or_default();
                *newest = (*newest).max(*offset);
            }
        }
        for (subject, offset) in last {
            let entity = Entity::parse(subject).ok_or_else(|| format!("{subject}?"))?;
            let has = part.index.get(&entity).is_some_and(|has| has.0 >= offset);
            if !has && !part.parked.contains_key(&entity) && !part.damaged.contains(&entity) {
                let next = checkpoint.next;
                return Err(format!(
                    "the checkpoint says {next}, and {entity} lacks its event at {offset}"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn final_state(&self) -> Result<(), String> {
        let state = self.sea.lock();
        let part = &state.part;
        let have: Vec<&str> = part.documents.keys().map(Entity::subject).collect();
        let want: Vec<&str> = self.fold.entities.keys().map(String::as_str).collect();
        if have != want {
            return Err(format!("documents of {have:?}, and the log has {want:?}"));
        }
        if let Some(parked) = part.parked.keys().next() {
            return Err(format!("{parked} is still parked"));
        }
        let checkpoint = part.checkpoint.as_ref().ok_or("no checkpoint")?;
        let digest = checkpoint.digest.to_string();
        if digest != self.fold.digest() {
            return Err(format!("digest {digest}, and the log says {}", self.fold.digest()));
        }
        for (subject, folded) in &self.fold.entities {
            let entity = Entity::parse(subject).ok_or("a subject")?;
            let seqs = part
                .events
                .get(&entity)
                .map(|(entries, _)| entries.keys().copied().collect::<Vec<_>>());
            let wanted: Vec<u64> = (1..=folded.events.len() as u64).collect();
            if !self.any_damage && seqs.as_ref() != Some(&wanted) {
                return Err(format!("{subject}: its stream has {seqs:?}, must have {wanted:?}"));
            }
        }
        let counts = (checkpoint.records, checkpoint.accepted);
        if !self.any_damage && !self.any_cut && counts != (self.fold.records, self.fold.accepted) {
            let wanted = (self.fold.records, self.fold.accepted);
            return Err(format!("records and accepted {counts:?}, must be {wanted:?}"));
        }
        Ok(())
    }
}

pub fn is_good(mark: &Checkpoint, records: &[Rec]) -> bool {
    let end = records.last().map_or(0, |record| record.offset + 1);
    let named = mark
        .last_record
        .map(|last| (last.offset.0, last.timestamp_ms, last.crc32c));
    let found = named.and_then(|(offset, ..)| records.iter().find(|record| record.offset == offset));
    let crc = |record: &Rec| {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        crate::reference::place::crc32c(&[key.unwrap_or_default(), value.unwrap_or_default()])
    };
    match (named, found) {
        (None, _) => true,
        (Some((_, timestamp, sum)), Some(record)) => {
            mark.next.0 <= end && record.timestamp_ms == timestamp && crc(record) == sum
        }
        (Some(_), None) => false,
    }
}

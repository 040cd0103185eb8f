//! What must be so. At each step: a document is the fold of its events up to its own offset, the checkpoint claims nothing
//! that the documents lack, digest, counts and dead letters are what they say, and who is held has a reason. At the end
//! all is as if nothing had ever happened.

use khala::pure::checkpoint::Checkpoint;
use khala::pure::document::{Applied, Document};
use khala::pure::entity::Entity;
use khala::pure::event::decode;
use khala::pure::place::Offset;
use khala::pure::record::{Record, RecordBatch};
use khala::pure::snapshot::Marker;

use super::log::copy;
use super::oracle::Oracle;
use super::part::Part;
use super::plan::Event;
use super::projector::RULES;
use super::sea::{PARTITION, State};
use super::version::{Mirrored, Version};
use super::world::World;
use crate::reference::Rec;

/// What a look at the documents told.
struct Looked {
    /// Those that were not looked at before.
    right: Vec<(Entity, Vec<u8>)>,
    /// Those that were made without their beginning.
    guessed: Vec<Entity>,
}

impl World {
    fn group_lied(&self) -> bool {
        self.history.faults.contains_key(Event::GroupLies.name())
    }

    /// At this instant, if anything has changed.
    pub(super) fn check(&mut self) -> Result<(), String> {
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        self.held_rightly()?;
        let sea = self.sea.clone();
        let mut state = sea.lock();
        if state.changes == self.checked {
            return Ok(());
        }
        self.checked = state.changes;
        state.part.blind |= self.is_blind(&state);
        self.any_put_back |= state.part.rewound || state.part.restored;
        state.part.partly_healed += self.healed_partly(&state);
        state.part.healed.clear();
        let part = &state.part;
        if let Some(mixed) = &part.mixed {
            return Err(mixed.clone());
        }
        if let Some(foreign) = &self.foreign {
            let theirs = &foreign.theirs;
            let same = part.documents == theirs.documents && part.checkpoint == theirs.checkpoint;
            return if same {
                Ok(())
            } else {
                Err("written into documents of another version".to_owned())
            };
        }
        let rewinding = part.is_rewinding();
        let of_former = part
            .checkpoint
            .as_ref()
            .is_some_and(|now| now.topic_id != state.topic_id);
        if rewinding && of_former {
            return Ok(()); // it cannot be finished any more
        }
        let is_as_log = |now: &Checkpoint| of_former || stands(now, &state);
        if self.any_cut && (rewinding || part.blind || !part.checkpoint.as_ref().is_none_or(is_as_log)) {
            return Ok(()); // documents may hold what the log lost, until a recovery finds out
        }
        let topic_id = part.checkpoint.as_ref().map_or("", |now| now.topic_id.as_str());
        let first = self.first_of(topic_id, state.first);
        let looked = self.documents_are_right(&state, (self.oracle_of(topic_id), first))?;
        self.right.extend(looked.right);
        self.guessed.extend(looked.guessed);
        if rewinding {
            return Ok(());
        }
        let oracle = self.oracle_of(topic_id);
        self.nothing_is_missing(&state, (oracle, first))?;
        self.sums_are_right(&state, oracle)
    }

    /// Whether the last record applied was cut away, and retention took what stood in its place since: who did not look
    /// in between, or died, cannot know. docs/reliability.md says so.
    fn is_blind(&self, state: &State) -> bool {
        let last = state.part.checkpoint.as_ref().and_then(|now| now.last_record);
        last.is_some_and(|last| {
            let named = (last.offset.0, last.timestamp_ms, last.crc32c);
            last.offset.0 < state.first && self.cut_away.contains(&named)
        })
    }

    /// Of how many documents that an audit has just put right the log has forgotten a part.
    fn healed_partly(&self, state: &State) -> usize {
        let now = state.part.checkpoint.as_ref();
        let oracle = self.oracle_of(now.map_or("", |now| now.topic_id.as_str()));
        let healed = state.part.healed.iter();
        let partly = healed.filter(|entity| oracle.began_before(entity.subject(), state.first));
        partly.count()
    }

    /// Whether a restore that was begun may find its snapshot no more: another version has written its own over it, and the
    /// store went back to where it was under way.
    pub(super) fn may_lack_snapshot(&self) -> bool {
        self.two_versions() && self.any_put_back
    }

    /// Whether events were given up that a snapshot had, below that end of the documents' topic.
    pub(super) fn had_snapshot(&self, (from, to): (u64, u64), end: u64) -> Option<String> {
        if self.any_cut || self.any_version || self.two_versions() || self.former.is_some() {
            return None; // it may not have been one of this log
        }
        let state = self.sea.lock();
        let kept = state.documents.iter().filter(|record| record.offset < end);
        let markers = kept.filter_map(|record| Marker::parse(record.value.as_deref()?));
        let furthest = markers.map(|marker| marker.next().0).max()?;
        let is_lost = self.oracle.has_records(from, to.min(furthest));
        is_lost.then(|| format!("{from}..{to} were given up, and a snapshot as of {furthest} has them"))
    }

    fn held_rightly(&self) -> Result<(), String> {
        for projector in &self.projectors {
            let allowed = match projector.is_held() {
                None => true,
                Some("log_replaced") => self.any_cut || self.former.is_some(),
                Some("projection_version_changed") => self.any_version || self.two_versions(),
                Some("document_corrupt") => self.any_cut || self.former.is_some() || self.may_lack_snapshot(),
                Some(_) => false,
            };
            if !allowed {
                let view = projector.machine.view();
                return Err(format!("projector {} is held: {:?}", projector.name, view.state));
            }
        }
        Ok(())
    }

    /// Against the fold of a log that begins at `first`.
    fn documents_are_right(&self, state: &State, (oracle, first): (&Oracle, u64)) -> Result<Looked, String> {
        let (part, mut right, mut guessed) = (&state.part, Vec::new(), Vec::new());
        let version = part.checkpoint.as_ref().map_or(Version::One, Version::of);
        for (entity, (json, beside)) in &part.documents {
            let excused = part.damaged.contains(entity) || part.gone.contains_key(entity);
            if excused || self.right.get(entity) == Some(json) {
                continue;
            }
            let mut seen = json.clone();
            if version == Version::Two {
                seen.as_mut_slice().mirror();
            }
            let read = Document::parse(entity, PARTITION, &seen, beside.as_deref());
            let document = read.map_err(|error| format!("{entity} is unreadable: {error}"))?.0;
            let offset = part.index.get(entity).copied().unwrap_or(Offset(0));
            if document.offset() != Some(offset) {
                let has = document.offset();
                return Err(format!("{entity}: the index says {offset}, the document {has:?}"));
            }
            let text = String::from_utf8_lossy(json);
            if oracle.allows(entity.subject(), offset.0, &text) {
                right.push((entity.clone(), json.clone()));
                continue;
            }
            // What a cut log took, and retention the beginning of, can be rebuilt from nothing.
            let began = document.first_offset().map_or(0, |began| began.0);
            let is_forgotten = began < first || oracle.began_before(entity.subject(), first);
            let is_stuck = self.any_cut && is_forgotten;
            // Its first event came once more when the log had forgotten it: nobody can tell that from a beginning.
            let aside = part.aside.contains(entity); // another version alone kept it, so it was made anew
            let hurt = self.ever_damaged.contains(entity) || self.ever_expired(part, entity) || aside;
            let is_guess = hurt && first > 0 && oracle.began_before(entity.subject(), began);
            if is_guess {
                guessed.push(entity.clone());
            }
            if !is_stuck && !is_guess {
                return Err(format!("{entity} at {offset} is not the fold of its events: {text}"));
            }
        }
        Ok(Looked { right, guessed })
    }

    /// The checkpoint claims nothing that the documents lack, and dead letters below it are in their topic: of a log that
    /// begins at `first`.
    fn nothing_is_missing(&self, state: &State, (oracle, first): (&Oracle, u64)) -> Result<(), String> {
        let part = &state.part;
        let Some(checkpoint) = &part.checkpoint else {
            return Ok(());
        };
        let next = checkpoint.next.0;
        let known_lost = |offset: u64| offset < oracle.lost_below || (self.any_cut && offset < first);
        for subject in oracle.accepted().keys() {
            let Some(last) = oracle.last_below(subject, next).filter(|last| !known_lost(*last)) else {
                continue;
            };
            let entity = Entity::parse(subject).ok_or_else(|| format!("{subject}?"))?;
            let has = part.index.get(&entity).map(|has| has.0);
            let has = has.is_some_and(|has| has >= last || oracle.may_end_at(subject, next, has));
            let excused = part.parked.contains_key(&entity)
                || part.damaged.contains(&entity)
                || self.ever_expired(part, &entity)
                || (self.any_cut && oracle.began_before(subject, first)) // it may have been left as it was
                || self.takes_for_its_own(state, &entity, last)
                // Made without its beginning: below where it seems to begin a rewind takes it out.
                || (self.guessed.contains(&entity) && last < first);
            if !has && !excused {
                return Err(format!(
                    "the checkpoint says {next}, and {entity} lacks its event at {last}"
                ));
            }
        }
        let letters = oracle
            .letters
            .iter()
            .filter(|letter| letter.0 < next && !known_lost(letter.0));
        match letters.into_iter().find(|letter| !state.letters.contains(*letter)) {
            None => Ok(()),
            // Below where a rewind began, or where the group says it is, they count as appended, also where the log was
            // cut since, and where the group lies: docs/reliability.md says so. A lost store changes nothing of that.
            Some(_) if (self.any_cut || self.group_lied()) && self.any_put_back => Ok(()),
            Some((offset, _)) => Err(format!(
                "the checkpoint says {next}, and the dead letter of {offset} is nowhere"
            )),
        }
    }

    /// Also in a store that was lost: what was made anew after that, a snapshot has.
    fn ever_expired(&self, part: &Part, entity: &Entity) -> bool {
        part.ever_expired.contains(entity) || self.expired_before.contains(entity)
    }

    /// Whether a document that had to be left as it was, of a log that was cut, has what it takes for that event: one of the
    /// same source and sequence, which the log lost.
    fn takes_for_its_own(&self, state: &State, entity: &Entity, offset: u64) -> bool {
        let left = state
            .part
            .documents
            .get(entity)
            .filter(|_| self.ever_left.contains(entity));
        let Some((mut json, beside)) = left.cloned() else {
            return false;
        };
        if state.part.checkpoint.as_ref().map(Version::of) == Some(Version::Two) {
            json.as_mut_slice().mirror();
        }
        let Ok((mut document, _)) = Document::parse(entity, PARTITION, &json, beside.as_deref()) else {
            return false;
        };
        let record = state.records.iter().find(|record| record.offset == offset);
        let mut batch = RecordBatch::default();
        record.into_iter().for_each(|record| copy(record, &mut batch));
        let duplicate = |record: Record<'_>| {
            let event = decode(&record, PARTITION, &RULES).ok()?;
            Some(document.apply(&event, record.offset, record.timestamp_ms) == Applied::Duplicate)
        };
        batch.iter().find_map(duplicate).unwrap_or(false)
    }

    fn sums_are_right(&self, state: &State, oracle: &Oracle) -> Result<(), String> {
        let part = &state.part;
        let Some(checkpoint) = part.checkpoint.as_ref().filter(|_| self.guessed.is_empty()) else {
            return Ok(());
        };
        let add = |sum: u128, hash: &u128| sum.wrapping_add(*hash);
        let digest = part.counted.values().fold(part.forgotten, add);
        // What it counts for a document that cannot be read nobody can tell, of a log that was cut and has forgotten, or
        // where the log has forgotten a part of what the document was made of. Or where documents lack what was lost,
        // and one of two that could not be read was made of a snapshot, which does not.
        let unknowable = self.any_cut && state.first > 0 && part.rewound || part.untold + part.partly_healed > 0;
        if digest != checkpoint.digest.0 && !unknowable {
            let says = checkpoint.digest;
            let off = checkpoint.digest.0.wrapping_sub(digest);
            let guess = part.counted.iter().find_map(|(entity, counted)| {
                let as_of = oracle.offset_of(entity.subject(), counted.wrapping_add(off))?;
                Some(format!("it counts {entity} as of {as_of}"))
            });
            let guess = guess.unwrap_or_default();
            return Err(format!(
                "the checkpoint's digest is {says}, the documents' {digest:032x} {guess}"
            ));
        }
        if oracle.has_losses() || !part.parked.is_empty() || !part.gone.is_empty() {
            return Ok(());
        }
        // Counts are since the log's start, and documents that could not be put back have what is redone already.
        let restarted = part.rewound && self.any_forgotten;
        let wanted = oracle.counts_below(checkpoint.next.0);
        let counts = [
            checkpoint.records,
            checkpoint.accepted,
            checkpoint.duplicates,
            checkpoint.dead_letters,
        ];
        if counts != wanted && !self.any_cut && !restarted {
            return Err(format!(
                "at {} counts are {counts:?}, must be {wanted:?}",
                checkpoint.next
            ));
        }
        Ok(())
    }

    pub(super) fn final_state(&self) -> Result<(), String> {
        let state = self.sea.lock();
        let (part, oracle) = (&state.part, &self.oracle);
        for (subject, folded) in &oracle.fold().entities {
            let entity = Entity::parse(subject).ok_or("a subject")?;
            // Of a log that was cut nobody knows for sure that it has an entity's beginning.
            let beginning_lost = state.first > 0;
            let hurt = self.ever_damaged.contains(&entity) || self.ever_expired(part, &entity) || self.any_cut;
            if part.parked.contains_key(&entity) && !(beginning_lost && (hurt || part.restored)) {
                return Err(format!("{subject} is still parked"));
            }
            let excused = beginning_lost && (hurt || part.parked.contains_key(&entity));
            let lost = oracle.accepted()[subject]
                .last()
                .is_some_and(|last| *last < oracle.lost_below);
            let index = part.index.get(&entity).map(|offset| offset.0);
            // Without what was lost, an event may have been accepted that else came twice.
            let ends = index == Some(folded.offset) || oracle.has_losses();
            if !ends && !excused && !lost {
                let wanted = folded.offset;
                return Err(format!("{subject} ends at {index:?}, its events at {wanted}"));
            }
            let expired = part.expired.contains_key(&entity);
            if !part.documents.contains_key(&entity) && !expired && !excused && !lost {
                return Err(format!("{subject} has no document"));
            }
            self.stream_is_whole(part, &entity, folded.events.len() as u64)?;
        }
        let stray = part
            .documents
            .keys()
            .find(|entity| !oracle.accepted().contains_key(entity.subject()));
        match stray.filter(|_| !(self.any_cut && state.first > 0)) {
            Some(entity) => Err(format!("the log has nothing of {entity}")),
            None => Ok(()),
        }
    }

    fn stream_is_whole(&self, part: &Part, entity: &Entity, events: u64) -> Result<(), String> {
        let tells = self.ever_damaged.is_empty() && part.ever_expired.is_empty() && !part.restored;
        if !tells || self.oracle.has_losses() || self.any_cut {
            return Ok(());
        }
        let entries = part.events.get(entity).map(|(entries, _)| entries);
        let seqs: Vec<u64> = entries.into_iter().flatten().map(|(seq, _)| *seq).collect();
        if seqs.iter().copied().eq(1..=events) {
            return Ok(());
        }
        Err(format!("{entity}: its stream has {seqs:?}, must have 1 to {events}"))
    }
}

/// Whether the log is still the one that the checkpoint is of, as far as it can tell.
fn stands(now: &Checkpoint, state: &State) -> bool {
    let is_gone = now.last_record.is_some_and(|last| last.offset.0 < state.first);
    is_gone && now.next.0 <= state.end() || is_good(now, state.readable())
}

/// Whether a mark's last record is in the log.
pub fn is_good(mark: &Checkpoint, records: &[Rec]) -> bool {
    let end = records.last().map_or(0, |record| record.offset + 1);
    let last = mark
        .last_record
        .map(|last| (last.offset.0, last.timestamp_ms, last.crc32c));
    let found = last.and_then(|(offset, ..)| records.iter().find(|record| record.offset == offset));
    match (last, found) {
        (None, _) => true,
        (Some(last), Some(record)) => mark.next.0 <= end && named(record) == last,
        (Some(_), None) => false,
    }
}

/// What a checkpoint names of its last record.
pub fn named(record: &Rec) -> (u64, i64, u32) {
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    let crc = crate::reference::place::crc32c(&[key.unwrap_or_default(), value.unwrap_or_default()]);
    (record.offset, record.timestamp_ms, crc)
}

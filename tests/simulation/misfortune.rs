//! What befalls the world: crashes, rebalances, operators at bad moments, a store that goes back, loses and spoils, a log
//! that is cut, forgets, or is made anew.

use khala::pure::entity::Entity;

use super::check::named;
use super::oracle::Oracle;
use super::part::Part;
use super::plan::Event;
use super::projector::Projector;
use super::world::{Foreign, World};
use crate::reference::Rec;

/// Clocks jump by multiples of this.
const JUMP_MS: i64 = 600_000;

impl World {
    pub(super) fn befall(&mut self, event: Event) {
        let happens = match event {
            Event::Publish => {
                let n = 1 + self.luck.below(4) as usize;
                self.publish(n);
                return;
            }
            Event::LateCall => {
                let at = self.luck.next();
                self.sea.lock().arrive(at)
            }
            Event::ZombieEnds => {
                if self.projectors.len() > 1 {
                    self.projectors.remove(0);
                }
                return;
            }
            _ if self.foreign.is_some() => self.befall_anybody(event),
            _ if self.unaccepted => self.befall_anybody(event) || self.befall_store(event) || self.beside(event),
            _ => self.befall_anybody(event) || self.befall_store(event) || self.befall_log(event) || self.beside(event),
        };
        if happens {
            *self.history.faults.entry(event.name()).or_default() += 1;
            self.sea.lock().changes += 1;
            self.note(&format!("** {}", event.name()));
        }
    }

    fn befall_anybody(&mut self, event: Event) -> bool {
        match event {
            Event::Crash => {
                let which = self.luck.below(self.projectors.len() as u64) as usize;
                self.projectors.remove(which);
                if self.projectors.is_empty() {
                    self.spawn();
                }
                if self.luck.one_in(3) {
                    (self.keeper, self.reaper, self.snapshots, self.expiry) = (None, None, None, None);
                }
            }
            Event::Rebalance => self.spawn(), // the one before does not know yet
            Event::Deploy => {
                self.version = self.version.other();
                self.spawn();
            }
            Event::GroupLies => {
                let end = self.sea.lock().end();
                let lie = self.luck.below(end + 3);
                self.sea.lock().group = (lie > 0).then_some(lie);
            }
            Event::Clock => {
                let jump = (self.luck.below(13) as i64 - 6) * JUMP_MS;
                self.now_ms += jump;
                self.jumped_ms += jump;
                if self.luck.one_in(2) {
                    self.later_ms += (self.luck.below(13) as i64 - 6) * JUMP_MS; // the producers' clocks
                }
            }
            Event::Refuse => {
                let until = self.step + 1 + self.luck.below(40);
                self.sea.lock().refuses_until = until;
            }
            Event::Accept if self.unaccepted => self.accept(),
            _ => return false,
        }
        true
    }

    fn befall_store(&mut self, event: Event) -> bool {
        match event {
            Event::Rollback => self.roll_back(),
            Event::Flush => {
                let lost = std::mem::take(&mut self.sea.lock().part);
                self.expired_before.extend(lost.ever_expired); // a snapshot may have them aside
                self.disturbs = self.luck.one_in(2).then(|| self.luck.below(8));
                true
            }
            Event::Lose => self.damage(false),
            Event::Spoil => self.damage(true),
            Event::OtherVersion if !self.unaccepted => self.other_version(),
            _ => false,
        }
    }

    fn befall_log(&mut self, event: Event) -> bool {
        match event {
            Event::AppendTwice => self.append_twice(),
            Event::Cut => self.cut(),
            Event::Retain => self.retain(),
            Event::Recreate => self.recreate(),
            Event::Compact => self.compact(),
            _ => false,
        }
    }

    pub(super) fn time_passes(&mut self) {
        self.disturb();
        self.cut_unseen();
        if let Some((_, newest)) = self.comes_back.take_if(|(at, _)| *at <= self.step) {
            self.sea.lock().part = newest;
            self.sea.lock().changes += 1;
            self.note("** fails back");
        }
        if let Some(foreign) = self.foreign.take_if(|foreign| foreign.until <= self.step) {
            let mut state = self.sea.lock();
            state.part = foreign.ours;
            state.instants.clear(); // of the other version's documents
            state.changes += 1;
            drop(state);
            self.note("** our version's documents are back");
        }
    }

    /// A document goes from under the restore that follows a flush.
    fn disturb(&mut self) {
        let under_way = {
            let part = &self.sea.lock().part;
            part.is_restoring() && !part.documents.is_empty()
        };
        let Some(steps) = self.disturbs.filter(|_| under_way) else {
            return;
        };
        self.disturbs = steps.checked_sub(1);
        if steps == 0 {
            self.luck = self.plan.luck(self.step, Event::Flush);
            let spoil = self.luck.one_in(2);
            self.damage(spoil);
            *self.history.faults.entry("restore disturbed").or_default() += 1;
            self.sea.lock().changes += 1;
            self.note("** restore disturbed");
        }
    }

    /// The log is cut, and has grown again, after a projector has compared it with the store and before its first fetch.
    fn cut_unseen(&mut self) {
        let Some(often) = self
            .plan
            .cuts_unseen
            .filter(|_| self.projectors.iter().any(Projector::is_about_to_read))
        else {
            return;
        };
        self.luck = self.plan.luck(self.step, Event::Cut);
        if self.luck.one_in(often) {
            *self.history.faults.entry("cut before a first fetch").or_default() += 1;
            self.befall(Event::Cut);
            self.publish(8);
        }
    }

    fn roll_back(&mut self) -> bool {
        let instants = self.sea.lock().instants.len() as u64;
        if instants == 0 {
            return false;
        }
        let at = self.luck.below(instants) as usize;
        let back_at = self.step + 1 + self.luck.below(3);
        let comes_back = self.comes_back.is_none() && self.luck.one_in(2);
        let mut state = self.sea.lock();
        let old = state.instants[at].clone();
        let newest = std::mem::replace(&mut state.part, old);
        drop(state);
        self.expired_before.extend(newest.ever_expired.iter().cloned()); // a snapshot has what was made anew since
        if comes_back {
            self.comes_back = Some((back_at, newest));
        }
        true
    }

    /// A document goes, or becomes something else, behind everybody's back.
    fn damage(&mut self, spoil: bool) -> bool {
        let mut state = self.sea.lock();
        let entities: Vec<Entity> = state.part.documents.keys().cloned().collect();
        if entities.is_empty() {
            return false;
        }
        let entity = self.luck.pick(&entities).clone();
        if spoil {
            if let Some((json, _)) = state.part.documents.get_mut(&entity) {
                let middle = json.len() / 2;
                json[middle] = b'~';
            }
        } else {
            state.part.documents.remove(&entity);
        }
        state.part.damaged.insert(entity.clone());
        drop(state);
        self.ever_damaged.insert(entity);
        true
    }

    /// The store is restored from a dump of another version's documents, and later from one of ours.
    fn other_version(&mut self) -> bool {
        let until = self.step + 5 + self.luck.below(40);
        let mut state = self.sea.lock();
        let mut theirs = state.part.clone();
        let Some(checkpoint) = theirs.checkpoint.as_mut().filter(|now| now.intent.is_empty()) else {
            return false;
        };
        checkpoint.projection_version += 2; // of nobody who is here
        checkpoint.digest = checkpoint.digest.moved(0, 1);
        theirs.owner = None;
        let ours = std::mem::replace(&mut state.part, theirs.clone());
        drop(state);
        (self.operator, self.keeper, self.reaper, self.comes_back) = (None, None, None, None);
        self.any_version = true;
        self.foreign = Some(Foreign { until, ours, theirs });
        true
    }

    /// A producer without idempotence sends its last records again.
    fn append_twice(&mut self) -> bool {
        let n = 1 + self.luck.below(3) as usize;
        let mut state = self.sea.lock();
        let from = state.records.len().saturating_sub(n);
        let again = state.records[from..].to_vec();
        for (offset, record) in (state.end()..).zip(again) {
            state.records.push(Rec { offset, ..record });
        }
        self.oracle.fold_on(&state.records);
        true
    }

    /// The log loses its tail, and grows again.
    fn cut(&mut self) -> bool {
        let mut state = self.sea.lock();
        let readable = state.readable().len() as u64;
        if readable < 3 {
            return false;
        }
        let lost = 1 + self.luck.below(4.min(readable - 1)) as usize;
        let left = state.records.len() - lost;
        self.cut_away
            .extend(state.records.drain(left..).map(|lost| named(&lost)));
        state.cuts += 1;
        self.any_cut = true;
        self.later_ms += 1_000; // no record is taken for the one that was lost
        self.oracle.cut(&state.records);
        drop(state);
        self.right.clear();
        true
    }

    /// Mostly takes only what all of the partition have seen; now and then what nobody has.
    fn retain(&mut self) -> bool {
        let mut state = self.sea.lock();
        let applied = state.part.checkpoint.as_ref().map_or(0, |now| now.next.0);
        let (first, end) = (state.first, state.end());
        let most = if self.luck.one_in(5) { end } else { applied.min(end) };
        if most <= first {
            return false;
        }
        state.first += 1 + self.luck.below((most - first).min(30));
        self.any_forgotten = true;
        true
    }

    fn recreate(&mut self) -> bool {
        // Not on top of a cut: documents of what was cut away cannot be told from wrong ones.
        if self.former.is_some() || self.any_cut || self.oracle.accepted().is_empty() {
            return false;
        }
        let mut state = self.sea.lock();
        state.records.clear();
        let first = std::mem::take(&mut state.first);
        state.cuts += 1;
        "id anew".clone_into(&mut state.topic_id);
        if self.luck.one_in(2) {
            state.group = None;
        }
        drop(state);
        self.later_ms += 100_000_000;
        self.former = Some((std::mem::take(&mut self.oracle), first));
        self.oracle.fold_on(&[]);
        self.unaccepted = true;
        true
    }

    /// The operator says that the new log counts: another namespace, with a group of its own.
    pub(super) fn accept(&mut self) {
        let mut state = self.sea.lock();
        state.part = Part::default();
        state.instants.clear();
        state.forget_late_calls();
        (state.group, state.refuses_until) = (None, 0);
        state.changes += 1;
        drop(state);
        (self.operator, self.keeper, self.reaper) = (None, None, None);
        self.unaccepted = false;
        (self.any_cut, self.any_forgotten, self.any_put_back) = (false, false, false);
        (self.comes_back, self.snapshots, self.expiry) = (None, None, None);
        self.ever_damaged.clear();
        self.ever_left.clear();
        (self.guessed, self.cut_away) = Default::default();
        self.right.clear();
        self.projectors.clear();
        self.spawn();
    }

    fn compact(&mut self) -> bool {
        let mut state = self.sea.lock();
        let before = self.luck.below(state.documents.len() as u64 + 1) as usize;
        let mut seen = std::collections::BTreeSet::new();
        let mut kept = Vec::new();
        for (i, record) in std::mem::take(&mut state.documents).into_iter().enumerate().rev() {
            if seen.insert(record.key.clone()) || i >= before {
                kept.push(record);
            }
        }
        kept.reverse();
        state.documents = kept;
        true
    }

    pub(super) fn oracle_of(&self, topic_id: &str) -> &Oracle {
        match &self.former {
            Some((former, _)) if topic_id == "id" => former,
            _ => &self.oracle,
        }
    }

    /// The first offset of the log of that topic, where the log that is there begins at `now`.
    pub(super) fn first_of(&self, topic_id: &str, now: u64) -> u64 {
        match &self.former {
            Some((_, first)) if topic_id == "id" => *first,
            _ => now,
        }
    }
}

//! What befalls the world from outside: crashes, rebalances, a store that goes back, loses and spoils, a log that is cut.

use std::collections::HashMap;

use khala::pure::entity::Entity;

use super::part::Part;
use super::world::World;
use crate::reference::fold::Partition as Fold;

/// How long one lives that has lost its partition and has not heard of it, on average.
const ZOMBIE_STEPS: u64 = 12;

impl World {
    pub(super) fn misfortune(&mut self) {
        let rates = self.sea.lock().rates;
        if self.one_in(rates.crash) {
            self.fault("crash");
            let which = self.roll(self.projectors.len() as u64) as usize;
            self.bury(which);
            if self.projectors.is_empty() {
                self.spawn();
            }
        }
        if self.projectors.len() > 1 && self.one_in(ZOMBIE_STEPS) {
            self.bury(0);
        }
        if self.one_in(rates.rebalance) {
            self.fault("rebalance");
            self.spawn(); // the one before does not know yet
        }
        if self.one_in(rates.rollback) {
            self.roll_back();
        }
        if let Some((_, newest)) = self.comes_back.take_if(|(at, _)| *at <= self.step) {
            self.sea.lock().part = newest;
            self.fault("fails back");
        }
        if self.one_in(rates.flush) {
            self.fault("flush");
            self.sea.lock().part = Part::default();
        }
        if self.one_in(rates.lose) {
            self.damage(false);
        }
        if self.one_in(rates.spoil) {
            self.damage(true);
        }
        if self.one_in(rates.cut) {
            self.cut();
        }
        if self.one_in(rates.replay) && self.operator.is_none() {
            self.replay(None);
        }
        if self.one_in(rates.audit) && self.operator.is_none() {
            let repairs = self.one_in(2);
            self.audit(repairs);
        }
        if self.one_in(rates.group_lies) {
            self.fault("group offset lies");
            let end = self.sea.lock().end();
            let lie = self.roll(end + 3);
            self.sea.lock().group = (lie > 0).then_some(lie);
        }
    }

    fn roll_back(&mut self) {
        let instants = self.sea.lock().instants.len() as u64;
        if instants > 0 {
            let at = self.roll(instants) as usize;
            let back_at = self.step + 1 + self.roll(3);
            let mut state = self.sea.lock();
            let old = state.instants[at].clone();
            let newest = std::mem::replace(&mut state.part, old);
            let comes_back = self.comes_back.is_none() && state.dice.one_in(2);
            drop(state);
            self.fault("rollback");
            if comes_back {
                self.comes_back = Some((back_at, newest));
            }
        }
    }

    /// A document goes, or becomes something else, behind everybody's back.
    fn damage(&mut self, spoil: bool) {
        let mut state = self.sea.lock();
        let entities: Vec<Entity> = state.part.documents.keys().cloned().collect();
        if entities.is_empty() {
            return;
        }
        let entity = state.dice.pick(&entities).clone();
        if spoil {
            if let Some((json, _)) = state.part.documents.get_mut(&entity) {
                let middle = json.len() / 2;
                json[middle] ^= 1;
            }
        } else {
            state.part.documents.remove(&entity);
        }
        self.ever_damaged.insert(entity.clone());
        state.part.damaged.insert(entity);
        drop(state);
        self.any_damage = true;
        self.fault(if spoil { "document spoilt" } else { "document lost" });
    }

    /// The log loses its tail, and grows again.
    fn cut(&mut self) {
        let mut state = self.sea.lock();
        let records = state.records.len() as u64;
        if records < 3 {
            return;
        }
        let lost = 1 + state.dice.below(4.min(records - 1));
        let left = (records - lost) as usize;
        state.records.truncate(left);
        state.cuts += 1;
        drop(state);
        self.any_cut = true;
        self.later_ms += 1_000; // no record is taken for the one that was lost
        (self.expected, self.fold, self.folded) = (HashMap::new(), Fold::default(), 0);
        self.fold_on();
        self.fault("log cut");
    }
}

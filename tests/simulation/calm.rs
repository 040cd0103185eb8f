//! After the storm: the faults stop, late calls arrive, and within bounded steps all must be as if nothing had happened.

use khala::pure::checkpoint::Checkpoint;

use super::plan::{Calls, Event};
use super::version::Version;
use super::world::World;

/// Within these all that was published is in the documents.
const CALM_STEPS: u64 = 6_000;
/// Within these somebody who is held has looked again.
const HELD_STEPS: u64 = 300;

impl World {
    /// The sea calms down: all must be as if nothing had ever happened.
    pub(super) fn converge(&mut self) -> Result<(), String> {
        self.step = self.plan.steps;
        self.note("all is calm from here on");
        self.calm_down();
        while self.sea.lock().arrive(0) {
            self.check()?;
        }
        self.withdraw()?;
        if self.unaccepted {
            self.settle()?;
            let held = self.projectors[0].is_held();
            if held.is_none()
                && self
                    .sea
                    .lock()
                    .part
                    .checkpoint
                    .as_ref()
                    .is_some_and(|now| now.topic_id == "id")
            {
                return Err("a topic made anew was not noticed".to_owned());
            }
            self.accept();
        }
        self.publish(5);
        self.settle()?;
        let hurt = !self.ever_damaged.is_empty() || !self.sea.lock().part.parked.is_empty();
        if hurt && self.projectors[0].is_held().is_none() {
            self.repair_all()?;
        }
        self.publish(1); // a fresh event lives
        self.settle()?;
        if self.waits_for_expiry() && self.projectors[0].is_held().is_none() {
            self.repair_all()?;
        }
        match self.projectors[0].is_held() {
            None => self.final_state(),
            Some("log_replaced" | "document_corrupt") if self.any_cut => Ok(()),
            Some("document_corrupt") if self.may_lack_snapshot() => Ok(()),
            Some(reason) => Err(format!("held: {reason}")),
        }
    }

    /// Whether an event came for a document that had expired: it parks its entity until the next round of expiry.
    fn waits_for_expiry(&self) -> bool {
        let part = &self.sea.lock().part;
        part.parked.keys().any(|entity| part.ever_expired.contains(entity))
    }

    /// Where the other version's process is left beside documents of one, it is held, and then it goes.
    fn withdraw(&mut self) -> Result<(), String> {
        let right = self.sea.lock().part.checkpoint.as_ref().map(Version::of);
        let Some(right) = right.filter(|right| *right != self.projectors[0].version()) else {
            self.version = self.projectors[0].version();
            return Ok(());
        };
        self.publish(1); // it has to look at the store
        self.settle()?;
        let held = self.projectors[0].is_held();
        if held != Some("projection_version_changed") {
            return Err(format!("stuck at documents of version {right:?}, and held by {held:?}"));
        }
        self.note("the wrong version goes");
        self.version = right;
        self.projectors.clear();
        self.spawn();
        self.sea.lock().part.owner = None;
        Ok(())
    }

    fn calm_down(&mut self) {
        if let Some(foreign) = self.foreign.take() {
            self.sea.lock().part = foreign.ours;
        }
        let mut state = self.sea.lock();
        state.calls = Calls::default();
        state.refuses_until = 0;
        state.part.owner = None; // leases end
        state.changes += 1;
        drop(state);
        (self.operator, self.keeper, self.reaper) = (None, None, None);
        self.projectors.truncate(1);
    }

    /// By a replay from the start, or by an audit, which finds what was damaged and nothing else.
    fn repair_all(&mut self) -> Result<(), String> {
        self.luck = self.plan.luck(self.step, Event::Audit);
        if self.luck.one_in(2) {
            self.note(&format!("replayed from the start; {}", self.notable()));
            self.replay(true);
            return self.settle();
        }
        let damaged = self.sea.lock().part.damaged.clone();
        self.note(&format!("an audit repairs; {}", self.notable()));
        self.audit(true);
        self.settle()?;
        match self.found.take() {
            Some(found) if found.is_superset(&damaged) => Ok(()),
            found => Err(format!("damaged are {damaged:?}, and the audit found {found:?}")),
        }
    }

    fn settle(&mut self) -> Result<(), String> {
        let mut held_for = 0;
        for _ in 0..CALM_STEPS {
            self.step += 1;
            self.now_ms += 50;
            self.step_one(0);
            self.work_beside()?;
            self.check()?;
            let state = self.sea.lock();
            let there =
                |now: &Checkpoint| now.next.0 == state.end() && now.intent.is_empty() && now.topic_id == state.topic_id;
            let there = state.part.checkpoint.as_ref().map_or(state.end() == 0, there); // nothing of nothing is all
            let held = self.projectors[0].is_held().is_some();
            held_for = if held { held_for + 1 } else { 0 };
            let held = held_for > HELD_STEPS; // it looks again now and then
            if self.operator.is_none() && (held || there && self.projectors[0].is_idle()) {
                return Ok(());
            }
        }
        let state = self.sea.lock();
        let view = self.projectors[0].machine.view();
        Err(format!(
            "stuck at {:?} of {}, {view:?}",
            state.part.checkpoint,
            state.end()
        ))
    }
}

//! Makes a failing history small enough to be read: what it fails without is left out, a half, a quarter, … at a time.
//! In: a plan that fails. Out: a plan that fails too, and of which little can be left out. Bounded in runs, and the same
//! each time.

use super::plan::{Call, Plan};
use super::world::{History, run};

/// Runs of histories at most.
const RUNS_MAX: u32 = 400;

/// What failures are about. Small histories that fail for another reason are another failure.
const KINDS: [&str; 14] = [
    "is mixed in",
    "panicked",
    "is not the fold",
    "is unreadable",
    "the index says",
    "lacks its event",
    "dead letter",
    "digest",
    "counts are",
    "accuses",
    "is held",
    "stuck at",
    "parked",
    "stream",
];

fn kind(what: &str) -> Option<&'static str> {
    KINDS.into_iter().find(|kind| what.contains(kind))
}

/// A history that fails.
pub struct Failing {
    pub plan: Plan,
    pub what: String,
    pub history: History,
    pub runs: u32,
}

impl Failing {
    fn try_instead(&mut self, plan: Plan) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        match run(&plan) {
            Ok(_) => false,
            Err((what, _)) if kind(&what) != kind(&self.what) => false,
            Err((what, history)) => {
                (self.plan, self.what, self.history) = (plan, what, history);
                true
            }
        }
    }

    /// What comes after the failure does not matter.
    fn shorten(&mut self) {
        let steps = self.history.steps + 1;
        if steps >= self.plan.steps {
            return;
        }
        let mut plan = self.plan.clone();
        plan.steps = steps;
        plan.events.retain(|(step, _)| *step < steps);
        self.try_instead(plan);
    }

    fn leave_out_kinds(&mut self) {
        for (call, _) in Call::ALL {
            if self.plan.calls.of(call) > 0 {
                let calls = self.plan.calls.without(call);
                let plan = self.plan.clone();
                self.try_instead(Plan { calls, ..plan });
            }
        }
        if self.plan.cuts_unseen.is_some() {
            let plan = self.plan.clone();
            let cuts_unseen = None;
            self.try_instead(Plan { cuts_unseen, ..plan });
        }
        for kind in self.plan.kinds() {
            let mut plan = self.plan.clone();
            plan.events.retain(|(_, event)| *event != kind);
            self.try_instead(plan);
        }
    }

    /// Ever smaller pieces, until single events have been tried (Zeller's ddmin).
    fn leave_out_events(&mut self) {
        let mut piece = self.plan.events.len().div_ceil(2);
        while piece > 0 && self.runs < RUNS_MAX {
            let mut at = 0;
            while at < self.plan.events.len() {
                let mut plan = self.plan.clone();
                let end = (at + piece).min(plan.events.len());
                plan.events.drain(at..end);
                if !self.try_instead(plan) {
                    at += piece;
                }
            }
            piece /= 2;
        }
    }
}

pub fn shrink(plan: &Plan, what: String, history: History) -> Failing {
    let mut failing = Failing {
        plan: plan.clone(),
        what,
        history,
        runs: 0,
    };
    failing.shorten();
    failing.leave_out_kinds();
    failing.shorten();
    failing.leave_out_events();
    failing.leave_out_kinds();
    failing
}

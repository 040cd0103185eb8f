//! Where a rollout stands, and what comes next. Pure: the time and what was measured are told.

use serde::{Deserialize, Serialize};

use super::gates::Reading;
use super::plan::{Plan, Stage};
use super::route::CohortRoute;

/// Steps that the record keeps, the newest.
const STEPS_KEPT: usize = 500;

/// What a rollout is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutPhase {
    /// It goes on by itself.
    Rolling,
    /// It goes on only if told; its gates are looked at all the same.
    Paused,
    /// Readers are back where they were.
    RolledBack,
    /// All readers are led to the candidate, for good.
    Done,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The namespace that readers are led to.
    pub candidate: String,
    /// What it is at.
    pub phase: RolloutPhase,
    /// Which stage of the plan, from 0.
    pub stage: usize,
    /// Since when, in ms of the clock of whoever took that step.
    pub since_ms: i64,
    /// When it began.
    pub started_ms: i64,
    /// Counts the steps: no two states of a rollout are the same.
    pub steps: u64,
    /// Why it is where it is.
    pub why: String,
    /// The plan it began with.
    pub plan: Plan,
}

/// A stage by name, with its share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The stage's name; `none` before and after.
    pub stage: String,
    /// Its share.
    pub percent: u32,
}

/// One entry of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When, RFC 3339.
    pub at: String,
    /// Who: `operator/<name>`, `token/<name>` or `leader/<instance>`.
    pub who: String,
    /// `start`, `promote`, `finish`, `rollback`, `pause`, `resume`.
    pub did: String,
    /// The candidate.
    pub candidate: String,
    /// From where.
    pub from: Place,
    /// To where.
    pub to: Place,
    /// In words.
    pub why: String,
    /// What the gates were then.
    pub gates: Vec<Reading>,
}

/// All steps, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record(pub Vec<Step>);

/// What the leading process tells, again and again. One that stays as it is for long enough is somebody else's to take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// Which process.
    pub who: String,
    /// Counts up.
    pub beat: u64,
    /// By its clock, in ms.
    pub at_ms: i64,
    /// What it makes of the gates.
    pub gates: Vec<Reading>,
    /// What it waits for.
    pub waits_for: String,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing; this is waited for.
    Stay(String),
    /// The next stage.
    Promote(String),
    /// It was the last.
    Finish(String),
    /// Readers go back; this gate is broken.
    RollBack(Reading),
}

impl Record {
    /// Adds a step; the oldest goes when there are too many.
    pub fn add(&mut self, step: Step) {
        self.0.push(step);
        let over = self.0.len().saturating_sub(STEPS_KEPT);
        self.0.drain(..over);
    }
}

impl Rollout {
    /// Whether its gates are looked at.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        matches!(self.phase, RolloutPhase::Rolling | RolloutPhase::Paused)
    }

    /// The stage it is at.
    #[must_use]
    pub fn at(&self) -> Option<&Stage> {
        self.plan.stages.get(self.stage)
    }

    /// The stage's name and share.
    #[must_use]
    pub fn place(&self) -> Place {
        let none = || Place {
            stage: "none".to_owned(),
            percent: 0,
        };
        match self.phase {
            RolloutPhase::RolledBack => none(),
            RolloutPhase::Done => Place {
                stage: "done".to_owned(),
                percent: 100,
            },
            RolloutPhase::Rolling | RolloutPhase::Paused => self.at().map_or_else(none, |stage| Place {
                stage: stage.name.clone(),
                percent: stage.percent,
            }),
        }
    }

    /// The route that belongs to it; `None`: readers get what they got before.
    #[must_use]
    pub fn route(&self) -> Option<CohortRoute> {
        match self.phase {
            RolloutPhase::RolledBack => None,
            RolloutPhase::Done => Some(CohortRoute::all(&self.candidate)),
            RolloutPhase::Rolling | RolloutPhase::Paused => Some(CohortRoute {
                candidate: self.candidate.clone(),
                allow: self.plan.allow.clone(),
                percent: self.at()?.percent,
            }),
        }
    }

    /// How long the stage lasts beyond its hold time, in ms; negative: how long it is still to be held.
    #[must_use]
    pub fn overdue_ms(&self, now_ms: i64) -> i64 {
        let hold_ms = self.at().map_or(0, |stage| stage.hold_ms) as i64;
        now_ms.saturating_sub(self.since_ms).saturating_sub(hold_ms)
    }

    /// What comes next, by what the gates are now.
    #[must_use]
    pub fn decide(&self, gates: &[Reading], compared: u64, now_ms: i64) -> Decision {
        if !self.is_under_way() {
            return Decision::Stay("nothing: it has ended".to_owned());
        }
        if let Some(broken) = gates.iter().find(|gate| gate.is_broken()) {
            return Decision::RollBack(broken.clone());
        }
        if self.phase == RolloutPhase::Paused {
            return Decision::Stay("`khala rollout resume`: it is paused".to_owned());
        }
        let left_ms = -self.overdue_ms(now_ms);
        if left_ms > 0 {
            return Decision::Stay(format!("the stage's hold time, {} s more", (left_ms + 999) / 1000));
        }
        let wanted = self.plan.gates.parity_documents_min;
        if compared < wanted {
            return Decision::Stay(format!("comparison: {compared} of {wanted} documents in this stage"));
        }
        let why = "the hold time is over and no gate is broken".to_owned();
        if self.stage + 1 < self.plan.stages.len() {
            Decision::Promote(why)
        } else {
            Decision::Finish(why)
        }
    }

    /// The same rollout one step on.
    #[must_use]
    pub fn promoted(&self, why: &str, now_ms: i64) -> Self {
        let is_last = self.stage + 1 >= self.plan.stages.len();
        Self {
            phase: if is_last { RolloutPhase::Done } else { self.phase },
            stage: if is_last { self.stage } else { self.stage + 1 },
            since_ms: now_ms,
            steps: self.steps + 1,
            why: why.to_owned(),
            ..self.clone()
        }
    }

    /// The same rollout in another phase.
    #[must_use]
    pub fn in_phase(&self, phase: RolloutPhase, why: &str, now_ms: i64) -> Self {
        Self {
            phase,
            steps: self.steps + 1,
            why: why.to_owned(),
            since_ms: if phase == RolloutPhase::RolledBack {
                now_ms
            } else {
                self.since_ms
            },
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Limits, Values};

    fn rollout(phase: RolloutPhase, stage: usize) -> Rollout {
        let stage_of = |(name, percent): (&str, u32)| Stage {
            name: name.to_owned(),
            percent,
            hold_ms: 1000,
        };
        Rollout {
            candidate: "khala-2".to_owned(),
            phase,
            stage,
            since_ms: 10_000,
            started_ms: 0,
            steps: 0,
            why: String::new(),
            plan: Plan {
                allow: vec!["run/a".to_owned()],
                gates: Limits::default(),
                stages: [("internal", 0), ("half", 50), ("all", 100)].map(stage_of).to_vec(),
            },
        }
    }

    #[test]
    fn what_comes_next() {
        use RolloutPhase::{Done, Paused, RolledBack, Rolling};
        let good = Values {
            compared: 20,
            ..Values::default()
        };
        let few = Values {
            compared: 19,
            ..Values::default()
        };
        let bad = Values {
            compared: 20,
            differing: 1,
            ..Values::default()
        };
        let cases = [
            ("it is held", Rolling, 0, 10_999, &good, "stay"),
            ("its time is over", Rolling, 0, 11_000, &good, "promote"),
            ("too little was compared", Rolling, 0, 99_000, &few, "stay"),
            ("it was the last", Rolling, 2, 11_000, &good, "finish"),
            ("a gate breaks while it is held", Rolling, 1, 10_001, &bad, "back"),
            ("it is paused", Paused, 1, 99_000, &good, "stay"),
            ("a gate breaks while it is paused", Paused, 1, 99_000, &bad, "back"),
            ("it was rolled back", RolledBack, 1, 99_000, &bad, "stay"),
            ("it is done", Done, 2, 99_000, &bad, "stay"),
            ("the clock went back", Rolling, 0, 5, &good, "stay"),
        ];
        for (case, phase, stage, now_ms, values, wanted) in cases {
            let rollout = rollout(phase, stage);
            let gates = rollout.plan.gates.read(values);
            let found = match rollout.decide(&gates, values.compared, now_ms) {
                Decision::Stay(_) => "stay",
                Decision::Promote(_) => "promote",
                Decision::Finish(_) => "finish",
                Decision::RollBack(gate) => {
                    assert_eq!((gate.gate.as_str(), gate.value), ("parity", Some(1.0)));
                    "back"
                }
            };
            assert_eq!(found, wanted, "{case}");
        }
    }

    #[test]
    fn each_step_has_its_route() {
        let first = rollout(RolloutPhase::Rolling, 0);
        let percent = |rollout: &Rollout| rollout.route().map(|route| route.percent);
        let (second, back) = (first.promoted("", 1), first.in_phase(RolloutPhase::RolledBack, "", 1));
        let third = second.promoted("", 2);
        let done = third.promoted("", 3);
        assert_eq!(
            [&first, &second, &third, &done, &back].map(percent),
            [Some(0), Some(50), Some(100), Some(100), None]
        );
        assert_eq!(done.phase, RolloutPhase::Done);
        let paused = rollout(RolloutPhase::Paused, 0).promoted("", 1);
        assert_eq!(
            (paused.phase, paused.stage),
            (RolloutPhase::Paused, 1),
            "promoted by hand it stays paused"
        );
    }

    #[test]
    fn the_record_keeps_the_newest() {
        let mut record = Record::default();
        for number in 0..STEPS_KEPT + 3 {
            record.add(Step {
                at: number.to_string(),
                who: String::new(),
                did: String::new(),
                candidate: String::new(),
                from: Place::default(),
                to: Place::default(),
                why: String::new(),
                gates: Vec::new(),
            });
        }
        assert_eq!((record.0.len(), record.0[0].at.as_str()), (STEPS_KEPT, "3"));
    }
}

//! One assigned partition: from records to commits, and from anything unexpected back to a place that
//! store and log vouch for. In: what happened. Out: what is to be done. The driver does it and decides nothing.
//! Invariant: one commit on its way at most, each a compare-and-set on the checkpoint before it; the cache is
//! good exactly as long as the store's checkpoint is the expected one. No IO, clock, randomness or async.

mod folding;
mod repairing;
mod running;
mod share;
#[cfg(test)]
pub(super) mod tests;
mod words;

use std::collections::BTreeMap;

pub use self::folding::EXPIRED;
use self::running::Running;
pub use self::share::ShareLimit;
pub use self::words::{
    Action, DeadLetter, Effect, Failure, Input, Outcome, Remembered, Rewound, Setup, State, Streams, TIMESTAMPS_MAX,
    View, Visible,
};
use super::cache::{Cache, Coverage};
use super::checkpoint::{Checkpoint, Identity};
use super::entity::Entity;
use super::place::{NextOffset, Offset};
use super::recovery::{self, Called, Step, Survey};

/// What a cache is good for after a recovery.
#[derive(Clone)]
enum Kept {
    /// Something in it is not in the store, or may not be.
    Nothing,
    /// It is good if the store still has this checkpoint, or none.
    Under(Option<Identity>),
}

enum Phase {
    Surveying {
        /// What the cache is good for.
        kept: Kept,
        attempt: u32,
    },
    Running(Box<Running>),
    Held {
        called: Called,
        detail: String,
        ticks: u32,
        /// Whether it is looking again just now.
        asked: bool,
    },
    Released,
}

/// An operator is soon done: pauses stay short.
const NOT_OWNER_ATTEMPTS_MAX: u32 = 4;

/// How many ticks a held partition waits before it looks again.
const HELD_TICKS: u32 = 5;

/// One assigned partition.
pub struct Partition {
    setup: Setup,
    cache: Cache,
    parked: BTreeMap<Entity, Offset>,
    remembered: Remembered,
    phase: Phase,
    /// Why the last effect failed, while it is being tried again.
    trouble: Option<String>,
    stopping: bool,
    /// Reading stopped right behind the last record applied: it does not begin with that once more.
    read_behind: bool,
    /// How often reading stopped since the last record.
    reader_stops: u32,
    /// Batches that begin below go on however many dead letters they have: an operator said so.
    let_through: NextOffset,
    /// There is no snapshot that is further on than this.
    no_snapshot_past: Option<NextOffset>,
}

impl Partition {
    /// A partition that was just assigned.
    pub fn new(setup: Setup, remembered: Remembered) -> Self {
        Self {
            cache: Cache::new(setup.partition, Coverage::Part),
            parked: BTreeMap::new(),
            remembered,
            phase: Phase::Surveying {
                kept: Kept::Nothing,
                attempt: 0,
            },
            trouble: None,
            stopping: false,
            read_behind: false,
            reader_stops: 0,
            let_through: NextOffset::START,
            no_snapshot_past: None,
            setup,
        }
    }

    /// What outlives the assignment.
    pub fn remembered(&self) -> Remembered {
        self.remembered
    }

    /// The store's checkpoint while the partition runs; `None`: it has none, or none is known.
    pub fn in_store(&self) -> Option<&Checkpoint> {
        match &self.phase {
            Phase::Running(running) => running.stored.as_ref(),
            _ => None,
        }
    }

    /// Whether more records would be taken now.
    pub fn wants_records(&self) -> bool {
        matches!(&self.phase, Phase::Running(running) if running.wants_records()) && !self.stopping
    }

    /// Batches in hand: being folded, or on their way to the store.
    pub fn in_hand(&self) -> usize {
        match &self.phase {
            Phase::Running(running) => running.in_hand(),
            _ => 0,
        }
    }

    /// What people are shown.
    pub fn view(&self) -> View {
        let state = match (&self.phase, &self.trouble) {
            (Phase::Held { called, detail, .. }, _) => State::Held {
                called: *called,
                detail: detail.clone(),
            },
            (_, Some(detail)) => State::Retrying { detail: detail.clone() },
            (Phase::Running(_), None) => State::Running,
            (Phase::Surveying { .. } | Phase::Released, None) => State::Recovering,
        };
        let running = match &self.phase {
            Phase::Running(running) => Some(running),
            _ => None,
        };
        View {
            next: running.map_or(self.remembered.committed, |running| Some(running.next_in_store())),
            oldest_ms: running.and_then(|running| running.oldest_ms()),
            state,
            parked: self.parked.len(),
        }
    }

    /// Takes note of what happened at `now_ms`, and tells what is to be done, in order.
    pub fn on(&mut self, input: Input, now_ms: i64) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Assigned => self.survey(0, String::new(), &mut actions),
            Input::Done(Outcome::Failed(effect, failure)) => self.failed(effect, failure, &mut actions),
            Input::Done(outcome) => {
                let settles = match &outcome {
                    Outcome::Appended { failed, .. } => failed.is_empty(),
                    Outcome::Renewed(_) => false, // tells nothing of what is being tried again
                    _ => true,
                };
                if settles {
                    self.trouble = None;
                }
                self.done(outcome, now_ms, &mut actions);
            }
            Input::Records(records) => self.records(records, now_ms, &mut actions),
            Input::ReaderStopped(detail) => match &mut self.phase {
                Phase::Running(running) => self.read_behind = running.stop_reading(detail),
                Phase::Surveying { .. } | Phase::Held { .. } | Phase::Released => {} // it compares anyhow
            },
            Input::LogChanged(detail) => self.recover(0, detail, &mut actions),
            Input::Tick { cache_bytes } => self.tick(cache_bytes, &mut actions),
            Input::Stop => self.stopping = true,
        }
        self.release_if_idle(&mut actions);
        self.compare_if_idle(&mut actions);
        actions
    }

    fn done(&mut self, outcome: Outcome, now_ms: i64, actions: &mut Vec<Action>) {
        match outcome {
            Outcome::Surveyed(survey) => self.surveyed(*survey, now_ms, actions),
            Outcome::Loaded(stored) => self.loaded(stored, now_ms, actions),
            Outcome::Appended { failed, detail } => self.appended(failed, detail, actions),
            Outcome::Committed => self.committed(actions),
            Outcome::Renewed(checkpoint) => self.renewed(checkpoint.as_ref(), actions),
            Outcome::Rewound(rewound) => self.rewound(rewound, actions),
            Outcome::Restored(restored) => self.restored(restored, actions),
            Outcome::NoSnapshot(past) => self.no_snapshot(past, actions),
            Outcome::Failed(..) => {}
        }
    }

    fn failed(&mut self, effect: Effect, failure: Failure, actions: &mut Vec<Action>) {
        match failure {
            Failure::Away(detail) => self.again(effect, detail, actions),
            Failure::Refused(found) if repairing::is_our_commit(&effect, (*found).as_ref()) => self.committed(actions),
            Failure::Refused(_) => {
                self.recover(0, "the store has another checkpoint than expected".to_owned(), actions);
            }
            Failure::NotOwner(owner) => {
                let attempt = if let Phase::Surveying { attempt, .. } = self.phase {
                    (attempt + 1).min(NOT_OWNER_ATTEMPTS_MAX)
                } else {
                    2
                };
                let why = match owner.as_str() {
                    "" => "the lease ended".to_owned(),
                    owner => format!("the partition is owned by {owner}"),
                };
                self.recover(attempt, why, actions);
                if let Phase::Surveying { kept, .. } = &mut self.phase {
                    *kept = Kept::Nothing; // somebody else may have repaired documents under the same checkpoint
                }
            }
            Failure::Hopeless(detail) => self.hold(Called::LogReplaced, Step::Hold, detail, actions),
            Failure::Corrupt(detail) => self.hold(Called::CheckpointCorrupt, Step::Hold, detail, actions),
        }
    }

    /// Asks the same again after a pause.
    fn again(&mut self, effect: Effect, detail: String, actions: &mut Vec<Action>) {
        let attempt = match &mut self.phase {
            Phase::Surveying { attempt, .. } => {
                *attempt += 1;
                *attempt
            }
            Phase::Running(running) => running.next_attempt(&effect),
            Phase::Held { asked, .. } => {
                *asked = false;
                return;
            }
            Phase::Released => return,
        };
        if attempt == 0 {
            return; // a renewal: the next tick asks again
        }
        self.trouble = Some(detail.clone());
        actions.push(Action::Do {
            effect,
            attempt,
            because: detail,
        });
    }

    /// Drops all that is folded and not committed, and finds out where to start.
    fn recover(&mut self, attempt: u32, because: String, actions: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Released => return,
            Phase::Running(running) if running.is_appending() => return running.recover_later(attempt, because),
            _ => {}
        }
        if attempt > 0 {
            self.trouble = Some(because.clone());
        }
        actions.push(Action::Abandon);
        let kept = match &self.phase {
            Phase::Running(running) => running.kept(),
            Phase::Surveying { kept, .. } => kept.clone(),
            Phase::Held { .. } | Phase::Released => Kept::Nothing,
        };
        self.phase = Phase::Surveying { kept, attempt };
        self.survey(attempt, because, actions);
    }

    fn survey(&self, attempt: u32, because: String, actions: &mut Vec<Action>) {
        let effect = Effect::Survey {
            committed: self.remembered.committed,
            letters_end: self.remembered.letters_end,
        };
        actions.push(Action::Do {
            effect,
            attempt,
            because,
        });
    }

    fn surveyed(&mut self, mut survey: Survey, now_ms: i64, actions: &mut Vec<Action>) {
        survey.group = survey.group.max(self.remembered.committed);
        self.remembered.recall_cut(&mut survey);
        let (step, called) = recovery::decide(&survey);
        let detail = recovery::explain(&survey, step, called);
        let resumed = self.let_through != survey.let_through;
        self.let_through = survey.let_through;
        if let Phase::Held {
            called: held, asked, ..
        } = &mut self.phase
            && (called, *held, resumed) == (Called::Normal, Called::DeadLetterShare, false)
        {
            *asked = false;
            return; // the same batch would hold again
        }
        if step == Step::Finish && self.finish_held(&survey, actions) {
            return;
        }
        let start = match step {
            Step::StartAt(start) => start,
            Step::RewindTo(_) => {
                return self.rewind(survey.good_mark, (called, step, detail), actions);
            }
            Step::RestoreOr(first) if self.may_restore(first, &survey) => return self.restore(actions),
            Step::Finish if repairing::is_restore(&survey) => {
                actions.push(Action::Recovered { called, step, detail });
                return self.restore(actions);
            }
            Step::Finish => return self.rewind(None, (called, step, detail), actions),
            Step::RestoreOr(start) => start,
            Step::Hold => return self.hold(called, step, detail, actions),
        };
        let identity = survey.checkpoint.as_ref().map(Checkpoint::identity);
        let keeps_cache = match &self.phase {
            Phase::Surveying {
                kept: Kept::Under(kept),
                ..
            } => *kept == identity,
            _ => false,
        };
        if !keeps_cache || called == Called::RetentionGap {
            let whole = survey.checkpoint.is_none() && start == NextOffset::START;
            let coverage = if whole { Coverage::Whole } else { Coverage::Part };
            self.cache = Cache::new(self.setup.partition, coverage);
        }
        self.parked = survey.parked.iter().cloned().collect();
        if survey
            .checkpoint
            .as_ref()
            .is_none_or(|checkpoint| Some(checkpoint.next) < self.remembered.committed)
        {
            self.remembered.committed = survey.checkpoint.as_ref().map(|checkpoint| checkpoint.next);
        }
        self.recall_letters(&survey);
        self.setup.rules.partitions = survey.partitions;
        let read_from = recovery::read_from(&survey, start, std::mem::take(&mut self.read_behind));
        let fresh = Checkpoint::first(start, &survey.topic_id, survey.partitions);
        let mut running = Running::new(survey.checkpoint, fresh, start, now_ms);
        actions.push(Action::Recovered { called, step, detail });
        running.pick_up(actions);
        self.phase = Phase::Running(Box::new(running));
        actions.push(Action::Read(read_from));
    }

    fn hold(&mut self, called: Called, step: Step, detail: String, actions: &mut Vec<Action>) {
        let known = matches!(&self.phase, Phase::Held { called: before, .. } if *before == called);
        if !known {
            actions.push(Action::Abandon);
            actions.push(Action::Recovered {
                called,
                step,
                detail: detail.clone(),
            });
        }
        self.trouble = None;
        self.phase = Phase::Held {
            called,
            detail,
            ticks: 0,
            asked: false,
        };
    }

    fn tick(&mut self, cache_bytes: usize, actions: &mut Vec<Action>) {
        self.setup.cache_bytes = cache_bytes;
        match &mut self.phase {
            Phase::Held { ticks, asked, .. } => {
                *ticks += 1;
                // Never two at once: the second would come back into what the first has begun.
                if *ticks % HELD_TICKS == 0 && !std::mem::replace(asked, true) {
                    self.survey(0, String::new(), actions);
                }
            }
            // Also on its way to the end: what is in hand is committed under the lease.
            Phase::Running(running) => {
                if !running.may_renew() {
                    return;
                }
                actions.push(Action::Do {
                    effect: Effect::Renew,
                    attempt: 0,
                    because: String::new(),
                });
            }
            _ => {}
        }
    }

    fn release_if_idle(&mut self, actions: &mut Vec<Action>) {
        let idle = match &self.phase {
            Phase::Running(running) => running.is_idle(),
            Phase::Surveying { .. } | Phase::Held { .. } => true,
            Phase::Released => false,
        };
        if self.stopping && idle {
            self.phase = Phase::Released;
            actions.push(Action::Release);
        }
    }
}

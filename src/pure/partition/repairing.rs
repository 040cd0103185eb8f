//! A partition whose documents are put back (to a mark, or from a snapshot) before it reads on.
//! Invariant: whatever came of it, store and log are surveyed again.

use std::sync::Arc;

use super::{Action, DeadLetter, Effect, Kept, Partition, Phase, Remembered, Rewound};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::intent::Intent;
use crate::pure::place::NextOffset;
use crate::pure::record::{RecordBatch, RecordIdentity};
use crate::pure::recovery::{Called, LastRecord, Step, Survey};

impl Partition {
    /// Puts the documents back to a mark, or finishes what was begun; then surveys again.
    pub(super) fn rewind(
        &mut self,
        to: Option<Box<Checkpoint>>,
        (called, step, detail): (Called, Step, String),
        actions: &mut Vec<Action>,
    ) {
        let attempt = match self.phase {
            Phase::Surveying { attempt, .. } => attempt,
            _ => 0,
        };
        self.phase = Phase::Surveying {
            kept: Kept::Nothing,
            attempt,
        };
        actions.push(Action::Recovered { called, step, detail });
        actions.push(Action::Do {
            effect: Effect::Rewind { to },
            attempt,
            because: String::new(),
        });
    }

    /// Tries once more what could not be finished; a partition that is held for it stays held, and nothing is said, unless
    /// it can be now. Whether it is held.
    pub(super) fn finish_held(&mut self, survey: &Survey, actions: &mut Vec<Action>) -> bool {
        if !matches!(self.phase, Phase::Held { .. }) {
            return false;
        }
        let effect = if is_restore(survey) {
            Effect::Restore
        } else {
            Effect::Rewind { to: None }
        };
        actions.push(Action::Do {
            effect,
            attempt: 0,
            because: String::new(),
        });
        true
    }

    /// Asks for a snapshot; then surveys again.
    pub(super) fn restore(&mut self, actions: &mut Vec<Action>) {
        let attempt = match self.phase {
            Phase::Surveying { attempt, .. } => attempt,
            _ => 0,
        };
        self.phase = Phase::Surveying {
            kept: Kept::Nothing,
            attempt,
        };
        actions.push(Action::Do {
            effect: Effect::Restore,
            attempt,
            because: String::new(),
        });
    }

    /// Whether to ask for one. Not where the log is whole, which gives the event streams too: snapshots do not have them.
    pub(super) fn may_restore(&self, first: NextOffset, survey: &Survey) -> bool {
        let there = survey.checkpoint.as_ref().map(|checkpoint| checkpoint.next);
        first > NextOffset::START && self.no_snapshot_past != Some(there.unwrap_or_default())
    }

    pub(super) fn no_snapshot(&mut self, past: NextOffset, actions: &mut Vec<Action>) {
        self.no_snapshot_past = Some(past);
        self.recover(0, "there is no snapshot".to_owned(), actions);
    }

    pub(super) fn restored(&mut self, restored: Rewound, actions: &mut Vec<Action>) {
        let (entities, next) = (restored.entities, restored.next);
        let (called, lost) = match restored.over {
            None => (Called::SinkLost, "the store lost its documents".to_owned()),
            Some(at) => (
                Called::SinkRolledBack,
                format!("the store went back to offset {at}, which the log does not reach any more"),
            ),
        };
        actions.push(Action::Recovered {
            called,
            step: Step::RestoreOr(next),
            detail: format!("{lost}; {entities} documents are restored from the snapshot, redoing from offset {next}"),
        });
        self.rewound(restored, actions);
    }

    /// Which dead letters are in their topic already, by what this survey tells of the log.
    pub(super) fn recall_letters(&mut self, survey: &Survey) {
        let known = &mut self.remembered;
        let nothing_tells = survey.checkpoint.is_none() && known.letters_end.is_none();
        if survey.letters == LastRecord::Differs || nothing_tells {
            // The log was cut, or made anew, or may have been: only what the checkpoint has passed is of this one.
            let passed = survey.checkpoint.as_ref().map_or(NextOffset::START, |now| now.next);
            known.dead_letters = known.dead_letters.min(passed);
            known.letters_end = None;
        }
        if let Some(Intent::Rewound { from, .. }) = survey.checkpoint.as_ref().and_then(rewound_intent) {
            // Below it, and only there, dead letters were appended before.
            (known.dead_letters, known.letters_end) = (from, None);
        }
    }

    /// What was read before reading stopped is as good as ever, and is committed first: a partition whose reading
    /// stops again and again at the same place still gets on.
    pub(super) fn compare_if_idle(&mut self, actions: &mut Vec<Action>) {
        let Phase::Running(running) = &mut self.phase else {
            return;
        };
        if let Some(why) = running.take_stop_if_idle() {
            self.reader_stops += 1;
            self.recover(self.reader_stops - 1, why, actions);
        }
    }

    pub(super) fn rewound(&mut self, rewound: Rewound, actions: &mut Vec<Action>) {
        self.remembered.committed = Some(rewound.next);
        actions.extend(rewound.disturbed.iter().map(|(entity, reason)| Action::Drifted {
            entity: entity.clone(),
            reason,
            detail: "while a snapshot was restored, which began again".to_owned(),
        }));
        actions.push(Action::Rewound(rewound));
        self.recover(0, "the documents were put back".to_owned(), actions);
    }
}

impl Remembered {
    /// Dead letters below this place are in their topic.
    pub(super) fn appended(&mut self, position: &Checkpoint) {
        if self.dead_letters < position.next {
            (self.dead_letters, self.letters_end) = (position.next, position.last_record);
        }
    }

    /// A log that was cut after it was compared, and before it was read: what is read tells that dead letters from `next`
    /// on were of another.
    pub(super) fn recall_letters_of(&mut self, records: &RecordBatch, next: NextOffset) {
        if LastRecord::among(self.letters_end, records) == LastRecord::Differs {
            (self.dead_letters, self.letters_end) = (self.dead_letters.min(next), None);
        }
    }

    /// What appends them, but for those that the log has; `None` if it has all. Where these records end before the one up
    /// to which dead letters were appended, only the log can tell whether it still has that one.
    pub(super) fn append(&self, records: Arc<RecordBatch>, mut letters: Vec<DeadLetter>) -> Option<Effect> {
        let is_known = |letter: &DeadLetter| self.dead_letters.is_past(records.get(letter.index).offset);
        let is_reached = |end: &RecordIdentity| records.next().is_some_and(|next| next.is_past(end.offset));
        let end = self.letters_end.filter(|end| !is_reached(end));
        if end.is_none() {
            letters.retain(|letter| !is_known(letter));
        }
        if letters.is_empty() {
            return None;
        }
        let known = end.filter(|_| letters.iter().any(is_known));
        let known = known.map(|end| (self.dead_letters, end));
        Some(Effect::AppendDeadLetters {
            records,
            letters,
            known,
        })
    }

    /// A log that had another record in the last one's place is no better once retention has taken that one too.
    pub(super) fn recall_cut(&mut self, survey: &mut Survey) {
        let named = survey.checkpoint.as_ref().and_then(|checkpoint| checkpoint.last_record);
        match survey.last_record {
            LastRecord::Differs => self.differed = named,
            LastRecord::Gone if named.is_some() && named == self.differed => survey.last_record = LastRecord::Differs,
            LastRecord::Gone | LastRecord::Matches => self.differed = None,
        }
    }
}

/// Whether a refused commit is there: it was sent before, and nobody was told.
pub(super) fn is_our_commit(effect: &Effect, found: Option<&Checkpoint>) -> bool {
    match (effect, found) {
        (Effect::Commit(batch), Some(found)) => found.identity() == batch.checkpoint.identity(),
        _ => false,
    }
}

pub(super) fn is_restore(survey: &Survey) -> bool {
    let intent = survey
        .checkpoint
        .as_ref()
        .map(|checkpoint| Intent::parse(&checkpoint.intent));
    matches!(intent, Some(Ok(Some(Intent::Restore { .. }))))
}

fn rewound_intent(checkpoint: &Checkpoint) -> Option<Intent> {
    Intent::parse(&checkpoint.intent).ok().flatten()
}

//! A partition whose documents are put back (to a mark, or from a snapshot) before it reads on.
//! Invariant: whatever came of it, store and log are surveyed again.

use super::{Action, Effect, Kept, Partition, Phase, Rewound};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::intent::Intent;
use crate::pure::recovery::{Called, Step, Survey};

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

    pub(super) fn restored(&mut self, restored: Option<Rewound>, actions: &mut Vec<Action>) {
        let Some(restored) = restored else {
            self.no_snapshot = true;
            return self.recover(0, "there is no snapshot".to_owned(), actions);
        };
        let (entities, next) = (restored.entities, restored.next);
        actions.push(Action::Recovered {
            called: Called::SinkLost,
            step: Step::RestoreOr(next),
            detail: format!(
                "the store lost its documents; {entities} are restored from the snapshot, redoing from offset {next}"
            ),
        });
        self.rewound(restored, actions);
    }

    pub(super) fn rewound(&mut self, rewound: Rewound, actions: &mut Vec<Action>) {
        self.remembered.committed = Some(rewound.next);
        actions.push(Action::Rewound(rewound));
        self.recover(0, "the documents were put back".to_owned(), actions);
    }
}

pub(super) fn is_restore(survey: &Survey) -> bool {
    let intent = survey
        .checkpoint
        .as_ref()
        .map(|checkpoint| Intent::parse(&checkpoint.intent));
    matches!(intent, Some(Ok(Some(Intent::Restore { .. }))))
}

pub(super) fn rewound_intent(checkpoint: &Checkpoint) -> Option<Intent> {
    Intent::parse(&checkpoint.intent).ok().flatten()
}

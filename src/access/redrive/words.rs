//! What is asked of a redrive, and what came of it.

use serde::{Deserialize, Serialize};

/// Which letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// These: partition and offset in the dead letters' topic.
    These(Vec<(u32, u64)>),
    /// All of this reason.
    OfReason(String),
    /// All.
    All,
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// Tell what would be done.
    DryRun,
    /// Do it.
    Redrive,
    /// Do it, also for letters whose redrive was interrupted before anybody knew whether they were published, and
    /// that are not in the log.
    RedriveInterrupted,
}

/// What to redrive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedriveRequest {
    /// Which letters.
    pub chosen: Chosen,
    /// How far to go.
    pub effort: Effort,
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is in the events' topic.
    Redriven,
    /// It would be put there.
    WouldRedrive,
    /// It was before.
    AlreadyRedriven,
    /// It would be a dead letter again, and stays one.
    StillDead,
    /// A redrive of it was interrupted; it is not in the log.
    Interrupted,
    /// The log did not acknowledge it.
    Failed,
}

/// One letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RedrivenLetter {
    /// Its partition in the dead letters' topic.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// What became of it.
    pub outcome: Fate,
    /// Partition and offset in the events' topic.
    pub to: Option<(u32, u64)>,
    /// Why, in words.
    pub detail: Option<String>,
}

/// What became of all of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RedriveReport {
    /// Published now; in a dry run, those that would be.
    pub redriven: usize,
    /// Published before.
    pub already_redriven: usize,
    /// Left, because they would be dead again.
    pub still_dead: usize,
    /// Left, because nobody knows.
    pub interrupted: usize,
    /// Not acknowledged.
    pub failed: usize,
    /// Whether there are more than one run takes.
    pub more: bool,
    /// Each letter.
    pub letters: Vec<RedrivenLetter>,
}

impl RedriveReport {
    pub(super) fn add(&mut self, letter: RedrivenLetter) {
        *match letter.outcome {
            Fate::Redriven | Fate::WouldRedrive => &mut self.redriven,
            Fate::AlreadyRedriven => &mut self.already_redriven,
            Fate::StillDead => &mut self.still_dead,
            Fate::Interrupted => &mut self.interrupted,
            Fate::Failed => &mut self.failed,
        } += 1;
        self.letters.push(letter);
    }
}

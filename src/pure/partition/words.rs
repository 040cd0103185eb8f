//! The machine's words: what it is made with, what happened, what is to be done, what people are shown.

use std::sync::Arc;

use super::share::ShareLimit;
use crate::pure::batch::{Batch, Stored};
use crate::pure::checkpoint::{Checkpoint, Identity};
use crate::pure::entity::Entity;
use crate::pure::event::{Reason, Rules};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::record::{RecordBatch, RecordIdentity};
use crate::pure::recovery::{Called, Step, Survey};

/// Whether accepted events are kept for streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// Each accepted event goes into its entity's stream.
    Kept,
    /// None does.
    Off,
}

/// What a machine is made with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Which partition.
    pub partition: PartitionId,
    /// What a legal event is.
    pub rules: Rules,
    /// Whether accepted events are kept.
    pub streams: Streams,
    /// The most bytes of cached documents; changes with the number of partitions.
    pub cache_bytes: usize,
    /// How many dead letters are too many.
    pub dead_letter_share: ShareLimit,
}

/// What a live projector knows of a partition beyond one assignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The highest offset that it committed to the store: below it, the store lost writes.
    pub committed: Option<NextOffset>,
    /// Dead letters below were appended already.
    pub dead_letters: NextOffset,
    /// The record before that place: a log that has another one there is not the one whose dead letters they are.
    pub letters_end: Option<RecordIdentity>,
    /// The last record of a checkpoint in whose place the log has another one: once retention takes that one, nothing
    /// else tells that the documents are of a log that was cut.
    pub differed: Option<RecordIdentity>,
}

/// A record that is no legal event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the batch.
    pub index: usize,
    /// The first rule broken.
    pub reason: Reason,
    /// In words.
    pub detail: String,
}

/// Something to ask of log or store. Asking twice is harmless.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Take the partition and tell all that store and log say of it.
    Survey {
        /// The highest offset committed by this projector, which counts like the group's.
        committed: Option<NextOffset>,
        /// The record up to which it appended dead letters.
        letters_end: Option<RecordIdentity>,
    },
    /// Read documents; they count only under one of these checkpoints.
    Load {
        /// What the store's checkpoint may be.
        expected: Vec<Option<Identity>>,
        /// Whose documents.
        entities: Vec<Entity>,
    },
    /// Append dead letters, and wait until the log has them.
    AppendDeadLetters {
        /// Where the original records are.
        records: Arc<RecordBatch>,
        /// Which of them, and why.
        letters: Vec<DeadLetter>,
        /// Those below this place were appended, if the log still has this record, which stands further on.
        known: Option<(NextOffset, RecordIdentity)>,
    },
    /// Write a batch.
    Commit(Arc<Batch>),
    /// Extend the lease and read the checkpoint.
    Renew,
    /// Put the documents back to a mark, or finish what the checkpoint's intent says.
    Rewind {
        /// The mark; `None`: what was begun is finished.
        to: Option<Box<Checkpoint>>,
    },
    /// Restore a snapshot, if there is one, or finish what was begun.
    Restore,
}

/// What came of an effect.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Of a survey.
    Surveyed(Box<Survey>),
    /// Of a load: in the order asked.
    Loaded(Vec<Stored>),
    /// Of an append: those that the log did not take, and its words.
    Appended {
        /// Not acknowledged.
        failed: Vec<DeadLetter>,
        /// Why not.
        detail: String,
    },
    /// The batch is in the store.
    Committed,
    /// The lease is ours; the checkpoint is this one.
    Renewed(Option<Checkpoint>),
    /// The documents are back at the mark, but for those that can be rebuilt from nothing.
    Rewound(Rewound),
    /// The documents are those of a snapshot.
    Restored(Rewound),
    /// There is no snapshot that is further on than this, which is where the store stands.
    NoSnapshot(NextOffset),
    /// Not done, or not known to be.
    Failed(Effect, Failure),
}

/// Why an effect was not done.
#[derive(Clone, Debug)]
pub enum Failure {
    /// No answer, or a refusal that a person must lift: ask again later.
    Away(String),
    /// The store has another checkpoint than expected; nothing was written.
    Refused(Box<Option<Checkpoint>>),
    /// Somebody else may write the partition; nothing was written.
    NotOwner(String),
    /// The checkpoint cannot be read.
    Corrupt(String),
    /// No mark is in the log any more.
    Hopeless(String),
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The partition is ours: begin.
    Assigned,
    /// An effect came to its end.
    Done(Outcome),
    /// Records, in order.
    Records(RecordBatch),
    /// Reading stopped: finish what is in hand, then compare the last applied record before going on.
    ReaderStopped(String),
    /// The log changed under us: drop what is in hand and compare.
    LogChanged(String),
    /// About once a second.
    Tick {
        /// The bound of the cache from now on.
        cache_bytes: usize,
    },
    /// Finish what was begun, then release.
    Stop,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Do this, after a pause that grows with `attempt` (0: at once).
    Do {
        /// What.
        effect: Effect,
        /// How often it failed before.
        attempt: u32,
        /// Why it failed last.
        because: String,
    },
    /// Forget every effect on its way: it belongs to a state that is no more.
    Abandon,
    /// Read from here on.
    Read(NextOffset),
    /// Say so: a recovery was decided.
    Recovered {
        /// What it is called.
        called: Called,
        /// What is done about it.
        step: Step,
        /// In words: what, where, what next.
        detail: String,
    },
    /// Say so: a document is not what the log says.
    Drifted {
        /// Whose.
        entity: Entity,
        /// INTERFACE.md §5's word.
        reason: &'static str,
        /// In words.
        detail: String,
    },
    /// Say so: documents were put back.
    Rewound(Rewound),
    /// Readers see it now.
    Visible(Visible),
    /// Nothing is on its way any more: give the partition up.
    Release,
}

/// What a rewind came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewound {
    /// Where the checkpoint stands now.
    pub next: NextOffset,
    /// Entities put back, removed ones among them.
    pub entities: u64,
    /// Records read for it.
    pub records: u64,
    /// Where the documents stood in whose place a snapshot was restored; `None`: there were none.
    pub over: Option<NextOffset>,
    /// Entities left as they were: neither log nor snapshot has their beginning.
    pub left: Vec<Entity>,
    /// Documents that were lost or spoilt while a snapshot was restored, and why: each time all began again.
    pub disturbed: Vec<(Entity, &'static str)>,
}

/// What one commit made visible.
#[derive(Clone, Debug)]
pub struct Visible {
    /// Where the partition stands.
    pub checkpoint: Checkpoint,
    /// Events accepted, duplicates and dead letters since the commit before.
    pub accepted: u64,
    /// As in the checkpoint, since the commit before.
    pub duplicates: u64,
    /// As in the checkpoint, since the commit before.
    pub dead_letters: u64,
    /// Events after which an entity's life has ended, as far as readers wait for an end.
    pub terminals: u64,
    /// Log timestamps of some of its records, evenly spread, at most [`TIMESTAMPS_MAX`]; milliseconds.
    pub timestamps_ms: Vec<i64>,
}

/// The most log timestamps that one commit tells.
pub const TIMESTAMPS_MAX: usize = 64;

/// What people are shown of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The store's checkpoint, as far as known.
    pub next: Option<NextOffset>,
    /// Log timestamp of the oldest record in hand that is not visible yet; milliseconds.
    pub oldest_ms: Option<i64>,
    /// In one word.
    pub state: State,
    /// Entities whose events wait for a repair.
    pub parked: usize,
}

/// A partition's state in one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Finding out where to start.
    Recovering,
    /// Reading, folding, committing.
    Running,
    /// Log or store are away.
    Retrying {
        /// Why.
        detail: String,
    },
    /// Stopped until a person acts.
    Held {
        /// The row of the recovery table.
        called: Called,
        /// In words.
        detail: String,
    },
}

//! Where a partition starts after an assignment, and after anything that was not as expected.
//! In: the store's checkpoint, the group's offset, the log's bounds. Out: a step and what it is called.
//! Invariant: never past what the documents hold; what cannot be rebuilt is held, not guessed.
//! Source: the redo point of ARIES (Mohan et al., 1992); the table is DESIGN.md's, row by row.

use super::checkpoint::{Checkpoint, PROJECTION_VERSION};
use super::entity::Entity;
use super::intent::Intent;
use super::place::{NextOffset, Offset};
use super::record::{RecordBatch, RecordIdentity};

/// What the log says of the last record that the checkpoint names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastRecord {
    /// It is still that very record.
    Matches,
    /// Another record stands there.
    Differs,
    /// None stands there: retention took it, compaction, or nothing was applied yet.
    Gone,
}

impl LastRecord {
    /// Compares what a checkpoint names with what the log has at that offset.
    pub fn compare(named: Option<RecordIdentity>, in_log: Option<RecordIdentity>) -> Self {
        match (named, in_log) {
            (Some(named), Some(in_log)) if named == in_log => Self::Matches,
            (Some(_), Some(_)) => Self::Differs,
            _ => Self::Gone,
        }
    }

    /// Compares it with what was read.
    pub fn among(named: Option<RecordIdentity>, records: &RecordBatch) -> Self {
        let in_log = named.and_then(|named| records.iter().find(|record| record.offset >= named.offset));
        let in_log = in_log.map(|record| record.identity());
        Self::compare(
            named.filter(|named| in_log.is_some_and(|found| found.offset == named.offset)),
            in_log,
        )
    }
}

/// All that store and log say of a partition when it is opened.
#[derive(Clone, Debug)]
pub struct Survey {
    /// R: the store's checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// What the log says of its last record.
    pub last_record: LastRecord,
    /// K: the group's offset.
    pub group: Option<NextOffset>,
    /// L: the log's first offset.
    pub first: NextOffset,
    /// E: the log's end.
    pub end: NextOffset,
    /// The topic's id now; empty where the log does not tell.
    pub topic_id: String,
    /// Number of the topic's partitions now.
    pub partitions: u32,
    /// Number of partitions the namespace was made with.
    pub namespace_partitions: Option<u32>,
    /// The newest mark whose last record still matches.
    pub good_mark: Option<Box<Checkpoint>>,
    /// Parked entities and the first offset not applied to each.
    pub parked: Vec<(Entity, Offset)>,
    /// Batches that begin below go on however many dead letters they have.
    pub let_through: NextOffset,
    /// What the log says of the record up to which this projector appended dead letters; `Gone`: nothing to compare.
    pub letters: LastRecord,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read on from here.
    StartAt(NextOffset),
    /// Restore a snapshot if there is one that is further on than the store, else read from here.
    RestoreOr(NextOffset),
    /// Rewind the documents to this mark, then read on from it.
    RewindTo(NextOffset),
    /// Finish the rewind or restore that is under way.
    Finish,
    /// Write nothing and ask.
    Hold,
}

/// What the case is called, in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Called {
    /// Documents of another fold are there.
    ProjectionVersionChanged,
    /// Keys have moved between partitions.
    PartitionsChanged,
    /// Another topic than the one the documents came from.
    LogReplaced,
    /// Nothing was ever written.
    FirstStart,
    /// The group read already, and the store has nothing.
    SinkLost,
    /// Records between the checkpoint and the log's start are gone.
    RetentionGap,
    /// The log lost records that the documents include.
    CheckpointAhead,
    /// The store lost writes.
    SinkRolledBack,
    /// A rewind or restore was begun and is not done.
    RewindResumed,
    /// An operator put the documents back, to be redone.
    Replayed,
    /// The checkpoint cannot be read.
    CheckpointCorrupt,
    /// Too many records are no legal events.
    DeadLetterShare,
    /// The partition's task broke an invariant of its own.
    Panicked,
    /// Nothing to mend.
    Normal,
}

impl Called {
    /// The name of INTERFACE.md §5 and the recovery table.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProjectionVersionChanged => "projection_version_changed",
            Self::PartitionsChanged => "partitions_changed",
            Self::LogReplaced => "log_replaced",
            Self::FirstStart => "first_start",
            Self::SinkLost => "sink_lost",
            Self::RetentionGap => "retention_gap",
            Self::CheckpointAhead => "checkpoint_ahead",
            Self::SinkRolledBack => "sink_rolled_back",
            Self::RewindResumed => "rewind_resumed",
            Self::Replayed => "replayed",
            Self::CheckpointCorrupt => "document_corrupt",
            Self::DeadLetterShare => "dead_letter_share",
            Self::Panicked => "panicked",
            Self::Normal => "normal",
        }
    }

    /// The drift reason it counts as; `None` where documents are what the log says.
    pub fn drift(self) -> Option<&'static str> {
        match self {
            Self::Normal
            | Self::Panicked
            | Self::DeadLetterShare
            | Self::FirstStart
            | Self::PartitionsChanged
            | Self::LogReplaced => None,
            Self::RewindResumed | Self::Replayed => None,
            drifted => Some(drifted.name()),
        }
    }
}

/// The recovery table: the first row that fits, decides.
pub fn decide(found: &Survey) -> (Step, Called) {
    if found
        .namespace_partitions
        .is_some_and(|made_with| found.partitions > made_with)
    {
        let version = found
            .checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.projection_version);
        if version.is_none_or(|version| version == PROJECTION_VERSION) {
            return (Step::Hold, Called::PartitionsChanged);
        }
    }
    let Some(checkpoint) = &found.checkpoint else {
        return match found.group {
            None => (Step::StartAt(found.first), Called::FirstStart),
            Some(_) => (Step::RestoreOr(found.first), Called::SinkLost),
        };
    };
    if checkpoint.projection_version != PROJECTION_VERSION {
        return (Step::Hold, Called::ProjectionVersionChanged);
    }
    if !checkpoint.may_be_of(&found.topic_id) {
        return (Step::Hold, Called::LogReplaced);
    }
    if checkpoint.partitions != found.partitions {
        return (Step::Hold, Called::PartitionsChanged);
    }
    let Ok(intent) = Intent::parse(&checkpoint.intent) else {
        return (Step::Hold, Called::CheckpointCorrupt);
    };
    if intent.as_ref().is_some_and(Intent::is_under_way) {
        return (Step::Finish, Called::RewindResumed);
    }
    if checkpoint.next < found.first && found.last_record != LastRecord::Differs {
        return (Step::RestoreOr(found.first), Called::RetentionGap);
    }
    if checkpoint.next > found.end || found.last_record == LastRecord::Differs {
        return match &found.good_mark {
            Some(mark) => (Step::RewindTo(mark.next), Called::CheckpointAhead),
            None => (Step::Hold, Called::LogReplaced),
        };
    }
    if intent.is_some() {
        return (Step::StartAt(checkpoint.next), Called::Replayed);
    }
    if found.group.is_some_and(|group| checkpoint.next < group) {
        return (Step::StartAt(checkpoint.next), Called::SinkRolledBack);
    }
    (Step::StartAt(checkpoint.next), Called::Normal)
}

/// Where reading begins that goes on at `start`: with the last record applied, if the log has it, so that a log that
/// is cut after it was compared is found out by the first fetch. Not where reading has just stopped `behind` that record:
/// at a new leader's first record it would stop there for ever.
pub fn read_from(found: &Survey, start: NextOffset, behind: bool) -> NextOffset {
    let compared = found
        .checkpoint
        .as_ref()
        .filter(|checkpoint| checkpoint.next == start && !behind);
    let last = compared.and_then(|checkpoint| checkpoint.last_record);
    let last = last.filter(|last| found.last_record == LastRecord::Matches && start.is_past(last.offset));
    last.map_or(start, |last| NextOffset(last.offset.0))
}

/// What a person must know who meets documents of another version.
pub fn other_version(version: u32) -> String {
    format!(
        "the documents are of projection version {version}, this khala makes version {PROJECTION_VERSION}; \
         serve a new --namespace with this version, or run the version that made them"
    )
}

/// What a person must know who meets documents whose keys have moved.
pub fn moved_keys(partitions: u32, made_with: u32) -> String {
    format!(
        "the topic has {partitions} partitions, the namespace was made with {made_with}: keys have moved; publish to a topic \
         with the old number, or serve a new --namespace"
    )
}

/// What a person must know about a step that is more than reading on: what, where, what next.
pub fn explain(found: &Survey, step: Step, called: Called) -> String {
    let at = found
        .checkpoint
        .as_ref()
        .map_or(NextOffset::START, |checkpoint| checkpoint.next);
    let made_with = found.namespace_partitions.unwrap_or(found.partitions);
    match (called, step) {
        (Called::ProjectionVersionChanged, _) => {
            let version = found.checkpoint.as_ref().map(|made| made.projection_version);
            other_version(version.unwrap_or(0))
        }
        (Called::PartitionsChanged, _) => moved_keys(found.partitions, made_with),
        (Called::LogReplaced, _) => format!(
            "the log is not the one the documents came from (checkpoint at {at}, log {}..{}); \
             nothing is written; a new --namespace accepts the new log",
            found.first, found.end
        ),
        (Called::CheckpointAhead, Step::RewindTo(mark)) => format!(
            "the log was cut: the checkpoint at {at} names a record that is not there any more \
             (log {}..{}); going back to {mark}, the newest mark that still holds",
            found.first, found.end
        ),
        (Called::RewindResumed, _) => "a rewind was begun and not finished; finishing it".to_owned(),
        (Called::Replayed, _) => format!("the documents were put back to offset {at}; redoing from there"),
        (Called::CheckpointCorrupt, _) => format!(
            "the checkpoint's intent is none that this version knows; run the version that wrote it, at offset {at}"
        ),
        (Called::RetentionGap, _) => format!(
            "offsets {at}..{} are gone from the log, and neither the store nor a snapshot has them; raise the topic's retention",
            found.first
        ),
        (Called::SinkLost, _) if found.first > NextOffset::START => format!(
            "the store lost its documents; the log begins at {}: what stood before comes from a snapshot, or is gone",
            found.first
        ),
        (Called::SinkLost, _) => format!("the store lost its documents; redoing from offset {}", found.first),
        (Called::SinkRolledBack, _) => format!(
            "the store went back to offset {at} from {}; redoing what it lost",
            found.group.unwrap_or(at)
        ),
        _ => format!("reading on from offset {at}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(at: Option<u64>, last_record: LastRecord, group: Option<u64>, mark: Option<u64>) -> Survey {
        Survey {
            checkpoint: at.map(|at| Checkpoint::first(NextOffset(at), "id", 12)),
            last_record,
            group: group.map(NextOffset),
            first: NextOffset(10),
            end: NextOffset(50),
            topic_id: "id".to_owned(),
            partitions: 12,
            namespace_partitions: Some(12),
            good_mark: mark.map(|mark| Box::new(Checkpoint::first(NextOffset(mark), "id", 12))),
            parked: Vec::new(),
            let_through: NextOffset::START,
            letters: LastRecord::Gone,
        }
    }

    #[test]
    #[rustfmt::skip] // a table is read by column
    fn the_first_row_that_fits_decides() {
        use Called::*;
        use LastRecord::*;
        use Step::*;
        let at = |offset| StartAt(NextOffset(offset));
        let rows = [ // the log holds 10..50
            // checkpoint, last record, group,    mark      step                          called
            (None,     Gone,    None,     None,     at(10),                       FirstStart),
            (None,     Gone,    Some(45), None,     RestoreOr(NextOffset(10)),    SinkLost),
            (None,     Gone,    Some(45), Some(30), RestoreOr(NextOffset(10)),    SinkLost),
            (Some(5),  Gone,    Some(5),  None,     RestoreOr(NextOffset(10)),    RetentionGap),
            (Some(5),  Gone,    Some(45), None,     RestoreOr(NextOffset(10)),    RetentionGap),
            (Some(5),  Differs, Some(5),  None,     Hold,                         LogReplaced), // seen before it was gone
            (Some(10), Gone,    Some(10), None,     at(10),                       Normal),
            (Some(60), Gone,    Some(60), Some(30), RewindTo(NextOffset(30)),     CheckpointAhead),
            (Some(60), Gone,    Some(60), None,     Hold,                         LogReplaced),
            (Some(40), Differs, Some(40), Some(30), RewindTo(NextOffset(30)),     CheckpointAhead),
            (Some(40), Differs, Some(40), None,     Hold,                         LogReplaced),
            (Some(40), Matches, Some(45), Some(30), at(40),                       SinkRolledBack),
            (Some(40), Gone,    Some(45), Some(30), at(40),                       SinkRolledBack),
            (Some(40), Matches, Some(40), Some(30), at(40),                       Normal),
            (Some(40), Matches, Some(30), None,     at(40),                       Normal),
            (Some(40), Matches, None,     None,     at(40),                       Normal),
            (Some(50), Matches, Some(50), None,     at(50),                       Normal),
        ];
        for (i, (checkpoint, last, group, mark, step, called)) in rows.into_iter().enumerate() {
            assert_eq!(decide(&survey(checkpoint, last, group, mark)), (step, called), "row {i}");
        }
    }

    #[test]
    fn another_version_is_held_before_all_else() {
        let mut found = survey(Some(5), LastRecord::Differs, None, None);
        if let Some(checkpoint) = &mut found.checkpoint {
            checkpoint.projection_version += 1;
        }
        found.partitions = 24;
        found.topic_id = "other".to_owned();
        assert_eq!(decide(&found), (Step::Hold, Called::ProjectionVersionChanged));
    }

    #[test]
    fn more_partitions_are_held_also_where_no_checkpoint_is() {
        let mut found = survey(None, LastRecord::Gone, None, None);
        found.partitions = 13;
        assert_eq!(decide(&found), (Step::Hold, Called::PartitionsChanged));
        found.namespace_partitions = None;
        assert_eq!(decide(&found).1, Called::FirstStart);
    }

    #[test]
    fn a_rewind_is_finished_first_and_its_redo_is_no_loss() {
        let with = |intent: &str, last| {
            let mut found = survey(Some(40), last, Some(45), Some(30));
            found.checkpoint.as_mut().expect("given").intent = intent.to_owned();
            decide(&found)
        };
        let rewind = "rewind 30 - 0 1 1 0 0 t";
        assert_eq!(with(rewind, LastRecord::Matches), (Step::Finish, Called::RewindResumed));
        assert_eq!(
            with("restore t", LastRecord::Differs),
            (Step::Finish, Called::RewindResumed)
        );
        let start = Step::StartAt(NextOffset(40));
        assert_eq!(with("rewound 45 t", LastRecord::Matches), (start, Called::Replayed));
        let cut = with("rewound 45 t", LastRecord::Differs);
        assert_eq!(cut, (Step::RewindTo(NextOffset(30)), Called::CheckpointAhead));
        assert_eq!(with("?", LastRecord::Matches), (Step::Hold, Called::CheckpointCorrupt));
    }

    #[test]
    fn another_topic_is_held_and_an_unknown_one_is_not() {
        let mut found = survey(Some(40), LastRecord::Matches, Some(40), Some(30));
        found.topic_id = "other".to_owned();
        assert_eq!(decide(&found), (Step::Hold, Called::LogReplaced));
        found.topic_id = String::new();
        assert_eq!(decide(&found).1, Called::Normal);
    }

    #[test]
    fn no_start_is_past_the_checkpoint_or_skips_what_the_log_has() {
        for at in 0..60 {
            for group in [None, Some(0), Some(20), Some(49), Some(70)] {
                for last in [LastRecord::Matches, LastRecord::Differs, LastRecord::Gone] {
                    if let (Step::StartAt(start), _) = decide(&survey(Some(at), last, group, None)) {
                        assert_eq!(start.0, at.max(10), "checkpoint {at}, group {group:?}, {last:?}");
                    }
                }
            }
        }
    }
}

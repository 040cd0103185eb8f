//! What log and store say of each other. In: what the store has of a partition. Out: all that the recovery table asks.
//! Invariant: it only looks.

use crate::log::{Log, LogError, Topic};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::recovery::{LastRecord, Survey, moved_keys};
use crate::store::Opened;

/// The most marks compared with the log when the newest does not hold.
const MARKS_COMPARED_MAX: usize = 1000;

/// What the log says of what the store has: all that the recovery table asks for.
///
/// # Errors
/// The log does not answer.
pub async fn compare(log: &dyn Log, partition: PartitionId, opened: Opened) -> Result<Survey, LogError> {
    let (topic, bounds, group) = tokio::try_join!(log.topic(), log.bounds(partition), log.group_offset(partition))?;
    let last_record = match &opened.checkpoint {
        Some(checkpoint) => last_record_of(log, partition, checkpoint, (bounds.first, bounds.end)).await?,
        None => LastRecord::Gone,
    };
    let ahead = opened
        .checkpoint
        .as_ref()
        .is_some_and(|checkpoint| checkpoint.next > bounds.end);
    let version = opened
        .checkpoint
        .as_ref()
        .map(|checkpoint| checkpoint.projection_version);
    let next = opened.checkpoint.as_ref().map(|checkpoint| checkpoint.next);
    // One past the checkpoint is of a later store than this one: an audit that began there verified it here.
    let may_go_back_to = |mark: &Checkpoint| Some(mark.projection_version) == version && Some(mark.next) <= next;
    let mut good_mark = None;
    if ahead || last_record == LastRecord::Differs {
        for mark in opened
            .marks
            .iter()
            .map(|mark| &mark.checkpoint)
            .filter(|mark| mark.next <= bounds.end && may_go_back_to(mark))
            .take(MARKS_COMPARED_MAX)
        {
            if last_record_of(log, partition, mark, (bounds.first, bounds.end)).await? == LastRecord::Matches {
                good_mark = Some(Box::new(mark.clone()));
                break;
            }
        }
    }
    Ok(Survey {
        last_record,
        group,
        first: bounds.first,
        end: bounds.end,
        topic_id: topic.id,
        partitions: topic.partitions,
        namespace_partitions: opened.namespace_partitions,
        good_mark,
        parked: opened.parked,
        checkpoint: opened.checkpoint,
        let_through: NextOffset::START,
        letters: LastRecord::Gone,
    })
}

/// In words, if the documents are not of the topic as it is now: no record of it is one of the checkpoint's, or keys have
/// moved to other partitions. What was read of the log before this is asked was read of the topic that it is asked of.
///
/// # Errors
/// The log does not answer.
pub async fn not_of_topic(log: &dyn Log, checkpoint: &Checkpoint) -> Result<Option<String>, LogError> {
    Ok(of_another(&log.topic().await?, checkpoint))
}

/// The same, of a topic that was asked for before.
pub fn of_another(topic: &Topic, checkpoint: &Checkpoint) -> Option<String> {
    if !checkpoint.may_be_of(&topic.id) {
        return Some(format!(
            "topic {} was deleted and made anew, and the documents are of the former one; `khala serve` with a new --namespace \
             makes documents of this one",
            topic.name
        ));
    }
    (checkpoint.partitions != topic.partitions).then(|| moved_keys(topic.partitions, checkpoint.partitions))
}

/// Whether the last record that a mark names is still that very record, in a log of these bounds.
///
/// # Errors
/// The log does not answer.
pub async fn last_record_of(
    log: &dyn Log,
    partition: PartitionId,
    mark: &Checkpoint,
    (first, end): (NextOffset, NextOffset),
) -> Result<LastRecord, LogError> {
    let Some(named) = mark.last_record else {
        return Ok(LastRecord::Gone);
    };
    if first.is_past(named.offset) || !end.is_past(named.offset) {
        return Ok(LastRecord::Gone);
    }
    let mut in_log = log.record_at(partition, named.offset).await?;
    if in_log.is_none() {
        // A hole, or the log was cut since its bounds were asked for.
        if !log.bounds(partition).await?.end.is_past(named.offset) {
            return Ok(LastRecord::Differs);
        }
        in_log = log.record_at(partition, named.offset).await?;
    }
    Ok(LastRecord::compare(Some(named), in_log))
}

//! Whether a partition's documents can be compared with the log at all, before any of them is read.

use super::ground::Ground;
use super::site::RepairError;
use super::survey::{last_record_of, not_of_topic};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::drift::Reason;
use crate::pure::intent::Intent;
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::recovery::{LastRecord, other_version};

/// Where a partition stands.
pub(super) enum Standing {
    /// Nobody has projected it yet.
    Untouched,
    /// Its documents are no state: why, and what to do.
    Between(&'static str),
    /// Log and checkpoint belong together.
    Ready {
        /// The log's first offset.
        first: NextOffset,
        /// The store's checkpoint.
        checkpoint: Box<Checkpoint>,
        /// The store lost writes, and nobody has redone them yet: in words.
        rolled_back: Option<String>,
    },
    /// They do not: a row of the recovery table applies to the partition as a whole.
    Drift {
        /// Which.
        reason: Reason,
        /// In words.
        detail: String,
        /// The checkpoint's.
        offset: Option<u64>,
    },
}

/// Compares checkpoint and log.
///
/// # Errors
/// Log or store do not answer.
pub(super) async fn standing(ground: &Ground, partition: PartitionId) -> Result<Standing, RepairError> {
    let (log, store) = (&*ground.log, &*ground.store);
    // Before the checkpoint: a group's offset follows it.
    let group = log.group_offset(partition).await?;
    let Some(checkpoint) = store.checkpoint(partition).await? else {
        return Ok(match group {
            None => Standing::Untouched,
            Some(_) => Standing::Drift {
                reason: Reason::SinkLost,
                detail: "the group has read it, and the store has no checkpoint".to_owned(),
                offset: None,
            },
        });
    };
    if let Some(words) = between(&checkpoint) {
        return Ok(Standing::Between(words));
    }
    let bounds = log.bounds(partition).await?;
    let last = last_record_of(log, partition, &checkpoint, (bounds.first, bounds.end)).await?;
    let (reason, detail) = if !checkpoint.is_ours() {
        let detail = other_version(checkpoint.projection_version);
        (Reason::ProjectionVersionChanged, detail)
    } else if let Some(detail) = not_of_topic(log, &checkpoint).await? {
        (Reason::CheckpointAhead, detail)
    } else if checkpoint.next > bounds.end || last == LastRecord::Differs {
        let detail = format!("the log ends at {}, or was cut and grew again", bounds.end);
        (Reason::CheckpointAhead, detail)
    } else if checkpoint.next < bounds.first {
        let detail = format!(
            "the log begins at {}: what lies between was never applied",
            bounds.first
        );
        (Reason::RetentionGap, detail)
    } else {
        let ahead = group.filter(|group| *group > checkpoint.next);
        let alone = checkpoint.intent.is_empty() && store.owner(partition).await?.is_none();
        return Ok(Standing::Ready {
            first: bounds.first,
            rolled_back: ahead.filter(|_| alone).map(|group| {
                format!("the group has read up to {group}, the store has less: `khala serve` redoes the rest")
            }),
            checkpoint: Box::new(checkpoint),
        });
    };
    Ok(Standing::Drift {
        reason,
        detail,
        offset: Some(checkpoint.next.0),
    })
}

/// The log's first offset and the checkpoint, whatever they say of each other; `None`: nobody has projected it yet.
///
/// # Errors
/// Log or store do not answer; a rewind is under way.
pub(super) async fn within(
    ground: &Ground,
    partition: PartitionId,
) -> Result<Option<(NextOffset, Checkpoint)>, RepairError> {
    let Some(checkpoint) = ground.store.checkpoint(partition).await? else {
        return Ok(None);
    };
    check_intent(partition, &checkpoint)?;
    check_version(partition, &checkpoint)?;
    Ok(Some((ground.log.bounds(partition).await?.first, checkpoint)))
}

/// Whether documents are of the version that is made here: another one's are not to be compared, still less written.
pub(super) fn check_version(partition: PartitionId, checkpoint: &Checkpoint) -> Result<(), RepairError> {
    if checkpoint.is_ours() {
        return Ok(());
    }
    let words = other_version(checkpoint.projection_version);
    Err(RepairError::Refused(format!("partition {partition}: {words}")))
}

/// Whether documents are of the topic that the log was read of until now.
pub(super) async fn check_topic(
    ground: &Ground,
    partition: PartitionId,
    checkpoint: &Checkpoint,
) -> Result<(), RepairError> {
    match not_of_topic(&*ground.log, checkpoint).await? {
        None => Ok(()),
        Some(words) => Err(RepairError::Refused(format!("partition {partition}: {words}"))),
    }
}

/// Refuses documents that are no state, but between two.
pub(super) fn check_intent(partition: PartitionId, checkpoint: &Checkpoint) -> Result<(), RepairError> {
    match between(checkpoint) {
        None => Ok(()),
        Some(words) => Err(RepairError::Refused(format!("partition {partition}: {words}"))),
    }
}

/// Why documents are no state, but between two; `None`: they are one.
fn between(checkpoint: &Checkpoint) -> Option<&'static str> {
    match Intent::parse(&checkpoint.intent) {
        Ok(intent) if !intent.as_ref().is_some_and(Intent::is_under_way) => None,
        Ok(_) => Some(
            "a rewind is under way; ask again when it is done: if nobody is at it, `khala serve` or the same replay ends it",
        ),
        Err(_) => Some("the checkpoint's intent is none that this version knows; run the version that wrote it"),
    }
}

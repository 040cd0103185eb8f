//! Lets a partition go on that is held for its dead letters. In: which. Out: from where on they count anew, or what else
//! holds it. Invariant: a partition that is held for something else is left as it is.

use serde::{Deserialize, Serialize};

use super::{Access, AccessError};
use crate::projector::now_ms;
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::recovery::Called;
use crate::store::Note;

/// Which partitions.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequest {
    /// `None`: all.
    pub partition: Option<u32>,
}

/// One partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LetThrough {
    /// Which.
    pub partition: u32,
    /// Batches that begin below this offset go on, however many dead letters they have; null where it is held for
    /// something else.
    pub below: Option<u64>,
    /// What that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<OtherHold>,
}

/// A hold that no resume lifts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherHold {
    /// Why, in one word.
    pub reason: String,
    /// Why, and what helps.
    pub detail: String,
}

impl Access {
    /// Lets all that the log has now through. A held partition sees it within a few seconds.
    ///
    /// # Errors
    /// `BadRequest`: there is no such partition. `Refused`: all that were asked for are held for something else. Log or
    /// store do not answer.
    pub async fn resume(&self, request: ResumeRequest) -> Result<Vec<LetThrough>, AccessError> {
        let mut rows = Vec::new();
        for partition in self.chosen(request.partition).await? {
            rows.push((self.other_hold(partition).await?, partition));
        }
        let mut told = Vec::new();
        for (held, partition) in rows {
            let below = match held {
                Some(_) => None,
                None => Some(self.let_through(partition).await?.0),
            };
            told.push(LetThrough {
                partition: partition.0,
                below,
                held,
            });
        }
        match still_held(&told) {
            Some(words) if told.iter().all(|row| row.below.is_none()) => Err(AccessError::Refused(words)),
            _ => Ok(told),
        }
    }

    async fn let_through(&self, partition: PartitionId) -> Result<NextOffset, AccessError> {
        let end = self.log.bounds(partition).await?.end;
        let text = end.to_string();
        self.store.set_note(Note::Resume(partition), Some(&text)).await?;
        Ok(end)
    }

    /// What a partition is held for beside a flood of dead letters, or would be if somebody served it.
    async fn other_hold(&self, partition: PartitionId) -> Result<Option<OtherHold>, AccessError> {
        let board = self.serving.as_ref().map(|serving| serving.board.snapshot());
        let board = board.unwrap_or_default();
        let known = board.iter().find(|status| status.partition == partition);
        let (row, _) = self.partition(partition, known, now_ms()).await?;
        let other = row.reason.filter(|reason| reason != Called::DeadLetterShare.name());
        Ok(other.map(|reason| OtherHold {
            reason,
            detail: row.detail.unwrap_or_default(),
        }))
    }
}

/// What holds those that were not let through, if there are any, and what helps.
pub fn still_held(rows: &[LetThrough]) -> Option<String> {
    let held: Vec<_> = rows.iter().filter(|row| row.below.is_none()).collect();
    let (first, more) = held.split_first()?;
    let OtherHold { reason, detail } = first.held.as_ref()?;
    let words = format!(
        "partition {} is held for {reason}, which resume does not lift: {detail}",
        first.partition
    );
    if more.is_empty() {
        return Some(words);
    }
    let more: Vec<_> = more.iter().map(|row| row.partition.to_string()).collect();
    let more = more.join(", ");
    Some(format!(
        "{words} (not let through either: {more}; `khala status` tells why)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_held_is_told_and_nothing_where_all_go_on() {
        let row = |partition, held: Option<&str>| LetThrough {
            partition,
            below: held.is_none().then_some(7),
            held: held.map(|reason| OtherHold {
                reason: reason.to_owned(),
                detail: "do this".to_owned(),
            }),
        };
        assert_eq!(still_held(&[row(0, None), row(1, None)]), None);
        let one = still_held(&[row(0, None), row(1, Some("log_replaced"))]);
        let words = "partition 1 is held for log_replaced, which resume does not lift: do this";
        assert_eq!(one.as_deref(), Some(words));
        let two = still_held(&[row(1, Some("log_replaced")), row(2, None), row(3, Some("panicked"))]);
        let more = format!("{words} (not let through either: 3; `khala status` tells why)");
        assert_eq!(two, Some(more));
    }
}

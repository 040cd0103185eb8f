//! Which mark a replay goes back to. In: what a person asked for. Out: a mark that the log vouches for, or why none is.
//! Invariant: a mark that is chosen lies inside the log, and its last record is still the record it names.

use std::fmt;
use std::str::FromStr;

use super::survey::last_record_of;
use crate::log::{Bounds, Log, LogError};
use crate::pure::checkpoint::{Checkpoint, Mark};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::recovery::LastRecord;
use crate::pure::time::Time;

/// Where a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The newest good mark.
    LastGood,
    /// The newest good mark that an audit found equal to the log.
    Verified,
    /// The log's first record.
    Earliest,
    /// The newest good mark at or below this offset.
    Offset(NextOffset),
    /// The newest good mark whose last record is older than this, by the log's clock.
    Time(Time),
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LastGood => f.write_str("last-good"),
            Self::Verified => f.write_str("verified"),
            Self::Earliest => f.write_str("earliest"),
            Self::Offset(offset) => write!(f, "offset {offset}"),
            Self::Time(time) => write!(f, "time {time}"),
        }
    }
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, value) = text.split_once([' ', ':', '=']).unwrap_or((text, ""));
        match (word, value) {
            ("last-good", "") => Ok(Self::LastGood),
            ("verified", "") => Ok(Self::Verified),
            ("earliest", "") => Ok(Self::Earliest),
            ("offset", number) => match number.parse() {
                Ok(offset) => Ok(Self::Offset(NextOffset(offset))),
                Err(_) => Err(format!("{number:?} is no offset: a whole number, as in `offset 1200`")),
            },
            ("time", time) => match Time::parse(time) {
                Some(time) => Ok(Self::Time(time)),
                None => Err(format!(
                    "{time:?} is no time: RFC 3339, as in `time 2026-02-19T12:00:00Z`"
                )),
            },
            _ => Err(format!(
                "{text:?}: one of last-good, verified, earliest, `offset N`, `time T`"
            )),
        }
    }
}

/// What there is to choose from.
pub struct Choice<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// Which partition.
    pub partition: PartitionId,
    /// Its bounds.
    pub bounds: Bounds,
    /// The store's checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// The history, newest first.
    pub marks: &'a [Mark],
}

impl Choice<'_> {
    /// The mark that `from` means; the text says why there is none.
    ///
    /// # Errors
    /// The log does not answer.
    pub async fn choose(&self, from: From, now: Time) -> Result<Result<Checkpoint, String>, LogError> {
        let (first, next) = (self.bounds.first, self.checkpoint.next);
        let partition = self.partition;
        let earliest = Checkpoint::first(first, &self.checkpoint.topic_id, self.checkpoint.partitions);
        let fits = |mark: &Mark| match from {
            From::LastGood => true,
            From::Verified => mark.verified,
            From::Earliest => false,
            From::Offset(offset) => mark.checkpoint.next <= offset,
            From::Time(time) => mark
                .checkpoint
                .last_record
                .is_some_and(|last| last.timestamp_ms < time.ms()),
        };
        match from {
            From::Earliest => return Ok(Ok(earliest)),
            From::Offset(offset) if offset < first || offset > next => {
                return Ok(Err(format!(
                    "partition {partition}: offset {offset} is outside what can be replayed, {first} to {next}"
                )));
            }
            From::Time(time) if time > now => {
                return Ok(Err(format!("time {time} is in the future: it is {now} now")));
            }
            _ => {}
        }
        if let Some(mark) = self.newest_good(fits).await? {
            return Ok(Ok(mark));
        }
        Ok(match from {
            From::Offset(_) | From::Time(_) => Ok(earliest),
            From::Verified => Err(format!(
                "partition {partition}: no mark is verified and good; `khala audit` makes one, or take --from last-good"
            )),
            _ => Err(format!(
                "partition {partition}: no mark of the history is good; --from earliest begins with the log"
            )),
        })
    }

    async fn newest_good(&self, fits: impl Fn(&Mark) -> bool) -> Result<Option<Checkpoint>, LogError> {
        let now = self.checkpoint;
        let same = |mark: &Checkpoint| mark.next <= now.next && mark.projection_version == now.projection_version;
        for mark in self.marks.iter().filter(|mark| fits(mark)) {
            let checkpoint = &mark.checkpoint;
            if !same(checkpoint) || !self.is_inside(checkpoint) {
                continue;
            }
            let bounds = (self.bounds.first, self.bounds.end);
            let found = last_record_of(self.log, self.partition, checkpoint, bounds).await?;
            if found == LastRecord::Matches {
                return Ok(Some(checkpoint.clone()));
            }
        }
        Ok(None)
    }

    fn is_inside(&self, mark: &Checkpoint) -> bool {
        self.bounds.first <= mark.next && mark.next <= self.bounds.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_reads_as_it_is_written() {
        for text in [
            "last-good",
            "verified",
            "earliest",
            "offset 12",
            "time 2026-02-19T12:00:00.000Z",
        ] {
            let from: From = text.parse().expect(text);
            assert_eq!(from.to_string(), text);
        }
        for (bad, says) in [
            ("offset x", "whole number"),
            ("time noon", "RFC 3339"),
            ("latest", "one of"),
            ("", "one of"),
        ] {
            let said = bad.parse::<From>().expect_err(bad);
            assert!(said.contains(says), "{bad}: {said}");
        }
    }
}

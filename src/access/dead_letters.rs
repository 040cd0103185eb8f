//! Dead letters: the records that were no legal events, with why and where they came from.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::redrive::tells_of_redrive;
use super::{Access, AccessError};
use crate::log::{FetchLimits, Role};
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::record::Record;

const CHUNK: FetchLimits = FetchLimits {
    records: 1000,
    bytes: 4 << 20,
    wait: Duration::from_secs(2),
};

/// A header of a dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value, as far as it is text.
    pub value: Option<String>,
}

/// One dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its partition in the dead letters' topic.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// Milliseconds since 1970 when it was put there.
    pub timestamp_ms: i64,
    /// The first rule broken.
    pub reason: String,
    /// In words.
    pub detail: String,
    /// Where the record came from: topic, partition, offset.
    pub source: String,
    /// The original key, as far as it is text.
    pub key: Option<String>,
    /// The original value, as far as it is text; only where one letter is shown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
    /// The original headers and why it is here; only where one letter is shown.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub headers: Vec<Header>,
}

impl Access {
    /// Dead letters, the oldest first; of each partition at most the last `limit`.
    ///
    /// # Errors
    /// The log does not answer.
    pub async fn dead_letters(&self, reason: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, AccessError> {
        let mut letters = Vec::new();
        for partition in self.partitions().await? {
            let bounds = self.log.bounds_of(Role::DeadLetters, partition).await?;
            let newest = NextOffset(bounds.end.0.saturating_sub(limit as u64));
            let from = if reason.is_none() {
                bounds.first.max(newest)
            } else {
                bounds.first
            };
            self.read_letters(partition, (from, bounds.end), |record| {
                let letter = letter(partition, record, Detail::Short);
                if reason.is_none_or(|reason| letter.reason == reason) {
                    letters.push(letter);
                }
            })
            .await?;
        }
        letters.sort_by_key(|letter| (letter.timestamp_ms, letter.partition, letter.offset));
        let surplus = letters.len().saturating_sub(limit);
        letters.drain(..surplus);
        Ok(letters)
    }

    /// One dead letter, with its value and headers.
    ///
    /// # Errors
    /// `NotFound`; the log does not answer.
    pub async fn dead_letter(&self, partition: u32, offset: u64) -> Result<DeadLetter, AccessError> {
        let place = PartitionId(partition);
        let none = || AccessError::NotFound(format!("no dead letter at partition {partition}, offset {offset}"));
        if !self.partitions().await?.contains(&place) {
            return Err(none());
        }
        let bounds = self.log.bounds_of(Role::DeadLetters, place).await?;
        if offset < bounds.first.0 || offset >= bounds.end.0 {
            return Err(none());
        }
        let mut found = None;
        self.read_letters(place, (NextOffset(offset), NextOffset(offset + 1)), |record| {
            if record.offset == Offset(offset) {
                found = Some(letter(place, record, Detail::Whole));
            }
        })
        .await?;
        found.ok_or_else(none)
    }

    /// Letters of a range, without what tells of redrives.
    async fn read_letters(
        &self,
        partition: PartitionId,
        range: (NextOffset, NextOffset),
        mut take: impl FnMut(&Record<'_>),
    ) -> Result<(), AccessError> {
        let letter = |record: &Record<'_>| {
            if !tells_of_redrive(record) {
                take(record);
            }
        };
        self.read_records(Role::DeadLetters, partition, range, letter).await
    }

    /// Records of a range, in order.
    pub(super) async fn read_records(
        &self,
        role: Role,
        partition: PartitionId,
        (from, end): (NextOffset, NextOffset),
        mut take: impl FnMut(&Record<'_>),
    ) -> Result<(), AccessError> {
        if from >= end {
            return Ok(());
        }
        let mut reader = self.log.reader(role, partition, from).await?;
        let mut next = from;
        let mut quiet = 0;
        while next < end && quiet < 3 {
            let records = reader.fetch(CHUNK).await?;
            quiet = if records.next().is_none() { quiet + 1 } else { 0 };
            records
                .iter()
                .filter(|record| end.is_past(record.offset))
                .for_each(|record| take(&record));
            next = records.next().unwrap_or(next);
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Short,
    Whole,
}

fn letter(partition: PartitionId, record: &Record<'_>, detail: Detail) -> DeadLetter {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let header = |wanted: &str| {
        let last = record.headers().filter(|(name, _)| *name == wanted.as_bytes()).last();
        last.and_then(|(_, value)| value).map(text).unwrap_or_default()
    };
    let source = [header("khala_topic"), header("khala_partition"), header("khala_offset")].join("/");
    let headers = record.headers().map(|(name, value)| Header {
        name: text(name),
        value: value.map(text),
    });
    DeadLetter {
        partition: partition.0,
        offset: record.offset.0,
        timestamp_ms: record.timestamp_ms,
        reason: header("khala_reason"),
        detail: header("khala_detail"),
        source,
        key: record.key.map(text),
        value: record.value.filter(|_| detail == Detail::Whole).map(text),
        headers: if detail == Detail::Whole {
            headers.collect()
        } else {
            Vec::new()
        },
    }
}

//! Copies the events' topic into one with more partitions. In: two logs. Out: how many records were copied.
//! Invariant: the copy has each record once, and an entity's records in their order: partitions are merged by the
//! records' timestamps, so that also keys which moved when partitions were added keep their order. Where each copy
//! came from is in a header; a copy that was interrupted goes on, and all is counted at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::AccessError;
use crate::log::{FetchLimits, Log, NewRecord, Reader, Role};
use crate::pure::place::{NextOffset, PartitionId, Partitioner};
use crate::pure::record::{Record, RecordBatch};

/// Tells where a copy came from: `<partition>/<offset>`.
const FROM: &str = "khala-migrated-from";
/// Records on their way at once.
const CHUNK: usize = 5000;
const FETCH: FetchLimits = FetchLimits {
    records: 2000,
    bytes: 4 << 20,
    wait: Duration::from_secs(2),
};
/// So many fetches without a record are an end.
const QUIET_MAX: u32 = 5;

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Migration {
    /// The old topic.
    pub from: String,
    /// The new one.
    pub to: String,
    /// Its partitions.
    pub partitions: u32,
    /// Records copied now.
    pub copied: u64,
    /// Records that an earlier, interrupted migration had copied.
    pub there_before: u64,
}

/// From a partition of the old topic to one of the new.
type Pair = (PartitionId, PartitionId);

/// What of a pair is in the new topic.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    records: u64,
    up_to: NextOffset,
}

/// Copies all that `from` has now; `progress` is told records done and records in all.
///
/// # Errors
/// `BadRequest`: the new topic has not more partitions than the old, or records that no migration put there.
/// `Failed`: records are missing in the middle of the copy. Otherwise a log does not answer: ask again.
pub async fn migrate(
    from: &dyn Log,
    to: &dyn Log,
    partitioner: Partitioner,
    mut progress: impl FnMut(u64, u64),
) -> Result<Migration, AccessError> {
    let (old, new) = (from.topic().await?, to.topic().await?);
    if new.partitions <= old.partitions {
        return Err(AccessError::BadRequest(format!(
            "topic {} has {} partitions, {} has {}: it must have more (`--partitions`)",
            new.name, new.partitions, old.name, old.partitions
        )));
    }
    let before = copied(to, new.partitions).await?;
    let mut sources = Vec::new();
    let mut all = 0;
    for partition in (0..old.partitions).map(PartitionId) {
        let bounds = from.bounds(partition).await?;
        all += bounds.first.until(bounds.end);
        sources.push(Source::open(from, partition, bounds.first, bounds.end).await?);
    }
    let mut report = Migration {
        from: old.name,
        to: new.name,
        partitions: new.partitions,
        copied: 0,
        there_before: 0,
    };
    let mut seen: BTreeMap<Pair, Copied> = BTreeMap::new();
    let mut chunk = Vec::with_capacity(CHUNK);
    while let Some(at) = oldest(&mut sources).await? {
        let source = &mut sources[at];
        let record = source.batch.get(source.at);
        let place = partitioner.place(record.key.unwrap_or_default(), new.partitions);
        let pair = (source.partition, place);
        let there = before
            .get(&pair)
            .is_some_and(|copied| copied.up_to.is_past(record.offset));
        if there {
            seen.entry(pair).or_default().records += 1;
            report.there_before += 1;
        } else {
            chunk.push(copy(&record, pair));
        }
        source.at += 1;
        if chunk.len() >= CHUNK {
            report.copied += append(to, &mut chunk).await?;
            progress(report.copied + report.there_before, all);
        }
    }
    report.copied += append(to, &mut chunk).await?;
    progress(report.copied + report.there_before, all);
    for (pair, copied) in before {
        let found = seen.get(&pair).map_or(0, |seen| seen.records);
        if found > copied.records {
            return Err(AccessError::Failed(format!(
                "topic {}, partition {} has only {} of the {found} records of the old partition {} before offset {}: \
                 some in the middle are missing; delete the topic and migrate again",
                report.to, pair.1, copied.records, pair.0, copied.up_to
            )));
        }
    }
    Ok(report)
}

/// What earlier migrations copied.
async fn copied(to: &dyn Log, partitions: u32) -> Result<BTreeMap<Pair, Copied>, AccessError> {
    let mut found: BTreeMap<Pair, Copied> = BTreeMap::new();
    for partition in (0..partitions).map(PartitionId) {
        let bounds = to.bounds(partition).await?;
        let mut source = Source::open(to, partition, bounds.first, bounds.end).await?;
        while source.fill().await? {
            let record = source.batch.get(source.at);
            let (from, next) = origin(&record).ok_or_else(|| {
                AccessError::BadRequest(format!(
                    "the new topic's partition {partition} has a record at offset {} that no migration put there: \
                     entities would lose their order; take a new topic, and let producers publish to it afterwards",
                    record.offset
                ))
            })?;
            let copied = found.entry((from, partition)).or_default();
            copied.records += 1;
            copied.up_to = copied.up_to.max(next);
            source.at += 1;
        }
    }
    Ok(found)
}

fn origin(record: &Record<'_>) -> Option<(PartitionId, NextOffset)> {
    let (_, value) = record.headers().find(|(name, _)| *name == FROM.as_bytes())?;
    let (partition, offset) = std::str::from_utf8(value?).ok()?.split_once('/')?;
    Some((
        PartitionId(partition.parse().ok()?),
        NextOffset(offset.parse::<u64>().ok()? + 1),
    ))
}

fn copy(record: &Record<'_>, (from, to): Pair) -> NewRecord {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let of_before = |name: &&(&[u8], Option<&[u8]>)| name.0 != FROM.as_bytes();
    let headers: Vec<_> = record.headers().collect();
    let mut headers: Vec<_> = headers
        .iter()
        .filter(of_before)
        .map(|(name, value)| (text(name), value.map(<[u8]>::to_vec)))
        .collect();
    headers.push((FROM.to_owned(), Some(format!("{from}/{}", record.offset).into_bytes())));
    NewRecord {
        partition: Some(to),
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers,
        timestamp_ms: Some(record.timestamp_ms).filter(|ms| *ms >= 0),
    }
}

async fn append(to: &dyn Log, chunk: &mut Vec<NewRecord>) -> Result<u64, AccessError> {
    let results = to.append(Role::Events, std::mem::take(chunk)).await;
    let count = results.len() as u64;
    for result in results {
        result?;
    }
    Ok(count)
}

/// The source whose next record is the oldest; the lower partition where two are equally old.
async fn oldest(sources: &mut [Source]) -> Result<Option<usize>, AccessError> {
    let mut found: Option<(i64, usize)> = None;
    for (i, source) in sources.iter_mut().enumerate() {
        if !source.fill().await? {
            continue;
        }
        let timestamp = source.batch.get(source.at).timestamp_ms;
        if found.is_none_or(|(oldest, _)| timestamp < oldest) {
            found = Some((timestamp, i));
        }
    }
    Ok(found.map(|(_, i)| i))
}

/// One partition being read up to an end.
struct Source {
    partition: PartitionId,
    reader: Box<dyn Reader>,
    batch: RecordBatch,
    at: usize,
    next: NextOffset,
    end: NextOffset,
}

impl Source {
    async fn open(
        log: &dyn Log,
        partition: PartitionId,
        first: NextOffset,
        end: NextOffset,
    ) -> Result<Self, AccessError> {
        Ok(Self {
            partition,
            reader: log.reader(Role::Events, partition, first).await?,
            batch: RecordBatch::default(),
            at: 0,
            next: first,
            end,
        })
    }

    /// Makes sure that `batch` has a record at `at`; false at the end.
    async fn fill(&mut self) -> Result<bool, AccessError> {
        let mut quiet = 0;
        while self.at >= self.batch.len() && self.next < self.end {
            self.batch = self.reader.fetch(FETCH).await?;
            self.at = 0;
            self.next = self.batch.next().unwrap_or(self.next);
            quiet = if self.batch.next().is_none() { quiet + 1 } else { 0 };
            if quiet >= QUIET_MAX {
                return Err(AccessError::Unreachable(format!(
                    "partition {} gives no record at offset {}, its end is {}",
                    self.partition, self.next, self.end
                )));
            }
        }
        Ok(self.at < self.batch.len() && self.end.is_past(self.batch.get(self.at).offset))
    }
}

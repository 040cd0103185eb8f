//! What repair stands on: log, store and the rules by which documents are made. And reading a part of the log.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reading::Steady;
use crate::log::{FetchLimits, Log, LogError, Role};
use crate::pure::event::Rules;
use crate::pure::place::{NextOffset, PartitionId, Partitioner};
use crate::pure::record::RecordBatch;
use crate::pure::redact::Redact;
use crate::store::Store;

/// Log, store, and the settings that decide what a document is.
#[derive(Clone)]
pub struct Ground {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// How producers place keys.
    pub partitioner: Partitioner,
    /// The largest value of an event, in bytes.
    pub max_event_bytes: usize,
    /// What is taken out of events.
    pub redact: Redact,
    /// Events kept per entity's stream; 0: streams are off.
    pub events_kept: usize,
}

impl Ground {
    /// The rules for the topic as it is now.
    ///
    /// # Errors
    /// The log does not answer.
    pub async fn rules(&self) -> Result<Rules, LogError> {
        Ok(Rules {
            partitioner: self.partitioner,
            partitions: self.log.topic().await?.partitions,
            max_event_bytes: self.max_event_bytes,
            redact: self.redact,
        })
    }
}

/// The share of one core that a repair may take, so that it can run beside everything else.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    share: f64,
}

/// The longest rest at once.
const REST_MAX: Duration = Duration::from_secs(1);

impl Pace {
    /// As fast as it goes.
    pub const FULL: Self = Self { share: 1.0 };

    /// This share of one core: more than 0, at most 1.
    pub fn share(share: f64) -> Self {
        Self {
            share: share.clamp(0.001, 1.0),
        }
    }

    /// Rests as long as work since `began` asks for.
    pub async fn rest(self, began: Instant) {
        if self.share < 1.0 {
            let rest = began.elapsed().mul_f64((1.0 - self.share) / self.share);
            tokio::time::sleep(rest.min(REST_MAX)).await;
        }
    }

    /// So many records are folded between two rests.
    fn records(self) -> usize {
        if self.share < 1.0 { 2_000 } else { 20_000 }
    }
}

/// Bytes of one fetch.
const FETCH_BYTES: usize = 8 << 20;
/// How long a fetch waits before the log's end is asked for.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// Reads records of one partition in `range` and hands each batch on, until it says that it has enough.
/// The last batch may hold records past the range. Returns how many records of the range were read.
///
/// # Errors
/// The log does not answer, or has moved its beginning past the range's.
pub async fn read_log(
    log: &dyn Log,
    partition: PartitionId,
    (from, until): (NextOffset, NextOffset),
    pace: Pace,
    each: &mut (dyn FnMut(&RecordBatch) -> ControlFlow<()> + Send),
) -> Result<u64, LogError> {
    let mut read = 0;
    if from >= until {
        return Ok(read);
    }
    let mut reader = Steady::open(log, Role::Events, partition, from).await?;
    let limits = FetchLimits {
        records: pace.records(),
        bytes: FETCH_BYTES,
        wait: FETCH_WAIT,
    };
    let mut at = from;
    loop {
        let records = reader.fetch(limits).await?;
        let began = Instant::now();
        let Some(next) = records.next() else {
            if log.bounds(partition).await?.end <= at {
                return Ok(read);
            }
            continue;
        };
        at = next;
        read += records.iter().filter(|record| until.is_past(record.offset)).count() as u64;
        if each(&records).is_break() || at >= until {
            return Ok(read);
        }
        pace.rest(began).await;
    }
}

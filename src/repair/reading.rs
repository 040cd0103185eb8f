//! A reader that goes on where a leader changed: a log that saw three leaders is read from its beginning to its end.
//! In: a place. Out: records in order. Invariant: it goes on only while the log still has the last record it read, and
//! so all before it.

use crate::log::{FetchLimits, Log, LogError, Reader, Role};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::record::{RecordBatch, RecordIdentity};

/// How often it goes on at one place.
const TRIES_MAX: u32 = 5;

/// See the module.
pub(super) struct Steady<'a> {
    log: &'a dyn Log,
    role: Role,
    partition: PartitionId,
    reader: Option<Box<dyn Reader>>,
    next: NextOffset,
    last: Option<RecordIdentity>,
    tries: u32,
}

impl<'a> Steady<'a> {
    /// Begins at `from`.
    pub(super) async fn open(
        log: &'a dyn Log,
        role: Role,
        partition: PartitionId,
        from: NextOffset,
    ) -> Result<Self, LogError> {
        Ok(Self {
            log,
            role,
            partition,
            reader: Some(log.reader(role, partition, from).await?),
            next: from,
            last: None,
            tries: 0,
        })
    }

    /// The next records, as [`Reader::fetch`] tells them.
    pub(super) async fn fetch(&mut self, limits: FetchLimits) -> Result<RecordBatch, LogError> {
        loop {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => none.insert(self.log.reader(self.role, self.partition, self.next).await?),
            };
            match reader.fetch(limits).await {
                Ok(records) => {
                    if let Some(next) = records.next() {
                        (self.next, self.tries) = (next, 0);
                        if !records.is_empty() {
                            self.last = Some(records.get(records.len() - 1).identity());
                        }
                    }
                    return Ok(records);
                }
                Err(moved @ LogError::Moved { .. }) => {
                    self.tries += 1;
                    self.reader = None; // before another one is made: the partition is free again
                    if self.tries > TRIES_MAX || !self.is_the_same().await? {
                        return Err(moved);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether what was read is still there.
    async fn is_the_same(&mut self) -> Result<bool, LogError> {
        let bounds = self.log.bounds_of(self.role, self.partition).await?;
        if self.next > bounds.end || self.next < bounds.first {
            return Ok(false);
        }
        match (self.role, self.last) {
            (Role::Events, Some(last)) => Ok(self
                .log
                .record_at(self.partition, last.offset)
                .await?
                .is_none_or(|found| found == last)),
            _ => Ok(true),
        }
    }
}

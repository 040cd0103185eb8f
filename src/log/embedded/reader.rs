//! Reading one partition of the embedded log, in order, up to what is acknowledged.
//! Invariant: the reader's place moves only when its caller gets the records, so that a fetch that is
//! dropped loses nothing.

use std::sync::Arc;

use async_trait::async_trait;

use super::chunk::{self, Cursor};
use super::topics::{base_of, refused};
use super::{Shared, blocking, index};
use crate::log::{FetchLimits, LogError, Reader, Role};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::record::{BATCH_BYTES_MAX, RecordBatch};

/// See [`Reader`].
pub(super) struct EmbeddedReader {
    shared: Arc<Shared>,
    role: Role,
    partition: PartitionId,
    next: u64,
    /// The chunk read last, if records of it are left.
    cursor: Option<Cursor>,
}

impl EmbeddedReader {
    pub(super) fn new(shared: Arc<Shared>, role: Role, partition: PartitionId, from: NextOffset) -> Self {
        Self {
            shared,
            role,
            partition,
            next: from.0,
            cursor: None,
        }
    }
}

#[async_trait]
impl Reader for EmbeddedReader {
    async fn fetch(&mut self, limits: FetchLimits) -> Result<RecordBatch, LogError> {
        let topic = &self.shared.topics[index(self.role)];
        let bounds = topic.bounds(self.partition)?;
        if self.next < bounds.first.0 || self.next > bounds.end.0 {
            return Err(LogError::Moved {
                partition: self.partition,
                at: NextOffset(self.next),
                detail: format!("topic {} holds offsets {} to {}", topic.name, bounds.first, bounds.end),
            });
        }
        let mut end = topic.watch(self.partition)?;
        let next = self.next;
        let end = match tokio::time::timeout(limits.wait, end.wait_for(|end| *end > next)).await {
            Ok(Ok(end)) => *end,
            Ok(Err(_)) | Err(_) => return Ok(RecordBatch::default()),
        };
        let read = Read {
            shared: self.shared.clone(),
            role: self.role,
            partition: self.partition,
            next,
            end,
            limits,
        };
        // A cursor that a dropped fetch took along is found again by the offset.
        let cursor = self.cursor.take();
        let (batch, cursor) = blocking(move || read.run(cursor)).await?;
        self.next = batch.next().map_or(self.next, |next| next.0);
        self.cursor = cursor;
        Ok(batch)
    }

    fn end(&self) -> Option<NextOffset> {
        let bounds = self.shared.topics[index(self.role)].bounds(self.partition);
        bounds.ok().map(|bounds| bounds.end)
    }
}

/// One read on a thread that may block.
pub(super) struct Read {
    pub(super) shared: Arc<Shared>,
    pub(super) role: Role,
    pub(super) partition: PartitionId,
    pub(super) next: u64,
    pub(super) end: u64,
    pub(super) limits: FetchLimits,
}

impl Read {
    /// Records from `next` on, at least one if there is any below `end`, and the chunk it stopped in.
    pub(super) fn run(mut self, cursor: Option<Cursor>) -> Result<(RecordBatch, Option<Cursor>), LogError> {
        let records_max = self
            .limits
            .records
            .clamp(1, usize::try_from(self.end - self.next).unwrap_or(usize::MAX));
        let bytes_max = self
            .limits
            .bytes
            .clamp(1, BATCH_BYTES_MAX - super::writer::RECORD_BYTES_MAX);
        let mut batch = RecordBatch::with_capacity(records_max.min(4096), bytes_max.min(1 << 20));
        let mut cursor = cursor.filter(|cursor| cursor.next() == self.next);
        if cursor.is_none() {
            cursor = Some(self.find()?);
        }
        let mut following = None;
        while batch.len() < records_max && batch.bytes() < bytes_max && self.next < self.end {
            let step = if let Some(open) = cursor.as_mut().filter(|open| open.next() < open.end()) {
                open.copy_into(&mut batch).map_err(|what| self.damaged(what))
            } else {
                let chunks = following.get_or_insert_with(|| self.from(self.next));
                self.following(chunks).map(|chunk| cursor = Some(chunk))
            };
            match step {
                Ok(()) => self.next = batch.next().map_or(self.next, |next| next.0),
                // What is whole comes first; the next fetch meets the damage at its start.
                Err(_) if !batch.is_empty() => return Ok((batch, None)),
                Err(error) => return Err(error),
            }
        }
        Ok((batch, cursor.filter(|open| open.next() < open.end())))
    }

    /// The chunk that holds `next`, opened there.
    fn find(&self) -> Result<Cursor, LogError> {
        let topic = self.shared.topics[index(self.role)].number;
        let up_to = chunk::key(topic, self.partition, 0)..=chunk::key(topic, self.partition, self.next);
        let Some(found) = self.shared.records.range(up_to).next_back() else {
            return Err(self.damaged("it is missing"));
        };
        let mut cursor = self.open(found)?;
        cursor.skip_to(self.next).map_err(|what| self.damaged(what))?;
        if cursor.next() != self.next || cursor.next() >= cursor.end() {
            return Err(self.damaged("it is missing"));
        }
        Ok(cursor)
    }

    fn from(&self, base: u64) -> fjall::Iter {
        let topic = self.shared.topics[index(self.role)].number;
        let from = chunk::key(topic, self.partition, base)..=chunk::key(topic, self.partition, u64::MAX);
        self.shared.records.range(from)
    }

    fn following(&self, chunks: &mut fjall::Iter) -> Result<Cursor, LogError> {
        let Some(found) = chunks.next() else {
            return Err(self.damaged("it is missing"));
        };
        let cursor = self.open(found)?;
        if cursor.next() != self.next || cursor.next() >= cursor.end() {
            return Err(self.damaged("it is missing"));
        }
        Ok(cursor)
    }

    fn open(&self, found: fjall::Guard) -> Result<Cursor, LogError> {
        let (key, value) = found.into_inner().map_err(|error| self.damaged(&error.to_string()))?;
        Cursor::open(&key, value).map_err(|what| self.damaged(&format!("chunk {}: {what}", base_of(&key))))
    }

    fn damaged(&self, what: &str) -> LogError {
        let topic = &self.shared.topics[index(self.role)].name;
        let what = format!("the record at offset {} cannot be read: {what}", self.next);
        refused(&self.shared.disk, topic, self.partition, &what)
    }
}

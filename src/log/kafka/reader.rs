//! Reads one partition by whole batches from its own queue. In: an exact offset. Out: records in order.
//! Invariant: after any trouble with a broker, and at a change of the leader's epoch, it stops, so that the last
//! applied record is compared before going on (KIP-320).

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use tokio::time::Instant;

use super::client::FetchContext;
use super::errors::explain;
use super::ffi::{Message, PartitionQueue, known_end};
use crate::log::{FetchLimits, LogError, Reader};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::record::RecordBatch;

/// Messages taken from a queue at once, so that their room is made once.
const TAKEN_MAX: usize = 10_000;

/// How long a batch that is to be large waits for its next piece.
const MORE_WAIT: Duration = Duration::from_millis(20);

/// The client that fetches, and which partitions it is assigned.
pub(super) struct Fetcher {
    pub(super) consumer: Arc<BaseConsumer<FetchContext>>,
    assigned: Mutex<Vec<(String, i32)>>,
}

impl Fetcher {
    pub(super) fn new(consumer: BaseConsumer<FetchContext>) -> Arc<Self> {
        Arc::new(Self {
            consumer: Arc::new(consumer),
            assigned: Mutex::default(),
        })
    }

    /// Takes a partition; `false` if a reader has it already.
    fn claim(&self, topic: &str, partition: i32) -> bool {
        let mut assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (topic.to_owned(), partition);
        let free = !assigned.contains(&place);
        if free {
            assigned.push(place);
        }
        free
    }

    fn release(&self, topic: &str, partition: i32) {
        let mut assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        assigned.retain(|(name, number)| (name.as_str(), *number) != (topic, partition));
    }
}

/// A reader of one partition.
pub(super) struct KafkaReader {
    // Dropped first: messages must not outlive the client that the queue keeps alive.
    taken: VecDeque<Message>,
    queue: PartitionQueue,
    fetcher: Arc<Fetcher>,
    address: String,
    topic: String,
    name: CString,
    partition: PartitionId,
    next: NextOffset,
    epoch: Option<i32>,
    troubles: u64,
    failed: Option<LogError>,
    /// Taken from the queue, and not handed on yet.
    gathered: RecordBatch,
}

impl KafkaReader {
    /// A reader at `from`; `None` if the fetcher reads that partition for another already.
    pub(super) fn open(
        fetcher: &Arc<Fetcher>,
        address: &str,
        topic: &str,
        partition: PartitionId,
        from: NextOffset,
    ) -> Result<Option<Self>, LogError> {
        let number = partition.0 as i32;
        if !fetcher.claim(topic, number) {
            return Ok(None);
        }
        let Some(queue) = PartitionQueue::split(&fetcher.consumer, topic, number) else {
            fetcher.release(topic, number);
            return Err(LogError::Refused(format!(
                "{address}: topic {topic}, partition {partition}: no queue"
            )));
        };
        let reader = Self {
            taken: VecDeque::new(),
            queue,
            fetcher: Arc::clone(fetcher),
            address: address.to_owned(),
            topic: topic.to_owned(),
            name: CString::new(topic).unwrap_or_default(),
            partition,
            next: from,
            epoch: None,
            troubles: fetcher.consumer.context().troubles(),
            failed: None,
            gathered: RecordBatch::default(),
        };
        let assigned = place(topic, number, from).and_then(|place| fetcher.consumer.incremental_assign(&place));
        assigned.map_err(|error| explain(address, &format!("topic {topic}, partition {partition}"), &error))?;
        Ok(Some(reader))
    }

    /// Takes what is there; returns whether there is anything, with what was taken before.
    fn gather(&mut self, limits: FetchLimits) -> Result<bool, LogError> {
        self.look_for_trouble();
        let mut batch = std::mem::take(&mut self.gathered);
        if self.failed.is_none() {
            self.fill(&mut batch, limits);
        }
        let is_there = batch.next().is_some();
        self.gathered = batch;
        match self.failed.take_if(|_| !is_there) {
            Some(error) => Err(error),
            None => Ok(is_there),
        }
    }

    /// Past a trouble nothing is taken, also not into a batch that was begun before.
    fn look_for_trouble(&mut self) {
        let context = self.fetcher.consumer.context();
        if self.failed.is_none() && context.troubles() != self.troubles {
            self.troubles = context.troubles();
            let trouble = context.last_trouble();
            self.failed = Some(self.moved(format!("trouble with a broker: {trouble}")));
        }
    }

    /// Whether what was taken is no full batch, and the log has enough to make it one.
    fn has_more(&self, limits: FetchLimits) -> bool {
        let room = limits.records.saturating_sub(self.gathered.len());
        let is_full = room == 0 || self.gathered.bytes() >= limits.bytes;
        let has_enough = self.end().is_some_and(|end| self.next.until(end) >= room as u64);
        !is_full && has_enough && self.failed.is_none()
    }

    /// Moves messages into the batch until a limit, an event or the end of what was taken.
    fn fill(&mut self, batch: &mut RecordBatch, limits: FetchLimits) {
        while batch.len() < limits.records && batch.bytes() < limits.bytes {
            if self.taken.is_empty() {
                let room = (limits.records - batch.len()).min(TAKEN_MAX);
                if self.queue.take(room, &mut self.taken) == 0 {
                    return;
                }
                batch.reserve(self.taken.len(), self.taken.iter().map(Message::bytes).sum());
            }
            let Some(message) = self.taken.front() else { return };
            if let Some(event) = message.event() {
                let at = message.offset();
                self.taken.pop_front();
                if event == RDKafkaErrorCode::PartitionEOF {
                    if let Some(end) = at.map(|at| NextOffset(at.0)).filter(|end| *end > self.next) {
                        batch.read_up_to(end);
                        self.next = end;
                    }
                    continue;
                }
                self.failed = Some(self.failure(event));
                return;
            }
            let epoch = message.leader_epoch();
            if self.epoch.is_some() && epoch.is_some() && epoch != self.epoch {
                self.failed = Some(self.moved("the partition's leader changed".to_owned()));
                return;
            }
            self.epoch = epoch.or(self.epoch);
            if let Some(offset) = message.offset().filter(|offset| !self.next.is_past(*offset)) {
                message.copy_into(offset, batch);
                self.next = offset.next();
            }
            self.taken.pop_front();
        }
    }

    fn failure(&self, event: RDKafkaErrorCode) -> LogError {
        match event {
            RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::InvalidMessage => LogError::Refused(format!(
                "{}: topic {}, partition {}: the record at or after offset {} is damaged ({event}); it is not skipped",
                self.address, self.topic, self.partition, self.next
            )),
            other => self.moved(other.to_string()),
        }
    }

    fn moved(&self, detail: String) -> LogError {
        LogError::Moved {
            partition: self.partition,
            at: self.next,
            detail,
        }
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn fetch(&mut self, limits: FetchLimits) -> Result<RecordBatch, LogError> {
        let until = Instant::now() + limits.wait;
        while !self.gather(limits)? {
            if tokio::time::timeout_at(until, self.queue.filled()).await.is_err() {
                return Ok(RecordBatch::default());
            }
        }
        Ok(std::mem::take(&mut self.gathered))
    }

    async fn fetch_much(&mut self, limits: FetchLimits) -> Result<RecordBatch, LogError> {
        while self.gather(limits)? && self.has_more(limits) {
            if tokio::time::timeout(MORE_WAIT, self.queue.filled()).await.is_err() {
                break;
            }
        }
        self.fetch(limits).await
    }

    fn end(&self) -> Option<NextOffset> {
        let client = self.fetcher.consumer.client().native_ptr();
        known_end(client, &self.name, self.partition.0 as i32).map(NextOffset)
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        let number = self.partition.0 as i32;
        let place = place(&self.topic, number, self.next);
        if let Err(error) = place.and_then(|place| self.fetcher.consumer.incremental_unassign(&place)) {
            tracing::debug!(%error, partition = number, "not unassigned");
        }
        self.fetcher.release(&self.topic, number);
    }
}

/// One place as librdkafka takes it.
pub(super) fn place(
    topic: &str,
    partition: i32,
    from: NextOffset,
) -> Result<TopicPartitionList, rdkafka::error::KafkaError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition, KafkaOffset::Offset(from.0 as i64))?;
    Ok(list)
}

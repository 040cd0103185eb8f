//! Single records by their offset, with a client of their own: one question at a time.
//! Invariant: what happens to the client's connections is no answer; only the partition's own queue is listened to.

use std::sync::Arc;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::errors::explain;
use super::ffi::{Message, PartitionQueue};
use super::properties::Client;
use super::reader::{Fetcher, place};
use super::{CALL_PATIENCE, KafkaLog};
use crate::log::LogError;
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::record::{RecordBatch, RecordIdentity};

impl KafkaLog {
    /// The record at that very offset; `None` if the next one there is stands further on.
    pub(super) async fn look_up(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<RecordIdentity>, LogError> {
        let mut looker = self.looker.lock().await;
        let fetcher = match &*looker {
            Some(fetcher) => fetcher,
            None => looker.insert(self.new_fetcher(Client::Look)?),
        };
        let topic = &self.settings.topic;
        let question = Question::ask(fetcher, topic, partition, offset);
        let answer = match &question {
            Ok(question) => question.answer().await,
            Err(error) => Err(error.clone()),
        };
        answer.map_err(|error| {
            let what = format!("topic {topic}, partition {partition}, offset {offset}");
            explain(&self.settings.bootstrap, &what, &error)
        })
    }
}

/// A partition that is read for one record. Dropping it ends that.
struct Question<'a> {
    queue: PartitionQueue,
    fetcher: &'a Fetcher,
    topic: &'a str,
    partition: PartitionId,
    offset: Offset,
}

impl<'a> Question<'a> {
    fn ask(fetcher: &'a Arc<Fetcher>, topic: &'a str, partition: PartitionId, offset: Offset) -> KafkaResult<Self> {
        let queue = PartitionQueue::split(&fetcher.consumer, topic, partition.0 as i32)
            .ok_or(KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownPartition))?;
        let from = NextOffset(offset.0);
        fetcher
            .consumer
            .incremental_assign(&place(topic, partition.0 as i32, from)?)?;
        Ok(Self {
            queue,
            fetcher,
            topic,
            partition,
            offset,
        })
    }

    async fn answer(&self) -> KafkaResult<Option<RecordIdentity>> {
        let first = async {
            let mut taken: Vec<Message> = Vec::new();
            while self.queue.take(1, &mut taken) == 0 {
                self.queue.filled().await;
            }
            taken.pop()
        };
        let Ok(Some(message)) = tokio::time::timeout(CALL_PATIENCE, first).await else {
            return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
        };
        match message.event() {
            None => {}
            Some(
                RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset,
            ) => return Ok(None),
            Some(event) => return Err(KafkaError::MessageConsumption(event)),
        }
        if message.offset() != Some(self.offset) {
            return Ok(None);
        }
        let mut batch = RecordBatch::default();
        message.copy_into(self.offset, &mut batch);
        Ok(Some(batch.get(0).identity()))
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let place = place(self.topic, self.partition.0 as i32, NextOffset(self.offset.0));
        if let Err(error) = place.and_then(|place| self.fetcher.consumer.incremental_unassign(&place)) {
            tracing::debug!(%error, partition = %self.partition, "not unassigned");
        }
    }
}

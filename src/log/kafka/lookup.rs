//! Single records by their offset.

use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;

use super::CALL_PATIENCE;
use super::reader::place;
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::record::{RecordBatch, RecordIdentity};

/// The record at that very offset; `None` if the next one there is stands further on.
pub(super) fn record_at<C: rdkafka::consumer::ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: PartitionId,
    offset: Offset,
) -> KafkaResult<Option<RecordIdentity>> {
    consumer.assign(&place(topic, partition.0 as i32, NextOffset(offset.0))?)?;
    let until = Instant::now() + CALL_PATIENCE;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        match consumer.poll(left) {
            None => {}
            Some(Ok(message)) => {
                let ours = message.partition() == partition.0 as i32 && message.offset() >= offset.0 as i64;
                if !ours {
                    continue; // of the question before
                }
                if message.offset() != offset.0 as i64 {
                    return Ok(None);
                }
                let mut batch = RecordBatch::default();
                let timestamp_ms = message.timestamp().to_millis().unwrap_or(-1);
                batch.push(offset, timestamp_ms, message.key(), message.payload());
                return Ok(Some(batch.get(0).identity()));
            }
            Some(Err(KafkaError::PartitionEOF(eof))) if eof == partition.0 as i32 => return Ok(None),
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => return Ok(None),
                _ => return Err(error),
            },
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
}

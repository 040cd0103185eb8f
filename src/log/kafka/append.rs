//! Appends records: idempotent, acknowledged by all in-sync replicas.
//! Invariant: an error says that the log did not acknowledge the record; it may be there all the same.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureRecord};

use super::errors::explain;
use super::{KafkaLog, QUEUE_FULL_PAUSE};
use crate::log::{LogError, NewRecord, Role};
use crate::pure::place::{Offset, PartitionId};

impl KafkaLog {
    pub(super) async fn append_all(
        &self,
        role: Role,
        records: Vec<NewRecord>,
    ) -> Vec<Result<(PartitionId, Offset), LogError>> {
        let topic = self.topic_name(role);
        let partitions = match self.partitions().await {
            Ok(partitions) => partitions,
            Err(error) => {
                let detail = error.to_string();
                let again = |error: &LogError| match error {
                    LogError::Refused(words) => LogError::Refused(words.clone()),
                    _ => LogError::Unreachable {
                        address: self.settings.bootstrap.clone(),
                        detail: detail.clone(),
                    },
                };
                return records.iter().map(|_| Err(again(&error))).collect();
            }
        };
        let mut sent = Vec::with_capacity(records.len());
        for record in &records {
            let by_key = || {
                self.settings
                    .partitioner
                    .place(record.key.as_deref().unwrap_or_default(), partitions)
            };
            let partition = record.partition.unwrap_or_else(by_key);
            sent.push(self.send(&topic, partition, record).await);
        }
        let mut results = Vec::with_capacity(sent.len());
        for sent in sent {
            results.push(match sent {
                Ok(delivery) => self.delivered(&topic, delivery).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    async fn send(&self, topic: &str, partition: PartitionId, record: &NewRecord) -> Result<DeliveryFuture, LogError> {
        let producer = self.producer()?;
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_ref(),
            });
        }
        let mut new: FutureRecord<'_, Vec<u8>, Vec<u8>> = FutureRecord::to(topic).partition(partition.0 as i32);
        new.key = record.key.as_ref();
        new.payload = record.value.as_ref();
        new.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            new = new.headers(headers);
        }
        loop {
            match producer.send_result(new) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    new = again;
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((error, _)) => {
                    return Err(explain(
                        &self.settings.bootstrap,
                        &format!("topic {topic}, partition {partition}"),
                        &error,
                    ));
                }
            }
        }
    }

    async fn delivered(&self, topic: &str, delivery: DeliveryFuture) -> Result<(PartitionId, Offset), LogError> {
        let explain = |error: &KafkaError| explain(&self.settings.bootstrap, &format!("topic {topic}"), error);
        match delivery.await {
            Ok(Ok(delivery)) => Ok((PartitionId(delivery.partition as u32), Offset(delivery.offset as u64))),
            Ok(Err((error, _))) => Err(explain(&error)),
            Err(_) => Err(explain(&KafkaError::Canceled)),
        }
    }
}

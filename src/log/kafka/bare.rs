//! What librdkafka alone can do, and the end of topics made for a while: for `khala bench`, which measures by it.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::client::QuietContext;
use super::errors::explain;
use super::ffi::{BareQueue, Message};
use super::{CALL_PATIENCE, KafkaLog, KafkaSettings};
use crate::log::{LogError, Role};
use crate::pure::place::{NextOffset, PartitionId};

/// Messages taken at once.
const TAKEN_MAX: usize = 10_000;
const WAIT: Duration = Duration::from_millis(100);
/// How long nothing at all may come.
const SILENT_WAITS_MAX: u32 = 300;

/// What a bare consumer saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records.
    pub records: u64,
    /// Of their values.
    pub bytes: u64,
}

/// Reads the events' topic from its start to these ends with a bare consumer that only counts. Blocks.
///
/// # Errors
/// `Unreachable`: nothing came for half a minute. `Refused`: a record is damaged, or a property is not legal.
pub fn drain(settings: &KafkaSettings, ends: &[(PartitionId, NextOffset)]) -> Result<Drained, LogError> {
    let wrong = |error: &rdkafka::error::KafkaError| explain(&settings.bootstrap, "the bare consumer", error);
    let mut config = ClientConfig::new();
    // librdkafka's defaults, but for what makes it skip (offset reset), trust (checksums) or pause (back-off).
    for (name, value) in [
        ("group.id", "khala-bench"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("check.crcs", "true"),
        ("fetch.queue.backoff.ms", "1"),
    ] {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &settings.bootstrap);
    config.set_log_level(RDKafkaLogLevel::Warning);
    let consumer: BaseConsumer<QuietContext> = config
        .create_with_context(QuietContext::default())
        .map_err(|error| wrong(&error))?;
    let mut places = TopicPartitionList::with_capacity(ends.len());
    for (partition, _) in ends {
        let start = KafkaOffset::Offset(0);
        places
            .add_partition_offset(&settings.topic, partition.0 as i32, start)
            .map_err(|error| wrong(&error))?;
    }
    consumer.assign(&places).map_err(|error| wrong(&error))?;
    let queue = BareQueue::of(&consumer).ok_or_else(|| LogError::Refused("no consumer queue".to_owned()))?;
    count(&queue, ends.iter().map(|(_, end)| end.0).sum(), &settings.bootstrap)
}

fn count(queue: &BareQueue<'_>, records: u64, address: &str) -> Result<Drained, LogError> {
    let mut drained = Drained::default();
    let mut taken: Vec<Message> = Vec::with_capacity(TAKEN_MAX);
    let mut silent = 0;
    while drained.records < records {
        if queue.take(TAKEN_MAX, Duration::ZERO, &mut taken) == 0 && queue.take(1, WAIT, &mut taken) == 0 {
            silent += 1;
            if silent > SILENT_WAITS_MAX {
                return Err(LogError::Unreachable {
                    address: address.to_owned(),
                    detail: format!("nothing came after {} of {records} records", drained.records),
                });
            }
            continue;
        }
        silent = 0;
        for message in taken.drain(..) {
            match message.event() {
                None => {
                    drained.records += 1;
                    drained.bytes += message.value_bytes() as u64;
                }
                Some(RDKafkaErrorCode::PartitionEOF) => {}
                Some(code) => return Err(LogError::Refused(format!("{address}: the bare consumer: {code}"))),
            }
        }
    }
    Ok(drained)
}

/// A producer as another program has it: librdkafka's defaults, but for `acks=all` and Khala's own linger.
pub struct BareProducer {
    producer: FutureProducer<QuietContext>,
    topic: String,
    address: String,
}

impl BareProducer {
    /// A producer to the events' topic, without compression.
    ///
    /// # Errors
    /// `Refused`: a property is not legal.
    pub fn new(settings: &KafkaSettings) -> Result<Self, LogError> {
        let mut config = ClientConfig::new();
        for (name, value) in [("acks", "all"), ("linger.ms", "0"), ("partitioner", "murmur2_random")] {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &settings.bootstrap);
        config.set_log_level(RDKafkaLogLevel::Warning);
        let producer = config.create_with_context(QuietContext::default());
        let producer = producer.map_err(|error| explain(&settings.bootstrap, "the bare producer", &error))?;
        let (topic, address) = (settings.topic.clone(), settings.bootstrap.clone());
        Ok(Self {
            producer,
            topic,
            address,
        })
    }

    /// One record, acknowledged.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`: it may be in the log all the same.
    pub async fn publish(&self, key: &str, value: &str) -> Result<(), LogError> {
        let record = FutureRecord::to(&self.topic).key(key).payload(value);
        let sent = self.producer.send(record, CALL_PATIENCE).await;
        let explained = |error| explain(&self.address, "the bare producer", &error);
        sent.map(|_| ()).map_err(|(error, _)| explained(error))
    }
}

/// Deletes the events' topic and those beside it.
///
/// # Errors
/// `Unreachable`, `Refused`: some of them may be left.
pub async fn remove_topics(settings: &KafkaSettings) -> Result<(), LogError> {
    let log = KafkaLog::new(settings.clone())?;
    let (admin, options) = admin(&log)?;
    let topics = Role::ALL.map(|role| log.topic_name(role));
    let removed = admin
        .delete_topics(&topics.each_ref().map(String::as_str), &options)
        .await;
    let removed = removed.map_err(|error| explain(&settings.bootstrap, "removing topics", &error))?;
    for result in removed {
        if let Err((topic, code)) = result
            && code != RDKafkaErrorCode::UnknownTopicOrPartition
        {
            let address = &settings.bootstrap;
            return Err(LogError::Refused(format!("{address}: topic {topic} stays: {code}")));
        }
    }
    Ok(())
}

/// Deletes the events below these offsets, as retention does.
///
/// # Errors
/// `Unreachable`, `Refused`: some of them may be left.
pub async fn forget(settings: &KafkaSettings, below: &[(PartitionId, NextOffset)]) -> Result<(), LogError> {
    let log = KafkaLog::new(settings.clone())?;
    let (admin, options) = admin(&log)?;
    let mut list = TopicPartitionList::with_capacity(below.len());
    let explained = |error| explain(&settings.bootstrap, "deleting records", &error);
    for (partition, next) in below {
        let offset = KafkaOffset::Offset(next.0 as i64);
        list.add_partition_offset(&settings.topic, partition.0 as i32, offset)
            .map_err(explained)?;
    }
    admin.delete_records(&list, &options).await.map_err(explained)?;
    Ok(())
}

/// Deletes the consumer group, if it is there and nobody is in it.
///
/// # Errors
/// `Unreachable`.
pub async fn remove_group(settings: &KafkaSettings) -> Result<(), LogError> {
    let log = KafkaLog::new(settings.clone())?;
    let (admin, options) = admin(&log)?;
    let removed = admin.delete_groups(&[&settings.group], &options).await;
    removed.map_err(|error| explain(&settings.bootstrap, "removing a group", &error))?;
    Ok(())
}

fn admin(log: &KafkaLog) -> Result<(AdminClient<QuietContext>, AdminOptions), LogError> {
    let admin = log.client(super::properties::Client::Produce, |config| {
        config.create_with_context(QuietContext::default())
    })?;
    let options = AdminOptions::new()
        .operation_timeout(Some(CALL_PATIENCE))
        .request_timeout(Some(CALL_PATIENCE));
    Ok((admin, options))
}

//! Producing to and reading from Kafka as any client would: nothing of khala in between.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::reference::Rec;
use crate::reference::messy::Message;
use crate::support::wait::{eventually, seconds};

/// Sends in order and waits until the log has all of it; panics if it refuses one.
pub fn send(config: &ClientConfig, topic: &str, messages: &[Message]) {
    let mut config = config.clone();
    config
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "4000000")
        .set("linger.ms", "2");
    let producer: FutureProducer = config.create().expect("a legal configuration");
    let waiting: Vec<DeliveryFuture> = messages.iter().map(|m| enqueue(&producer, topic, m)).collect();
    producer.flush(seconds(60)).expect("all is sent within a minute");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    for delivery in waiting {
        let result = runtime.block_on(delivery).expect("the producer is alive");
        result.map_err(|(e, _)| e).expect("the log takes it");
    }
}

fn enqueue(producer: &FutureProducer, topic: &str, message: &Message) -> DeliveryFuture {
    let mut headers = OwnedHeaders::new();
    for (key, value) in &message.headers {
        headers = headers.insert(Header {
            key,
            value: value.as_ref(),
        });
    }
    let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic);
    record.key = message.key.as_deref();
    record.payload = message.value.as_deref();
    record.partition = message.partition.map(|p| p as i32);
    if !message.headers.is_empty() {
        record.headers = Some(headers);
    }
    let mut waiting = Some(record);
    eventually("room in the producer's queue", seconds(60), || {
        match producer.send_result(waiting.take().expect("put back below")) {
            Ok(delivery) => Ok(delivery),
            Err((error, record)) => {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                waiting = Some(record);
                Err(error)
            }
        }
    })
}

/// First offset and end of each partition.
pub fn bounds(config: &ClientConfig, topic: &str) -> Vec<(u64, u64)> {
    let consumer = reader(config, "bounds");
    eventually("the broker tells the offsets", seconds(60), || {
        let metadata = consumer.fetch_metadata(Some(topic), seconds(5))?;
        let count = metadata.topics().iter().map(|t| t.partitions().len()).sum::<usize>();
        let ask = |p: i32| consumer.fetch_watermarks(topic, p, seconds(5));
        let all = (0..count as i32).map(|p| ask(p).map(|(low, high)| (low as u64, high as u64)));
        all.collect::<Result<Vec<_>, rdkafka::error::KafkaError>>()
    })
}

/// All records there are now, by partition and offset.
pub fn read_back(config: &ClientConfig, topic: &str) -> Vec<Rec> {
    let bounds = bounds(config, topic);
    let consumer = reader(config, "read-back");
    let mut list = TopicPartitionList::new();
    for (p, (low, high)) in bounds.iter().enumerate() {
        if low < high {
            let from = Offset::Offset(*low as i64);
            list.add_partition_offset(topic, p as i32, from)
                .expect("a legal offset");
        }
    }
    let mut left = list.count();
    let mut records = Vec::new();
    if left > 0 {
        consumer.assign(&list).expect("a legal assignment");
    }
    while left > 0 {
        let polled = eventually("the next record", seconds(60), || {
            consumer.poll(seconds(1)).ok_or("nothing to read")
        });
        let message = polled.expect("the topic can be read");
        let end = bounds[message.partition() as usize].1;
        if message.offset() as u64 + 1 == end {
            left -= 1;
        }
        if (message.offset() as u64) < end {
            records.push(rec(&message));
        }
    }
    records.sort_by_key(|rec| (rec.partition, rec.offset));
    records
}

/// What the group has committed, by partition; `None` where nothing.
pub fn committed(config: &ClientConfig, topic: &str, group: &str, partitions: u32) -> Vec<Option<u64>> {
    let mut config = config.clone();
    let consumer: BaseConsumer = config.set("group.id", group).create().expect("a legal configuration");
    let mut list = TopicPartitionList::new();
    for p in 0..partitions {
        list.add_partition(topic, p as i32);
    }
    let found = eventually("the group's offsets", seconds(60), || {
        consumer.committed_offsets(list.clone(), seconds(5))
    });
    let offset = |p: u32| found.find_partition(topic, p as i32).map(|at| at.offset());
    (0..partitions)
        .map(|p| match offset(p) {
            Some(Offset::Offset(n)) => Some(n as u64),
            _ => None,
        })
        .collect()
}

/// Commits offsets, by partition, for a group that has no members.
pub fn commit(config: &ClientConfig, topic: &str, group: &str, offsets: &[u64]) {
    let mut config = config.clone();
    let consumer: BaseConsumer = config.set("group.id", group).create().expect("a legal configuration");
    let mut list = TopicPartitionList::new();
    for (p, offset) in offsets.iter().enumerate() {
        let at = Offset::Offset(*offset as i64);
        list.add_partition_offset(topic, p as i32, at).expect("a legal offset");
    }
    eventually("the group takes its offsets", seconds(60), || {
        consumer.commit(&list, CommitMode::Sync)
    });
}

fn reader(config: &ClientConfig, what: &str) -> BaseConsumer {
    let mut config = config.clone();
    config
        .set("group.id", format!("khala-tests-{what}-{}", std::process::id()))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true");
    config.create().expect("a legal configuration")
}

fn rec(message: &BorrowedMessage<'_>) -> Rec {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let own = |h: Header<'_, &[u8]>| (h.key.to_owned(), h.value.map(<[u8]>::to_vec));
        headers.iter().map(own).collect()
    });
    Rec {
        partition: message.partition() as u32,
        offset: message.offset() as u64,
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

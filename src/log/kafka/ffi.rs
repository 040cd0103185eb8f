//! What the safe wrapper lacks: whole batches from a partition's queue, a wake-up when it fills, leader epochs,
//! topic ids (KIP-516). The only module with `unsafe`; each block says why it is sound.
//! Invariant: a message is destroyed once, and before the client it came from.
#![expect(unsafe_code, reason = "librdkafka's queue and admin calls have no safe wrapper")]

use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka_sys as sys;
use tokio::sync::Notify;

use super::client::{FetchContext, QuietContext};
use crate::pure::place::Offset;
use crate::pure::record::RecordBatch;

/// A message as librdkafka hands it out: a record, or an event of its partition.
pub(super) struct Message(NonNull<sys::RDKafkaMessage>);

// SAFETY: a message is owned by whoever took it from its queue, and librdkafka's accessors lock nothing thread-bound.
unsafe impl Send for Message {}

impl Message {
    fn raw(&self) -> &sys::RDKafkaMessage {
        // SAFETY: the pointer came from `rd_kafka_consume_batch_queue` and lives until `drop`.
        unsafe { self.0.as_ref() }
    }

    /// What it says instead of being a record.
    pub(super) fn event(&self) -> Option<RDKafkaErrorCode> {
        let code = self.raw().err;
        (code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| code.into())
    }

    /// Its place; for the end of a partition, the offset that the next record will get.
    pub(super) fn offset(&self) -> Option<Offset> {
        u64::try_from(self.raw().offset).ok().map(Offset)
    }

    /// The leader epoch under which it was written (KIP-320); `None` where the broker does not tell.
    pub(super) fn leader_epoch(&self) -> Option<i32> {
        // SAFETY: a live message.
        let epoch = unsafe { sys::rd_kafka_message_leader_epoch(self.0.as_ptr()) };
        (epoch >= 0).then_some(epoch)
    }

    /// Bytes of its value.
    pub(super) fn value_bytes(&self) -> usize {
        self.raw().len
    }

    /// Bytes of key and value.
    pub(super) fn bytes(&self) -> usize {
        self.raw().key_len + self.raw().len
    }

    /// Whether librdkafka must be asked for headers: it makes and frees a buffer to find that there are none, which was an
    /// eighth of an event's CPU. A record of the current format (KIP-98) that stands in memory as it was on the wire tells
    /// it by the byte behind its value.
    fn may_have_headers(&self) -> bool {
        let raw = self.raw();
        let is_current = self.leader_epoch().is_some(); // older ones have none
        if !is_current || raw.key.is_null() || raw.payload.is_null() {
            return true;
        }
        let mut room = [0; 10];
        let length = zigzag(raw.len as u64, &mut room);
        let key_end = raw.key.cast::<u8>().wrapping_add(raw.key_len);
        if key_end.wrapping_add(length.len()) != raw.payload.cast() {
            return true;
        }
        // SAFETY: two blocks of memory are further apart than a length is long, so key, length and value are in one: the
        // broker's answer, or what it was unpacked to.
        let between = unsafe { std::slice::from_raw_parts(key_end, length.len()) };
        // SAFETY: behind its value such a record has the number of its headers, a byte at least. The broker has refused
        // one that has not, and librdkafka has stepped over it.
        between != length || unsafe { *raw.payload.cast::<u8>().add(raw.len) } != 0
    }

    /// Copies the record into a batch: key, value and headers once each. Returns its bytes.
    pub(super) fn copy_into(&self, offset: Offset, batch: &mut RecordBatch) {
        let raw = self.raw();
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: a live message, and an out-parameter of the right type.
        let timestamp_ms = unsafe { sys::rd_kafka_message_timestamp(self.0.as_ptr(), &raw mut kind) };
        // SAFETY: librdkafka gives pointer and length of memory that lives as long as the message.
        let (key, value) = unsafe { (bytes(raw.key, raw.key_len), bytes(raw.payload, raw.len)) };
        batch.push(offset, timestamp_ms, key, value);
        if !self.may_have_headers() {
            return;
        }
        let mut headers = std::ptr::null_mut();
        // SAFETY: a live message; `headers` is set only when the answer is no error, and belongs to the message.
        let found = unsafe { sys::rd_kafka_message_headers(self.0.as_ptr(), &raw mut headers) };
        if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return;
        }
        for i in 0.. {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: `headers` is valid; the out-parameters are set only when the answer is no error.
            let got = unsafe { sys::rd_kafka_header_get_all(headers, i, &raw mut name, &raw mut value, &raw mut size) };
            if got != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            // SAFETY: a NUL-terminated name, and pointer and length of the value, owned by the message.
            let (name, value) = unsafe { (CStr::from_ptr(name), bytes(value.cast_mut(), size)) };
            batch.push_header(name.to_bytes(), value);
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed only here.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// A length as records of the current format have it: a varint of its double.
fn zigzag(length: u64, room: &mut [u8; 10]) -> &[u8] {
    let (mut rest, mut used) = (length << 1, 0);
    loop {
        room[used] = rest as u8 & 0x7f;
        rest >>= 7;
        used += 1;
        if rest == 0 {
            return &room[..used];
        }
        room[used - 1] |= 0x80;
    }
}

/// `None` for librdkafka's null.
///
/// # Safety
/// A non-null `start` points to `length` bytes that outlive `'a`.
unsafe fn bytes<'a>(start: *mut c_void, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    Some(unsafe { std::slice::from_raw_parts(start.cast::<u8>().cast_const(), length) })
}

/// The partition's end as the last fetch told it, without asking; `None` before the first.
pub(super) fn known_end(client: *mut sys::RDKafka, topic: &CStr, partition: i32) -> Option<u64> {
    let (mut low, mut high) = (0, 0);
    // SAFETY: a live client, a NUL-terminated name, out-parameters of the right type.
    let found =
        unsafe { sys::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &raw mut low, &raw mut high) };
    let known = found == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    known.then(|| u64::try_from(high).ok()).flatten() // negative: not known yet
}

/// The queue of one partition, taken out of the consumer's common one.
pub(super) struct PartitionQueue {
    queue: NonNull<sys::RDKafkaQueue>,
    filled: Arc<Notify>,
    /// Keeps the client alive as long as its queue.
    _consumer: Arc<BaseConsumer<FetchContext>>,
}

// SAFETY: librdkafka's queues are made to be used from any thread.
unsafe impl Send for PartitionQueue {}
// SAFETY: as above; `take` is serialised by the queue's own lock.
unsafe impl Sync for PartitionQueue {}

impl PartitionQueue {
    /// Takes a partition's queue out of the common one. Called before the partition is assigned, so that no record
    /// goes the other way.
    pub(super) fn split(consumer: &Arc<BaseConsumer<FetchContext>>, topic: &str, partition: i32) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: a live client and a NUL-terminated name; the queue holds a reference of its own.
        let queue =
            unsafe { sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition) };
        let queue = NonNull::new(queue)?;
        let filled = Arc::new(Notify::new());
        // SAFETY: `filled` outlives the callback: `drop` disables it under the queue's lock before letting go.
        unsafe {
            sys::rd_kafka_queue_forward(queue.as_ptr(), std::ptr::null_mut());
            let opaque = Arc::as_ptr(&filled).cast_mut().cast();
            sys::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(on_filled), opaque);
        }
        Some(Self {
            queue,
            filled,
            _consumer: Arc::clone(consumer),
        })
    }

    /// Tells when something may be there; a wake-up between two calls is kept.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes what is there, at most `count_max` messages, without waiting.
    pub(super) fn take(&self, count_max: usize, into: &mut impl Extend<Message>) -> usize {
        take(self.queue, count_max, Duration::ZERO, into)
    }
}

/// Takes at most `count_max` messages, once there are so many or the time is over.
fn take(queue: NonNull<sys::RDKafkaQueue>, count_max: usize, wait: Duration, into: &mut impl Extend<Message>) -> usize {
    let mut raw: Vec<*mut sys::RDKafkaMessage> = Vec::with_capacity(count_max);
    // SAFETY: a live queue; `raw` has room for `count_max` pointers, of which as many are set as the answer says.
    let taken = unsafe {
        let wait_ms = wait.as_millis() as i32;
        let taken = sys::rd_kafka_consume_batch_queue(queue.as_ptr(), wait_ms, raw.as_mut_ptr(), count_max);
        let taken = usize::try_from(taken).unwrap_or(0);
        raw.set_len(taken);
        taken
    };
    into.extend(raw.into_iter().filter_map(NonNull::new).map(Message));
    taken
}

/// The common queue of a consumer.
pub(super) struct BareQueue<'a> {
    queue: NonNull<sys::RDKafkaQueue>,
    /// Keeps the client alive as long as its queue.
    _consumer: &'a BaseConsumer<QuietContext>,
}

impl<'a> BareQueue<'a> {
    pub(super) fn of(consumer: &'a BaseConsumer<QuietContext>) -> Option<Self> {
        // SAFETY: a live client; the queue holds a reference of its own.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        NonNull::new(queue).map(|queue| Self {
            queue,
            _consumer: consumer,
        })
    }

    /// Takes at most `count_max` messages, once there are so many or the time is over.
    pub(super) fn take(&self, count_max: usize, wait: Duration, into: &mut impl Extend<Message>) -> usize {
        take(self.queue, count_max, wait, into)
    }
}

impl Drop for BareQueue<'_> {
    fn drop(&mut self) {
        // SAFETY: our own reference, given back once.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

unsafe extern "C" fn on_filled(_client: *mut sys::RDKafka, opaque: *mut c_void) {
    // SAFETY: `opaque` is the `Notify` that the queue keeps alive while this callback is enabled.
    unsafe { (*opaque.cast_const().cast::<Notify>()).notify_one() }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: disabling takes the queue's lock, under which the callback runs: it does not run afterwards.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, std::ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// The topic's id (KIP-516); `None` where the broker knows none.
pub(super) fn topic_id(client: *mut sys::RDKafka, topic: &str, timeout: Duration) -> KafkaResult<Option<String>> {
    let failed = |code: RDKafkaErrorCode| Err(KafkaError::MetadataFetch(code));
    let Ok(name) = CString::new(topic) else {
        return failed(RDKafkaErrorCode::InvalidTopic);
    };
    let mut names = [name.as_ptr()];
    // SAFETY: each object is made, used and destroyed here, in the order of librdkafka's `describe_topics` example;
    // what is read belongs to `event` and is copied before it is destroyed.
    unsafe {
        let Some(queue) = NonNull::new(sys::rd_kafka_queue_new(client)) else {
            return failed(RDKafkaErrorCode::CriticalSystemResource);
        };
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
        sys::rd_kafka_DescribeTopics(client, topics, std::ptr::null(), queue.as_ptr());
        let event = sys::rd_kafka_queue_poll(queue.as_ptr(), timeout.as_millis() as i32);
        let answer = if event.is_null() {
            failed(RDKafkaErrorCode::OperationTimedOut)
        } else {
            match sys::rd_kafka_event_error(event).into() {
                RDKafkaErrorCode::NoError => Ok(described_id(event)),
                RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion => Ok(None),
                code => failed(code),
            }
        };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_TopicCollection_destroy(topics);
        sys::rd_kafka_queue_destroy(queue.as_ptr());
        answer
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn described_id(event: *mut sys::RDKafkaEvent) -> Option<String> {
    // SAFETY: every pointer is checked before it is followed, and belongs to `event`.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count == 0 || topics.is_null() {
            return None;
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(*topics);
        if id.is_null() {
            return None;
        }
        let text = sys::rd_kafka_Uuid_base64str(id);
        let text = (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())?;
        // All zeros: the broker knows no ids.
        (!text.is_empty() && text.bytes().any(|byte| byte != b'A')).then_some(text)
    }
}

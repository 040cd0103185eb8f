//! A record as it stands in Kafka: decoded, written as one structured object, folded into a document, read back.
//! The first byte says how many headers there are; then the key and each header's value, their length before them; the
//! rest is the record's value.

use khala::pure::document::{Applied, Document};
use khala::pure::entity::Entity;
use khala::pure::event::{DETAIL_BYTES_MAX, Event, Rejection, Rules, decode, decode_clean, decode_structured};
use khala::pure::place::{Offset, PartitionId, Partitioner};
use khala::pure::record::{Record, RecordBatch};
use khala::pure::redact::Redact;
use khala::pure::time::Time;

use super::Bytes;

/// Names of the headers, in this order.
pub const HEADERS: [&str; 10] = [
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_subject",
    "ce_time",
    "ce_sequence",
    "ce_extension",
    "content-type",
    "other",
];
const EVENT_BYTES_MAX: usize = 1 << 16;
const RULES: Rules = Rules {
    partitioner: Partitioner::Murmur2,
    partitions: 1,
    max_event_bytes: EVENT_BYTES_MAX,
    redact: Redact::SecretsAndEmail,
};

/// The record that these bytes are.
pub fn run(bytes: &[u8]) {
    told(decode_structured(bytes, EVENT_BYTES_MAX).err());
    let mut bytes = Bytes(bytes);
    let count = usize::from(bytes.byte()) % (HEADERS.len() + 1);
    let key = bytes.part();
    let headers: Vec<&[u8]> = (0..count).map(|_| bytes.part()).collect();
    let mut batch = RecordBatch::default();
    batch.push(Offset(7), 1_700_000_000_000, Some(key), Some(bytes.0));
    for (name, value) in HEADERS.iter().zip(headers) {
        batch.push_header(name.as_bytes(), Some(value));
    }
    let record = batch.get(0);
    let event = match decode(&record, PartitionId(0), &RULES) {
        Ok(event) => event,
        Err(rejection) => return told(Some(rejection)),
    };
    let off = Rules {
        redact: Redact::Off,
        ..RULES
    };
    let again = structured(&event, &record, off.redact);
    alike(
        &decode_structured(&again, usize::MAX).expect("an event stays one"),
        &event,
    );
    let mut room = Vec::new();
    let (clean, record, _) =
        decode_clean(&record, PartitionId(0), &RULES, &mut room).expect("redaction keeps an event");
    let once = structured(&clean, &record, RULES.redact);
    let read = decode_structured(&once, usize::MAX).expect("a redacted event stays one");
    assert_eq!(
        read.subject(),
        event.subject(),
        "redaction moves nothing to another entity"
    );
    fold(&clean, &record);
}

/// A dead letter says why, in few words.
fn told(rejection: Option<Rejection>) {
    if let Some(Rejection { detail, .. }) = rejection {
        assert!((1..=DETAIL_BYTES_MAX).contains(&detail.len()), "{detail:?}");
    }
}

fn structured(event: &Event<'_>, record: &Record<'_>, redact: Redact) -> Vec<u8> {
    let mut text = Vec::new();
    event.write_structured(record, redact, &mut text);
    text
}

fn alike(one: &Event<'_>, other: &Event<'_>) {
    assert_eq!((one.id(), one.source()), (other.id(), other.source()));
    assert_eq!((one.subject(), one.type_name()), (other.subject(), other.type_name()));
    assert_eq!((one.time(), one.sequence()), (other.time(), other.sequence()));
    assert_eq!(one.what(), other.what());
}

/// Folded once it counts, folded again it is a duplicate, and the document reads itself.
fn fold(event: &Event<'_>, record: &Record<'_>) {
    let entity = Entity::parse(event.subject()).expect("a legal subject");
    let mut document = Document::new(entity.clone(), PartitionId(0));
    let applied = document.apply(event, record.offset, record.timestamp_ms);
    assert_eq!(applied, Applied::Accepted { seq: 1 });
    let (mut json, mut state) = (Vec::new(), Vec::new());
    document.render(Time::EPOCH, &mut json);
    let needed = document.write_state(&mut state);
    let state = needed.then_some(state.as_slice());
    let (mut read, _) = Document::parse(&entity, PartitionId(0), &json, state).expect("it reads itself");
    assert_eq!(read, document);
    assert_eq!(read.apply(event, Offset(8), record.timestamp_ms), Applied::Duplicate);
}

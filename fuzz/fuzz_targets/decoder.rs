//! No bytes make decoder, fold or reader panic, and what is accepted reads itself back.
//! Run with `cargo +nightly fuzz run decoder`. The first byte says how many headers there are, the second
//! and so on how long key, header values and value are.
#![no_main]

use khala::pure::document::{Applied, Document};
use khala::pure::entity::Entity;
use khala::pure::event::{Rules, decode, decode_structured};
use khala::pure::place::{Offset, PartitionId, Partitioner};
use khala::pure::record::RecordBatch;
use khala::pure::time::Time;
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 10] = [
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
const RULES: Rules = Rules {
    partitioner: Partitioner::Murmur2,
    partitions: 1,
    max_event_bytes: 1 << 16,
    redact: khala::pure::redact::Redact::Secrets,
};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_structured(bytes, 1 << 16);
    let mut rest = bytes;
    let count = usize::from(cut(&mut rest, 1).first().copied().unwrap_or_default()) % (NAMES.len() + 1);
    let key = part(&mut rest);
    let headers: Vec<&[u8]> = (0..count).map(|_| part(&mut rest)).collect();
    let mut batch = RecordBatch::default();
    batch.push(Offset(7), 1_700_000_000_000, Some(key), Some(rest));
    for (name, value) in NAMES.iter().zip(headers) {
        batch.push_header(name.as_bytes(), Some(value));
    }
    let record = batch.get(0);
    let Ok(event) = decode(&record, PartitionId(0), &RULES) else {
        return;
    };
    let mut text = Vec::new();
    event.write_structured(&record, &mut text);
    let again = decode_structured(&text, usize::MAX).expect("an event stays one");
    assert_eq!((again.id(), again.sequence()), (event.id(), event.sequence()));
    let entity = Entity::parse(event.subject()).expect("a legal subject");
    let mut document = Document::new(entity.clone(), PartitionId(0));
    assert_eq!(
        document.apply(&event, Offset(7), record.timestamp_ms),
        Applied::Accepted { seq: 1 }
    );
    let (mut json, mut state) = (Vec::new(), Vec::new());
    document.render(Time::from_ms(0).expect("1970"), &mut json);
    let needed = document.write_state(&mut state);
    let state = needed.then_some(state.as_slice());
    let (read, _) = Document::parse(&entity, PartitionId(0), &json, state).expect("it reads itself");
    assert_eq!(read, document);
});

/// The first `length` bytes, or what there is.
fn cut<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(length.min(rest.len()));
    *rest = tail;
    head
}

/// A byte that says how long, then as many bytes.
fn part<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::from(cut(rest, 1).first().copied().unwrap_or_default());
    cut(rest, length)
}

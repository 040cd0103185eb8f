//! A request to publish: refused by a 4xx that says why, or made into records that any projector takes.
//! The first byte chooses the content type, the second says how many `ce-` headers there are; then each one's value,
//! its length before it; the rest is the body.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use khala::access::{Publication, prepare_event};
use khala::config::Settings;
use khala::pure::event::{Rules, decode};
use khala::pure::place::{Offset, PartitionId, Partitioner};
use khala::pure::record::RecordBatch;
use khala::pure::redact::Redact;

use super::Bytes;

/// Content types, by the first byte; the last one is none at all.
pub const CONTENT_TYPES: [&str; 7] = [
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/json",
    "application/json; charset=utf-8",
    "Application/CloudEvents+JSON",
    "text/plain",
    "",
];
const ATTRIBUTES: [&str; 9] = [
    "ce-specversion",
    "ce-id",
    "ce-source",
    "ce-type",
    "ce-subject",
    "ce-time",
    "ce-sequence",
    "ce-extension",
    "ce-data",
];
static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings {
    max_event_bytes: 1 << 16,
    redact: Redact::SecretsAndEmail,
    ..Settings::default()
});

/// The request that these bytes are.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mut headers = HeaderMap::new();
    let content_type = CONTENT_TYPES[usize::from(bytes.byte()) % CONTENT_TYPES.len()];
    if !content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    let count = usize::from(bytes.byte()) % (ATTRIBUTES.len() + 1);
    for name in &ATTRIBUTES[..count] {
        // What is no header's value, the server's HTTP refuses before.
        if let Ok(value) = HeaderValue::from_bytes(bytes.part()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    match khala::serve::publications(&headers, bytes.0, &SETTINGS) {
        Ok(publications) => publications.iter().for_each(accepted),
        Err((status, body)) => {
            assert!(status.is_client_error(), "{status} {body}");
            let told = |member: &str| body["error"][member].as_str().is_some_and(|text| !text.is_empty());
            assert!(told("code") && told("message"), "{body}");
        }
    }
}

/// What was accepted is an event where it goes, and the same one.
fn accepted(publication: &Publication) {
    let record = &publication.record;
    let mut batch = RecordBatch::default();
    batch.push(Offset(0), 0, record.key.as_deref(), record.value.as_deref());
    for (name, value) in &record.headers {
        batch.push_header(name.as_bytes(), value.as_deref());
    }
    let rules = Rules {
        partitioner: Partitioner::Murmur2,
        partitions: 1,
        max_event_bytes: SETTINGS.max_event_bytes,
        redact: SETTINGS.redact,
    };
    let event = decode(&batch.get(0), PartitionId(0), &rules).expect("no dead letter is accepted");
    assert_eq!(
        (event.id(), event.source()),
        (publication.id.as_str(), publication.source.as_str())
    );
    let value = record.value.as_deref().expect("an event");
    let again = prepare_event(value, &SETTINGS).expect("what was accepted is accepted again");
    assert_eq!(again.record, publication.record, "nothing is left to redact");
}

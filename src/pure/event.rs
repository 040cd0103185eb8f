//! Decoding of one record into an event, or the first rule that it breaks (INTERFACE.md §1).

/// Why a record is a dead letter: the first rule broken, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No value, in structured mode.
    EmptyRecord,
    /// The value is larger than `max_event_bytes`.
    TooLarge,
    /// Not JSON, not UTF-8, or no object.
    NotJson,
    /// `specversion`, `id` or `source` are not what CloudEvents 1.0 and Khala ask for.
    NotCloudEvents,
    /// No `run/<id>` or `worker/<id>`.
    BadSubject,
    /// The record key is not the subject.
    KeyMismatch,
    /// No legal type, or one of the other kind.
    BadType,
    /// `time` is not RFC 3339.
    BadTime,
    /// `sequence` is not 1 … 2^53−1.
    BadSequence,
    /// `data` is no object, or a field that is read has another type.
    BadData,
    /// The key belongs to another partition.
    WrongPartition,
}

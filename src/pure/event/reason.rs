//! Why a record is a dead letter: a closed set, in the order of the rules (INTERFACE.md §1).

/// The first rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No value, in structured mode.
    EmptyRecord,
    /// The value is larger than `max_event_bytes`.
    TooLarge,
    /// Not JSON, not UTF-8, or no object.
    NotJson,
    /// `specversion`, `id` or `source` are not what `CloudEvents` 1.0 and Khala ask for.
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

impl Reason {
    /// All, in the order of the rules.
    pub const ALL: [Self; 11] = [
        Self::EmptyRecord,
        Self::TooLarge,
        Self::NotJson,
        Self::NotCloudEvents,
        Self::BadSubject,
        Self::KeyMismatch,
        Self::BadType,
        Self::BadTime,
        Self::BadSequence,
        Self::BadData,
        Self::WrongPartition,
    ];

    /// The word of headers, commands and HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Self::EmptyRecord => "empty_record",
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::NotCloudEvents => "not_cloudevents",
            Self::BadSubject => "bad_subject",
            Self::KeyMismatch => "key_mismatch",
            Self::BadType => "bad_type",
            Self::BadTime => "bad_time",
            Self::BadSequence => "bad_sequence",
            Self::BadData => "bad_data",
            Self::WrongPartition => "wrong_partition",
        }
    }

    /// Reads [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// A record that is no legal event, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The first rule broken.
    pub reason: Reason,
    /// In words: what was found and what it must be; at most [`DETAIL_BYTES_MAX`] bytes.
    pub detail: String,
}

/// The longest detail.
pub const DETAIL_BYTES_MAX: usize = 256;

impl Rejection {
    pub(super) fn new(reason: Reason, mut detail: String) -> Self {
        if detail.len() > DETAIL_BYTES_MAX {
            let end = (0..=DETAIL_BYTES_MAX - 3)
                .rev()
                .find(|end| detail.is_char_boundary(*end));
            detail.truncate(end.unwrap_or(0));
            detail.push('…');
        }
        Self { reason, detail }
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_from_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
        }
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let detail = Rejection::new(Reason::BadType, "ä".repeat(300)).detail;
        assert!(
            detail.len() <= DETAIL_BYTES_MAX && detail.ends_with('…'),
            "{}",
            detail.len()
        );
    }
}

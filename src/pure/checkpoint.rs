//! Checkpoints: the redo point that lives and dies with the documents it covers.
//! In and out: the twelve fields of the store's hash, as text. Source: ARIES (Mohan et al., 1992).

use std::fmt;

use super::place::NextOffset;
use super::record::RecordIdentity;

/// Raised whenever the fold changes a result; documents of two versions never mix.
pub const PROJECTION_VERSION: u32 = 1;

/// A sum over all documents' hashes, modulo 2^128: two equal sets of documents have equal digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u128);

impl Digest {
    /// The digest after a document with hash `before` (0: there was none) became one with `after`.
    #[must_use]
    pub fn moved(self, before: u128, after: u128) -> Self {
        Self(self.0.wrapping_sub(before).wrapping_add(after))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Where a partition stands. Counts are since the log's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The next offset to apply.
    pub next: NextOffset,
    /// The last record applied; `None` before the first.
    pub last_record: Option<RecordIdentity>,
    /// Records applied: accepted, duplicates and dead letters together.
    pub records: u64,
    /// Events accepted.
    pub accepted: u64,
    /// Events seen before.
    pub duplicates: u64,
    /// Records that are no legal events.
    pub dead_letters: u64,
    /// Over all documents of the partition.
    pub digest: Digest,
    /// Empty, or a rewind under way: its target mark and a random token.
    pub intent: String,
    /// Of the fold that made the documents.
    pub projection_version: u32,
    /// The log's id of the topic (KIP-516); empty where the log does not tell.
    pub topic_id: String,
    /// Number of partitions of the topic when the namespace was made.
    pub partitions: u32,
    /// Milliseconds since 1970, by the writer's clock.
    pub written_at_ms: i64,
}

/// A past checkpoint kept in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The store's name for it.
    pub id: String,
    /// As it was.
    pub checkpoint: Checkpoint,
    /// Whether an audit found its documents equal to the log.
    pub verified: bool,
}

/// What a compare-and-set compares: two checkpoints of equal identity cover equal documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As in [`Checkpoint`].
    pub next: NextOffset,
    /// As in [`Checkpoint`].
    pub last_record: Option<RecordIdentity>,
    /// As in [`Checkpoint`].
    pub digest: Digest,
    /// As in [`Checkpoint`].
    pub intent: String,
    /// As in [`Checkpoint`]: two versions that have no document yet have the same digest.
    pub projection_version: u32,
    /// As in [`Checkpoint`]: what waits for a parked entity is not counted. Where only duplicates wait, the digest is as if
    /// it were not parked.
    pub duplicates: u64,
}

impl Identity {
    /// The names of the compared fields.
    pub const FIELDS: [&str; 6] = [
        "offset",
        "last_record",
        "digest",
        "intent",
        "projection_version",
        "duplicates",
    ];

    /// Their values as the store holds them, in the order of [`Self::FIELDS`].
    pub fn fields(&self) -> [String; 6] {
        let last = self.last_record.map_or_else(String::new, |last| last.text());
        [
            self.next.to_string(),
            last,
            self.digest.to_string(),
            self.intent.clone(),
            self.projection_version.to_string(),
            self.duplicates.to_string(),
        ]
    }
}

/// The fields' names, in the order of [`Checkpoint::fields`].
pub const FIELDS: [&str; 12] = [
    "offset",
    "last_record",
    "digest",
    "intent",
    "records",
    "accepted",
    "duplicates",
    "dead_letters",
    "projection_version",
    "topic_id",
    "partitions",
    "written_at",
];

impl Checkpoint {
    /// The checkpoint before any record: at `next`, with nothing applied.
    pub fn first(next: NextOffset, topic_id: &str, partitions: u32) -> Self {
        Self {
            next,
            last_record: None,
            records: 0,
            accepted: 0,
            duplicates: 0,
            dead_letters: 0,
            digest: Digest::default(),
            intent: String::new(),
            projection_version: PROJECTION_VERSION,
            topic_id: topic_id.to_owned(),
            partitions,
            written_at_ms: 0,
        }
    }

    /// Whether its documents are of the version that is made here.
    pub fn is_ours(&self) -> bool {
        self.projection_version == PROJECTION_VERSION
    }

    /// Whether its documents may be of the topic with this id; one that has none cannot be told from others.
    pub fn may_be_of(&self, topic_id: &str) -> bool {
        self.topic_id.is_empty() || topic_id.is_empty() || self.topic_id == topic_id
    }

    /// What a compare-and-set compares.
    pub fn identity(&self) -> Identity {
        Identity {
            next: self.next,
            last_record: self.last_record,
            digest: self.digest,
            intent: self.intent.clone(),
            projection_version: self.projection_version,
            duplicates: self.duplicates,
        }
    }

    /// The values of [`FIELDS`]; `written_at` in RFC 3339.
    pub fn fields(&self) -> [String; 12] {
        let [offset, last_record, digest, intent, version, _] = self.identity().fields();
        [
            offset,
            last_record,
            digest,
            intent,
            self.records.to_string(),
            self.accepted.to_string(),
            self.duplicates.to_string(),
            self.dead_letters.to_string(),
            version,
            self.topic_id.clone(),
            self.partitions.to_string(),
            super::time::Time::from_ms(self.written_at_ms).map_or_else(String::new, |time| time.to_string()),
        ]
    }

    /// Reads fields by name.
    ///
    /// # Errors
    /// The name of the first field that is missing or is not of its form.
    pub fn from_fields<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, &'static str> {
        let number = |name: &'static str| get(name).and_then(|text| text.parse::<u64>().ok()).ok_or(name);
        let last_record = match get("last_record").ok_or("last_record")? {
            "" => None,
            text => Some(RecordIdentity::parse(text).ok_or("last_record")?),
        };
        let digest = get("digest")
            .and_then(|text| u128::from_str_radix(text, 16).ok())
            .ok_or("digest")?;
        let written_at = get("written_at")
            .and_then(super::time::Time::parse)
            .ok_or("written_at")?;
        Ok(Self {
            next: NextOffset(number("offset")?),
            last_record,
            records: number("records")?,
            accepted: number("accepted")?,
            duplicates: number("duplicates")?,
            dead_letters: number("dead_letters")?,
            digest: Digest(digest),
            intent: get("intent").ok_or("intent")?.to_owned(),
            projection_version: u32::try_from(number("projection_version")?).map_err(|_| "projection_version")?,
            topic_id: get("topic_id").ok_or("topic_id")?.to_owned(),
            partitions: u32::try_from(number("partitions")?).map_err(|_| "partitions")?,
            written_at_ms: written_at.ms(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::place::Offset;

    #[test]
    fn a_checkpoint_reads_its_own_fields() {
        let last = RecordIdentity {
            offset: Offset(41),
            timestamp_ms: 1_700_000_000_123,
            crc32c: 0xab,
        };
        let checkpoint = Checkpoint {
            last_record: Some(last),
            records: 42,
            accepted: 40,
            duplicates: 1,
            dead_letters: 1,
            digest: Digest(u128::MAX),
            written_at_ms: 1_700_000_001_000,
            ..Checkpoint::first(NextOffset(42), "abc", 12)
        };
        let fields = checkpoint.fields();
        let get = |name: &str| FIELDS.iter().position(|f| *f == name).map(|i| fields[i].as_str());
        assert_eq!(Checkpoint::from_fields(get), Ok(checkpoint));
        assert_eq!(
            Checkpoint::from_fields(|name| (name != "digest").then(|| get(name)).flatten()),
            Err("digest")
        );
    }

    #[test]
    fn a_digest_forgets_what_was_replaced() {
        let digest = Digest::default().moved(0, 7).moved(0, u128::MAX).moved(7, 9);
        assert_eq!(digest, Digest::default().moved(0, u128::MAX).moved(0, 9));
    }
}

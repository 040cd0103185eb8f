//! Keys of the embedded store, with the meaning of Redis' keys, and what stands under them.
//! A place is `<namespace>\0<partition>`; numbers in keys are big endian, so that order is meaning.
//! `documents`: place, subject. `index`: place, `o`, kind, last offset, subject, and place, `s`, subject → last offset.
//! `events`: place, subject, 0, seq. `meta`: `checkpoint\0`place, `history\0`place, number, `parked\0`place, subject,
//! `note\0`namespace, 0, name.
//! Invariant: a namespace holds no NUL and no subject does, so no key is the beginning of another's part.

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::pure::checkpoint::{Checkpoint, Digest};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::record::RecordIdentity;
use crate::store::Note;

/// One partition of one namespace, as the beginning of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place(Vec<u8>);

pub(super) const CHECKPOINT: &[u8] = b"checkpoint\0";
const HISTORY: &[u8] = b"history\0";
const PARKED: &[u8] = b"parked\0";
const NOTE: &[u8] = b"note\0";

impl Place {
    pub(super) fn new(namespace: &str, partition: PartitionId) -> Self {
        Self([namespace.as_bytes(), b"\0", &partition.0.to_be_bytes()].concat())
    }

    pub(super) fn checkpoint(&self) -> Vec<u8> {
        [CHECKPOINT, &self.0].concat()
    }

    pub(super) fn mark(&self, number: u64) -> Vec<u8> {
        [HISTORY, &self.0, &number.to_be_bytes()].concat()
    }

    pub(super) fn marks(&self) -> RangeInclusive<Vec<u8>> {
        self.mark(0)..=self.mark(u64::MAX)
    }

    pub(super) fn parked(&self, subject: &str) -> Vec<u8> {
        [PARKED, &self.0, subject.as_bytes()].concat()
    }

    pub(super) fn document(&self, entity: &Entity) -> Vec<u8> {
        [&self.0, entity.subject().as_bytes()].concat()
    }

    pub(super) fn by_offset(&self, entity: &Entity, offset: Offset) -> Vec<u8> {
        let subject = entity.subject().as_bytes();
        let kind = [b'o', kind_letter(entity.kind())];
        [&self.0[..], &kind, &offset.0.to_be_bytes(), subject].concat()
    }

    /// The length of what [`Self::by_offset`] begins with, and its keys of one kind from an offset on.
    pub(super) fn behind_offset(&self, kind: Kind, from: NextOffset) -> (usize, Range<Vec<u8>>) {
        let beginning = self.of_kind(kind);
        let first = [&beginning[..], &from.0.to_be_bytes()].concat();
        let past = [&beginning[..], &[u8::MAX; 9]].concat();
        (beginning.len(), first..past)
    }

    /// The same, below an offset.
    pub(super) fn before_offset(&self, kind: Kind, below: Option<Offset>) -> (usize, Range<Vec<u8>>) {
        let (beginning, mut all) = self.behind_offset(kind, NextOffset::START);
        if let Some(below) = below {
            all.end = [&self.of_kind(kind)[..], &below.0.to_be_bytes()].concat();
        }
        (beginning, all)
    }

    /// The beginning of [`Self::by_offset`] for one kind.
    pub(super) fn of_kind(&self, kind: Kind) -> Vec<u8> {
        [&self.0[..], &[b'o', kind_letter(kind)]].concat()
    }

    pub(super) fn by_subject(&self, entity: &Entity) -> Vec<u8> {
        [&self.0[..], b"s", entity.subject().as_bytes()].concat()
    }

    pub(super) fn event(&self, entity: &Entity, seq: u64) -> Vec<u8> {
        [&self.0[..], entity.subject().as_bytes(), b"\0", &seq.to_be_bytes()].concat()
    }
}

/// Of what an operator told.
pub(super) fn note(namespace: &str, note: Note) -> Vec<u8> {
    let name = match note {
        Note::Resume(partition) | Note::Held(partition) => format!("{}\0{partition}", note.name()),
        other => other.name().to_owned(),
    };
    [NOTE, namespace.as_bytes(), b"\0", name.as_bytes()].concat()
}

/// What a namespace's keys begin with: those of documents, index and events, then each kind of `meta`.
pub(super) fn parts_of(namespace: &str) -> [Vec<u8>; 5] {
    let own = [namespace.as_bytes(), b"\0"].concat();
    [b"", CHECKPOINT, HISTORY, PARKED, NOTE].map(|kind: &[u8]| [kind, &own].concat())
}

/// The namespace of a checkpoint's key.
pub(super) fn namespace_of(checkpoint: &[u8]) -> Option<String> {
    let name = checkpoint.strip_prefix(CHECKPOINT)?.split(|byte| *byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok()
}

/// All checkpoints of a namespace begin so.
pub(super) fn checkpoints_of(namespace: &str) -> Vec<u8> {
    [CHECKPOINT, namespace.as_bytes(), b"\0"].concat()
}

/// The length of what document keys of a namespace begin with, and those behind the key `after` (empty: all).
pub(super) fn documents_of(namespace: &str, after: &[u8]) -> (usize, Range<Vec<u8>>) {
    let beginning = [namespace.as_bytes(), b"\0"].concat();
    let first = if after.is_empty() {
        beginning.clone()
    } else {
        [after, b"\0"].concat()
    };
    let past = [namespace.as_bytes(), b"\x01"].concat();
    (beginning.len(), first..past)
}

/// Partition and subject of a document's key, whose beginning is `beginning` bytes long.
pub(super) fn partition_and_subject(key: &[u8], beginning: usize) -> Option<(PartitionId, Entity)> {
    let (partition, subject) = key.get(beginning..)?.split_first_chunk::<4>()?;
    let entity = Entity::parse(std::str::from_utf8(subject).ok()?)?;
    Some((PartitionId(u32::from_be_bytes(*partition)), entity))
}

fn kind_letter(kind: Kind) -> u8 {
    match kind {
        Kind::Run => b'r',
        Kind::Worker => b'w',
    }
}

/// The number that ends a key (of a mark, of an event).
pub(super) fn number_at_end(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Offset and subject of a key of [`Place::by_offset`], whose beginning is `beginning` bytes long.
pub(super) fn offset_and_subject(key: &[u8], beginning: usize) -> Option<(Offset, Entity)> {
    let (offset, subject) = key.get(beginning..)?.split_first_chunk::<8>()?;
    let entity = Entity::parse(std::str::from_utf8(subject).ok()?)?;
    Some((Offset(u64::from_be_bytes(*offset)), entity))
}

/// A sealed number.
pub(super) fn number(key: &[u8], number: u64) -> Vec<u8> {
    disk::seal(key, &number.to_le_bytes())
}

/// Reads [`number`].
pub(super) fn read_number(key: &[u8], value: &[u8]) -> Option<u64> {
    let bytes = disk::unseal(key, value)?;
    bytes.try_into().ok().map(u64::from_le_bytes)
}

/// A document and its state, sealed: length of the state + 1 (0: there is none), state, JSON.
pub(super) fn document(key: &[u8], json: &[u8], state: Option<&[u8]>) -> Vec<u8> {
    let length = state.map_or(0, |state| state.len() as u32 + 1);
    let state = state.unwrap_or_default();
    let mut value = Vec::with_capacity(8 + state.len() + json.len());
    value.extend_from_slice(&[0; 4]);
    value.extend_from_slice(&length.to_le_bytes());
    value.extend_from_slice(state);
    value.extend_from_slice(json);
    disk::seal_in_place(key, &mut value);
    value
}

/// JSON and state of [`document`].
pub(super) fn read_document<'a>(key: &[u8], value: &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let (length, rest) = disk::unseal(key, value)?.split_first_chunk::<4>()?;
    match u32::from_le_bytes(*length).checked_sub(1) {
        None => Some((rest, None)),
        Some(length) => {
            let (state, json) = rest.split_at_checked(length as usize)?;
            Some((json, Some(state)))
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredCheckpoint {
    offset: u64,
    last_record: Option<String>,
    digest: String,
    intent: String,
    records: u64,
    accepted: u64,
    duplicates: u64,
    dead_letters: u64,
    projection_version: u32,
    topic_id: String,
    partitions: u32,
    written_at_ms: i64,
    /// Of a mark: an audit vouches for it.
    #[serde(default)]
    verified: bool,
}

/// A checkpoint, sealed.
pub(super) fn checkpoint(key: &[u8], checkpoint: &Checkpoint) -> Vec<u8> {
    mark(key, checkpoint, false)
}

/// A checkpoint of the history, sealed.
pub(super) fn mark(key: &[u8], checkpoint: &Checkpoint, verified: bool) -> Vec<u8> {
    let stored = StoredCheckpoint {
        offset: checkpoint.next.0,
        last_record: checkpoint.last_record.map(|last| last.text()),
        digest: checkpoint.digest.to_string(),
        intent: checkpoint.intent.clone(),
        records: checkpoint.records,
        accepted: checkpoint.accepted,
        duplicates: checkpoint.duplicates,
        dead_letters: checkpoint.dead_letters,
        projection_version: checkpoint.projection_version,
        topic_id: checkpoint.topic_id.clone(),
        partitions: checkpoint.partitions,
        written_at_ms: checkpoint.written_at_ms,
        verified,
    };
    let text = serde_json::to_vec(&stored).expect("numbers and strings always serialize");
    disk::seal(key, &text)
}

/// Reads [`checkpoint`].
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_checkpoint(key: &[u8], value: &[u8]) -> Result<Checkpoint, &'static str> {
    read_mark(key, value).map(|(checkpoint, _)| checkpoint)
}

/// Reads [`mark`]: the checkpoint, and whether it is verified.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_mark(key: &[u8], value: &[u8]) -> Result<(Checkpoint, bool), &'static str> {
    let text = disk::unseal(key, value).ok_or("its checksum does not fit: bits have flipped")?;
    let stored: StoredCheckpoint = serde_json::from_slice(text).map_err(|_| "a newer Khala wrote it")?;
    let last_record = match stored.last_record {
        None => None,
        Some(text) => Some(RecordIdentity::parse(&text).ok_or("last_record is not of its form")?),
    };
    let digest = u128::from_str_radix(&stored.digest, 16).map_err(|_| "digest is not of its form")?;
    let checkpoint = Checkpoint {
        next: NextOffset(stored.offset),
        last_record,
        records: stored.records,
        accepted: stored.accepted,
        duplicates: stored.duplicates,
        dead_letters: stored.dead_letters,
        digest: Digest(digest),
        intent: stored.intent,
        projection_version: stored.projection_version,
        topic_id: stored.topic_id,
        partitions: stored.partitions,
        written_at_ms: stored.written_at_ms,
    };
    Ok((checkpoint, stored.verified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_reads_as_what_was_given() {
        let given = Checkpoint {
            last_record: RecordIdentity::parse("41:-1:0000abcd"),
            digest: Digest(u128::MAX - 5),
            intent: "rewind".to_owned(),
            written_at_ms: -5,
            ..Checkpoint::first(NextOffset(42), "topic", 12)
        };
        assert_eq!(read_checkpoint(b"k", &checkpoint(b"k", &given)), Ok(given.clone()));
        assert!(read_checkpoint(b"l", &checkpoint(b"k", &given)).is_err());
        for state in [None, Some(&b""[..]), Some(&b"state"[..])] {
            let value = document(b"k", b"{}", state);
            assert_eq!(read_document(b"k", &value), Some((&b"{}"[..], state)));
        }
    }

    #[test]
    fn the_index_is_ordered_by_offset_whatever_the_subject() {
        let place = Place::new("ns", PartitionId(3));
        let (a, b) = (Entity::parse("run/a").unwrap(), Entity::parse("run/b").unwrap());
        let (low, high) = (place.by_offset(&b, Offset(255)), place.by_offset(&a, Offset(256)));
        assert!(low < high);
        let beginning = place.of_kind(Kind::Run).len();
        assert_eq!(offset_and_subject(&high, beginning), Some((Offset(256), a)));
    }
}

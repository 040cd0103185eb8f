//! From a record to an event, or to the first rule that it breaks (INTERFACE.md §1).
//! In: a record, its partition, the rules. Out: an event that borrows from the record: no copy, no tree for what is
//! not needed. Source: `CloudEvents` 1.0.2, its JSON format and Kafka protocol binding.

mod attributes;
mod compact;
mod data;
mod json;
mod marks;
mod reason;
mod structured;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use self::data::{Outcome, What};
pub use self::reason::{DETAIL_BYTES_MAX, Reason, Rejection};

use self::attributes::{Attributes, Mode};
use super::entity::{self, Kind};
use super::place::{PartitionId, Partitioner};
use super::record::Record;
use super::redact::{Part, Redact, Redacted};
use super::time::Time;

/// What a legal event is, where rules depend on settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How producers place keys.
    pub partitioner: Partitioner,
    /// Number of the topic's partitions.
    pub partitions: u32,
    /// The largest value, in bytes.
    pub max_event_bytes: usize,
    /// What is taken out of an event before it is folded and kept.
    pub redact: Redact,
}

/// The highest sequence: every JSON reader holds it exactly.
pub const SEQUENCE_MAX: u64 = (1 << 53) - 1;

/// A legal event.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    id: Cow<'a, str>,
    source: Cow<'a, str>,
    subject: Cow<'a, str>,
    kind: Kind,
    type_name: Cow<'a, str>,
    what: What<'a>,
    time: Option<Time>,
    sequence: Option<u64>,
    open: &'a [u8],
    mode: Mode,
}

impl<'a> Event<'a> {
    /// `run/<id>` or `worker/<id>`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Run or worker.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its type, as written.
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// Its id, unique per source.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who wrote it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it means, with the fields of `data` that are read.
    pub fn what(&self) -> &What<'a> {
        &self.what
    }

    /// When it happened, by the producer's clock, if it says.
    pub fn time(&self) -> Option<Time> {
        self.time
    }

    /// Its number within source and entity, if it has one.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// Whether an entity's life ends with it, as far as readers wait for an end.
    pub fn is_terminal(&self) -> bool {
        matches!(self.what, What::RunFinished { .. } | What::WorkerStopped)
    }

    /// The value of its record without its secrets; `None` if it has none.
    fn redacted(&self, record: &Record<'_>, redact: Redact) -> Option<Redacted> {
        let part = match self.mode {
            Mode::Structured | Mode::Foreign => Part::Event,
            Mode::Binary => Part::Data,
        };
        let value = record.value.filter(|_| redact.may_hold(self.open))?;
        redact.json(value, part)
    }

    /// Appends it as one structured `CloudEvents` object; `record` is the one it was decoded from, its value without
    /// secrets.
    pub fn write_structured(&self, record: &Record<'_>, redact: Redact, out: &mut Vec<u8>) {
        match self.mode {
            Mode::Binary => {
                let start = out.len();
                structured::write(record, out);
                if let Some(redacted) = redact.json(&out[start..], Part::Event) {
                    out.truncate(start); // a header was one
                    out.extend_from_slice(&redacted.json);
                }
            }
            Mode::Structured | Mode::Foreign => out.extend_from_slice(record.value.unwrap_or_default()),
        }
    }
}

/// Decodes a record of `partition`.
///
/// # Errors
/// The first rule broken.
pub fn decode<'a>(record: &Record<'a>, partition: PartitionId, rules: &Rules) -> Result<Event<'a>, Rejection> {
    let key = record.key.unwrap_or_default();
    let event = check(&Attributes::of_record(record, rules.max_event_bytes)?, Some(key))?;
    let home = rules.partitioner.place(key, rules.partitions);
    if home == partition {
        return Ok(event);
    }
    let setting = match rules.partitioner {
        Partitioner::Murmur2 => "the producer must place keys by murmur2 (librdkafka: partitioner=murmur2_random)",
        Partitioner::Crc32 => "the producer must place keys by CRC32 (librdkafka: partitioner=consistent_random)",
    };
    let detail = format!("the key belongs to partition {home}: {setting}, or khala's setting `partitioner` be changed");
    Err(Rejection::new(Reason::WrongPartition, detail))
}

/// Decodes a record of `partition` as it is folded and kept: without its secrets, which are counted. With the event comes
/// the record that it borrows from; `room` holds what was changed.
///
/// # Errors
/// The first rule broken.
pub fn decode_clean<'a>(
    record: &Record<'a>,
    partition: PartitionId,
    rules: &Rules,
    room: &'a mut Vec<u8>,
) -> Result<(Event<'a>, Record<'a>, u64), Rejection> {
    let event = decode(record, partition, rules)?;
    let Some(redacted) = event.redacted(record, rules.redact) else {
        return Ok((event, *record, 0));
    };
    *room = redacted.json;
    let record = record.with_value(room);
    Ok((decode(&record, partition, rules)?, record, redacted.count))
}

/// Decodes a structured event that is in no log yet: no rule about key or partition.
///
/// # Errors
/// The first rule broken.
pub fn decode_structured(value: &[u8], max_event_bytes: usize) -> Result<Event<'_>, Rejection> {
    check(&Attributes::structured(value, max_event_bytes)?, None)
}

/// The rules from `subject` on, in their order.
#[inline]
fn check<'a>(attributes: &Attributes<'a>, key: Option<&[u8]>) -> Result<Event<'a>, Rejection> {
    let (id, source) = attributes.identity()?;
    let subject = attributes.subject()?;
    let Some((kind, _)) = entity::split(&subject) else {
        let must = "must be run/<id> or worker/<id>, id 1–128 of A–Z a–z 0–9 . _ : -";
        return Err(Rejection::new(
            Reason::BadSubject,
            format!("subject {subject:?}: {must}"),
        ));
    };
    if let Some(key) = key.filter(|key| *key != subject.as_bytes()) {
        let key = String::from_utf8_lossy(key);
        return Err(Rejection::new(
            Reason::KeyMismatch,
            format!("record key {key:?} must be the subject {subject:?}"),
        ));
    }
    let type_name = attributes.type_name(kind)?;
    let time = attributes.time()?;
    let sequence = attributes.sequence()?;
    let what = data::read(kind, &type_name, &attributes.data)?;
    Ok(Event {
        id,
        source,
        subject,
        kind,
        type_name,
        what,
        time,
        sequence,
        open: attributes.open,
        mode: attributes.mode,
    })
}

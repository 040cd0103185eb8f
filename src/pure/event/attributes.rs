//! The attributes of an event, wherever they stand: in the value (structured mode) or in headers (binary mode).
//! In: a record. Out: attributes as written, then checked one by one in the order of INTERFACE.md §1.

use std::borrow::Cow;

use super::compact;
use super::json::{self, Text, Value};
use super::{Reason, Rejection, SEQUENCE_MAX};
use crate::pure::entity::{Kind, legal_bytes};
use crate::pure::record::Record;
use crate::pure::time::Time;

/// How an event stands in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The value is the event.
    Structured,
    /// Headers are the attributes, the value is `data`.
    Binary,
    /// Neither: another content type and no attributes.
    Foreign,
}

/// One attribute as it was found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attribute<'a> {
    Absent,
    Text(Text<'a>),
    Number(&'a str),
    /// Something that no attribute may be.
    Other(&'static str),
}

/// The `data` of an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data<'a> {
    Absent,
    Object(&'a str),
    Other(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a> {
    pub(super) specversion: Attribute<'a>,
    pub(super) id: Attribute<'a>,
    pub(super) source: Attribute<'a>,
    pub(super) subject: Attribute<'a>,
    pub(super) type_name: Attribute<'a>,
    pub(super) time: Attribute<'a>,
    pub(super) sequence: Attribute<'a>,
    pub(super) data: Data<'a>,
    /// The part of the value whose texts nobody knows: `data`, or all if something else stands beside it.
    pub(super) open: &'a [u8],
    pub(super) mode: Mode,
}

const JSON_MODE: &str = "application/cloudevents+json";
const ID_BYTES_MAX: usize = 256;
const TYPE_BYTES_MAX: usize = 128;
/// Those that a type may have.
const TYPE_BYTES: [bool; 256] = legal_bytes(b"abcdefghijklmnopqrstuvwxyz0123456789._");

/// Members of a value as they are read.
pub(super) struct Found<'f, 'a> {
    pub(super) attributes: &'f mut Attributes<'a>,
    datas: u32,
    others: u32,
}

impl<'f, 'a> Found<'f, 'a> {
    #[inline]
    pub(super) fn nothing(attributes: &'f mut Attributes<'a>) -> Self {
        *attributes = Attributes::none(Mode::Structured);
        Self {
            attributes,
            datas: 0,
            others: 0,
        }
    }

    #[inline]
    pub(super) fn data(&mut self, data: Data<'a>) {
        self.datas += 1;
        self.attributes.data = data;
    }

    /// A member that is not read.
    #[inline]
    pub(super) fn other(&mut self, name: &str) {
        self.others += u32::from(!is_plain(name));
    }

    pub(super) fn member(&mut self, name: Text<'a>, value: Value<'a>) {
        let read;
        let name = if let Some(name) = name.plain() {
            name
        } else {
            read = name.read().unwrap_or_default();
            &read
        };
        if let Some(attribute) = self.attributes.by_name(name) {
            *attribute = match value {
                Value::Null => Attribute::Absent,
                Value::Number(text) => Attribute::Number(text),
                Value::String(text) => Attribute::Text(text),
                other => Attribute::Other(other.kind()),
            };
        } else if name == "data" {
            self.data(match value {
                Value::Null => Data::Absent,
                Value::Object(text) => Data::Object(text),
                other => Data::Other(other.kind()),
            });
        } else {
            self.other(name);
        }
    }

    /// Says which part of the value is open.
    #[inline]
    pub(super) fn end(self, value: &'a [u8]) {
        self.attributes.open = match self.attributes.data {
            _ if self.datas > 1 || self.others > 0 => value,
            Data::Object(text) => text.as_bytes(),
            Data::Absent | Data::Other(_) => &[],
        };
    }
}

impl<'a> Attributes<'a> {
    pub(super) fn none(mode: Mode) -> Self {
        Self {
            specversion: Attribute::Absent,
            id: Attribute::Absent,
            source: Attribute::Absent,
            subject: Attribute::Absent,
            type_name: Attribute::Absent,
            time: Attribute::Absent,
            sequence: Attribute::Absent,
            data: Data::Absent,
            open: &[],
            mode,
        }
    }

    /// By length first: all but one or two names are out then.
    fn by_name(&mut self, name: &str) -> Option<&mut Attribute<'a>> {
        Some(match name.len() {
            2 if name == "id" => &mut self.id,
            4 if name == "type" => &mut self.type_name,
            4 if name == "time" => &mut self.time,
            6 if name == "source" => &mut self.source,
            7 if name == "subject" => &mut self.subject,
            8 if name == "sequence" => &mut self.sequence,
            11 if name == "specversion" => &mut self.specversion,
            _ => return None,
        })
    }

    /// Reads what a record has; the rules about its value are checked.
    #[inline]
    pub(super) fn of_record(record: &Record<'a>, max_bytes: usize) -> Result<Self, Rejection> {
        let value = record.value.unwrap_or_default();
        match mode(record) {
            Mode::Structured => Self::structured(value, max_bytes),
            Mode::Binary => Self::binary(record, value, max_bytes),
            Mode::Foreign => {
                object(value, max_bytes, |_, _| {})?;
                let must = "without ce_ headers the content type must be application/cloudevents+json, or absent";
                Err(Rejection::new(Reason::NotCloudEvents, must.to_owned()))
            }
        }
    }

    /// Reads a value that is an event.
    #[inline]
    pub(super) fn structured(value: &'a [u8], max_bytes: usize) -> Result<Self, Rejection> {
        let text = text(value, max_bytes)?;
        let mut attributes = Self::none(Mode::Structured);
        let mut found = Found::nothing(&mut attributes);
        if compact::read(text, &mut found).is_none() {
            found = Found::nothing(&mut attributes);
            read_object(text, |name, value| found.member(name, value))?;
        }
        found.end(value);
        Ok(attributes)
    }

    fn binary(record: &Record<'a>, value: &'a [u8], max_bytes: usize) -> Result<Self, Rejection> {
        let mut attributes = Self::none(Mode::Binary);
        if !value.is_empty() {
            object(value, max_bytes, |_, _| {})?;
            attributes.data = std::str::from_utf8(value).map_or(Data::Absent, Data::Object);
            attributes.open = value;
        }
        for (name, value) in record.headers() {
            let name = name
                .strip_prefix(b"ce_")
                .and_then(|name| std::str::from_utf8(name).ok());
            let Some(attribute) = name.and_then(|name| attributes.by_name(name)) else {
                continue;
            };
            *attribute = match value.map(std::str::from_utf8) {
                None => Attribute::Absent,
                Some(Ok(text)) => Attribute::Text(Text::of_plain(text)),
                Some(Err(_)) => Attribute::Other("not UTF-8"),
            };
        }
        Ok(attributes)
    }

    /// `id` and `source`, once `specversion` is what it must be.
    pub(super) fn identity(&self) -> Result<(Cow<'a, str>, Cow<'a, str>), Rejection> {
        let reject = |detail: String| Rejection::new(Reason::NotCloudEvents, detail);
        match self.specversion {
            Attribute::Text(version) if version.is("1.0") => {}
            other => return Err(reject(format!("specversion {other}: must be \"1.0\""))),
        }
        let checked = |name: &str, attribute: Attribute<'a>| match attribute.text() {
            Some(text) if (1..=ID_BYTES_MAX).contains(&text.len()) => Ok(text),
            Some(text) if text.len() > ID_BYTES_MAX => Err(reject(format!(
                "{name} of {} bytes: at most {ID_BYTES_MAX}",
                text.len()
            ))),
            _ => Err(reject(format!(
                "{name} {attribute}: must be a string of 1–{ID_BYTES_MAX} bytes"
            ))),
        };
        Ok((checked("id", self.id)?, checked("source", self.source)?))
    }

    pub(super) fn subject(&self) -> Result<Cow<'a, str>, Rejection> {
        self.subject.text().ok_or_else(|| {
            let detail = format!("subject {}: must be run/<id> or worker/<id>", self.subject);
            Rejection::new(Reason::BadSubject, detail)
        })
    }

    pub(super) fn type_name(&self, kind: Kind) -> Result<Cow<'a, str>, Rejection> {
        let reject = |detail: String| Err(Rejection::new(Reason::BadType, detail));
        let Some(name) = self.type_name.text() else {
            return reject(format!("type {}: must be a string", self.type_name));
        };
        let legal = |byte: u8| TYPE_BYTES[usize::from(byte)];
        let starts_right = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        if !starts_right || name.len() > TYPE_BYTES_MAX || !name.bytes().all(legal) {
            return reject(format!(
                "type {name:?}: must be 1–{TYPE_BYTES_MAX} of a–z 0–9 . _, a letter first"
            ));
        }
        match kind {
            Kind::Run if name.starts_with("worker.") => reject(format!("type {name:?} on a run")),
            Kind::Worker if name.starts_with("run.") => reject(format!("type {name:?} on a worker")),
            _ => Ok(name),
        }
    }

    pub(super) fn time(&self) -> Result<Option<Time>, Rejection> {
        let parsed = match self.time {
            Attribute::Absent => return Ok(None),
            Attribute::Text(text) => text.read().and_then(|text| Time::parse(&text)),
            _ => None,
        };
        let wrong = || Rejection::new(Reason::BadTime, format!("time {}: must be RFC 3339", self.time));
        parsed.map(Some).ok_or_else(wrong)
    }

    pub(super) fn sequence(&self) -> Result<Option<u64>, Rejection> {
        let text = match self.sequence {
            Attribute::Absent => return Ok(None),
            Attribute::Text(text) => text.read().unwrap_or_default(),
            Attribute::Number(text) => Cow::Borrowed(text),
            Attribute::Other(_) => Cow::Borrowed(""),
        };
        let number = number(text.as_bytes());
        if let Some(number) = number.filter(|number| (1..=SEQUENCE_MAX).contains(number)) {
            Ok(Some(number))
        } else {
            let detail = format!("sequence {}: must be a whole number from 1 to 2^53−1", self.sequence);
            Err(Rejection::new(Reason::BadSequence, detail))
        }
    }
}

/// A whole number in decimal digits; `None` if it is none, or has more digits than any that may be.
#[inline]
fn number(text: &[u8]) -> Option<u64> {
    let zeros = text.iter().take_while(|byte| **byte == b'0').count();
    let digits = &text[zeros..];
    let mut number = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
        if number > SEQUENCE_MAX {
            return None;
        }
    }
    (!text.is_empty()).then_some(number)
}

/// The rules about a value that must be a JSON object.
fn object<'a>(value: &'a [u8], max_bytes: usize, member: impl FnMut(Text<'a>, Value<'a>)) -> Result<(), Rejection> {
    read_object(text(value, max_bytes)?, member)
}

fn text(value: &[u8], max_bytes: usize) -> Result<&str, Rejection> {
    if value.is_empty() {
        return Err(Rejection::new(
            Reason::EmptyRecord,
            "the record has no value".to_owned(),
        ));
    }
    if value.len() > max_bytes {
        let detail = format!("{} bytes: at most {max_bytes} (max_event_bytes)", value.len());
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    simdutf8::compat::from_utf8(value)
        .map_err(|error| Rejection::new(Reason::NotJson, format!("byte {}: not UTF-8", error.valid_up_to())))
}

fn read_object<'a>(text: &'a str, member: impl FnMut(Text<'a>, Value<'a>)) -> Result<(), Rejection> {
    json::read_object(text, member)
        .map_err(|wrong| Rejection::new(Reason::NotJson, format!("byte {}: {}", wrong.at, wrong.what)))
}

fn mode(record: &Record<'_>) -> Mode {
    if !record.has_headers() {
        return Mode::Structured;
    }
    let (mut attributes, mut content_type) = (false, None);
    for (name, value) in record.headers() {
        attributes |= name.starts_with(b"ce_");
        if name.eq_ignore_ascii_case(b"content-type") {
            content_type = value;
        }
    }
    let media_type = content_type.map(|text| text.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii());
    match media_type {
        Some(media_type) if media_type.eq_ignore_ascii_case(JSON_MODE.as_bytes()) => Mode::Structured,
        _ if attributes => Mode::Binary,
        None => Mode::Structured,
        Some(_) => Mode::Foreign,
    }
}

/// Whether an attribute is not read, and holds no one's text.
fn is_plain(name: &str) -> bool {
    match name.len() {
        10 => matches!(name, "tracestate" | "dataschema"),
        11 => name == "traceparent",
        12 => matches!(name, "partitionkey" | "recordedtime"),
        15 => name == "datacontenttype",
        _ => false,
    }
}

impl<'a> Attribute<'a> {
    /// Its characters, if it is a string.
    #[inline]
    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => text.read(),
            Self::Absent | Self::Number(_) | Self::Other(_) => None,
        }
    }
}

impl std::fmt::Display for Attribute<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("is missing"),
            Self::Text(text) => write!(f, "{:?}", text.read().unwrap_or_default()),
            Self::Number(text) => f.write_str(text),
            Self::Other(kind) => write!(f, "is {kind}"),
        }
    }
}

//! INTERFACE.md §1, rule by rule, top to bottom: the first rule broken is the reason.
//! In: a record. Out: its event, or the name of the reason.

use serde_json::{Map, Value};

use super::{Rec, json, place, time};

/// What the rules depend on.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub partitions: u32,
    pub max_event_bytes: usize,
}

impl Rules {
    /// The defaults, for a topic of so many partitions.
    pub fn of(partitions: u32) -> Self {
        Self {
            partitions,
            max_event_bytes: 1 << 20,
        }
    }
}

/// A legal event.
#[derive(Clone, Debug)]
pub struct Event {
    pub source: String,
    pub id: String,
    pub subject: String,
    pub type_: String,
    pub time_ms: Option<i64>,
    pub sequence: Option<u64>,
    pub data: Map<String, Value>,
}

/// All reasons, in order.
pub const REASONS: [&str; 11] = [
    "empty_record",
    "too_large",
    "not_json",
    "not_cloudevents",
    "bad_subject",
    "key_mismatch",
    "bad_type",
    "bad_time",
    "bad_sequence",
    "bad_data",
    "wrong_partition",
];

#[derive(PartialEq)]
enum Mode {
    Structured,
    Binary,
    Neither,
}

/// The event, or the reason.
pub fn decode(rec: &Rec, rules: &Rules) -> Result<Event, &'static str> {
    let mode = mode(rec);
    let value = rec.value.as_deref().unwrap_or_default();
    if value.is_empty() && mode != Mode::Binary {
        return Err("empty_record");
    }
    if value.len() > rules.max_event_bytes {
        return Err("too_large");
    }
    let text = std::str::from_utf8(value).map_err(|_| "not_json")?;
    let object = match text {
        "" => Map::new(),
        text => match json::value(text) {
            Some(Value::Object(object)) => object,
            _ => return Err("not_json"),
        },
    };
    let (attributes, data, data_text) = match mode {
        Mode::Neither => return Err("not_cloudevents"),
        Mode::Binary => (ce_headers(rec), Value::Object(object), text.to_owned()),
        Mode::Structured => {
            let data_text = json::fields(text)
                .and_then(|fields| Some(fields.get("data")?.get().to_owned()))
                .unwrap_or_default();
            let data = object.get("data").cloned().unwrap_or(Value::Null);
            (object, data, data_text)
        }
    };
    checked(rec, rules, &attributes, data, &data_text)
}

fn checked(
    rec: &Rec,
    rules: &Rules,
    attributes: &Map<String, Value>,
    data: Value,
    data_text: &str,
) -> Result<Event, &'static str> {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str);
    let short = |name: &str| text(name).filter(|text| (1..=256).contains(&text.len()));
    if text("specversion") != Some("1.0") {
        return Err("not_cloudevents");
    }
    let id = short("id").ok_or("not_cloudevents")?;
    let source = short("source").ok_or("not_cloudevents")?;
    let subject = text("subject")
        .filter(|text| legal_subject(text))
        .ok_or("bad_subject")?;
    if rec.key.as_deref() != Some(subject.as_bytes()) {
        return Err("key_mismatch");
    }
    let type_ = text("type")
        .filter(|text| legal_type(text, subject))
        .ok_or("bad_type")?;
    let time_ms = match attributes.get("time") {
        None | Some(Value::Null) => Some(rec.timestamp_ms).filter(|ms| time::format(*ms).is_some()),
        Some(Value::String(text)) => Some(time::parse(text).ok_or("bad_time")?),
        Some(_) => return Err("bad_time"),
    };
    let sequence = match attributes.get("sequence") {
        None | Some(Value::Null) => None,
        Some(given) => Some(sequence(given).ok_or("bad_sequence")?),
    };
    let data = match data {
        Value::Null => data_of(type_, Map::new(), "{}").ok_or("bad_data")?,
        Value::Object(data) => data_of(type_, data, data_text).ok_or("bad_data")?,
        _ => return Err("bad_data"),
    };
    if place::partition_of(subject.as_bytes(), rules.partitions) != rec.partition {
        return Err("wrong_partition");
    }
    Ok(Event {
        source: source.to_owned(),
        id: id.to_owned(),
        subject: subject.to_owned(),
        type_: type_.to_owned(),
        time_ms,
        sequence,
        data,
    })
}

fn mode(rec: &Rec) -> Mode {
    let content_type = rec.headers.iter().find(|(name, _)| name == "content-type");
    let media_type = content_type.and_then(|(_, value)| {
        let text = std::str::from_utf8(value.as_deref()?).ok()?;
        Some(text.split(';').next()?.trim().to_ascii_lowercase())
    });
    let binary = rec.headers.iter().any(|(name, _)| name.starts_with("ce_"));
    match (media_type.as_deref(), binary) {
        (Some("application/cloudevents+json"), _) => Mode::Structured,
        (_, true) => Mode::Binary,
        _ if content_type.is_none() => Mode::Structured,
        _ => Mode::Neither,
    }
}

fn ce_headers(rec: &Rec) -> Map<String, Value> {
    let mut attributes = Map::new();
    for (name, value) in &rec.headers {
        let text = value
            .as_deref()
            .map(|value| String::from_utf8_lossy(value).into_owned());
        if let (Some(name), Some(text)) = (name.strip_prefix("ce_"), text) {
            attributes.insert(name.to_owned(), Value::String(text));
        }
    }
    attributes
}

fn legal_subject(subject: &str) -> bool {
    let Some(id) = subject.strip_prefix("run/").or_else(|| subject.strip_prefix("worker/")) else {
        return false;
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    (1..=128).contains(&id.len()) && id.chars().all(legal)
}

fn legal_type(type_: &str, subject: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '_';
    let starts = type_.starts_with(|c: char| c.is_ascii_lowercase());
    let other_kind = if subject.starts_with("run/") { "worker." } else { "run." };
    (1..=128).contains(&type_.len()) && starts && type_.chars().all(legal) && !type_.starts_with(other_kind)
}

fn sequence(given: &Value) -> Option<u64> {
    let n = match given {
        Value::String(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
        Value::Number(number) => number.as_u64()?,
        _ => return None,
    };
    (1..1 << 53).contains(&n).then_some(n)
}

/// The fields that a type reads; `None` if one has another type than the table says.
fn data_of(type_: &str, mut data: Map<String, Value>, data_text: &str) -> Option<Map<String, Value>> {
    let strings: &[&str] = match type_ {
        "run.created" | "run.started" => &["thread_id", "owner_user_id", "owner_guest_scope"],
        "run.finished" => &["status", "reason_class", "reason"],
        "worker.started" => &["workspace_ref", "adapter"],
        _ => &[],
    };
    let given = |name: &str| data.get(name).filter(|value| !value.is_null());
    if strings.iter().any(|name| given(name).is_some_and(|v| !v.is_string())) {
        return None;
    }
    let status = given("status").and_then(Value::as_str).unwrap_or_default();
    if type_ == "run.finished" && !["succeeded", "failed", "canceled"].contains(&status) {
        return None;
    }
    if type_ == "worker.error" && given("fatal").is_some_and(|v| !v.is_boolean()) {
        return None;
    }
    if type_ == "worker.started" && data.get("metadata").is_some_and(|v| !v.is_null()) {
        let metadata = json::exact(json::fields(data_text)?.get("metadata")?.get())?;
        if !metadata.is_object() || json::canonical(&metadata).len() > 4096 {
            return None;
        }
        data.insert("metadata".to_owned(), metadata);
    }
    Some(data)
}

//! Drift: a document that is not what the log says. In: two documents. Out: the fields that differ, and how often
//! each does over many documents. Invariant: `projected_at`, the only field that a replay may change, is no difference.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why something is drift: the closed set of INTERFACE.md §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The log has events of an entity that has no document.
    MissingDocument,
    /// There is a document of an entity that the log knows no event of.
    UnexpectedDocument,
    /// The document is not the fold of its events.
    SummaryHashMismatch,
    /// The document, or the state beside it, cannot be read.
    DocumentCorrupt,
    /// The log was cut below the checkpoint.
    CheckpointAhead,
    /// The store lost writes.
    SinkRolledBack,
    /// The store lost all.
    SinkLost,
    /// Documents of another fold.
    ProjectionVersionChanged,
    /// Producers' sequences that never came.
    SequenceGap,
    /// Records gone from the log that were never applied.
    RetentionGap,
}

impl Reason {
    /// All, in INTERFACE.md's order.
    pub const ALL: [Self; 10] = [
        Self::MissingDocument,
        Self::UnexpectedDocument,
        Self::SummaryHashMismatch,
        Self::DocumentCorrupt,
        Self::CheckpointAhead,
        Self::SinkRolledBack,
        Self::SinkLost,
        Self::ProjectionVersionChanged,
        Self::SequenceGap,
        Self::RetentionGap,
    ];

    /// The word in JSON and on metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingDocument => "missing_document",
            Self::UnexpectedDocument => "unexpected_document",
            Self::SummaryHashMismatch => "summary_hash_mismatch",
            Self::DocumentCorrupt => "document_corrupt",
            Self::CheckpointAhead => "checkpoint_ahead",
            Self::SinkRolledBack => "sink_rolled_back",
            Self::SinkLost => "sink_lost",
            Self::ProjectionVersionChanged => "projection_version_changed",
            Self::SequenceGap => "sequence_gap",
            Self::RetentionGap => "retention_gap",
        }
    }
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Names from the document's top, joined by dots; empty: the document as a whole.
    pub path: String,
    /// What is there; null where the field, or the document, is not.
    pub before: Value,
    /// What should be there.
    pub after: Value,
}

/// Fields that differ between two documents; `None` stands for no document.
/// A text that is no JSON object differs as a whole.
pub fn differences(before: Option<&[u8]>, after: Option<&[u8]>) -> Vec<Difference> {
    let read = |json: Option<&[u8]>| match json {
        None => Value::Null,
        Some(json) => match serde_json::from_slice(json) {
            Ok(value @ Value::Object(_)) => value,
            _ => Value::String(excerpt(json)),
        },
    };
    let mut found = Vec::new();
    compare(&mut String::new(), &read(before), &read(after), &mut found);
    found
}

/// Characters shown of a text that is no document.
const EXCERPT_CHARS: usize = 80;

fn excerpt(json: &[u8]) -> String {
    String::from_utf8_lossy(json).chars().take(EXCERPT_CHARS).collect()
}

fn compare(path: &mut String, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        let (before, after) = (whole(path, before), whole(path, after));
        found.push(Difference {
            path: path.clone(),
            before,
            after,
        });
        return;
    };
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        if path.is_empty() && name == "projected_at" {
            continue;
        }
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(name);
        compare(
            path,
            old.get(name).unwrap_or(&Value::Null),
            new.get(name).unwrap_or(&Value::Null),
            found,
        );
        path.truncate(length);
    }
}

/// A document that comes or goes as a whole is told by its status.
fn whole(path: &str, value: &Value) -> Value {
    match value {
        Value::Object(document) if path.is_empty() => document.get("status").cloned().unwrap_or(Value::Null),
        other => other.clone(),
    }
}

/// The most values told of one field: a field with more is only counted.
const TURNS_MAX: usize = 16;

/// How often one field changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChanges {
    /// Documents in which it changes.
    pub documents: u64,
    /// From what to what, and in how many: only for fields of few values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub turns: BTreeMap<String, u64>,
    #[serde(skip)]
    is_varied: bool,
}

/// Differences of many documents, added up. Bounded: fields of many values are only counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Documents compared.
    pub documents: u64,
    /// Those that change.
    pub changed: u64,
    /// Those that come.
    pub created: u64,
    /// Those that go.
    pub removed: u64,
    /// Those that could not be read.
    pub unreadable: u64,
    /// Those whose fields stay: only how they are written, the state beside them or their place in the index changes.
    pub beside: u64,
    /// By field, in the order of names; of documents that come, go or could not be read there are none.
    pub fields: BTreeMap<String, FieldChanges>,
}

/// The most fields told apart; what comes after is counted under `…`.
const FIELDS_MAX: usize = 256;

impl Summary {
    /// Adds a document that changes; without differences it does so beside its fields.
    pub fn add(&mut self, differences: &[Difference]) {
        self.changed += 1;
        self.beside += u64::from(differences.is_empty());
        for difference in differences {
            match (difference.path.as_str(), &difference.before, &difference.after) {
                ("", Value::Null, _) => self.created += 1,
                ("", _, Value::Null) => self.removed += 1,
                ("", ..) => self.unreadable += 1,
                _ => self.add_field(difference),
            }
        }
    }

    /// Adds another summary, of other documents.
    pub fn merge(&mut self, other: &Self) {
        self.documents += other.documents;
        self.changed += other.changed;
        self.created += other.created;
        self.removed += other.removed;
        self.unreadable += other.unreadable;
        self.beside += other.beside;
        for (name, changes) in &other.fields {
            let field = self.field(name);
            field.documents += changes.documents;
            field.is_varied |= changes.is_varied;
            for (turn, count) in &changes.turns {
                field.turn(turn.clone(), *count);
            }
        }
    }

    fn add_field(&mut self, difference: &Difference) {
        // What follows from the rest of the document says nothing of its own.
        if difference.path == "summary_hash" {
            return;
        }
        let field = self.field(&difference.path);
        field.documents += 1;
        let plain = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Null => Some("null".to_owned()),
            Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        };
        match (plain(&difference.before), plain(&difference.after)) {
            (Some(before), Some(after)) => field.turn(format!("{before} → {after}"), 1),
            _ => field.vary(),
        }
    }

    fn field(&mut self, name: &str) -> &mut FieldChanges {
        let name = if self.fields.len() < FIELDS_MAX || self.fields.contains_key(name) {
            name
        } else {
            "…"
        };
        self.fields.entry(name.to_owned()).or_default()
    }

    /// In words: how many documents change, and in which fields.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} of {} documents change",
            thousands(self.changed),
            thousands(self.documents)
        );
        for (count, what) in [
            (self.created, "missing"),
            (self.removed, "to be removed"),
            (self.unreadable, "unreadable"),
            (self.beside, "only in how they are kept"),
        ] {
            if count > 0 {
                let _ = write!(text, "; {} {what}", thousands(count));
            }
        }
        let mut fields: Vec<_> = self.fields.iter().collect();
        fields.sort_by_key(|(name, field)| {
            (
                field.turns.is_empty(),
                **name != "status",
                std::cmp::Reverse(field.documents),
            )
        });
        for (name, field) in fields {
            let _ = write!(text, "; `{name}` in {}", thousands(field.documents));
            let turns: Vec<_> = field
                .turns
                .iter()
                .map(|(turn, count)| {
                    if *count == field.documents {
                        turn.clone()
                    } else {
                        format!("{turn} in {}", thousands(*count))
                    }
                })
                .collect();
            if !turns.is_empty() {
                let _ = write!(text, ": {}", turns.join(", "));
            }
        }
        text
    }
}

impl FieldChanges {
    fn turn(&mut self, turn: String, count: u64) {
        if self.is_varied {
            return;
        }
        *self.turns.entry(turn).or_default() += count;
        if self.turns.len() > TURNS_MAX {
            self.vary();
        }
    }

    fn vary(&mut self) {
        self.is_varied = true;
        self.turns.clear();
    }
}

/// With a comma before each third digit from the right.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(value: &Value) -> Vec<u8> {
        value.to_string().into_bytes()
    }

    fn run(status: &str, seq: u64, projected_at: &str) -> Vec<u8> {
        text(&json!({"status": status, "projected_at": projected_at, "runtime_source": {"seq": seq}}))
    }

    #[test]
    fn fields_that_differ_are_told_by_their_path_and_the_time_of_writing_is_none() {
        let (old, new) = (run("running", 3, "a"), run("failed", 4, "b"));
        let found = differences(Some(&old), Some(&new));
        let told: Vec<_> = found
            .iter()
            .map(|difference| (difference.path.as_str(), &difference.before, &difference.after))
            .collect();
        assert_eq!(
            told,
            [
                ("runtime_source.seq", &json!(3), &json!(4)),
                ("status", &json!("running"), &json!("failed"))
            ]
        );
        assert_eq!(differences(Some(&old), Some(&run("running", 3, "b"))), []);
    }

    #[test]
    fn a_document_that_comes_goes_or_is_none_differs_as_a_whole() {
        let document = run("running", 3, "a");
        let one = |before, after| differences(before, after).remove(0);
        assert_eq!(one(None, Some(&document)).after, json!("running"));
        assert_eq!(one(Some(&document), None).after, Value::Null);
        assert_eq!(
            one(Some(b"gar\xffbage"), Some(&document)).before,
            json!("gar\u{fffd}bage")
        );
        assert_eq!(differences(None, None), []);
    }

    #[test]
    fn a_summary_counts_and_names_what_few_values_become() {
        let mut summary = Summary::default();
        for i in 0..1234 {
            let (old, new) = (run("running", i, "a"), run("failed", i + 1, "b"));
            if i % 2 == 0 {
                summary.add(&differences(Some(&old), Some(&new)));
            }
        }
        summary.documents = 1235;
        summary.add(&differences(None, Some(&run("running", 1, "a"))));
        summary.add(&differences(Some(b"gar{bage"), Some(&run("running", 1, "a"))));
        summary.add(&[]);
        assert_eq!(
            summary.text(),
            "620 of 1,235 documents change; 1 missing; 1 unreadable; 1 only in how they are kept; `status` in 617: running → failed; `runtime_source.seq` in 617"
        );
        let mut twice = summary.clone();
        twice.merge(&summary);
        assert_eq!(
            (twice.documents, twice.fields["status"].turns["running → failed"]),
            (2470, 1234)
        );
    }

    #[test]
    fn a_field_of_many_values_is_only_counted() {
        let mut summary = Summary::default();
        for i in 0..40 {
            let (old, new) = (run("x", 1, ""), run(&format!("y{i}"), 1, ""));
            summary.add(&differences(Some(&old), Some(&new)));
        }
        summary.documents = 40;
        assert_eq!(summary.text(), "40 of 40 documents change; `status` in 40");
    }
}

//! Entities: a run or a worker, named by the subject `run/<id>` or `worker/<id>`, which is also the record key.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest id, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// Those that an id may have.
const ID_BYTES: [bool; 256] = legal_bytes(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-");

/// Whether a byte is legal, by its value: one look-up a byte, where each event has dozens of them to check.
pub(super) const fn legal_bytes(legal: &[u8]) -> [bool; 256] {
    let mut is_legal = [false; 256];
    let mut i = 0;
    while i < legal.len() {
        is_legal[legal[i] as usize] = true;
        i += 1;
    }
    is_legal
}

/// What an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One run of an agent.
    Run,
    /// One worker process.
    Worker,
}

impl Kind {
    /// Both kinds, in the order in which they are listed.
    pub const ALL: [Self; 2] = [Self::Run, Self::Worker];

    /// `run` or `worker`: the first part of a subject, a word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Worker => "worker",
        }
    }

    /// `run_summary` or `worker_summary`: the document's `kind`, and a part of its key.
    pub fn document(self) -> &'static str {
        match self {
            Self::Run => "run_summary",
            Self::Worker => "worker_summary",
        }
    }
}

/// A legal subject. Cheap to clone: batches, caches and writes share one allocation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entity(Arc<str>);

impl Entity {
    /// The entity of a subject; `None` if the subject is not a legal one.
    pub fn parse(subject: &str) -> Option<Self> {
        split(subject)?;
        Some(Self(Arc::from(subject)))
    }

    /// The entity of a kind and an id; `None` if the id is not a legal one.
    pub fn new(kind: Kind, id: &str) -> Option<Self> {
        Self::parse(&format!("{}/{id}", kind.name()))
    }

    /// Run or worker.
    pub fn kind(&self) -> Kind {
        if self.0.starts_with('r') {
            Kind::Run
        } else {
            Kind::Worker
        }
    }

    /// The id without its kind.
    pub fn id(&self) -> &str {
        &self.0[self.kind().name().len() + 1..]
    }

    /// `run/<id>` or `worker/<id>`.
    pub fn subject(&self) -> &str {
        &self.0
    }

    /// `run_summary:<id>` or `worker_summary:<id>`.
    pub fn document_id(&self) -> String {
        format!("{}:{}", self.kind().document(), self.id())
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Entity {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Kind and id of a legal subject: an id is 1–128 of `A–Z a–z 0–9 . _ : -`.
pub fn split(subject: &str) -> Option<(Kind, &str)> {
    let run = subject.strip_prefix("run/").map(|id| (Kind::Run, id));
    let (kind, id) = run.or_else(|| Some((Kind::Worker, subject.strip_prefix("worker/")?)))?;
    let legal = |byte: u8| ID_BYTES[usize::from(byte)];
    ((1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(legal)).then_some((kind, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_kind_and_id() {
        let run = Entity::parse("run/a.b_c:d-9").expect("legal");
        assert_eq!((run.kind(), run.id()), (Kind::Run, "a.b_c:d-9"));
        assert_eq!(run.document_id(), "run_summary:a.b_c:d-9");
        assert_eq!(Entity::new(Kind::Worker, "w").expect("legal").subject(), "worker/w");
    }

    #[test]
    fn an_illegal_subject_is_no_entity() {
        let long = format!("run/{}", "x".repeat(129));
        for subject in [
            "", "run", "run/", "runs/a", "run/a b", "run/a/b", "Run/a", "run/ä", &long,
        ] {
            assert_eq!(Entity::parse(subject), None, "{subject}");
        }
        assert!(Entity::parse(&format!("run/{}", "x".repeat(128))).is_some());
    }
}

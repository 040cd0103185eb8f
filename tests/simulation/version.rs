//! Two projection versions at once. All code here makes version 1; a process of version 2 is one that sees everything
//! mirrored: what it writes as 1 is stored as 2, and 1 in the store is 2 to it. Both fold alike, so that each one's
//! documents can be compared with the same log. So their digests are equal too, which in life they are only where no
//! document is: it is the harder case.

use std::sync::Arc;

use khala::pure::batch::{Batch, Stored};
use khala::pure::checkpoint::{Checkpoint, Identity, Mark};
use khala::pure::entity::Entity;
use khala::pure::place::Offset;
use khala::repair::{Ground, heal};
use khala::store::{Expiring, Heal, Healed, Opened, Owner, Peeked, StoreError, StreamEntry};

use super::log::SimLog;
use super::operator::healer;
use super::part::Part;
use super::projector::{RULES, Task};
use super::sea::{PARTITION, Sea};
use super::store::SimStore;
use super::writers::{go_on, part, sea, to_its_end};
use crate::reference::Rec;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    One,
    Two,
}

/// A version's number.
pub const ONE: u32 = 1;
pub const TWO: u32 = 2;
/// Where a document says its version.
const IN_DOCUMENTS: &[u8] = b"\"projection_version\":";
/// A record's header that says so.
const IN_HEADERS: &str = "khala_version";
/// Its place among the fields of a marker's checkpoint.
const IN_MARKERS: usize = 8;

impl Version {
    pub fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }

    /// Whose documents these are; those of neither are of a third one.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        if checkpoint.projection_version == TWO {
            Self::Two
        } else {
            Self::One
        }
    }

    /// What a process of this version sees of `there`, and what it writes, as it is there.
    pub fn seen<T: Mirrored>(self, mut there: T) -> T {
        if self == Self::Two {
            there.mirror();
        }
        there
    }
}

/// What looks other to a process of the other version. Twice mirrored is as it was.
pub trait Mirrored {
    fn mirror(&mut self) {}
}

impl Mirrored for () {}
impl Mirrored for u64 {}
impl Mirrored for Healed {}
impl Mirrored for Entity {}
impl Mirrored for Offset {}
impl Mirrored for Owner {}
impl Mirrored for StreamEntry {}

/// A document's text, or many of them.
impl Mirrored for [u8] {
    fn mirror(&mut self) {
        let mut at = 0;
        while let Some(found) = self[at..]
            .windows(IN_DOCUMENTS.len())
            .position(|text| text == IN_DOCUMENTS)
        {
            at += found + IN_DOCUMENTS.len();
            if let Some(digit) = self.get_mut(at) {
                *digit = mirrored_digit(*digit);
            }
        }
    }
}

fn mirrored_digit(digit: u8) -> u8 {
    match digit {
        b'1' => b'2',
        b'2' => b'1',
        other => other,
    }
}

fn mirrored(version: u32) -> u32 {
    match version {
        ONE => TWO,
        TWO => ONE,
        other => other,
    }
}

impl Mirrored for Checkpoint {
    fn mirror(&mut self) {
        self.projection_version = mirrored(self.projection_version);
    }
}

impl Mirrored for Identity {
    fn mirror(&mut self) {
        self.projection_version = mirrored(self.projection_version);
    }
}

impl Mirrored for Mark {
    fn mirror(&mut self) {
        self.checkpoint.mirror();
    }
}

impl<T: Mirrored> Mirrored for Option<T> {
    fn mirror(&mut self) {
        self.iter_mut().for_each(Mirrored::mirror);
    }
}

impl<T: Mirrored> Mirrored for Vec<T> {
    fn mirror(&mut self) {
        self.iter_mut().for_each(Mirrored::mirror);
    }
}

impl<A: Mirrored, B: Mirrored> Mirrored for (A, B) {
    fn mirror(&mut self) {
        self.0.mirror();
        self.1.mirror();
    }
}

impl<T: Mirrored> Mirrored for Result<T, StoreError> {
    fn mirror(&mut self) {
        match self {
            Ok(done) => done.mirror(),
            Err(StoreError::Refused { found, .. }) => (**found).mirror(),
            Err(_) => {}
        }
    }
}

/// What is checked, beside it, is not mirrored.
impl Mirrored for Part {
    fn mirror(&mut self) {
        self.checkpoint.mirror();
        self.marks.mirror();
        self.documents
            .values_mut()
            .for_each(|(json, _)| json.as_mut_slice().mirror());
    }
}

impl Mirrored for Opened {
    fn mirror(&mut self) {
        self.checkpoint.mirror();
        self.marks.mirror();
    }
}

impl Mirrored for Stored {
    fn mirror(&mut self) {
        if let Self::Document { json, .. } = self {
            json.as_mut_slice().mirror();
        }
    }
}

impl Mirrored for Peeked {
    fn mirror(&mut self) {
        self.checkpoint.mirror();
        self.entities.mirror();
    }
}

impl Mirrored for Batch {
    fn mirror(&mut self) {
        self.expected.mirror();
        self.checkpoint.mirror();
        self.buffer.as_mut_slice().mirror();
    }
}

impl Mirrored for Expiring {
    fn mirror(&mut self) {
        self.version = mirrored(self.version);
    }
}

impl Mirrored for Heal {
    fn mirror(&mut self) {
        self.version = self.version.map(mirrored);
        self.moves.mirror();
        for entry in &mut self.entries {
            entry.seen.mirror();
            if let Some(healthy) = &mut entry.becomes {
                healthy.json.as_mut_slice().mirror();
            }
        }
    }
}

/// Of the documents' topic.
impl Mirrored for Rec {
    fn mirror(&mut self) {
        if let Some(value) = &mut self.value {
            if self.key.as_ref().is_some_and(|key| key.starts_with(b"marker/")) {
                mirror_marker(value);
            } else {
                value.as_mut_slice().mirror();
            }
        }
        for (_, version) in self.headers.iter_mut().filter(|(name, _)| name == IN_HEADERS) {
            let digits = version.iter_mut().flatten();
            digits.for_each(|digit| *digit = mirrored_digit(*digit));
        }
    }
}

fn mirror_marker(json: &mut Vec<u8>) {
    let mut marker: serde_json::Value = serde_json::from_slice(json).expect("a marker");
    let version = &mut marker["checkpoint"][IN_MARKERS];
    *version = match version.as_str() {
        Some("1") => "2".into(),
        Some("2") => "1".into(),
        other => panic!("a marker's version: {other:?}"),
    };
    *json = serde_json::to_vec(&marker).expect("JSON");
}

pub fn ground(sea: &Sea) -> Ground {
    Ground {
        log: Arc::new(SimLog(sea.clone())),
        store: Arc::new(SimStore(sea.clone())),
        partitioner: RULES.partitioner,
        max_event_bytes: RULES.max_event_bytes,
        redact: RULES.redact,
        events_kept: 10,
    }
}

/// A process of version 1 heals an entity that is not there; at its poll `at` all is as version 2 has it, and it is not
/// there either. The sea then, and whether the healing had come to its end before.
fn heals_an_absent_entity(at: usize) -> (Sea, bool) {
    let (sea, run) = (sea(), Entity::parse("run/b").expect("a subject"));
    let mut lacks = part(3);
    lacks.documents.remove(&run);
    lacks.index.remove(&run);
    sea.lock().part = lacks.clone();
    let ground = ground(&sea);
    let mut task: Task<_> = Box::pin(async move { heal(&ground, PARTITION, &[run], &healer(1, 0)).await.is_ok() });
    let was_done = go_on(&mut task, at).is_some();
    if was_done {
        return (sea, true);
    }
    sea.lock().part = Version::Two.seen(lacks);
    to_its_end(task);
    (sea, false)
}

#[test]
fn an_entity_that_is_not_there_is_never_healed_into_documents_of_another_version() {
    for at in 0.. {
        let (sea, was_done) = heals_an_absent_entity(at);
        let healed = sea.lock().part.documents.len() == 2;
        assert_eq!(healed, was_done, "another version's from {at} on");
        if was_done {
            assert!(at > 3, "{at} moments are too few");
            break;
        }
    }
}

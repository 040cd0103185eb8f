//! What one atomic step writes, and what a load gives back: the machine's side of the store's seam.
//! Invariant: a batch holds each touched document once, and its checkpoint covers exactly them.

use std::ops::Range;

use super::checkpoint::{Checkpoint, Identity};
use super::document::Document;
use super::entity::Entity;
use super::place::Offset;
use super::time::Time;

/// What the store has of one entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Neither index nor document know it: it is new.
    Absent,
    /// The index knows it, and its document is not there. Drift.
    Lost,
    /// The index knows it, and its document was taken away long after its end. No drift.
    Expired,
    /// Something that cannot be read is in its place: why. Drift.
    Unreadable(&'static str),
    /// Its document, and the part of its state that is not in the document.
    Document {
        /// The JSON text, as stored.
        json: Vec<u8>,
        /// The state beside it, if any.
        state: Option<Vec<u8>>,
    },
}

impl Stored {
    /// The state beside a document.
    pub fn state(&self) -> Option<&[u8]> {
        match self {
            Self::Document { state, .. } => state.as_deref(),
            Self::Absent | Self::Lost | Self::Expired | Self::Unreadable(_) => None,
        }
    }
}

/// One document of a batch: ranges into [`Batch::buffer`].
#[derive(Clone, Debug)]
pub struct DocumentWrite {
    /// Whose it is.
    pub entity: Entity,
    /// Offset of the last event it includes: its place in the index.
    pub offset: Offset,
    /// The JSON text.
    pub json: Range<u32>,
    /// State that is not in the document (recent ids, order of sources); `None`: there is none.
    pub state: Option<Range<u32>>,
}

/// One accepted event for an entity's stream.
#[derive(Clone, Debug)]
pub struct EventWrite {
    /// Whose it is.
    pub entity: Entity,
    /// Its place in the entity's stream: entry id `<seq>-0`.
    pub seq: u64,
    /// The event as structured `CloudEvents` JSON.
    pub json: Range<u32>,
}

/// All that one atomic step writes.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The checkpoint that must be there; `None`: there must be none.
    pub expected: Option<Identity>,
    /// The checkpoint to write.
    pub checkpoint: Checkpoint,
    /// Texts that the ranges below point into.
    pub buffer: Vec<u8>,
    /// Each touched document once.
    pub documents: Vec<DocumentWrite>,
    /// Accepted events, per entity in order of `seq`. Empty when streams are off.
    pub events: Vec<EventWrite>,
    /// Entities to park from now on, with the first offset not applied.
    pub parked: Vec<(Entity, Offset)>,
    /// Entities that are no more: document, state, place in the index and stream go.
    pub removed: Vec<Entity>,
    /// Streams to cut: entries with a seq above go, and lower ones may follow them.
    pub cut: Vec<(Entity, u64)>,
    /// Entities whose events wait no longer.
    pub unparked: Vec<Entity>,
    /// Secrets that were taken out of its events.
    pub redactions: u64,
    /// Whether this checkpoint goes into the history too.
    pub mark: bool,
}

impl Batch {
    /// A batch that writes this checkpoint and, so far, nothing else.
    pub fn new(expected: Option<Identity>, checkpoint: Checkpoint) -> Self {
        Self {
            expected,
            checkpoint,
            buffer: Vec::new(),
            documents: Vec::new(),
            events: Vec::new(),
            parked: Vec::new(),
            removed: Vec::new(),
            cut: Vec::new(),
            unparked: Vec::new(),
            redactions: 0,
            mark: false,
        }
    }

    /// Adds a document as of now; returns the first 16 bytes of its hash. One that includes no event is not written.
    pub fn write(&mut self, document: &Document, now: Time) -> u128 {
        let Some(offset) = document.offset() else { return 0 };
        let start = self.buffer.len() as u32;
        let hash = document.render(now, &mut self.buffer);
        let middle = self.buffer.len() as u32;
        let has_state = document.write_state(&mut self.buffer);
        self.documents.push(DocumentWrite {
            entity: document.entity().clone(),
            offset,
            json: start..middle,
            state: has_state.then_some(middle..self.buffer.len() as u32),
        });
        hash
    }

    /// The bytes of a range.
    pub fn text(&self, range: &Range<u32>) -> &[u8] {
        &self.buffer[range.start as usize..range.end as usize]
    }
}

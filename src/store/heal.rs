//! Putting entities right beside whoever projects. Invariant: an entity is written only if document, state and place
//! in the index are still as they were seen, under a checkpoint of the same projection version; nothing is while a rewind
//! is under way or somebody else's operator works.

use super::Owner;
use crate::pure::batch::Stored;
use crate::pure::checkpoint::{Checkpoint, Identity};
use crate::pure::entity::Entity;
use crate::pure::place::Offset;

/// Entities to put right in one step.
#[derive(Clone, Debug, Default)]
pub struct Heal {
    /// The healer's own lease, if it holds one. A projector's lease ends with the first entity done: it must not go
    /// on with what it keeps in memory.
    pub owner: Option<Owner>,
    /// The projection version of the checkpoint that the entities were seen with; `None`: there was none. An entity that
    /// was not there tells no version itself.
    pub version: Option<u32>,
    /// The checkpoint that must be there, and what it becomes: for entities that were parked.
    pub moves: Option<(Identity, Checkpoint)>,
    /// Each by itself; with `moves` all or none.
    pub entries: Vec<HealEntry>,
}

/// One entity.
#[derive(Clone, Debug)]
pub struct HealEntry {
    /// Whose it is.
    pub entity: Entity,
    /// What was there.
    pub seen: Stored,
    /// Its place in the index then.
    pub index: Option<Offset>,
    /// What it becomes; `None`: document, state, place in the index and stream go.
    pub becomes: Option<Healthy>,
    /// Its events wait no longer.
    pub unpark: bool,
}

/// An entity as the log says it.
#[derive(Clone, Debug)]
pub struct Healthy {
    /// Of the last event it includes: its place in the index.
    pub offset: Offset,
    /// The JSON text.
    pub json: Vec<u8>,
    /// The state beside it.
    pub state: Option<Vec<u8>>,
    /// Its whole stream: seq and event, ascending.
    pub events: Vec<(u64, Vec<u8>)>,
}

/// What came of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Healed {
    /// It is right now.
    Done,
    /// It is not as it was seen any more, and was left alone: look again.
    Changed,
}

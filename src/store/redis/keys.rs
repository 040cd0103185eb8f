//! The keys of one partition, all in one cluster slot by their tag (INTERFACE.md §2).

use crate::pure::entity::{Entity, Kind};
use crate::pure::place::PartitionId;
use crate::store::Note;

/// Makes the keys of one partition of a namespace.
pub(super) struct Keys {
    tag: String,
}

/// The key of an entity's document in Redis: `{<namespace>:<partition>}:run_summary:<id>`.
pub fn document_key(namespace: &str, partition: PartitionId, entity: &Entity) -> String {
    Keys::new(namespace, partition).document(entity)
}

impl Keys {
    pub(super) fn new(namespace: &str, partition: PartitionId) -> Self {
        Self {
            tag: format!("{{{namespace}:{partition}}}"),
        }
    }

    pub(super) fn document(&self, entity: &Entity) -> String {
        self.joined(&[":", entity.kind().document(), ":", entity.id()])
    }

    pub(super) fn state(&self, entity: &Entity) -> String {
        self.joined(&[":state:", entity.kind().document(), ":", entity.id()])
    }

    pub(super) fn events(&self, entity: &Entity) -> String {
        self.joined(&[":events:", entity.kind().document(), ":", entity.id()])
    }

    /// Made for each document of each batch, so without `format!`.
    fn joined(&self, parts: &[&str]) -> String {
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut key = String::with_capacity(self.tag.len() + bytes);
        key.push_str(&self.tag);
        parts.iter().for_each(|part| key.push_str(part));
        key
    }

    pub(super) fn index(&self, kind: Kind) -> String {
        format!("{}:index:{}", self.tag, kind.document())
    }

    pub(super) fn owner(&self) -> String {
        format!("{}:owner", self.tag)
    }

    pub(super) fn checkpoint(&self) -> String {
        format!("{}:checkpoint", self.tag)
    }

    pub(super) fn checkpoints(&self) -> String {
        format!("{}:checkpoints", self.tag)
    }

    pub(super) fn note(namespace: &str, note: Note) -> String {
        match note {
            Note::Resume(partition) | Note::Held(partition) => {
                format!("{{{namespace}:{partition}}}:{}", note.name())
            }
            other => format!("{{{namespace}}}:{}", other.name()),
        }
    }

    pub(super) fn probe(&self) -> String {
        format!("{}:probe", self.tag)
    }

    pub(super) fn parked(&self) -> String {
        format!("{}:parked", self.tag)
    }
}

//! What is to be done with one entity in a rewind. In: what the store has of it. Out: a plan.
//! Invariant: what neither the log nor the document tells is left as it is, never guessed.

use crate::pure::batch::Stored;
use crate::pure::document::Document;
use crate::pure::entity::Entity;
use crate::pure::place::{NextOffset, Offset, PartitionId};

/// What is done with it. `counted` is what the digest counts for it: the first 16 bytes of its hash, 0 where unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Fold its events, which begin at `first` or later.
    Fold {
        /// Where to read from.
        first: NextOffset,
        /// See above.
        counted: u128,
    },
    /// It had no event at the target.
    Remove {
        /// See above.
        counted: u128,
    },
    /// Its beginning is gone from the log: a snapshot may have it.
    Leave {
        /// See above.
        counted: u128,
    },
}

/// Plans for a log that begins at `log_first`.
pub(super) fn plan(
    partition: PartitionId,
    entity: &Entity,
    stored: &Stored,
    log_first: NextOffset,
    target: NextOffset,
) -> Plan {
    let Stored::Document { json, state } = stored else {
        return unreadable(log_first);
    };
    let Ok((document, counted)) = Document::parse(entity, partition, json, state.as_deref()) else {
        return unreadable(log_first);
    };
    match document.first_offset() {
        Some(first) if log_first.is_past(first) => Plan::Leave { counted },
        Some(first) if target.is_past(first) => Plan::Fold {
            first: at(first),
            counted,
        },
        _ => Plan::Remove { counted },
    }
}

/// Nobody knows where it begins: a whole log has it all, one that retention has cut may not.
fn unreadable(log_first: NextOffset) -> Plan {
    if log_first == NextOffset::START {
        Plan::Fold {
            first: log_first,
            counted: 0,
        }
    } else {
        Plan::Leave { counted: 0 }
    }
}

fn at(offset: Offset) -> NextOffset {
    NextOffset(offset.0)
}

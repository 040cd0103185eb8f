//! What a restore comes to, and whether one is under way. In: the store's checkpoint. Out: an answer, or why it cannot go on.

use super::super::site::{RepairError, Site};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::entity::Entity;
use crate::pure::intent::Intent;
use crate::pure::place::NextOffset;
use crate::store::StoreError;

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The redo goes on here.
    pub next: NextOffset,
    /// Documents.
    pub documents: u64,
    /// Records applied to bring all documents to one place.
    pub records: u64,
    /// Entities whose documents are as of an earlier place, or missing: parked.
    pub aside: Vec<Entity>,
    /// Where the documents stood that it took the place of; `None`: there were none.
    pub over: Option<NextOffset>,
    /// Documents that were lost or spoilt meanwhile, and why: each time all began again.
    pub disturbed: Vec<(Entity, &'static str)>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restoring {
    /// It is restored.
    Done(Restored),
    /// No snapshot that this log vouches for is further on than this, which is where the store stands; nothing was written.
    Nothing(NextOffset),
}

impl Restoring {
    /// What was restored, if anything.
    pub fn done(self) -> Option<Restored> {
        match self {
            Self::Done(restored) => Some(restored),
            Self::Nothing(_) => None,
        }
    }
}

/// Whether a restore is under way.
///
/// # Errors
/// The store does not answer.
pub async fn is_begun(site: &Site) -> Result<bool, RepairError> {
    let found = site.store.checkpoint(site.partition).await?;
    let checkpoint = found.map(|found| site.ours(found)).transpose()?;
    Ok(checkpoint.as_ref().is_some_and(is_restore))
}

pub(super) fn is_restore(checkpoint: &Checkpoint) -> bool {
    matches!(Intent::parse(&checkpoint.intent), Ok(Some(Intent::Restore { .. })))
}

/// No snapshot: that is no harm, unless a restore was begun.
pub(super) fn nothing(site: &Site, there: Option<&Checkpoint>) -> Result<Restoring, RepairError> {
    if there.is_some_and(is_restore) {
        return Err(unfinished(site).into());
    }
    Ok(Restoring::Nothing(there.map(|there| there.next).unwrap_or_default()))
}

pub(super) fn unfinished(site: &Site) -> StoreError {
    StoreError::Corrupt {
        partition: site.partition,
        what: "the checkpoint's intent".to_owned(),
        detail: "a restore was begun from a snapshot that is not at hand; `khala restore` from the same source \
                 finishes it"
            .to_owned(),
    }
}

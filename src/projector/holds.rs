//! Holds that neither log nor store shows: told in the store, so that who asks elsewhere is told too.
//! In: the board. Out: a note for each such partition. Invariant: a note counts under its owner's lease only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::board::PartitionStatus;
use crate::pure::partition::State;
use crate::pure::place::PartitionId;
use crate::pure::recovery::Called;
use crate::store::{Note, Owner, Store, StoreError};

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    owner: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in words.
    pub detail: String,
}

impl Hold {
    fn of(status: &PartitionStatus) -> Option<Self> {
        match &status.state {
            State::Held { called, detail } if *called == Called::DeadLetterShare => Some(Self {
                owner: status.owner.clone(),
                reason: called.name().to_owned(),
                detail: detail.clone(),
            }),
            _ => None,
        }
    }

    /// The one that the partition's owner has told.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn told(store: &dyn Store, partition: PartitionId, owner: &Owner) -> Result<Option<Self>, StoreError> {
        let text = store.note(Note::Held(partition)).await?;
        let hold = text.and_then(|text| serde_json::from_str::<Self>(&text).ok());
        Ok(hold.filter(|hold| hold.owner == owner.0))
    }
}

/// What was told, by partition.
#[derive(Default)]
pub(super) struct Holds(BTreeMap<PartitionId, Hold>);

impl Holds {
    /// Tells what is new, and takes back what is over.
    pub(super) async fn tell(&mut self, store: &dyn Store, statuses: &[PartitionStatus]) -> Result<(), StoreError> {
        // What left the board has another owner by now, or none: its note counts no more.
        self.0
            .retain(|partition, _| statuses.iter().any(|status| status.partition == *partition));
        for status in statuses {
            let (partition, hold) = (status.partition, Hold::of(status));
            if self.0.get(&partition) == hold.as_ref() {
                continue;
            }
            let text = hold.as_ref().and_then(|hold| serde_json::to_string(hold).ok());
            store.set_note(Note::Held(partition), text.as_deref()).await?;
            match hold {
                Some(hold) => _ = self.0.insert(partition, hold),
                None => _ = self.0.remove(&partition),
            }
        }
        Ok(())
    }
}

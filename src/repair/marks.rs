//! Marks that no longer say what the documents were there: of a time in which entities were parked, their counts lack what
//! waited; of a time before the log forgot what has to be redone, they have what is lost.
//! In: the history, newest first, and where the waiting or the loss began. Out: which marks those are.
//! Invariant: such marks go before the first of the entities is put right, or reading goes on, not after.

use crate::pure::checkpoint::Mark;
use crate::pure::intent::Target;
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::store::{Store, StoreError};

/// Marks looked at.
const MARKS_MAX: usize = 20_000;
/// Marks taken out by one call.
const CHUNK: usize = 1_000;

/// The newest marks, down to one that lies before the first of these offsets: a rewind leaves a mark where it goes to, so
/// what is older was made before anything was parked. What an audit has verified tells nothing: it comes late.
fn since(marks: Vec<Mark>, parked: impl Iterator<Item = Offset>) -> Vec<Mark> {
    let Some(first) = parked.min() else {
        return Vec::new();
    };
    let made = marks.into_iter().filter(|mark| !mark.verified);
    made.take_while(|mark| mark.checkpoint.next > NextOffset(first.0))
        .collect()
}

/// Whether the mark of this place was made since the first of these offsets was parked. One that is gone was: whoever began
/// to put the entities right has taken it out.
///
/// # Errors
/// The store does not answer.
pub(super) async fn is_made_since(
    store: &dyn Store,
    partition: PartitionId,
    (place, is_it): (NextOffset, impl Fn(&Mark) -> bool),
    parked: &[Offset],
) -> Result<bool, StoreError> {
    let marks = store.history(partition, MARKS_MAX).await?;
    if !marks.iter().any(&is_it) {
        return Ok(parked.iter().any(|at| place.is_past(*at)));
    }
    Ok(since(marks, parked.iter().copied()).iter().any(is_it))
}

/// Whether a mark that was chosen is still one of the store's: one of a store that went back since may count as parked what
/// this one has put right.
///
/// # Errors
/// The store does not answer.
pub(super) async fn is_known(store: &dyn Store, partition: PartitionId, target: &Target) -> Result<bool, StoreError> {
    if target.last_record.is_none() {
        return Ok(true); // the log's first offset, and no mark
    }
    let marks = store.history(partition, MARKS_MAX).await?;
    Ok(marks.iter().any(|mark| Target::of(&mark.checkpoint) == *target))
}

/// Takes out the marks that were made since the first of these offsets was parked.
///
/// # Errors
/// The store does not answer.
pub(super) async fn forget_since(
    store: &dyn Store,
    partition: PartitionId,
    parked: impl Iterator<Item = Offset>,
) -> Result<(), StoreError> {
    let made = since(store.history(partition, MARKS_MAX).await?, parked);
    forget(store, partition, made).await
}

/// Takes out those past a place from which the log has forgotten what has to be redone.
///
/// # Errors
/// The store does not answer.
pub async fn forget_past(store: &dyn Store, partition: PartitionId, place: NextOffset) -> Result<(), StoreError> {
    let mut marks = store.history(partition, MARKS_MAX).await?;
    marks.retain(|mark| mark.checkpoint.next > place);
    forget(store, partition, marks).await
}

async fn forget(store: &dyn Store, partition: PartitionId, marks: Vec<Mark>) -> Result<(), StoreError> {
    let ids: Vec<String> = marks.into_iter().map(|mark| mark.id).collect();
    for chunk in ids.chunks(CHUNK) {
        store.forget_marks(partition, chunk).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::checkpoint::Checkpoint;

    #[test]
    fn marks_of_the_time_since_it_was_parked_are_those_above_it_after_the_last_one_below() {
        let mark = |(next, verified): (u64, bool)| Mark {
            id: next.to_string(),
            checkpoint: Checkpoint::first(NextOffset(next), "t", 1),
            verified,
        };
        // Newest first: 30 was made by an earlier pass, which went back to 5; an audit of 7 ended late.
        let history = [(20, false), (7, true), (12, false), (5, false), (30, false)];
        let made = |parked: &[u64]| {
            let marks = history.map(mark).to_vec();
            let made = since(marks, parked.iter().map(|at| Offset(*at)));
            made.into_iter().map(|mark| mark.checkpoint.next.0).collect::<Vec<_>>()
        };
        assert_eq!(made(&[8, 15]), [20, 12]);
        assert_eq!(made(&[12]), [20], "a mark at the place itself lies before what waits");
        assert_eq!(made(&[]), [0; 0]);
    }
}

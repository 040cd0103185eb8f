//! How a server's snapshots stand, for its status.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::pure::place::PartitionId;
use crate::pure::time::Time;

/// How the snapshots of the partitions that a server projects stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// Partitions that the server projects.
    pub partitions: usize,
    /// Of them without a snapshot of all their documents since the server projects them.
    pub missing: usize,
    /// When the snapshot of the others that is the oldest had all their documents last.
    pub oldest_at: Option<String>,
}

/// Where snapshots say how they stand.
#[derive(Debug, Default)]
pub struct SnapshotBoard(Mutex<BTreeMap<PartitionId, i64>>);

impl SnapshotBoard {
    /// The snapshot of a partition has all its documents now.
    pub fn is_whole(&self, partition: PartitionId, now_ms: i64) {
        self.lock().insert(partition, now_ms);
    }

    /// How those of these partitions stand; what others project is forgotten.
    pub fn stands(&self, partitions: &[PartitionId]) -> SnapshotStatus {
        let mut whole = self.lock();
        whole.retain(|partition, _| partitions.contains(partition));
        SnapshotStatus {
            partitions: partitions.len(),
            missing: partitions.len() - whole.len(),
            oldest_at: whole
                .values()
                .min()
                .and_then(|&at| Time::from_ms(at))
                .map(|time| time.to_string()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PartitionId, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_counts_and_a_partition_that_left_comes_back_with_nothing() {
        let board = SnapshotBoard::default();
        let [one, two] = [PartitionId(1), PartitionId(2)];
        board.is_whole(one, 5_000);
        board.is_whole(one, 7_000);
        board.is_whole(two, 6_000);
        let at = |text: &str| Some(text.to_owned());
        let stands = |partitions: &[PartitionId]| {
            let now = board.stands(partitions);
            (now.partitions, now.missing, now.oldest_at)
        };
        assert_eq!(stands(&[one, two]), (2, 0, at("1970-01-01T00:00:06.000Z")));
        assert_eq!(stands(&[one]), (1, 0, at("1970-01-01T00:00:07.000Z")));
        assert_eq!(stands(&[one, two]), (2, 1, at("1970-01-01T00:00:07.000Z")));
        assert_eq!(stands(&[two]), (1, 1, None));
    }
}

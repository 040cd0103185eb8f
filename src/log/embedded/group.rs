//! Membership in the one consumer group of a process that owns its log: one member has all partitions,
//! another one waits until it leaves. The directory's lock keeps other processes out.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::log::{Assignment, LogError, Membership};
use crate::pure::place::PartitionId;

/// Who is in the group: whether somebody has the partitions.
#[derive(Clone)]
pub(super) struct Group {
    taken: Arc<watch::Sender<bool>>,
    partitions: u32,
}

impl Group {
    pub(super) fn new(partitions: u32) -> Self {
        Self {
            taken: Arc::new(watch::Sender::new(false)),
            partitions,
        }
    }

    pub(super) fn join(&self) -> Member {
        Member {
            group: self.clone(),
            has_partitions: false,
        }
    }

    /// Takes all partitions, if nobody has them.
    fn take(&self) -> bool {
        self.taken.send_if_modified(|taken| !std::mem::replace(taken, true))
    }
}

/// See [`Membership`]. Leaves when dropped.
pub(super) struct Member {
    group: Group,
    has_partitions: bool,
}

#[async_trait]
impl Membership for Member {
    async fn next(&mut self) -> Result<Assignment, LogError> {
        if self.has_partitions {
            std::future::pending::<()>().await;
        }
        let mut taken = self.group.taken.subscribe();
        while !self.group.take() {
            // The sender lives in `self`, so this ends only by a change.
            _ = taken.wait_for(|taken| !*taken).await;
        }
        self.has_partitions = true;
        Ok(Assignment::Assigned(
            (0..self.group.partitions).map(PartitionId).collect(),
        ))
    }

    async fn leave(self: Box<Self>) {}
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.has_partitions {
            self.group.taken.send_replace(false);
        }
    }
}

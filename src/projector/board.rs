//! What people are shown of each partition: written by the drivers, read by HTTP and commands.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::log::Bounds;
use crate::pure::batch::Batch;
use crate::pure::partition::{State, View};
use crate::pure::place::{NextOffset, PartitionId};

/// One partition as its projector sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Which partition.
    pub partition: PartitionId,
    /// The store's checkpoint; `None` while it is not known.
    pub offset: Option<NextOffset>,
    /// First offset and end of the log; `None` while they are not known.
    pub bounds: Option<Bounds>,
    /// Log timestamp of the oldest record in hand that is not visible yet; milliseconds.
    pub oldest_ms: Option<i64>,
    /// In one word, with its reason.
    pub state: State,
    /// Entities whose events wait for a repair.
    pub parked: usize,
    /// The owner's token.
    pub owner: String,
    /// Events seen after which an entity's life has ended.
    pub terminals: u64,
    /// How often its documents may have gone back, or come back: recoveries other than a normal start.
    pub went_back: u64,
}

impl PartitionStatus {
    /// `running`, `held`, `retrying`, or `recovering`.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Recovering => "recovering",
            State::Running => "running",
            State::Retrying { .. } => "retrying",
            State::Held { .. } => "held",
        }
    }

    /// Why it is held, in one word.
    pub fn reason(&self) -> Option<&'static str> {
        match &self.state {
            State::Held { called, .. } => Some(called.name()),
            _ => None,
        }
    }

    /// Why it is held or retrying, in words.
    pub fn detail(&self) -> Option<&str> {
        match &self.state {
            State::Held { detail, .. } | State::Retrying { detail } => Some(detail),
            State::Recovering | State::Running => None,
        }
    }
}

/// What is told of each committed batch. It must not block: the partition waits for it.
pub type Listener = Box<dyn Fn(PartitionId, &Batch) + Send + Sync>;

/// All partitions that this process owns or tries to own.
#[derive(Default)]
pub struct StatusBoard {
    partitions: Mutex<BTreeMap<PartitionId, PartitionStatus>>,
    member: Mutex<bool>,
    listener: OnceLock<Listener>,
}

impl StatusBoard {
    /// All partitions, by number.
    pub fn snapshot(&self) -> Vec<PartitionStatus> {
        self.lock().values().cloned().collect()
    }

    /// Tells `listener` of every batch that is committed from now on. One listener a process; a second is ignored.
    pub fn listen(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    /// A batch is in the store.
    pub(super) fn committed(&self, partition: PartitionId, batch: &Batch) {
        if let Some(listener) = self.listener.get() {
            listener(partition, batch);
        }
    }

    /// Whether the group has answered at least once: before, nothing here means nothing.
    pub fn has_joined(&self) -> bool {
        *self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn joined(&self) {
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    pub(super) fn show(&self, partition: PartitionId, view: View, owner: &str) {
        let mut partitions = self.lock();
        let status = partitions.entry(partition).or_insert_with(|| PartitionStatus {
            partition,
            offset: None,
            bounds: None,
            oldest_ms: None,
            state: State::Recovering,
            parked: 0,
            owner: owner.to_owned(),
            terminals: 0,
            went_back: 0,
        });
        status.offset = view.next.or(status.offset);
        status.oldest_ms = view.oldest_ms;
        status.state = view.state;
        status.parked = view.parked;
    }

    /// Takes note of the log's bounds; returns the partition as it stands then.
    pub(super) fn saw_bounds(&self, partition: PartitionId, bounds: Bounds) -> Option<PartitionStatus> {
        let mut partitions = self.lock();
        let status = partitions.get_mut(&partition)?;
        status.bounds = Some(bounds);
        Some(status.clone())
    }

    pub(super) fn ended(&self, partition: PartitionId, terminals: u64) {
        if let Some(status) = self.lock().get_mut(&partition) {
            status.terminals += terminals;
        }
    }

    pub(super) fn went_back(&self, partition: PartitionId) {
        if let Some(status) = self.lock().get_mut(&partition) {
            status.went_back += 1;
        }
    }

    /// The log's end as last seen.
    pub(super) fn end(&self, partition: PartitionId) -> Option<NextOffset> {
        Some(self.lock().get(&partition)?.bounds?.end)
    }

    pub(super) fn forget(&self, partition: PartitionId) {
        self.lock().remove(&partition);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PartitionId, PartitionStatus>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

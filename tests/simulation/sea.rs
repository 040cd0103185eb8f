//! The sea: a log and a store in memory, and everything that goes wrong with calls to them.
//! A call yields before it is done, may be done and not answered, answered without being done, or done long after its
//! sender is gone.

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use khala::log::LogError;
use khala::pure::place::PartitionId;
use khala::store::StoreError;

use super::part::Part;
use super::plan::{Call, Calls};
use super::version::{Mirrored, Version};
use super::weak::Weak;
use crate::reference::Rec;
use crate::reference::messy::dice::Dice;

pub const PARTITION: PartitionId = PartitionId(0);
/// Instants of the store that it may be rolled back to.
const INSTANTS: usize = 12;
/// What a slow call takes at most, in polls.
const SLOW_POLLS: u64 = 12;

type LateCall = Box<dyn FnOnce(&mut Part) + Send>;

pub struct State {
    /// Who goes on, and how much a fetch gives.
    pub schedule: Dice,
    /// What becomes of a call.
    luck: Dice,
    pub calls: Calls,
    pub weak: Weak,
    pub step: u64,
    /// Counts what may have changed the store.
    pub changes: u64,
    pub part: Part,
    pub instants: VecDeque<Part>,
    late: Vec<LateCall>,
    /// Until then the store takes no writes.
    pub refuses_until: u64,
    /// All that was ever appended and not cut, also what retention took.
    pub records: Vec<Rec>,
    /// The log's first offset.
    pub first: u64,
    pub topic_id: String,
    /// Counts cuts: a reader of before is told.
    pub cuts: u64,
    pub group: Option<u64>,
    /// Offsets and values of dead letters that are in their topic.
    pub letters: BTreeSet<(u64, Option<Vec<u8>>)>,
    /// The documents' topic.
    pub documents: Vec<Rec>,
}

/// Shared by log, store and world; as a process of some version sees it.
#[derive(Clone)]
pub struct Sea {
    state: Arc<Mutex<State>>,
    pub version: Version,
}

impl Sea {
    pub fn new(seed: u64, calls: Calls, weak: Weak) -> Self {
        let state = State {
            schedule: Dice::new(seed ^ 1 << 40),
            luck: Dice::new(seed ^ 2 << 40),
            calls,
            weak,
            step: 0,
            changes: 0,
            part: Part::default(),
            instants: VecDeque::new(),
            late: Vec::new(),
            refuses_until: 0,
            records: Vec::new(),
            first: 0,
            topic_id: "id".to_owned(),
            cuts: 0,
            group: None,
            letters: BTreeSet::new(),
            documents: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            version: Version::One,
        }
    }

    /// As a process of that version sees it.
    pub fn of(&self, version: Version) -> Self {
        let state = Arc::clone(&self.state);
        Self { state, version }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn pause(&self) {
        yield_once().await;
        let polls = self.lock().slowness();
        for _ in 0..polls {
            yield_once().await;
        }
    }

    /// A call to the log.
    pub async fn ask(&self) -> Result<(), LogError> {
        self.pause().await;
        if self.lock().hit(Call::LogAway) {
            return Err(log_away());
        }
        Ok(())
    }

    /// A call to the store.
    pub async fn call<T: Mirrored>(
        &self,
        work: impl FnOnce(&mut Part, Weak) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.pause().await;
        let mut state = self.lock();
        if state.hit(Call::NotSent) {
            return Err(away("not sent"));
        }
        let weak = state.weak;
        let done = self.version.seen(work(&mut state.part, weak));
        if state.hit(Call::NotAnswered) {
            return Err(away("not answered"));
        }
        done
    }

    /// A call that changes the store, and may come late.
    pub async fn change<T: Mirrored>(
        &self,
        work: impl Fn(&mut Part, Weak) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.pause().await;
        let mut state = self.lock();
        if state.step < state.refuses_until {
            return Err(away("OOM command not allowed"));
        }
        if state.hit(Call::NotSent) {
            return Err(away("not sent"));
        }
        let weak = state.weak;
        if state.hit(Call::Late) {
            state.late.push(Box::new(move |part| _ = work(part, weak)));
            return Err(away("late"));
        }
        state.changes += 1;
        if state.changes.is_multiple_of(3) {
            let instant = state.part.clone();
            state.instants.push_back(instant);
            if state.instants.len() > INSTANTS {
                state.instants.pop_front();
            }
        }
        let done = self.version.seen(work(&mut state.part, weak));
        if state.hit(Call::Late) {
            state.late.push(Box::new(move |part| _ = work(part, weak))); // and once more
        }
        if state.hit(Call::NotAnswered) {
            return Err(away("not answered"));
        }
        done
    }
}

impl State {
    /// Each call rolls the same numbers whatever the rates are: so a rate can be set to 0 and the rest stays.
    pub fn hit(&mut self, call: Call) -> bool {
        let (roll, one_in) = (self.luck.next(), self.calls.of(call));
        one_in > 0 && roll.is_multiple_of(one_in)
    }

    /// For rules that are broken now and then.
    pub fn half(&mut self) -> bool {
        self.luck.one_in(2)
    }

    fn slowness(&mut self) -> u64 {
        let polls = 1 + self.luck.below(SLOW_POLLS);
        if self.hit(Call::Slow) { polls } else { 0 }
    }

    /// One of the late calls arrives; `at` says which.
    pub fn arrive(&mut self, at: u64) -> bool {
        if self.late.is_empty() {
            return false;
        }
        let at = (at % self.late.len() as u64) as usize;
        self.changes += 1;
        self.late.swap_remove(at)(&mut self.part);
        true
    }

    /// Late calls to a namespace that nobody uses any more.
    pub fn forget_late_calls(&mut self) {
        self.late.clear();
    }

    /// Of the documents' topic.
    pub fn end_of_documents(&self) -> u64 {
        self.documents.last().map_or(0, |record| record.offset + 1)
    }

    pub fn end(&self) -> u64 {
        self.records.last().map_or(0, |record| record.offset + 1)
    }

    /// What the log still has.
    pub fn readable(&self) -> &[Rec] {
        let at = self.records.partition_point(|record| record.offset < self.first);
        &self.records[at..]
    }
}

pub async fn yield_once() {
    let mut yielded = false;
    poll_fn(|_| {
        if std::mem::replace(&mut yielded, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

fn away(detail: &str) -> StoreError {
    StoreError::Unreachable {
        address: "the sea".to_owned(),
        detail: detail.to_owned(),
    }
}

pub fn log_away() -> LogError {
    LogError::Unreachable {
        address: "the sea".to_owned(),
        detail: "no answer, or a full queue".to_owned(),
    }
}

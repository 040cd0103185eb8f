//! The sea: a log and a store in memory, and everything that goes wrong with them, from one seed.
//! A call to either yields once before it is done, may be done and not answered, answered without being done, or done
//! long after its sender is gone.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use khala::pure::place::PartitionId;
use khala::store::StoreError;

use super::part::Part;
use crate::reference::Rec;
use crate::reference::messy::dice::Dice;

pub const PARTITION: PartitionId = PartitionId(0);
/// Instants of the store that it may be rolled back to.
const INSTANTS: usize = 12;

/// A protocol's rule that is switched off on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weak {
    /// None is.
    Nothing,
    /// A commit is not compared with the checkpoint, nor is its owner.
    NoCompare,
    /// Loads count under any checkpoint.
    LoadUnchecked,
    /// An entity is healed whatever became of it since it was looked at.
    HealUnseen,
    /// A missing document is taken for a new one.
    NoIndex,
    /// The last record is always the one that is named.
    NoLastRecord,
    /// A commit is no atomic step: now and then the checkpoint moves, and the documents do not.
    Torn,
}

/// How often what goes wrong: one in so many; 0: never.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub not_sent: u64,
    pub not_answered: u64,
    pub late: u64,
    pub crash: u64,
    pub rebalance: u64,
    pub rollback: u64,
    pub flush: u64,
    pub lose: u64,
    pub spoil: u64,
    pub cut: u64,
    pub replay: u64,
    pub audit: u64,
    pub group_lies: u64,
}

impl Rates {
    pub const CALM: Self = Self {
        not_sent: 0,
        not_answered: 0,
        late: 0,
        crash: 0,
        rebalance: 0,
        rollback: 0,
        flush: 0,
        lose: 0,
        spoil: 0,
        cut: 0,
        replay: 0,
        audit: 0,
        group_lies: 0,
    };

    pub fn drawn(dice: &mut Dice) -> Self {
        let mut rate = |often: u64| {
            if dice.one_in(3) {
                0
            } else {
                often + dice.below(6 * often)
            }
        };
        Self {
            not_sent: rate(8),
            not_answered: rate(8),
            late: rate(12),
            crash: rate(60),
            rebalance: rate(50),
            rollback: rate(80),
            flush: rate(200),
            lose: rate(150),
            spoil: rate(150),
            cut: rate(150),
            replay: rate(100),
            audit: rate(60),
            group_lies: rate(60),
        }
    }
}

type LateCall = Box<dyn FnOnce(&mut Part) + Send>;

pub struct State {
    pub dice: Dice,
    pub rates: Rates,
    pub weak: Weak,
    pub part: Part,
    pub instants: VecDeque<Part>,
    late: Vec<LateCall>,
    pub records: Vec<Rec>,
    /// Counts cuts: a reader of before is told.
    pub cuts: u64,
    pub group: Option<u64>,
    pub dead_letters: u64,
    /// Keys of what was appended to the documents topic.
    pub appended: Vec<String>,
}

/// Shared by log, store and world.
#[derive(Clone)]
pub struct Sea(Arc<Mutex<State>>);

impl Sea {
    pub fn new(dice: Dice, rates: Rates, weak: Weak) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice,
            rates,
            weak,
            part: Part::default(),
            instants: VecDeque::new(),
            late: Vec::new(),
            records: Vec::new(),
            cuts: 0,
            group: None,
            dead_letters: 0,
            appended: Vec::new(),
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics holding it")
    }

    /// A call to the store.
    pub async fn call<T>(&self, work: impl FnOnce(&mut Part, Weak) -> Result<T, StoreError>) -> Result<T, StoreError> {
        yield_once().await;
        let mut state = self.lock();
        let rates = state.rates;
        if state.hit(rates.not_sent) {
            return Err(away("not sent"));
        }
        let weak = state.weak;
        let done = work(&mut state.part, weak);
        if state.hit(rates.not_answered) {
            return Err(away("not answered"));
        }
        done
    }

    /// A call that changes the store, and may come late.
    pub async fn change<T>(
        &self,
        work: impl Fn(&mut Part, Weak) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        yield_once().await;
        let mut state = self.lock();
        let (rates, weak) = (state.rates, state.weak);
        if state.hit(rates.not_sent) {
            return Err(away("not sent"));
        }
        if state.hit(rates.late) {
            state.late.push(Box::new(move |part| _ = work(part, weak)));
            return Err(away("late"));
        }
        let instant = state.part.clone();
        state.instants.push_back(instant);
        if state.instants.len() > INSTANTS {
            state.instants.pop_front();
        }
        let done = work(&mut state.part, weak);
        if state.hit(rates.late * 2) {
            state.late.push(Box::new(move |part| _ = work(part, weak))); // and once more
        }
        if state.hit(rates.not_answered) {
            return Err(away("not answered"));
        }
        done
    }
}

impl State {
    pub fn hit(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.dice.one_in(one_in)
    }

    /// One of the late calls arrives.
    pub fn arrive(&mut self) -> bool {
        if self.late.is_empty() {
            return false;
        }
        let at = self.dice.below(self.late.len() as u64) as usize;
        self.late.swap_remove(at)(&mut self.part);
        true
    }

    pub fn end(&self) -> u64 {
        self.records.last().map_or(0, |record| record.offset + 1)
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

//! Turns of partitions that catch up: so many large batches are in hand at once, over all partitions of a process.
//! In: a partition that is behind. Out: its turn, in the order in which they asked.
//! Invariant: who does not get on gives its turn back, so nobody waits for a partition that is stuck.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// Large batches in hand at once, for each core: one is folded, others are on their way to the store and back.
const EACH_CORE: usize = 3;

/// What all partitions of a process share.
pub(super) fn shared() -> Arc<Semaphore> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new(EACH_CORE * cores))
}

/// One partition's.
pub(super) struct Turns {
    asking: PollSemaphore,
    /// For the next batch.
    next: Option<OwnedSemaphorePermit>,
    /// Of batches in hand, oldest first.
    taken: VecDeque<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new(shared: Arc<Semaphore>) -> Self {
        Self {
            asking: PollSemaphore::new(shared),
            next: None,
            taken: VecDeque::new(),
        }
    }

    /// Waits for a turn. Dropping the future keeps the place among those who wait.
    pub(super) async fn wait(&mut self) {
        if self.next.is_none() {
            self.next = poll_fn(|context| self.asking.poll_acquire(context)).await;
        }
    }

    /// The batch was read: the turn is its own.
    pub(super) fn begin(&mut self) {
        self.taken.extend(self.next.take());
    }

    /// Asks no more.
    pub(super) fn leave(&mut self) {
        self.next = None;
        self.asking = self.asking.clone(); // without its place
    }

    /// So many batches are in hand now.
    pub(super) fn keep(&mut self, batches: usize) {
        while self.taken.len() > batches {
            self.taken.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    /// Whether it has its turn, at one look.
    fn gets(turns: &mut Turns) -> bool {
        let waiting = pin!(turns.wait());
        waiting.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Three who share one turn; the first of them has it.
    fn three_after_one() -> [Turns; 3] {
        let shared = Arc::new(Semaphore::new(1));
        let mut three = [(); 3].map(|()| Turns::new(Arc::clone(&shared)));
        assert!(gets(&mut three[0]));
        three[0].begin();
        three
    }

    #[test]
    fn a_turn_lasts_as_long_as_its_batch_and_who_asked_first_is_next() {
        let [mut one, mut two, mut three] = three_after_one();
        assert!(
            !gets(&mut two) && !gets(&mut three) && !gets(&mut one),
            "one is in hand"
        );
        one.keep(1);
        assert!(!gets(&mut two), "it still is");
        one.keep(0);
        assert!(
            !gets(&mut three) && gets(&mut two),
            "two asked before three, and its look was given up"
        );
        two.begin();
        two.keep(0);
        assert!(gets(&mut three));
    }

    #[test]
    fn who_leaves_stands_in_nobody_s_way() {
        let [mut one, mut two, mut three] = three_after_one();
        assert!(!gets(&mut two) && !gets(&mut three));
        two.leave();
        one.keep(0);
        assert!(gets(&mut three), "two asked before, and left");
        three.leave();
        assert!(gets(&mut one), "three had its turn, and left without a batch");
    }
}

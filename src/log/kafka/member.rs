//! Membership in the consumer group: a client that is polled by its own thread and never fetches, so that the group
//! lives however slow a partition is. Out: assignments as messages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::consumer::BaseConsumer;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::client::MemberContext;
use crate::log::{Assignment, LogError, Membership};

const POLL: Duration = Duration::from_millis(100);
/// How long leaving may take.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
/// Changes that may wait: more than a rebalance has.
pub(super) const CHANGES_QUEUE: usize = 256;

/// The member's client, while there is one: the group takes offsets from its members only.
pub(super) type Current = Arc<Mutex<Option<Arc<BaseConsumer<MemberContext>>>>>;

pub(super) struct KafkaMembership {
    changes: mpsc::Receiver<Assignment>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    current: Current,
}

impl KafkaMembership {
    pub(super) fn start(
        consumer: BaseConsumer<MemberContext>,
        changes: mpsc::Receiver<Assignment>,
        current: Current,
    ) -> std::io::Result<Self> {
        let consumer = Arc::new(consumer);
        let stop = Arc::new(AtomicBool::new(false));
        *current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&consumer));
        let (told, forget) = (Arc::clone(&stop), Arc::clone(&current));
        let thread = std::thread::Builder::new()
            .name("khala-group".to_owned())
            .spawn(move || {
                poll_until(&consumer, &told);
                forget.lock().unwrap_or_else(PoisonError::into_inner).take();
                leave(&consumer);
            })?;
        Ok(Self {
            changes,
            stop,
            thread: Some(thread),
            current,
        })
    }
}

fn poll_until(consumer: &BaseConsumer<MemberContext>, stop: &AtomicBool) {
    let mut failures = 0_u32;
    while !stop.load(Ordering::Acquire) {
        // Records are never asked for; one that slips through before the pause is dropped.
        if let Some(Err(error)) = consumer.poll(POLL) {
            failures += 1;
            if failures.is_power_of_two() {
                debug!(%error, failures, "the group's member was told of an error");
            }
        }
    }
}

/// Gives all partitions up and tells the group, so that others take over at once.
fn leave(consumer: &BaseConsumer<MemberContext>) {
    if let Err(error) = consumer.close_queue() {
        debug!(%error, "the group was not told; the session's time-out tells it");
        return;
    }
    let until = Instant::now() + LEAVE_PATIENCE;
    while !consumer.closed() && Instant::now() < until {
        let _ = consumer.poll(POLL);
    }
    if !consumer.closed() {
        warn!("the group did not answer; the session's time-out tells it that we left");
    }
}

#[async_trait]
impl Membership for KafkaMembership {
    async fn next(&mut self) -> Result<Assignment, LogError> {
        match self.changes.recv().await {
            Some(change) => Ok(change),
            None => std::future::pending().await, // the thread ended: nothing changes any more
        }
    }

    async fn leave(mut self: Box<Self>) {
        self.stop.store(true, Ordering::Release);
        // Nobody listens any more: the callback must not wait for room, nor for a handover that nobody will take.
        self.changes.close();
        while self.changes.try_recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.changes.close();
        self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

//! Drives one partition: hands what happened to the machine, does what it says, tells what came of it.
//! In: control messages, records, outcomes, time. Invariant: all decisions are the machine's; an outcome that
//! belongs to a state that is no more is dropped.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, info, warn};

use super::backoff::pause;
use super::board::StatusBoard;
use super::effects::Doer;
use super::reading::{Limits, Reading};
use super::works::{self, Works};
use crate::log::GroupOffset;
use crate::pure::batch::Batch;
use crate::pure::checkpoint::Checkpoint;
use crate::pure::partition::{
    Action, EXPIRED, Effect, Failure, Input, Outcome, Partition, Remembered, Rewound, Visible,
};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::recovery::{Called, Step};
use crate::telemetry::Metrics;
use crate::telemetry::messaging::Messaging;

/// How often a partition looks after its lease.
const TICK: Duration = Duration::from_secs(1);
/// How many ticks a partition at rest lets pass before it tells the group again: one that took it over may have found
/// an older offset there, and one that lost it may have committed late.
const RETELL_TICKS: u32 = 20;

/// What the assignment tells a driver. That nobody can tell it anything any more tells it to finish what was begun,
/// and to release.
#[derive(Debug)]
pub(super) enum Control {
    /// Something about the log changed: compare before going on.
    Compare(String),
    /// The cache's bound from now on, in bytes.
    CacheBytes(usize),
}

/// What all drivers of a process share.
#[derive(Clone)]
pub(super) struct Shared {
    pub metrics: Arc<Metrics>,
    pub spans: Messaging,
    pub board: Arc<StatusBoard>,
    pub group: mpsc::Sender<GroupOffset>,
    pub limits: Limits,
    /// Of partitions that catch up by batches as large as the limits allow; `None`: batches are what is there.
    pub turns: Option<Arc<Semaphore>>,
    pub backoff_max: Duration,
}

/// One partition's driver.
pub(super) struct Driver {
    doer: Doer,
    shared: Shared,
    machine: Partition,
    effects: JoinSet<(u64, Outcome)>,
    epoch: u64,
    reading: Reading,
    cache_bytes: usize,
    /// What the group was told last, and how many ticks ago.
    told: Option<(NextOffset, u32)>,
    works: Works,
    stopping: bool,
}

enum Flow {
    On,
    Released,
}

impl Driver {
    pub(super) fn new(doer: Doer, shared: Shared, machine: Partition, cache_bytes: usize) -> Self {
        Self {
            doer,
            machine,
            effects: JoinSet::new(),
            epoch: 0,
            reading: Reading::new(shared.turns.clone()),
            cache_bytes,
            told: None,
            works: Works::default(),
            stopping: false,
            shared,
        }
    }

    /// Runs until told to stop; returns what outlives the assignment.
    pub(super) async fn run(mut self, mut control: mpsc::Receiver<Control>) -> (PartitionId, Remembered) {
        let partition = self.doer.partition;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut input = Input::Assigned;
        loop {
            if let Flow::Released = self.step(input) {
                break;
            }
            input = loop {
                if let Some(input) = self.next_input(&mut control, &mut tick).await {
                    break input;
                }
            };
        }
        if let Err(error) = self.doer.store.release(partition, &self.doer.owner).await {
            debug!(%partition, %error, "the lease was not given back; it ends by itself");
        }
        self.shared.board.forget(partition);
        self.shared.metrics.forget_partition(partition);
        (partition, self.machine.remembered())
    }

    async fn next_input(
        &mut self,
        control: &mut mpsc::Receiver<Control>,
        tick: &mut tokio::time::Interval,
    ) -> Option<Input> {
        let wants = self.machine.wants_records() && self.reading.has_place();
        tokio::select! {
            biased;
            Some(done) = self.effects.join_next() => match done {
                Ok((epoch, outcome)) if epoch == self.epoch => Some(Input::Done(outcome)),
                Ok(_) => None,
                Err(stopped) if stopped.is_cancelled() => None,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            },
            told = control.recv(), if !self.stopping => match told {
                Some(Control::Compare(why)) => Some(Input::LogChanged(why)),
                Some(Control::CacheBytes(bytes)) => {
                    self.cache_bytes = bytes;
                    None
                }
                None => {
                    self.stopping = true;
                    Some(Input::Stop)
                }
            },
            _ = tick.tick() => Some(Input::Tick { cache_bytes: self.cache_bytes }),
            fetched = self.reading.fetch(&self.doer, &self.shared), if wants => match fetched {
                Ok((_, records)) if records.next().is_none() => None,
                Ok((asked, records)) => {
                    // Reading begins with the last record applied, to be compared: alone it is no work.
                    let stored = self.machine.in_store().map(|stored| stored.next);
                    if records.next() > stored {
                        self.works
                            .begin(&self.shared.spans, self.doer.partition, &records, asked);
                    }
                    self.shared.metrics.consumed(records.len() as u64);
                    Some(Input::Records(records))
                }
                Err(error) => {
                    self.reading.stop();
                    Some(Input::ReaderStopped(error.to_string()))
                }
            },
        }
    }

    fn step(&mut self, input: Input) -> Flow {
        let _in_its_trace = self.works.attach();
        if let Input::Done(outcome) = &input {
            self.count(outcome);
        }
        let is_tick = matches!(input, Input::Tick { .. });
        let is_stuck = matches!(&input, Input::Done(Outcome::Failed(..)));
        let actions = self.machine.on(input, now_ms());
        self.reading.in_hand(if is_stuck { 0 } else { self.machine.in_hand() });
        if is_tick {
            self.retell_group();
        }
        let mut flow = Flow::On;
        for action in actions {
            if let Flow::Released = self.act(action) {
                flow = Flow::Released;
            }
        }
        let partition = self.doer.partition;
        self.shared
            .board
            .show(partition, self.machine.view(), &self.doer.owner.0);
        flow
    }

    fn act(&mut self, action: Action) -> Flow {
        let partition = self.doer.partition;
        match action {
            Action::Do {
                effect,
                attempt,
                because,
            } => self.start(effect, attempt, &because),
            Action::Abandon => {
                self.works.give_up("abandoned: the partition recovers");
                self.epoch += 1;
                self.effects.abort_all();
                self.reading.stop();
            }
            Action::Read(from) => self.reading.begin(from),
            Action::Recovered { called, step, detail } => self.recovered(called, step, &detail),
            Action::Drifted { entity, reason, .. } if reason == EXPIRED => {
                info!(%partition, %entity, "an event came for an expired document; it is made anew");
            }
            Action::Drifted { entity, reason, detail } => {
                self.shared.metrics.drift(reason);
                error!(%partition, %entity, reason, detail, "document cannot be read; its events wait for a repair");
            }
            Action::Rewound(rewound) => self.rewound(&rewound),
            Action::Visible(visible) => self.visible(&visible),
            Action::Release => return Flow::Released,
        }
        Flow::On
    }

    fn start(&mut self, effect: Effect, attempt: u32, because: &str) {
        let wait = pause(attempt, self.shared.backoff_max);
        let partition = self.doer.partition;
        if attempt == 0 && !because.is_empty() {
            info!(%partition, because, "comparing log and store anew");
        }
        if attempt == 1 || (attempt > 1 && attempt.is_power_of_two()) {
            let because = if because.is_empty() {
                "a step before it failed"
            } else {
                because
            };
            warn!(%partition, attempt, because, effect = name(&effect), "trying again");
        }
        let (doer, epoch, board) = (self.doer.clone(), self.epoch, Arc::clone(&self.shared.board));
        let metrics = Arc::clone(&self.shared.metrics);
        let documents = batch_of(&effect).map(|batch| batch.documents.len());
        let call = documents.and_then(|documents| self.works.commit(&self.shared.spans, documents));
        self.effects.spawn(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await; // of zero it would still wait for the timer's next millisecond
            }
            let (partition, batch) = (doer.partition, batch_of(&effect));
            let outcome = works::perform(doer, effect, call).await;
            if let (Outcome::Committed, Some(batch)) = (&outcome, batch) {
                metrics.redacted("projection", batch.redactions);
                board.committed(partition, &batch);
            }
            (epoch, outcome)
        });
    }

    fn count(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Committed => self.shared.metrics.write("ok"),
            Outcome::Failed(Effect::Commit(_), Failure::Away(_)) => self.shared.metrics.write("error"),
            Outcome::Failed(Effect::Rewind { .. }, _) => self.shared.metrics.replayed("partition", "error"),
            Outcome::Failed(Effect::Commit(_), failure) => {
                let partition = self.doer.partition;
                info!(%partition, ?failure, "commit refused; this attempt wrote nothing");
            }
            _ => {}
        }
    }

    fn rewound(&self, rewound: &Rewound) {
        let (partition, next) = (self.doer.partition, rewound.next);
        let (entities, records) = (rewound.entities, rewound.records);
        info!(%partition, %next, entities, records, "documents put back");
        for entity in &rewound.left {
            error!(%partition, %entity, "left as it is: its beginning is gone from the log, and no snapshot has it");
        }
    }

    fn recovered(&self, called: Called, step: Step, detail: &str) {
        let (partition, recovery) = (self.doer.partition, called.name());
        let reason = called.drift();
        if let Some(reason) = reason {
            self.shared.metrics.drift(reason);
        }
        let held = matches!(step, Step::Hold);
        if called != Called::Normal {
            self.shared.board.went_back(partition);
        }
        if called == Called::Replayed {
            self.shared.metrics.replayed("partition", "ok");
        }
        self.shared.metrics.held(partition, held.then_some(recovery));
        match (held, reason) {
            (true, _) => error!(%partition, recovery, detail, "held: nothing is written until a person acts"),
            (false, Some(_)) => warn!(%partition, recovery, detail, "recovered"),
            (false, None) => info!(%partition, recovery, detail, "recovered"),
        }
    }

    fn visible(&mut self, visible: &Visible) {
        let (partition, metrics) = (self.doer.partition, &self.shared.metrics);
        let next = visible.checkpoint.next;
        self.works.visible(next, metrics);
        metrics.events(visible.accepted, visible.duplicates, visible.dead_letters);
        metrics.sent_letters(visible.dead_letters);
        // The reader knows what the last fetch told, the board what was asked for in the last second.
        let end = self.reading.end().max(self.shared.board.end(partition));
        let lag = end.map_or(0, |end| next.until(end));
        metrics.committed(partition, lag);
        self.shared.board.ended(partition, visible.terminals);
        let now = now_ms();
        for timestamp in visible.timestamps_ms.iter().filter(|timestamp| **timestamp >= 0) {
            metrics.latency(now.saturating_sub(*timestamp).max(0) as f64 / 1000.0, 1);
        }
        self.tell_group(&visible.checkpoint);
    }

    fn tell_group(&mut self, checkpoint: &Checkpoint) {
        let next = checkpoint.next;
        let offset = GroupOffset {
            partition: self.doer.partition,
            next,
            metadata: checkpoint.digest.to_string(),
        };
        // Full: a tick tells it. The group's offset is a hint.
        if self.shared.group.try_send(offset).is_ok() {
            self.told = Some((next, 0));
        }
    }

    fn retell_group(&mut self) {
        let Some(checkpoint) = self.machine.in_store().cloned() else {
            return;
        };
        match &mut self.told {
            Some((told, ticks)) if *told == checkpoint.next && *ticks < RETELL_TICKS => *ticks += 1,
            _ => self.tell_group(&checkpoint),
        }
    }
}

fn batch_of(effect: &Effect) -> Option<Arc<Batch>> {
    match effect {
        Effect::Commit(batch) => Some(Arc::clone(batch)),
        _ => None,
    }
}

fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Survey { .. } => "survey",
        Effect::Load { .. } => "load",
        Effect::AppendDeadLetters { .. } => "append dead letters",
        Effect::Commit(_) => "commit",
        Effect::Renew => "renew",
        Effect::Rewind { .. } => "rewind",
        Effect::Restore => "restore",
    }
}

/// Milliseconds since 1970, by this machine's clock.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

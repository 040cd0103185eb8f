//! Assignment to tasks: joins the consumer group and drives one partition machine per assigned partition.
//! In: a log, a store, settings. Out: documents that equal the log. Invariant: a partition has one driver in
//! this process at most; a driver's panic shows as a held partition, and its neighbours go on.

mod backoff;
mod board;
mod driver;
mod effects;
mod group;
mod holds;
mod reading;
mod redo;
mod thinning;
mod turns;
mod watch;
mod works;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::board::{Listener, PartitionStatus, StatusBoard};
pub use self::driver::now_ms;
pub use self::effects::Doer;
pub use self::holds::Hold;
pub use self::redo::redo;

use self::driver::{Control, Driver, Shared};
use self::reading::Limits;
use crate::log::{Assignment, FetchLimits, Handover, Log, Membership};
use crate::pure::event::Rules;
use crate::pure::partition::{Partition, Remembered, Setup, ShareLimit, State, Streams, View};
use crate::pure::place::{PartitionId, Partitioner};
use crate::pure::recovery::Called;
use crate::pure::redact::Redact;
use crate::store::{Owner, Store};
use crate::telemetry::Metrics;
use crate::telemetry::messaging::Messaging;

/// How long a fetch waits for a first record before it comes back with none.
const FETCH_WAIT: Duration = Duration::from_secs(1);
/// How long a stopping partition may take to finish its batch.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// The most records of a batch without a turn: more takes memory, of all partitions at once, and gains nothing.
const PLAIN_EVENTS: usize = 10_000;
/// Messages that may wait for one driver.
const CONTROL_QUEUE: usize = 16;

/// What a projector is made with.
#[derive(Clone, Debug)]
pub struct ProjectorSettings {
    /// The events' topic.
    pub topic: String,
    /// Names this process in leases.
    pub instance: String,
    /// How producers place keys.
    pub partitioner: Partitioner,
    /// The largest value that is an event.
    pub max_event_bytes: usize,
    /// What is taken out of events.
    pub redact: Redact,
    /// Events kept per entity's stream; 0: none.
    pub events_kept: u64,
    /// Memory for cached documents, over all partitions.
    pub cache_bytes: usize,
    /// The most records of one batch.
    pub batch_events: usize,
    /// The most bytes of one batch.
    pub batch_bytes: usize,
    /// How many dead letters are too many.
    pub dead_letter_share: ShareLimit,
    /// How long a lease lives without being renewed.
    pub owner_lease: Duration,
    /// The longest pause between two tries.
    pub backoff_max: Duration,
}

/// Runs until `stop`; then finishes the batches in hand, commits, leaves the group.
///
/// # Errors
/// The group cannot be joined for a reason that trying again does not mend.
pub async fn run(
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    settings: ProjectorSettings,
    metrics: Arc<Metrics>,
    board: Arc<StatusBoard>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    run_with_spans(log, store, settings, metrics, Messaging::off(), board, stop).await
}

/// The same, and each batch is a span.
///
/// # Errors
/// As [`run`].
pub async fn run_with_spans(
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    settings: ProjectorSettings,
    metrics: Arc<Metrics>,
    spans: Messaging,
    board: Arc<StatusBoard>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (group_sender, group_receiver) = mpsc::channel(1024);
    let mut background = JoinSet::new();
    let quiet = CancellationToken::new();
    background.spawn(group::commit_offsets(
        Arc::clone(&log),
        Arc::clone(&metrics),
        spans.clone(),
        group_receiver,
    ));
    let (watch_sender, watch_receiver) = mpsc::channel(CONTROL_QUEUE);
    let watching = watch::Watch {
        log: Arc::clone(&log),
        store: Arc::clone(&store),
        board: Arc::clone(&board),
        metrics: Arc::clone(&metrics),
        changed: watch_sender,
        oldest: BTreeMap::new(),
        holds: holds::Holds::default(),
    };
    background.spawn(watching.run(quiet.clone()));
    background.spawn(thinning::thin(Arc::clone(&store), Arc::clone(&board), quiet.clone()));
    let memory = watch::watch_memory(Arc::clone(&store), Arc::clone(&metrics), quiet.clone());
    background.spawn(memory);
    let mut assignments = Assignments {
        shared: Shared {
            metrics,
            spans,
            board,
            group: group_sender,
            limits: limits(&settings),
            turns: turns_of(&settings),
            backoff_max: settings.backoff_max,
        },
        log,
        store,
        settings,
        drivers: JoinSet::new(),
        slots: BTreeMap::new(),
        tasks: BTreeMap::new(),
        remembered: BTreeMap::new(),
    };
    let member = assignments.serve(watch_receiver, &stop).await?;
    assignments.stop_all().await;
    drop(assignments); // the group's committer sees its queue closed, and flushes
    quiet.cancel();
    while background.join_next().await.is_some() {}
    member.leave().await;
    info!("left the group");
    Ok(())
}

/// One assigned partition's task.
struct Slot {
    /// None: it was told to stop.
    control: Option<mpsc::Sender<Control>>,
    /// Assigned again while it was stopping.
    again: bool,
    /// The group waits with the partition's next owner until this one let go.
    handover: Option<Handover>,
}

struct Assignments {
    shared: Shared,
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    settings: ProjectorSettings,
    drivers: JoinSet<(PartitionId, Remembered)>,
    slots: BTreeMap<PartitionId, Slot>,
    tasks: BTreeMap<tokio::task::Id, PartitionId>,
    remembered: BTreeMap<PartitionId, Remembered>,
}

impl Assignments {
    /// Follows the group until `stop`.
    async fn serve(
        &mut self,
        mut changed: mpsc::Receiver<String>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Box<dyn Membership>> {
        let mut member = self.log.join().await?;
        let mut failures = 0;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(member),
                Some(ended) = self.drivers.join_next_with_id() => self.ended(ended),
                Some(why) = changed.recv() => self.tell_all(|| Control::Compare(why.clone())),
                assignment = member.next() => match assignment {
                    Ok(assignment) => {
                        failures = 0;
                        self.shared.board.joined();
                        self.assign(assignment);
                    }
                    Err(error) => {
                        failures += 1;
                        warn!(%error, "the consumer group does not answer");
                        tokio::select! {
                            () = stop.cancelled() => return Ok(member),
                            () = tokio::time::sleep(backoff::pause(failures, self.settings.backoff_max)) => {}
                        }
                    }
                },
            }
        }
    }

    fn assign(&mut self, assignment: Assignment) {
        match assignment {
            Assignment::Assigned(partitions) => {
                info!(partitions = ?numbers(&partitions), "assigned");
                for partition in partitions {
                    match self.slots.get_mut(&partition) {
                        Some(slot) if slot.control.is_none() => slot.again = true,
                        Some(_) => {}
                        None => self.start(partition),
                    }
                }
            }
            Assignment::Revoked(partitions, handover) => {
                info!(partitions = ?numbers(&partitions), "revoked");
                for partition in partitions {
                    let is_driven = self.tasks.values().any(|driven| *driven == partition);
                    if let Some(slot) = self.slots.get_mut(&partition) {
                        slot.control = None;
                        slot.again = false;
                        slot.handover = is_driven.then(|| handover.clone());
                    }
                }
            }
        }
        let cache_bytes = self.cache_bytes();
        self.tell_all(|| Control::CacheBytes(cache_bytes));
    }

    /// Each partition's share of the cache.
    fn cache_bytes(&self) -> usize {
        self.settings.cache_bytes / self.slots.len().max(1)
    }

    fn tell_all(&self, message: impl Fn() -> Control) {
        for slot in self.slots.values() {
            if let Some(control) = &slot.control {
                let _ = control.try_send(message());
            }
        }
    }

    fn start(&mut self, partition: PartitionId) {
        let (control, messages) = mpsc::channel(CONTROL_QUEUE);
        let remembered = self.remembered.get(&partition).copied().unwrap_or_default();
        let (doer, machine) = machine_of(&self.log, &self.store, &self.settings, partition, remembered);
        self.slots.insert(
            partition,
            Slot {
                control: Some(control),
                again: false,
                handover: None,
            },
        );
        let driver = Driver::new(doer, self.shared.clone(), machine, self.cache_bytes());
        let task = self.drivers.spawn(driver.run(messages));
        self.tasks.insert(task.id(), partition);
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, (PartitionId, Remembered)), tokio::task::JoinError>) {
        match ended {
            Ok((id, (partition, remembered))) => {
                self.tasks.remove(&id);
                self.remembered.insert(partition, remembered);
                if self.slots.remove(&partition).is_some_and(|slot| slot.again) {
                    self.start(partition);
                }
            }
            Err(stopped) => {
                let Some(partition) = self.tasks.remove(&stopped.id()) else {
                    return;
                };
                if stopped.is_cancelled() {
                    self.slots.remove(&partition);
                    return;
                }
                self.panicked(partition, &stopped.to_string());
            }
        }
    }

    /// A panic is a broken invariant: the partition stays held until a restart, the neighbours go on.
    fn panicked(&mut self, partition: PartitionId, detail: &str) {
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.handover = None;
        }
        error!(%partition, detail, "held: the partition's task panicked; restart khala, and report this");
        let called = Called::Panicked;
        self.shared.metrics.held(partition, Some(called.name()));
        let state = State::Held {
            called,
            detail: format!("{detail}; restart khala, and report this"),
        };
        let view = View {
            next: None,
            oldest_ms: None,
            state,
            parked: 0,
        };
        self.shared.board.show(partition, view, "");
    }

    async fn stop_all(&mut self) {
        for slot in self.slots.values_mut() {
            slot.control = None;
            slot.again = false;
        }
        let all = async { while self.drivers.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, all).await.is_err() {
            warn!(
                seconds = STOP_PATIENCE.as_secs(),
                "some batches were not committed in time; the next start redoes them"
            );
            self.drivers.shutdown().await;
        }
    }
}

fn limits(settings: &ProjectorSettings) -> Limits {
    let turn = FetchLimits {
        records: settings.batch_events,
        bytes: settings.batch_bytes,
        wait: FETCH_WAIT,
    };
    let plain = FetchLimits {
        records: settings.batch_events.min(PLAIN_EVENTS),
        ..turn
    };
    Limits { plain, turn }
}

/// Large batches pay where streams are kept: most of these are written whole then, at a third of the cost.
fn turns_of(settings: &ProjectorSettings) -> Option<Arc<Semaphore>> {
    (settings.events_kept > 0).then(turns::shared)
}

fn numbers(partitions: &[PartitionId]) -> Vec<u32> {
    partitions.iter().map(|partition| partition.0).collect()
}

/// A partition's machine, and what does its bidding.
fn machine_of(
    log: &Arc<dyn Log>,
    store: &Arc<dyn Store>,
    settings: &ProjectorSettings,
    partition: PartitionId,
    remembered: Remembered,
) -> (Doer, Partition) {
    let setup = Setup {
        partition,
        rules: Rules {
            partitioner: settings.partitioner,
            partitions: 1, // the survey tells
            max_event_bytes: settings.max_event_bytes,
            redact: settings.redact,
        },
        streams: if settings.events_kept == 0 {
            Streams::Off
        } else {
            Streams::Kept
        },
        cache_bytes: settings.cache_bytes,
        dead_letter_share: settings.dead_letter_share,
    };
    let token: u64 = rand::random();
    let doer = Doer {
        log: Arc::clone(log),
        store: Arc::clone(store),
        topic: Arc::from(settings.topic.as_str()),
        partition,
        owner: Owner(format!("projector/{}/{token:016x}", settings.instance)),
        lease: settings.owner_lease,
        rules: setup.rules,
    };
    (doer, Partition::new(setup, remembered))
}

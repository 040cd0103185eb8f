//! A projector: the real machine, and the real doer of its bidding, polled by hand. Dropping it is a crash.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use khala::log::{FetchLimits, GroupOffset, Reader, Role};
use khala::projector::Doer;
use khala::pure::event::Rules;
use khala::pure::partition::{
    Action, Effect, Input, Outcome, Partition, Remembered, Setup, ShareLimit, State, Streams,
};
use khala::pure::place::{NextOffset, Partitioner};
use khala::pure::redact::Redact;
use khala::store::Owner;

use super::sea::{PARTITION, Sea};
use super::seams::{SimLog, SimStore};

pub type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub const LIMITS: FetchLimits = FetchLimits {
    records: 10,
    bytes: 1 << 20,
    wait: Duration::ZERO,
};

pub const RULES: Rules = Rules {
    partitioner: Partitioner::Murmur2,
    partitions: 1,
    max_event_bytes: 1 << 20,
    redact: Redact::Secrets,
};

pub struct Projector {
    pub machine: Partition,
    doer: Doer,
    effects: Vec<Task<Outcome>>,
    place: Option<NextOffset>,
    reader: Option<Box<dyn Reader>>,
    /// What it says of itself, in order.
    pub named: Vec<&'static str>,
}

pub fn poll<T>(task: &mut Task<T>) -> Option<T> {
    match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

impl Projector {
    pub fn new(sea: &Sea, name: u64, cache_bytes: usize, now_ms: i64) -> Self {
        let setup = Setup {
            partition: PARTITION,
            rules: RULES,
            streams: Streams::Kept,
            cache_bytes,
            dead_letter_share: ShareLimit {
                permille_max: 1000,
                records_min: 1000,
            },
        };
        let mut projector = Self {
            machine: Partition::new(setup, Remembered::default()),
            doer: Doer {
                log: Arc::new(SimLog(sea.clone())),
                store: Arc::new(SimStore(sea.clone())),
                topic: Arc::from("events"),
                partition: PARTITION,
                owner: Owner(format!("projector/{name}")),
                lease: Duration::from_hours(1),
                rules: RULES,
            },
            effects: Vec::new(),
            place: None,
            reader: None,
            named: Vec::new(),
        };
        projector.input(Input::Assigned, now_ms);
        projector
    }

    pub fn is_held(&self) -> Option<&'static str> {
        match self.machine.view().state {
            State::Held { called, .. } => Some(called.name()),
            _ => None,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.effects.is_empty()
    }

    fn input(&mut self, input: Input, now_ms: i64) {
        for action in self.machine.on(input, now_ms) {
            match action {
                Action::Do { effect, .. } => self.start(effect),
                Action::Abandon => {
                    self.effects.clear();
                    self.place = None;
                    self.reader = None;
                }
                Action::Read(from) => {
                    self.reader = None;
                    self.place = Some(from);
                }
                Action::Recovered { called, .. } => self.named.push(called.name()),
                Action::Drifted { reason, .. } => self.named.push(reason),
                Action::Visible(visible) => self.tell_group(&visible.checkpoint),
                Action::Rewound(_) | Action::Release => {}
            }
        }
    }

    fn start(&mut self, effect: Effect) {
        self.effects.push(Box::pin(self.doer.clone().perform(effect)));
    }

    /// Not always: commits of the group's offset are coalesced, and lost.
    fn tell_group(&self, checkpoint: &khala::pure::checkpoint::Checkpoint) {
        let offset = GroupOffset {
            partition: PARTITION,
            next: checkpoint.next,
            metadata: String::new(),
        };
        if !checkpoint.records.is_multiple_of(3) {
            let mut told: Task<_> = Box::pin({
                let log = Arc::clone(&self.doer.log);
                async move { log.commit_group(vec![offset]).await }
            });
            let _ = poll(&mut told);
        }
    }

    /// One step: an effect goes on, records come, or time passes.
    pub fn step(&mut self, sea: &Sea, now_ms: i64, cache_bytes: usize) {
        let choice = sea.lock().dice.below(8);
        if choice == 0 {
            return self.input(Input::Tick { cache_bytes }, now_ms);
        }
        if choice > 3 && self.fetch(now_ms) {
            return;
        }
        if self.effects.is_empty() {
            self.fetch(now_ms);
            return;
        }
        let at = sea.lock().dice.below(self.effects.len() as u64) as usize;
        if let Some(outcome) = poll(&mut self.effects[at]) {
            drop(self.effects.remove(at));
            self.input(Input::Done(outcome), now_ms);
        }
    }

    fn fetch(&mut self, now_ms: i64) -> bool {
        let Some(from) = self.place.filter(|_| self.machine.wants_records()) else {
            return false;
        };
        let log = Arc::clone(&self.doer.log);
        let mut reader = self.reader.take();
        let mut task: Task<_> = Box::pin(async move {
            let mut reader = match reader.take() {
                Some(reader) => reader,
                None => log.reader(Role::Events, PARTITION, from).await?,
            };
            let records = reader.fetch(LIMITS).await?;
            Ok::<_, khala::log::LogError>((reader, records))
        });
        let done = loop {
            if let Some(done) = poll(&mut task) {
                break done;
            }
        };
        match done {
            Ok((reader, records)) => {
                self.reader = Some(reader);
                let Some(next) = records.next() else { return false };
                self.place = Some(next);
                self.input(Input::Records(records), now_ms);
            }
            Err(error) => {
                self.place = None;
                self.input(Input::ReaderStopped(error.to_string()), now_ms);
            }
        }
        true
    }
}

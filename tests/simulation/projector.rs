//! A projector: the real machine, and the real doer of its bidding, polled by hand. Dropping it is a crash.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use khala::log::{FetchLimits, GroupOffset, Reader, Role};
use khala::projector::Doer;
use khala::pure::entity::Entity;
use khala::pure::event::Rules;
use khala::pure::partition::{
    Action, Effect, Input, Outcome, Partition, Remembered, Setup, ShareLimit, State, Streams,
};
use khala::pure::place::{NextOffset, Offset, Partitioner};
use khala::pure::record::RecordBatch;
use khala::pure::recovery::{Called, Step};
use khala::pure::redact::Redact;
use khala::store::Owner;

use super::log::SimLog;
use super::plan::Call;
use super::sea::{PARTITION, Sea};
use super::store::SimStore;
use super::version::Version;
use super::weak::Weak;

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

/// What a projector says of itself.
#[derive(Debug)]
pub enum Said {
    /// A row of the recovery table, in words.
    Recovered(&'static str, String),
    /// Events between the two offsets are in no document from now on, or may not be: it was named. And up to where the
    /// documents' topic was looked through for a snapshot.
    Lost(u64, u64, u64),
    /// A document that cannot be read.
    Drifted(&'static str),
    /// A restore lost a document, and began again.
    BegunAgain,
    /// Documents that can be made from nothing.
    Left(Vec<Entity>),
}

/// The clocks of two machines differ by so much at most.
const SKEW_MS: u64 = 300_000;

pub struct Projector {
    pub name: u64,
    pub machine: Partition,
    doer: Doer,
    effects: Vec<Task<Outcome>>,
    place: Option<NextOffset>,
    reader: Option<Box<dyn Reader>>,
    sea: Sea,
    /// As of when it last compared store and log.
    cuts: u64,
    /// Reading begins with the last record applied. Where it does not, a log that is cut between the comparison and the
    /// first fetch may go unnoticed: that is not simulated.
    compares: bool,
    /// The last records it got: they may come again.
    last: Option<RecordBatch>,
    skew_ms: i64,
    /// The end of the documents' topic when a snapshot was asked for.
    asked: Option<u64>,
    /// In order, until it is taken note of.
    pub said: Vec<Said>,
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
        let skew_ms = sea.lock().schedule.below(2 * SKEW_MS) as i64 - SKEW_MS as i64;
        let mut projector = Self {
            name,
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
            sea: sea.clone(),
            cuts: 0,
            compares: false,
            last: None,
            skew_ms,
            asked: None,
            said: Vec::new(),
        };
        projector.input(Input::Assigned, now_ms);
        projector
    }

    pub fn version(&self) -> Version {
        self.sea.version
    }

    pub fn is_held(&self) -> Option<&'static str> {
        match self.machine.view().state {
            State::Held { called, .. } => Some(called.name()),
            _ => None,
        }
    }

    /// It has compared store and log, and has read nothing yet.
    pub fn is_about_to_read(&self) -> bool {
        self.place.is_some() && self.reader.is_none()
    }

    pub fn is_idle(&self) -> bool {
        self.effects.is_empty()
    }

    fn input(&mut self, input: Input, now_ms: i64) {
        let mut begins_anew = false;
        for action in self.machine.on(input, now_ms + self.skew_ms) {
            match action {
                Action::Do { effect, .. } => self.start(effect),
                Action::Abandon => {
                    self.effects.clear();
                    self.place = None;
                    self.reader = None;
                    self.last = None;
                }
                Action::Read(from) => {
                    (self.reader, self.last) = (None, None);
                    let stored = self.machine.in_store().map(|stored| stored.next);
                    self.compares = stored.is_some_and(|stored| from < stored);
                    let behind = stored.filter(|_| self.sea.lock().weak == Weak::ReadBehind);
                    self.place = behind.max(Some(from));
                    if begins_anew {
                        let stored = self.machine.in_store().map_or(0, |stored| stored.next.0);
                        let asked = self.asked.take().unwrap_or_else(|| self.sea.lock().end_of_documents());
                        self.said.push(Said::Lost(stored, from.0, asked));
                    }
                }
                Action::Recovered { called, step, detail } => {
                    let anew = matches!(called, Called::FirstStart | Called::SinkLost | Called::RetentionGap);
                    begins_anew = anew && !matches!(step, Step::Hold);
                    self.said.push(Said::Recovered(called.name(), detail));
                }
                Action::Drifted { reason, .. } => self.said.push(Said::Drifted(reason)),
                Action::Visible(visible) => self.tell_group(&visible.checkpoint),
                Action::Rewound(rewound) => {
                    self.asked = None;
                    self.said.extend(rewound.disturbed.first().map(|_| Said::BegunAgain));
                    self.said.push(Said::Left(rewound.left));
                }
                Action::Release => {}
            }
        }
    }

    fn start(&mut self, effect: Effect) {
        if matches!(effect, Effect::Survey { .. }) {
            self.cuts = self.sea.lock().cuts;
        }
        if matches!(effect, Effect::Restore) {
            let state = self.sea.lock();
            self.asked = Some(state.end_of_documents());
            if state.weak == Weak::OnlyForNothing && state.part.checkpoint.is_some() && !state.part.is_restoring() {
                let there = state.part.checkpoint.as_ref().map_or(NextOffset(0), |there| there.next);
                return self.effects.push(Box::pin(async move { Outcome::NoSnapshot(there) }));
            }
        }
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
        let choice = sea.lock().schedule.below(8);
        if choice == 0 {
            return self.input(Input::Tick { cache_bytes }, now_ms);
        }
        if choice > 3 && self.fetch(sea, now_ms) {
            return;
        }
        if self.effects.is_empty() {
            self.fetch(sea, now_ms);
            return;
        }
        let at = sea.lock().schedule.below(self.effects.len() as u64) as usize;
        if let Some(outcome) = poll(&mut self.effects[at]) {
            drop(self.effects.remove(at));
            self.input(Input::Done(outcome), now_ms);
        }
    }

    fn fetch(&mut self, sea: &Sea, now_ms: i64) -> bool {
        let Some(mut from) = self.place.filter(|_| self.machine.wants_records()) else {
            return false;
        };
        if let Some(records) = self.again(sea, from) {
            self.input(Input::Records(records), now_ms);
            return true;
        }
        let unseen = self.reader.is_none() && !self.compares && self.cuts != sea.lock().cuts;
        if unseen && sea.lock().weak != Weak::NoEpoch {
            self.place = None;
            self.input(Input::ReaderStopped("cut before the first fetch".to_owned()), now_ms);
            return true;
        }
        let log = Arc::clone(&self.doer.log);
        let mut reader = self.reader.take();
        if reader.is_none() && sea.lock().hit(Call::ReadAgain) {
            let first = sea.lock().first;
            from = NextOffset(from.0.saturating_sub(5).max(first).min(from.0)); // what another one has read already
        }
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
                self.last = Some(records.clone());
                self.input(Input::Records(records), now_ms);
            }
            Err(error) => {
                self.place = None;
                self.input(Input::ReaderStopped(error.to_string()), now_ms);
            }
        }
        true
    }

    /// The last records once more, behind those that followed them.
    fn again(&mut self, sea: &Sea, from: NextOffset) -> Option<RecordBatch> {
        let mut state = sea.lock();
        let last = self.last.take_if(|_| state.hit(Call::ReadAgain))?;
        if state.weak != Weak::NoOffsetCheck {
            return Some(last);
        }
        let mut shifted = RecordBatch::default(); // as one who counts for himself
        for (i, record) in last.iter().enumerate() {
            shifted.push(Offset(from.0 + i as u64), record.timestamp_ms, record.key, record.value);
            for (name, value) in record.headers() {
                shifted.push_header(name, value);
            }
        }
        Some(shifted)
    }
}

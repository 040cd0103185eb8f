//! One history: projectors, an operator, a messy producer, and the sea; all from one plan.
//! Safety is checked after each move, then the sea calms down and everything must converge, then a fresh event lives.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use khala::pure::entity::Entity;
use khala::repair::Expiry;
use khala::repair::snapshot::Snapshots;

use super::operator::Operated;
use super::oracle::Oracle;
use super::part::Part;
use super::plan::Plan;
use super::projector::{Projector, Said, Task, poll};
use super::sea::Sea;
use super::version::Version;
use crate::reference::Rec;
use crate::reference::messy::dice::Dice;
use crate::reference::messy::{Messy, Shape};

/// Of projectors, in each step.
const MOVES: u64 = 5;
const BEGINS_MS: i64 = 1_770_000_000_000;

/// What a history was like.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub faults: BTreeMap<&'static str, u64>,
    pub named: BTreeMap<&'static str, u64>,
    pub trace: Vec<String>,
    pub records: usize,
    pub simulated_ms: i64,
    /// Steps that were gone, of the plan.
    pub steps: u64,
}

/// Documents of another projection version, which must stay as they are.
pub(super) struct Foreign {
    pub(super) until: u64,
    pub(super) ours: Part,
    pub(super) theirs: Part,
}

#[expect(clippy::struct_excessive_bools, reason = "each says that something has befallen it")]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) sea: Sea,
    pub(super) messy: Messy,
    pub(super) luck: Dice,
    pub(super) projectors: Vec<Projector>,
    /// Of the process that was started last.
    pub(super) version: Version,
    pub(super) operator: Option<Task<Operated>>,
    pub(super) keeper: Option<Task<Operated>>,
    pub(super) reaper: Option<Task<Operated>>,
    pub(super) snapshots: Option<Box<Snapshots>>,
    pub(super) expiry: Option<Expiry>,
    /// Whose these two are.
    pub(super) kept_by: Version,
    pub(super) reaped_by: Version,
    pub(super) next_name: u64,
    pub(super) now_ms: i64,
    /// How far clocks jumped, in all.
    pub(super) jumped_ms: i64,
    pub(super) step: u64,
    pub(super) oracle: Oracle,
    /// Of the topic that was deleted, and its first offset then.
    pub(super) former: Option<(Oracle, u64)>,
    /// The topic was made anew, and nobody has said yet that the new log counts.
    pub(super) unaccepted: bool,
    pub(super) foreign: Option<Foreign>,
    /// A store that failed over to an old copy fails back at this step.
    pub(super) comes_back: Option<(u64, Part)>,
    /// After so many steps of a restore a document of it goes.
    pub(super) disturbs: Option<u64>,
    /// Added to the records' times.
    pub(super) later_ms: i64,
    pub(super) ever_damaged: BTreeSet<Entity>,
    /// Left as they were, of a log that was cut: they may have events that it has not.
    pub(super) ever_left: BTreeSet<Entity>,
    /// Expired in a store that was lost since.
    pub(super) expired_before: BTreeSet<Entity>,
    /// What was cut away: offsets, times and checksums.
    pub(super) cut_away: BTreeSet<(u64, i64, u32)>,
    /// What the newest audit found.
    pub(super) found: Option<BTreeSet<Entity>>,
    pub(super) any_cut: bool,
    /// A rewind or restore has been.
    pub(super) any_put_back: bool,
    pub(super) any_version: bool,
    /// Retention took something.
    pub(super) any_forgotten: bool,
    /// Documents that were made without their beginning, which nobody could know.
    pub(super) guessed: BTreeSet<Entity>,
    /// What a projector did that it should not have.
    pub(super) wrong: Option<String>,
    /// What was looked at last, and documents that were right then.
    pub(super) checked: u64,
    pub(super) right: BTreeMap<Entity, Vec<u8>>,
    pub(super) history: History,
}

/// Runs a history.
///
/// # Errors
/// What went wrong, with the history.
pub fn run(plan: &Plan) -> Result<History, (String, History)> {
    let mut world = World::new(plan);
    // A panic is a failure as any other.
    let lives = AssertUnwindSafe(|| world.live().and_then(|()| world.converge()));
    let done = catch_unwind(lives).unwrap_or_else(|panic| Err(format!("panicked: {}", words(&*panic))));
    if let Err(what) = &done {
        let what: String = what.chars().take(120).collect();
        world.note(&format!("FAILS: {what}"));
    }
    let mut history = std::mem::take(&mut world.history);
    history.records = world.oracle.folded();
    history.simulated_ms = world.now_ms - BEGINS_MS - world.jumped_ms;
    history.steps = world.step.min(plan.steps);
    match done {
        Ok(()) => Ok(history),
        Err(what) => Err((what, history)),
    }
}

/// Of a document in the documents' topic.
fn last_offset(record: &Rec) -> Option<u64> {
    let document: serde_json::Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    document["runtime_source"]["offset"].as_u64()
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

impl World {
    fn new(plan: &Plan) -> Self {
        let shape = Shape {
            runs: 3,
            workers: 2,
            partitions: 1,
            garbage_one_in: 12,
            huge: false,
        };
        let seed = plan.seed;
        Self {
            plan: plan.clone(),
            messy: Messy::new(seed, shape),
            sea: Sea::new(seed, plan.calls, plan.weak),
            luck: Dice::new(seed),
            projectors: Vec::new(),
            version: Version::One,
            operator: None,
            keeper: None,
            reaper: None,
            snapshots: None,
            expiry: None,
            kept_by: Version::One,
            reaped_by: Version::One,
            next_name: 0,
            now_ms: BEGINS_MS,
            jumped_ms: 0,
            step: 0,
            oracle: Oracle::default(),
            former: None,
            unaccepted: false,
            foreign: None,
            comes_back: None,
            disturbs: None,
            later_ms: 0,
            ever_damaged: BTreeSet::new(),
            ever_left: BTreeSet::new(),
            expired_before: BTreeSet::new(),
            cut_away: BTreeSet::new(),
            found: None,
            any_cut: false,
            any_put_back: false,
            any_version: false,
            any_forgotten: false,
            guessed: BTreeSet::new(),
            wrong: None,
            checked: u64::MAX,
            right: BTreeMap::new(),
            history: History::default(),
        }
    }

    fn live(&mut self) -> Result<(), String> {
        self.oracle.fold_on(&[]);
        self.spawn();
        let events = self.plan.events.clone();
        let mut events = events.into_iter().peekable();
        for step in 0..self.plan.steps {
            self.step = step;
            let passed = {
                let mut state = self.sea.lock();
                state.step = step;
                state.schedule.below(200) as i64
            };
            self.now_ms += passed;
            for _ in 0..MOVES {
                let which = self.sea.lock().schedule.below(self.projectors.len() as u64) as usize;
                self.step_one(which);
                self.work_beside()?;
                self.check()?;
            }
            while let Some((_, event)) = events.next_if(|(at, _)| *at == step) {
                self.luck = self.plan.luck(step, event);
                self.befall(event);
                self.check()?;
            }
            self.time_passes();
            self.check()?;
        }
        Ok(())
    }

    pub(super) fn step_one(&mut self, which: usize) {
        let (sea, now_ms, cache) = (self.sea.clone(), self.now_ms, self.plan.cache_bytes);
        self.projectors[which].step(&sea, now_ms, cache);
        self.listen(which);
    }

    /// Takes note of what a projector said.
    fn listen(&mut self, which: usize) {
        let name = self.projectors[which].name;
        for said in std::mem::take(&mut self.projectors[which].said) {
            match said {
                Said::Recovered(called, detail) => {
                    *self.history.named.entry(called).or_default() += 1;
                    if called != "normal" {
                        self.note(&format!("projector {name}: {called}: {detail}"));
                    }
                }
                Said::Lost(from, to, looked_through) => {
                    self.wrong = self
                        .wrong
                        .take()
                        .or_else(|| self.had_snapshot((from, to), looked_through));
                    let state = self.sea.lock();
                    let topic_id = state.part.checkpoint.as_ref().map(|now| now.topic_id.as_str());
                    let oracle = match &mut self.former {
                        Some((former, _)) if topic_id == Some("id") => former,
                        _ => &mut self.oracle,
                    };
                    oracle.lose(from, to);
                    // A snapshot's documents may be further on than its marker, also ones that a later rewind goes on
                    // from: theirs is a smaller gap.
                    let within = from..to.max(from + 1) - 1;
                    let places: BTreeSet<u64> = state.part.index.values().map(|last| last.0).collect();
                    for further in places.range(within.clone()) {
                        oracle.lose(*further + 1, to);
                    }
                    let kept = state.documents.iter().filter_map(last_offset);
                    for further in kept.filter(|last| within.contains(last) && !places.contains(last)) {
                        oracle.lose_of_one(further + 1, to);
                    }
                }
                Said::Drifted(reason) => {
                    *self.history.named.entry(reason).or_default() += 1;
                    self.note(&format!("projector {name}: {reason}"));
                }
                Said::BegunAgain => *self.history.named.entry("restore begun again").or_default() += 1,
                Said::Left(left) => self.left(left),
            }
        }
    }

    /// By a rewind.
    fn left(&mut self, left: Vec<Entity>) {
        if !left.is_empty() {
            self.note(&format!("left as they are: {left:?}"));
        }
        self.ever_left.extend(left.into_iter().filter(|_| self.any_cut));
    }

    /// The operator, snapshots and expiry go on.
    pub(super) fn work_beside(&mut self) -> Result<(), String> {
        let done = [&mut self.operator, &mut self.keeper, &mut self.reaper].map(|slot| {
            let done = slot.as_mut().and_then(poll);
            if done.is_some() {
                *slot = None;
            }
            done
        });
        for operated in done.into_iter().flatten() {
            match operated {
                Operated::GaveUp => self.note("given up"),
                Operated::Replayed(left) => {
                    self.note("replayed");
                    self.left(left);
                }
                Operated::Audited(found) => self.audited(found)?,
                Operated::Snapshot(snapshots, came) => {
                    self.snapshots = Some(snapshots);
                    *self.history.faults.entry(came).or_default() += 1;
                    self.note(&format!("snapshot: {came}"));
                }
                Operated::Expired(expiry, documents) => {
                    self.expiry = Some(expiry);
                    if documents > 0 {
                        *self.history.faults.entry("expired").or_default() += documents;
                        self.note(&format!("{documents} documents expired"));
                    }
                }
            }
        }
        Ok(())
    }

    fn audited(&mut self, found: BTreeSet<Entity>) -> Result<(), String> {
        let known = {
            let part = &self.sea.lock().part;
            &(&part.ever_expired | &part.aside) | &self.expired_before
        };
        let touched = |entity: &&Entity| self.ever_damaged.contains(*entity) || known.contains(*entity);
        let wronged = found.iter().find(|entity| !touched(entity));
        if let (Some(entity), false) = (wronged, self.any_cut) {
            return Err(format!("the audit accuses {entity}, and nobody touched it"));
        }
        self.note(&format!("audited: {found:?}"));
        self.found = Some(found);
        Ok(())
    }

    /// A line of the history.
    pub(super) fn note(&mut self, what: &str) {
        let state = self.sea.lock();
        let checkpoint = state.part.checkpoint.as_ref().map(|checkpoint| checkpoint.next.0);
        let checkpoint = checkpoint.map_or_else(|| "-".to_owned(), |next| next.to_string());
        let (first, end) = (state.first, state.end());
        let line = format!(
            "{:>5}  checkpoint {checkpoint:>4}  log {first}..{end}  {what}",
            self.step
        );
        drop(state);
        self.history.trace.push(line);
    }

    pub(super) fn notable(&self) -> String {
        let state = self.sea.lock();
        format!("parked {:?}, damaged {:?}", state.part.parked, state.part.damaged)
    }

    pub(super) fn spawn(&mut self) {
        self.next_name += 1;
        let projector = Projector::new(
            &self.sea.of(self.version),
            self.next_name,
            self.plan.cache_bytes,
            self.now_ms,
        );
        self.projectors.push(projector);
    }

    pub(super) fn publish(&mut self, n: usize) {
        let mut next = [self.sea.lock().end()];
        let mut records = self.messy.records(n, &mut next);
        let end = self.sea.lock().end();
        for (i, record) in records.iter_mut().enumerate() {
            if self.any_cut {
                // A hole where the last record applied was is taken for one of compaction: not simulated.
                record.offset = end + i as u64;
            }
            record.timestamp_ms += self.later_ms;
        }
        let mut state = self.sea.lock();
        state.records.extend(records);
        self.oracle.fold_on(&state.records);
    }
}

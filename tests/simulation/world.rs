//! One history: two projectors, an operator, a messy producer, and the sea; all from one seed.
//! Safety is checked after each step, then the sea calms down and everything must converge, then a fresh event lives.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use khala::pure::checkpoint::{Checkpoint, Identity};
use khala::pure::entity::Entity;
use khala::pure::place::NextOffset;
use khala::repair::{Ground, Site};
use khala::store::Owner;

use super::check::is_good;
use super::operator::{self, Operated};
use super::part::Part;
use super::projector::{Projector, RULES, Task, poll};
use super::sea::{PARTITION, Rates, Sea, Weak};
use super::seams::{SimLog, SimStore};
use crate::reference::Rec;
use crate::reference::decode::Rules;
use crate::reference::fold::{Outcome, Partition as Fold};
use crate::reference::messy::dice::Dice;
use crate::reference::messy::{Messy, Shape};

const STEPS: u64 = 600;
/// Of projectors, in each step.
const MOVES: u64 = 5;
const CALM_STEPS: u64 = 6_000;

/// What a history was like, and what went wrong in it.
#[derive(Debug, Default)]
pub struct History {
    pub faults: BTreeMap<&'static str, u64>,
    pub named: BTreeMap<&'static str, u64>,
    pub trace: Vec<String>,
    pub records: usize,
}

pub(super) struct World {
    pub(super) sea: Sea,
    pub(super) messy: Messy,
    pub(super) projectors: Vec<Projector>,
    pub(super) operator: Option<Task<Operated>>,
    pub(super) next_name: u64,
    pub(super) cache_bytes: usize,
    pub(super) now_ms: i64,
    pub(super) step: u64,
    /// Hash of each entity's document by offset, of the log as it is.
    pub(super) expected: HashMap<(String, u64), String>,
    pub(super) fold: Fold,
    pub(super) folded: usize,
    /// A store that failed over to an old copy fails back at this step.
    pub(super) comes_back: Option<(u64, Part)>,
    /// Added to the records' times.
    pub(super) later_ms: i64,
    pub(super) ever_damaged: BTreeSet<Entity>,
    /// What the newest audit found.
    pub(super) found: Option<BTreeSet<Entity>>,
    pub(super) any_damage: bool,
    pub(super) any_cut: bool,
    /// The checkpoint and the number of faults when all was last looked at.
    pub(super) looked_at: (Option<Identity>, usize),
    pub(super) history: History,
}

/// Runs the history of a seed.
///
/// # Errors
/// What went wrong, with the history.
pub fn run(seed: u64, weak: Weak) -> Result<History, (String, History)> {
    let mut dice = Dice::new(seed);
    let mut rates = Rates::drawn(&mut dice);
    if weak == Weak::HealUnseen {
        (rates.audit, rates.spoil) = (10, 20); // else healing is rare
    }
    let cache_bytes = if dice.one_in(2) { 3_000 } else { 1 << 20 };
    let shape = Shape {
        runs: 3,
        workers: 2,
        partitions: 1,
        garbage_one_in: 12,
        huge: false,
    };
    let mut world = World {
        messy: Messy::new(seed, shape),
        sea: Sea::new(dice, rates, weak),
        projectors: Vec::new(),
        operator: None,
        next_name: 0,
        cache_bytes,
        now_ms: 1_770_000_000_000,
        step: 0,
        expected: HashMap::new(),
        fold: Fold::default(),
        folded: 0,
        comes_back: None,
        later_ms: 0,
        ever_damaged: BTreeSet::new(),
        found: None,
        any_damage: false,
        any_cut: false,
        looked_at: (None, usize::MAX),
        history: History::default(),
    };
    let done = world.live().and_then(|()| world.converge());
    let mut history = std::mem::take(&mut world.history);
    for projector in &world.projectors {
        projector
            .named
            .iter()
            .for_each(|name| *history.named.entry(name).or_default() += 1);
    }
    history.records = world.sea.lock().records.len();
    match done {
        Ok(()) => Ok(history),
        Err(what) => Err((what, history)),
    }
}

impl World {
    fn live(&mut self) -> Result<(), String> {
        self.spawn();
        for step in 0..STEPS {
            self.step = step;
            self.now_ms += self.roll(200) as i64;
            if self.one_in(4) {
                let n = 1 + self.roll(4) as usize;
                self.publish(n);
            }
            for _ in 0..MOVES {
                let which = self.roll(self.projectors.len() as u64) as usize;
                let (sea, now_ms, cache) = (self.sea.clone(), self.now_ms, self.cache_bytes);
                self.projectors[which].step(&sea, now_ms, cache);
            }
            self.operate()?;
            if self.one_in(4) && self.sea.lock().arrive() {
                self.fault("late call arrived");
            }
            self.misfortune();
            self.check()?;
        }
        Ok(())
    }

    fn operate(&mut self) -> Result<(), String> {
        let Some(done) = self.operator.as_mut().and_then(poll) else {
            return Ok(());
        };
        self.operator = None;
        let Operated::Audited(found) = done else {
            return Ok(());
        };
        let wronged = found.iter().find(|entity| !self.ever_damaged.contains(*entity));
        if let (Some(entity), false) = (wronged, self.any_cut) {
            return Err(format!("the audit accuses {entity}, and nobody touched it"));
        }
        self.found = Some(found);
        Ok(())
    }

    pub(super) fn roll(&mut self, n: u64) -> u64 {
        self.sea.lock().dice.below(n)
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.sea.lock().dice.one_in(n)
    }

    pub(super) fn fault(&mut self, what: &'static str) {
        *self.history.faults.entry(what).or_default() += 1;
        let state = self.sea.lock();
        let checkpoint = state.part.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.next.0);
        let line = format!("{:>4} {what}; checkpoint {checkpoint}, end {}", self.step, state.end());
        drop(state);
        self.history.trace.push(line);
    }

    pub(super) fn spawn(&mut self) {
        self.next_name += 1;
        let projector = Projector::new(&self.sea, self.next_name, self.cache_bytes, self.now_ms);
        self.projectors.push(projector);
    }

    pub(super) fn bury(&mut self, which: usize) {
        let dead = self.projectors.remove(which);
        let named = &mut self.history.named;
        dead.named.iter().for_each(|name| *named.entry(name).or_default() += 1);
    }

    fn publish(&mut self, n: usize) {
        let mut next = [self.sea.lock().end()];
        let mut records = self.messy.records(n, &mut next);
        for record in &mut records {
            record.timestamp_ms += self.later_ms;
        }
        self.sea.lock().records.extend(records);
        self.fold_on();
    }

    /// Folds what is new in the log, and remembers each document on the way.
    pub(super) fn fold_on(&mut self) {
        let rules = Rules::of(1);
        let records: Vec<Rec> = self.sea.lock().records[self.folded..].to_vec();
        self.folded += records.len();
        for record in &records {
            if let Outcome::Accepted { subject, .. } = self.fold.apply(record, &rules) {
                let hash = self.fold.entities[&subject].summary_hash();
                self.expected.insert((subject, record.offset), hash);
            }
        }
    }

    /// An operator goes back to a mark, at a bad moment.
    pub(super) fn replay(&mut self, to_the_start: Option<()>) {
        let mark = {
            let mut state = self.sea.lock();
            let Some(now) = state.part.checkpoint.clone() else {
                return;
            };
            let good: Vec<Checkpoint> = state
                .part
                .marks
                .iter()
                .map(|mark| mark.checkpoint.clone())
                .filter(|mark| mark.next <= now.next && is_good(mark, &state.records))
                .collect();
            if good.is_empty() || to_the_start.is_some() || state.dice.one_in(4) {
                Checkpoint::first(NextOffset::START, &now.topic_id, now.partitions)
            } else {
                state.dice.pick(&good).clone()
            }
        };
        self.next_name += 1;
        let site = Site {
            log: Arc::new(SimLog(self.sea.clone())),
            store: Arc::new(SimStore(self.sea.clone())),
            partition: PARTITION,
            owner: Owner(format!("operator/{}", self.next_name)),
            lease: Duration::from_hours(1),
            rules: RULES,
        };
        self.fault("replay");
        self.operator = Some(Box::pin(operator::replay(site, mark)));
    }

    /// Beside the projectors, now and then with repair.
    pub(super) fn audit(&mut self, repairs: bool) {
        self.next_name += 1;
        let ground = Ground {
            log: Arc::new(SimLog(self.sea.clone())),
            store: Arc::new(SimStore(self.sea.clone())),
            partitioner: RULES.partitioner,
            max_event_bytes: RULES.max_event_bytes,
            redact: RULES.redact,
            events_kept: 10_000,
        };
        self.fault("audit");
        self.operator = Some(Box::pin(operator::look_through(ground, self.next_name, repairs)));
    }

    /// The sea calms down: all must be as if nothing had ever happened.
    fn converge(&mut self) -> Result<(), String> {
        self.sea.lock().rates = Rates::CALM;
        while self.sea.lock().arrive() {
            self.check()?;
        }
        self.operator = None;
        self.sea.lock().part.owner = None; // leases end
        self.projectors.truncate(1);
        self.publish(5);
        self.settle()?;
        if self.any_damage && self.projectors[0].is_held().is_none() {
            self.repair_all()?;
        }
        self.publish(1); // a fresh event lives
        self.settle()?;
        if let Some(reason) = self.projectors[0].is_held() {
            let allowed = self.any_cut && reason == "log_replaced";
            return if allowed {
                Ok(())
            } else {
                Err(format!("held: {reason}"))
            };
        }
        self.final_state()
    }

    /// By a replay from the start, or by an audit, which finds what was damaged and nothing else.
    fn repair_all(&mut self) -> Result<(), String> {
        if self.one_in(2) {
            self.replay(Some(()));
            return self.settle();
        }
        let damaged = self.sea.lock().part.damaged.clone();
        self.audit(true);
        self.settle()?;
        match self.found.take() {
            Some(found) if found.is_superset(&damaged) => Ok(()),
            found => Err(format!("damaged are {damaged:?}, and the audit found {found:?}")),
        }
    }

    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..CALM_STEPS {
            self.step += 1;
            self.now_ms += 50;
            let (sea, now_ms, cache) = (self.sea.clone(), self.now_ms, self.cache_bytes);
            self.projectors[0].step(&sea, now_ms, cache);
            self.operate()?;
            self.check()?;
            let state = self.sea.lock();
            let there = state
                .part
                .checkpoint
                .as_ref()
                .is_some_and(|now| now.next.0 == state.end() && now.intent.is_empty());
            let held = self.projectors[0].is_held().is_some();
            if self.operator.is_none() && (held || there && self.projectors[0].is_idle()) {
                return Ok(());
            }
        }
        let state = self.sea.lock();
        let view = self.projectors[0].machine.view();
        Err(format!(
            "stuck at {:?} of {}, {view:?}",
            state.part.checkpoint,
            state.end()
        ))
    }
}

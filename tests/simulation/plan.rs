//! What befalls a history, drawn from its seed before it begins: so each part of it can be left out by itself.
//! In: a seed. Out: events by step, and how often which call goes wrong. Each kind has a rate of its own, or none.

use std::collections::BTreeSet;

use super::weak::Weak;
use crate::reference::messy::dice::Dice;

const STEPS: u64 = 600;
/// Histories of seeds below have one version at once: they stay what they were.
pub const VERSIONS_FROM: u64 = 1 << 40;
/// And in histories of seeds below no log is cut just before a first fetch.
pub const UNSEEN_FROM: u64 = 1 << 41;

macro_rules! events {
    ($($event:ident $name:literal $often:literal,)*) => {
        /// What happens to all, at one step.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Event { $($event,)* }

        /// With their names, and how often: once in so many steps, or up to seven times as rarely, or never.
        const EVENTS: &[(Event, &str, u64)] = &[$((Event::$event, $name, $often),)*];
    };
}

events! {
    Publish "published" 4,
    LateCall "late call arrived" 4,
    ZombieEnds "zombie ends" 12,
    Accept "new log accepted" 30,
    AppendTwice "appended twice" 40,
    Crash "crash" 60,
    Rebalance "rebalance" 50,
    Rollback "rollback" 80,
    Flush "flush" 200,
    Lose "document lost" 150,
    Spoil "document spoilt" 150,
    Cut "log cut" 150,
    Retain "retention passed" 40,
    Recreate "topic made anew" 600,
    OtherVersion "another version's documents" 300,
    Replay "replay" 100,
    Audit "audit" 60,
    Snapshot "snapshot" 25,
    Compact "compaction" 60,
    Expire "expiry" 60,
    GroupLies "group offset lies" 60,
    Clock "clock jumps" 60,
    Refuse "store refuses writes" 100,
    Deploy "another version deployed" 40,
}

impl Event {
    pub fn name(self) -> &'static str {
        EVENTS[self as usize].1
    }

    pub fn names() -> impl Iterator<Item = &'static str> {
        EVENTS.iter().map(|(_, name, _)| *name)
    }

    /// These go on as long as the world does.
    fn is_life(self) -> bool {
        matches!(self, Self::Publish | Self::LateCall | Self::ZombieEnds | Self::Accept)
    }
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It never gets there.
    NotSent,
    /// It is done, and nobody is told.
    NotAnswered,
    /// It is done much later, or once more.
    Late,
    /// It takes its time.
    Slow,
    /// The log is away, or its client's queue is full.
    LogAway,
    /// Records that were read come again, before others or after them.
    ReadAgain,
}

impl Call {
    pub const ALL: [(Self, u64); 6] = [
        (Self::NotSent, 8),
        (Self::NotAnswered, 8),
        (Self::Late, 12),
        (Self::Slow, 12),
        (Self::LogAway, 25),
        (Self::ReadAgain, 12),
    ];
}

/// One in so many calls; 0: none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls([u64; Call::ALL.len()]);

impl Calls {
    pub fn of(self, call: Call) -> u64 {
        self.0[call as usize]
    }

    pub fn without(mut self, call: Call) -> Self {
        self.0[call as usize] = 0;
        self
    }
}

/// A history that is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub weak: Weak,
    /// What happens often is what this rule needs to matter, whether it is switched off or not.
    pub rates: Weak,
    pub steps: u64,
    pub events: Vec<(u64, Event)>,
    pub calls: Calls,
    /// Of times that a projector is about to fetch first, once in so many the log is cut just then.
    pub cuts_unseen: Option<u64>,
    pub cache_bytes: usize,
}

impl Plan {
    pub fn drawn(seed: u64, weak: Weak) -> Self {
        let mut dice = Dice::new(seed);
        let mut rate = |often: u64| {
            let rare = often + dice.below(6 * often);
            if dice.one_in(3) { 0 } else { rare }
        };
        let mut events = Vec::new();
        for (event, _, often) in EVENTS {
            let drawn = if *event == Event::Deploy {
                deploys(seed, *often)
            } else {
                rate(*often)
            };
            let rate = match weak.needs(*event) {
                _ if event.is_life() => *often,
                Some(often) => often,
                None => drawn,
            };
            let mut dice = Dice::new(seed ^ ((*event as u64 + 1) << 48));
            let hit = |_: &u64| rate > 0 && dice.one_in(rate);
            events.extend((0..STEPS).filter(hit).map(|step| (step, *event)));
        }
        events.sort_unstable();
        let call_rate = |(call, often)| {
            let drawn = rate(often);
            weak.needs_call(call).unwrap_or(drawn)
        };
        let calls = Calls(Call::ALL.map(call_rate));
        let cache_bytes = if dice.one_in(2) { 3_000 } else { 1 << 20 };
        let is_cut = events.iter().any(|(_, event)| *event == Event::Cut);
        let cuts_unseen = match weak {
            Weak::ReadBehind => Some(4),
            _ => (is_cut && seed >= UNSEEN_FROM).then_some(20),
        };
        Self {
            seed,
            weak,
            rates: weak,
            steps: STEPS,
            events,
            cuts_unseen,
            calls,
            cache_bytes,
        }
    }

    /// No rule is switched off, and what happens is what happens where that one is.
    pub fn at_rates_of(rates: Weak, seed: u64) -> Self {
        let weak = Weak::Nothing;
        Self {
            weak,
            ..Self::drawn(seed, rates)
        }
    }

    /// Numbers for one event alone: leaving others out does not change them.
    pub fn luck(&self, step: u64, event: Event) -> Dice {
        Dice::new(self.seed ^ (step << 32) ^ ((event as u64 + 1) << 56))
    }

    /// The kinds of events and calls that are in it.
    pub fn kinds(&self) -> BTreeSet<Event> {
        self.events.iter().map(|(_, event)| *event).collect()
    }
}

/// From numbers of its own: all else of a history is the same with it.
fn deploys(seed: u64, often: u64) -> u64 {
    let mut dice = Dice::new(seed ^ 3 << 40);
    let rare = often + dice.below(6 * often);
    if seed < VERSIONS_FROM || dice.one_in(2) {
        0
    } else {
        rare
    }
}

//! Lines that come again and again: the first few of a window are told, the rest is counted and summed up.
//! In: where a line comes from, the time. Out: whether it is told; sums of windows that ended.
//! Invariant: bounded; what is not known is told.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, error, info, warn};
use tracing_subscriber::layer::{Context, Filter};

/// A window's length.
const WINDOW: Duration = Duration::from_secs(30);
/// Lines of one kind told within a window.
const TOLD: u32 = 10;
/// Kinds that are kept track of by what they name; more are kept track of without it.
const KINDS_MAX: usize = 1024;
/// Sums are never held back.
const TARGET: &str = "khala::repeated";
/// Nor is what an operator did, which is logged at every level.
pub const AUDIT: &str = "khala::audit";

/// Lines of one kind: they come from the same place in the code and are about the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    file: &'static str,
    line: u32,
    partition: String,
    /// The entity or document named; empty: none, or any when there are too many.
    named: String,
}

struct Window {
    began: Instant,
    told: u32,
    held_back: u64,
    level: Level,
    message: String,
}

/// A window that ended, with lines held back.
#[derive(Debug, PartialEq, Eq)]
struct Sum {
    level: Level,
    message: String,
    partition: String,
    times: u64,
    seconds: u64,
}

struct Windows(Option<HashMap<Kind, Window>>);

impl Windows {
    fn is_told(&mut self, mut kind: Kind, level: Level, message: impl FnOnce() -> String, now: Instant) -> bool {
        let windows = self.0.get_or_insert_default();
        if windows.len() >= KINDS_MAX && !windows.contains_key(&kind) {
            kind.named.clear();
            if windows.len() >= 2 * KINDS_MAX && !windows.contains_key(&kind) {
                return true;
            }
        }
        let window = windows.entry(kind).or_insert_with(|| Window {
            began: now,
            told: 0,
            held_back: 0,
            level,
            message: message(),
        });
        if window.told < TOLD {
            window.told += 1;
            return true;
        }
        window.held_back += 1;
        false
    }

    fn ended(&mut self, now: Instant) -> Vec<Sum> {
        let mut sums = Vec::new();
        let Some(windows) = &mut self.0 else { return sums };
        windows.retain(|kind, window| {
            let lasted = now.duration_since(window.began);
            if lasted < WINDOW {
                return true;
            }
            if window.held_back > 0 {
                sums.push(Sum {
                    level: window.level,
                    message: window.message.clone(),
                    partition: kind.partition.clone(),
                    times: window.held_back,
                    seconds: lasted.as_secs(),
                });
            }
            false
        });
        sums
    }
}

/// All of this process: it has one stderr.
static WINDOWS: Mutex<Windows> = Mutex::new(Windows(None));

fn with<T>(work: impl FnOnce(&mut Windows) -> T) -> T {
    work(&mut WINDOWS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Holds back what repeats itself.
pub(super) struct Unrepeated;

impl<S: Subscriber> Filter<S> for Unrepeated {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if [TARGET, AUDIT].contains(&metadata.target()) || *metadata.level() > Level::INFO {
            return true;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let kind = Kind {
            file: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
            partition: said.partition,
            named: said.named,
        };
        with(|windows| windows.is_told(kind, *metadata.level(), || said.message, Instant::now()))
    }
}

#[derive(Default)]
struct Said {
    message: String,
    partition: String,
    named: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = match field.name() {
            "message" => &mut self.message,
            "partition" => &mut self.partition,
            "entity" | "document" => &mut self.named,
            _ => return,
        };
        _ = write!(text, "{value:?}");
    }
}

/// Tells the sums of windows that have ended: to be called every second or so.
pub fn sum_up() {
    for sum in with(|windows| windows.ended(Instant::now())) {
        let (partition, times, seconds) = (sum.partition, sum.times, sum.seconds);
        let what = format!("last message repeated {times} times in {seconds} s: {}", sum.message);
        match sum.level {
            Level::ERROR => error!(target: TARGET, partition, times, "{what}"),
            Level::WARN => warn!(target: TARGET, partition, times, "{what}"),
            _ => info!(target: TARGET, partition, times, "{what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(partition: &str, named: &str) -> Kind {
        Kind {
            file: "driver.rs",
            line: 7,
            partition: partition.to_owned(),
            named: named.to_owned(),
        }
    }

    #[test]
    fn the_first_few_are_told_and_the_rest_is_summed_up() {
        let (mut windows, start) = (Windows(None), Instant::now());
        let mut tell = |partition: &str, seconds| {
            let now = start + Duration::from_secs(seconds);
            windows.is_told(kind(partition, ""), Level::WARN, || "trying again".to_owned(), now)
        };
        let told = (0..422).filter(|n| tell("3", n / 20)).count();
        assert_eq!(told, 10);
        assert!(tell("4", 20), "another partition is another kind");
        assert_eq!(windows.ended(start + Duration::from_secs(29)), []);
        let sum = Sum {
            level: Level::WARN,
            message: "trying again".to_owned(),
            partition: "3".to_owned(),
            times: 412,
            seconds: 30,
        };
        assert_eq!(windows.ended(start + Duration::from_secs(30)), [sum]);
        assert!(windows.is_told(kind("3", ""), Level::WARN, String::new, start + Duration::from_secs(31)));
    }

    #[test]
    fn each_entity_is_named_until_there_are_too_many() {
        let (mut windows, now) = (Windows(None), Instant::now());
        let mut tell = |named: usize| windows.is_told(kind("3", &named.to_string()), Level::WARN, String::new, now);
        assert!((0..KINDS_MAX).all(&mut tell));
        let told = (KINDS_MAX..10 * KINDS_MAX).filter(|n| tell(*n)).count();
        assert_eq!(told, TOLD as usize, "a flood of names is held back like one kind");
        assert_eq!(windows.0.as_ref().map(HashMap::len), Some(KINDS_MAX + 1));
    }
}

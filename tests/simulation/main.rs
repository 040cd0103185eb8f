//! Deterministic simulation: the real machine, recovery and rewind over a simulated log and store, histories of
//! faults far worse than life, each from one number. `SEED=<seed> cargo test --test simulation` runs one again;
//! `SIMULATE=<n>` runs so many fresh ones.

#![expect(clippy::print_stdout, reason = "figures, and what a failed seed shows")]

#[path = "../reference/mod.rs"]
mod reference;

mod check;
mod misfortune;
mod operator;
mod part;
mod projector;
mod sea;
mod seams;
mod snapshot;
mod world;

use std::collections::BTreeMap;

use sea::Weak;
use world::{History, run};

/// Seeds that failed once, and how many of the first ones run each time.
const CORPUS: &[u64] = &[];
const FIRST: u64 = 40;
const FRESH: u64 = 20;
/// Within so many histories a rule that is switched off must show.
const BITES_WITHIN: u64 = 150;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn show(seed: u64, what: &str, history: &History) -> String {
    let last = history.trace.len().saturating_sub(25);
    let trace = history.trace[last..].join("\n  ");
    format!(
        "seed {seed}: {what}\n  {trace}\n  {:?}\nagain: SEED={seed} cargo test --test simulation",
        history.named
    )
}

#[test]
fn every_history_converges_to_the_log() {
    let fresh: u64 = rand::random_range(1 << 32..1 << 52);
    let count = number("SIMULATE").unwrap_or(FRESH);
    let seeds: Vec<u64> = match number("SEED") {
        Some(seed) => vec![seed],
        None => CORPUS
            .iter()
            .copied()
            .chain(0..FIRST)
            .chain(fresh..fresh + count)
            .collect(),
    };
    let (mut faults, mut named): (BTreeMap<&str, u64>, BTreeMap<&str, u64>) = Default::default();
    for seed in &seeds {
        let history =
            run(*seed, Weak::Nothing).unwrap_or_else(|(what, history)| panic!("{}", show(*seed, &what, &history)));
        history
            .faults
            .iter()
            .for_each(|(what, n)| *faults.entry(what).or_default() += n);
        history
            .named
            .iter()
            .for_each(|(what, n)| *named.entry(what).or_default() += n);
    }
    println!("{} histories; faults {faults:?}; recoveries {named:?}", seeds.len());
    if seeds.len() >= 50 {
        let all = [
            "crash",
            "rebalance",
            "rollback",
            "flush",
            "document lost",
            "document spoilt",
            "log cut",
            "replay",
            "audit",
        ];
        let rare = all.iter().find(|what| faults.get(**what).is_none_or(|n| *n < 10));
        assert_eq!(rare, None, "an empty pass: {faults:?}");
        for name in [
            "sink_lost",
            "sink_rolled_back",
            "checkpoint_ahead",
            "rewind_resumed",
            "replayed",
            "missing_document",
        ] {
            assert!(named.contains_key(name), "never named {name}: {named:?}");
        }
    }
}

#[test]
fn each_rule_that_is_switched_off_is_found_out() {
    for weak in [
        Weak::NoCompare,
        Weak::LoadUnchecked,
        Weak::NoIndex,
        Weak::NoLastRecord,
        Weak::Torn,
        Weak::HealUnseen,
    ] {
        let found = (0..BITES_WITHIN).find_map(|seed| Some((seed, run(seed, weak).err()?.0)));
        let Some((seed, what)) = found else {
            panic!("{weak:?} went unnoticed in {BITES_WITHIN} histories");
        };
        println!(
            "{weak:?}: found by seed {seed}: {}",
            what.chars().take(120).collect::<String>()
        );
    }
}

//! Deterministic simulation: the real machine, recovery, rewind, audit, snapshots and expiry over a simulated log and
//! store, histories of faults far worse than life, each from one number. `SEED=<seed> cargo test --test simulation` runs
//! one again and makes it small enough to read; `SIMULATE=<n>` runs so many fresh ones, and `RATES=<rule>` those of what
//! happens that the rule needs to matter.

#![expect(clippy::print_stdout, reason = "figures, and what a failed seed shows")]

#[path = "../reference/mod.rs"]
mod reference;

mod ahead;
mod beside;
mod calm;
mod check;
mod log;
mod losses;
mod marker;
mod misfortune;
mod operator;
mod oracle;
mod part;
mod plan;
mod projector;
mod sea;
mod shrink;
mod snapshot;
mod store;
mod version;
mod weak;
mod world;
mod writers;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use plan::{Call, Event, Plan, UNSEEN_FROM, VERSIONS_FROM};
use shrink::{Failing, shrink};
use weak::Weak;
use world::{History, run};

/// Seeds that failed once, and how many of the first ones run each time.
const CORPUS: &[u64] = &[
    41,
    49_356_060_275,
    138_892_081_527,
    139_319_244_693,
    228_667_648_832,
    257_708_104_583,
    301_305_397_119,
    311_693_164_989,
    357_169_200_016,
    363_757_553_453,
    415_518_470_937,
    444_924_513_930,
    465_743_847_708,
    472_902_511_304,
    482_944_169_769,
    587_608_023_159,
    599_582_876_773,
    693_362_529_271,
    704_047_155_391,
    724_318_509_443,
    753_565_190_122,
    788_896_049_167,
    804_618_011_540,
    824_752_763_624,
    848_386_731_830,
    916_110_035_245,
    958_337_510_917,
    1_032_582_960_118,
    1_037_522_025_023,
    1_059_471_049_374,
    1_061_297_696_620,
    1_090_346_206_659,
    1_092_094_418_359,
    1_407_795_841_419,
    1_563_254_451_929,
    2_008_850_395_313,
    2_414_989_430_719,
    2_516_153_083_198,
    2_597_765_890_749,
    2_698_757_596_083,
    3_485_296_176_364,
    3_550_716_556_757,
    3_577_996_026_977,
    3_591_718_526_170,
    3_667_248_002_107,
    3_752_416_035_153,
    3_755_384_624_822,
    3_833_164_814_824,
    4_173_057_230_449,
    4_371_550_733_743,
];
/// That failed at raised rates: those that a rule needs to matter, far above life's and the others'.
const RAISED: &[(Weak, u64)] = &[
    (Weak::NoDigest, 248),
    (Weak::HealUnseen, 2_227_247_648_766),
    (Weak::LostInRestore, 2_705_760_317_198),
    (Weak::LostInRestore, 3_064_812_953_498),
    (Weak::LostInRestore, 2_854_643_968_320),
    (Weak::LostInRestore, 2_640_449_076_528),
    (Weak::OnlyForNothing, 3_947_502_081_707),
    (Weak::OnlyForNothing, 4_370_226_890_267),
    (Weak::OnlyForNothing, 2_237_067_269_392),
    (Weak::OnlyForNothing, 2_421_459_507_884),
    (Weak::OnlyForNothing, 3_868_063_368_429),
];
const FIRST: u64 = 20;
const FRESH: u64 = 12;
/// Within so many histories a rule that is switched off must show.
const BITES_WITHIN: u64 = 150;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// `RATES`: the name of a rule.
fn rates() -> Option<Weak> {
    let name = std::env::var("RATES").ok()?;
    let named = Weak::ALL.into_iter().find(|weak| format!("{weak:?}") == name);
    Some(named.unwrap_or_else(|| panic!("RATES is one of {:?}", Weak::ALL)))
}

/// What a person reads of a failed seed.
fn show(failing: &Failing, of: usize) -> String {
    let (plan, history) = (&failing.plan, &failing.history);
    let calls = Call::ALL.into_iter().map(|(call, _)| (call, plan.calls.of(call)));
    let calls = calls.filter(|(_, one_in)| *one_in > 0);
    let calls: Vec<String> = calls.map(|(call, one_in)| format!("{call:?} 1 in {one_in}")).collect();
    let published = plan.events.iter().filter(|(_, event)| *event == Event::Publish);
    let published: Vec<String> = published.map(|(step, _)| step.to_string()).collect();
    let rates = match (plan.rates, plan.weak) {
        (raised, Weak::Nothing) if raised != Weak::Nothing => format!("RATES={raised:?} "),
        _ => String::new(),
    };
    format!(
        "{rates}seed {}: {}\n\nmade small in {} runs: {} of {of} events are left\ncalls that go wrong: {}\nsomething is published \
         at steps {}\n\n step\n{}\n\nagain: {rates}SEED={} cargo test --test simulation -- --nocapture\n",
        plan.seed,
        failing.what,
        failing.runs,
        plan.events.len(),
        if calls.is_empty() {
            "none".to_owned()
        } else {
            calls.join(", ")
        },
        published.join(" "),
        history.trace.join("\n"),
        plan.seed,
    )
}

/// What many histories were like.
#[derive(Default)]
struct Sum {
    faults: BTreeMap<&'static str, u64>,
    named: BTreeMap<&'static str, u64>,
    histories: u64,
    simulated: Duration,
}

impl Sum {
    fn add(&mut self, history: &History) {
        for (sum, of) in [(&mut self.faults, &history.faults), (&mut self.named, &history.named)] {
            of.iter().for_each(|(what, n)| *sum.entry(what).or_default() += n);
        }
        self.histories += 1;
        self.simulated += Duration::from_millis(history.simulated_ms.max(0) as u64);
    }

    fn tell(&self, took: Duration) {
        let (minutes, hours) = (took.as_secs_f64() / 60.0, self.simulated.as_secs_f64() / 3600.0);
        println!("faults {:?}\nrecoveries {:?}", self.faults, self.named);
        println!(
            "{} histories, {hours:.1} simulated hours in {:.1} s: {:.0} histories and {:.0} hours per minute",
            self.histories,
            took.as_secs_f64(),
            self.histories as f64 / minutes,
            hours / minutes
        );
    }
}

/// Histories, on all cores; the first one that fails is shown.
fn run_all(plans: &[Plan]) -> Sum {
    let (sum, failed) = (Mutex::new(Sum::default()), Mutex::new(None));
    let (next, threads) = (
        Mutex::new(0),
        std::thread::available_parallelism().map_or(1, usize::from),
    );
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = {
                        let mut next = next.lock().expect("not poisoned");
                        *next += 1;
                        *next - 1
                    };
                    let Some(plan) = plans.get(at) else { return };
                    if failed.lock().expect("not poisoned").is_some() {
                        return;
                    }
                    match run(plan) {
                        Ok(history) => sum.lock().expect("not poisoned").add(&history),
                        Err((what, history)) => {
                            *failed.lock().expect("not poisoned") = Some((plan.clone(), what, history));
                        }
                    }
                }
            });
        }
    });
    if let Some((plan, what, history)) = failed.into_inner().expect("not poisoned") {
        let failing = shrink(&plan, what, history);
        panic!("{}", show(&failing, plan.events.len()));
    }
    sum.into_inner().expect("not poisoned")
}

#[test]
fn every_history_converges_to_the_log() {
    let fresh: u64 = rand::random_range(UNSEEN_FROM..UNSEEN_FROM << 1);
    let count = number("SIMULATE").unwrap_or(FRESH);
    let drawn = |seed| Plan::drawn(seed, Weak::Nothing);
    let plans: Vec<Plan> = match (number("SEED"), rates()) {
        (Some(seed), Some(rates)) => vec![Plan::at_rates_of(rates, seed)],
        (Some(seed), None) => vec![drawn(seed)],
        (None, Some(rates)) => (fresh..fresh + count)
            .map(|seed| Plan::at_rates_of(rates, seed))
            .collect(),
        (None, None) => {
            let known = CORPUS
                .iter()
                .copied()
                .chain(0..FIRST)
                .chain(VERSIONS_FROM..VERSIONS_FROM + FIRST)
                .chain(UNSEEN_FROM..UNSEEN_FROM + FIRST);
            let raised = RAISED.iter().map(|(rates, seed)| Plan::at_rates_of(*rates, *seed));
            let any = |seed: u64| Plan::at_rates_of(Weak::ALL[seed as usize % Weak::ALL.len()], seed);
            let plans = known.chain(fresh..fresh + count).map(drawn);
            let more = number("SIMULATE").map_or(0, |many| many / 4); // long runs alone: these take their time
            plans.chain(raised).chain((fresh..fresh + more).map(any)).collect()
        }
    };
    let began = Instant::now();
    let sum = run_all(&plans);
    sum.tell(began.elapsed());
    if rates().is_none() && plans.len() >= 50 {
        let never = Event::names().find(|what| !sum.faults.contains_key(*what) && !LIFE.contains(what));
        assert_eq!(never, None, "an empty pass: {:?}", sum.faults);
        for name in NAMED {
            assert!(sum.named.contains_key(name), "never named {name}: {:?}", sum.named);
        }
    }
}

/// What is no fault.
const LIFE: [&str; 2] = ["published", "zombie ends"];
const NAMED: [&str; 9] = [
    "sink_lost",
    "sink_rolled_back",
    "checkpoint_ahead",
    "rewind_resumed",
    "replayed",
    "missing_document",
    "retention_gap",
    "log_replaced",
    "projection_version_changed",
];

#[test]
fn each_rule_that_is_switched_off_is_found_out() {
    let mut missed = Vec::new();
    for weak in Weak::ALL {
        let found = (0..BITES_WITHIN).find_map(|seed| {
            let plan = Plan::drawn(seed, weak);
            let what = run(&plan).err()?.0;
            let weak = Weak::Nothing; // with the rule the same history must be right
            run(&Plan { weak, ..plan }).is_ok().then_some((seed, what))
        });
        match found {
            None => missed.push(weak),
            Some((seed, what)) => {
                let what: String = what.chars().take(120).collect();
                println!("{weak:?}: found after {} histories: {what}", seed + 1);
            }
        }
    }
    assert!(missed.is_empty(), "unnoticed in {BITES_WITHIN} histories: {missed:?}");
}

#[test]
fn a_failing_history_is_made_small_and_the_same_each_time() {
    let plan = Plan::drawn(0, Weak::CommitFirst);
    let small = || {
        let (what, history) = run(&plan).expect_err("the checkpoint is committed before the documents are");
        shrink(&plan, what, history)
    };
    let (one, other) = (small(), small());
    assert!(one.plan.events.len() <= 3, "{}", show(&one, plan.events.len()));
    assert!(one.what.contains("lacks its event"), "{}", one.what);
    assert_eq!(show(&one, plan.events.len()), show(&other, plan.events.len()));
    let again = run(&one.plan).expect_err("it still fails");
    assert_eq!(again.0, one.what);
}

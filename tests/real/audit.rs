//! Audits beside live traffic: they name exactly what was spoilt, and no other; they repair it, and prove it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::compare::{Allow, assert_exact};
use super::spoil::{Copy, Spoiler, Told, documents};
use super::world::{World, note};
use crate::reference::messy::Message;
use crate::reference::place::partition_of;
use crate::support::khala::run;
use crate::support::redis_server::Keeps;

const PARTITIONS: u32 = 4;

pub fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

pub fn audit(world: &World, args: &[&str]) -> (i32, Value) {
    let args: Vec<&str> = ["audit", "--json"].iter().chain(args).copied().collect();
    let output = run(&world.cluster, &args, "");
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    assert!(
        report.is_object(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    (code(&output), report)
}

pub fn told(report: &Value) -> Told {
    let rows = report["drift"].as_array().expect("a list");
    rows.iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let partition = row["partition"].as_u64().expect("a number") as u32;
            (text("document_id"), partition, text("reason"))
        })
        .collect()
}

/// Sends messages bit by bit, and again from the first, until `work` is done.
fn while_events_flow<T>(world: &World, messages: &[Message], work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flow = scope.spawn(|| {
            let mut sent = 0;
            for chunk in messages.chunks(50).cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                world.send(chunk);
                sent += chunk.len();
            }
            sent
        });
        let done = catch_unwind(AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        let sent = flow.join().expect("the producer does not panic");
        note(&format!("{sent} events flowed meanwhile"));
        done.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[test]
fn it_names_exactly_what_was_spoilt_and_repairs_it_while_events_flow() {
    let mut world = World::new("audit", PARTITIONS, 60_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(8_000);
    world.settle();
    let old = documents(&world);
    world.produce(8_000);
    world.settle();
    let messages = world.messages(44_000);
    let busy: BTreeSet<String> = messages
        .iter()
        .filter_map(|message| String::from_utf8(message.key.clone()?).ok())
        .collect();
    let now = documents(&world);
    let quiet: Vec<Copy> = now
        .values()
        .filter(|copy| !busy.contains(&copy.subject()))
        .cloned()
        .collect();
    let plain: Vec<Copy> = quiet.iter().filter(|copy| copy.state.is_none()).cloned().collect();
    let (stale, plain): (Vec<Copy>, Vec<Copy>) = plain
        .into_iter()
        .partition(|copy| old.get(&copy.subject()).is_some_and(|old| old.text != copy.text));
    let stale: Vec<Copy> = stale.iter().map(|copy| old[&copy.subject()].clone()).collect();
    let with_state = quiet.iter().find(|copy| copy.state.is_some()).expect("some have one");
    assert!(plain.len() > 10 && stale.len() > 2, "{} {}", plain.len(), stale.len());
    let (clean, expected) = while_events_flow(&world, &messages, || {
        let clean = audit(&world, &[]);
        assert_eq!(
            (clean.0, told(&clean.1)),
            (0, Told::new()),
            "no false alarm under live traffic"
        );
        let mut spoiler = Spoiler {
            world: &world,
            told: Told::new(),
        };
        spoiler.spoil_all(&plain, &stale, with_state);
        let expected = spoiler.told;
        let (exit, found) = audit(&world, &[]);
        assert_eq!(told(&found), expected);
        assert_eq!((exit, &found["clean"]), (3, &json!(false)));
        let (exit, repaired) = audit(&world, &["--repair"]);
        assert_eq!(told(&repaired), expected);
        assert_eq!(exit, 0, "{repaired}");
        assert_eq!(repaired["repair"]["left"], json!([]));
        let (exit, clean) = audit(&world, &[]);
        assert_eq!((exit, told(&clean)), (0, Told::new()));
        (clean, expected)
    });
    note(&format!("{} spoilt; clean at the end: {clean}", expected.len()));
    assert!(clean["documents"].as_u64() > Some(100));
    let verified = run(&world.cluster, &["checkpoints", "--json", "--limit", "1000"], "");
    let marks = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(
        marks.contains("\"verified\":true"),
        "a clean audit verifies marks: {marks}"
    );
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn in_little_memory_it_takes_more_passes_and_finds_the_same() {
    let mut world = World::new("audit-slices", PARTITIONS, 20_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(20_000);
    assert_exact(&world, Allow::default());
    let mut spoiler = Spoiler {
        world: &world,
        told: Told::new(),
    };
    let all: Vec<Copy> = documents(&world).into_values().collect();
    for copy in all.iter().step_by(9) {
        spoiler.set(copy, "{}", "document_corrupt");
    }
    let expected = spoiler.told;
    let (_, whole) = audit(&world, &[]);
    assert_eq!((told(&whole), &whole["slices"]), (expected.clone(), &json!(1)));
    let (_, cut) = audit(&world, &["--audit-memory", "64KiB"]);
    assert_eq!(told(&cut), expected);
    assert_eq!(cut["documents"], whole["documents"]);
    assert!(
        cut["slices"].as_u64() > Some(1),
        "{} documents, {}",
        cut["documents"],
        cut["slices"]
    );
    assert!(cut["memory_bytes"].as_u64() < whole["memory_bytes"].as_u64());
    let (_, sampled) = audit(&world, &["--sample", "0.4"]);
    let (some, documents) = (told(&sampled), sampled["documents"].as_u64().expect("a number"));
    assert!(some.is_subset(&expected), "{some:?}");
    assert!(documents > 0 && documents < whole["documents"].as_u64().expect("a number"));
    let (_, one) = audit(&world, &["--partition", "2"]);
    let of_two: Told = expected.iter().filter(|row| row.1 == 2).cloned().collect();
    assert_eq!(told(&one), of_two);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_repair_beyond_its_cap_changes_nothing_and_says_how_to_go_on() {
    let mut world = World::new("audit-cap", PARTITIONS, 10_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(10_000);
    assert_exact(&world, Allow::default());
    let victims: Vec<Copy> = documents(&world).into_values().take(12).collect();
    let mut spoiler = Spoiler {
        world: &world,
        told: Told::new(),
    };
    for copy in &victims {
        spoiler.set(copy, "{}", "document_corrupt");
    }
    let expected = spoiler.told;
    let (exit, refused) = audit(&world, &["--repair", "--repair-max", "11"]);
    assert_eq!((exit, told(&refused)), (3, expected.clone()));
    let words = refused["repair"]["refused"].as_str().unwrap_or_default();
    assert!(words.contains("--repair-max 12"), "{words}");
    assert_eq!(told(&audit(&world, &[]).1), expected, "nothing was changed");
    let (exit, _) = audit(&world, &["--repair", "--repair-max", "12"]);
    assert_eq!(exit, 0);
    assert_exact(&world, Allow::default());
    assert_eq!(code(&run(&world.cluster, &["audit", "--partition", "99"], "")), 2);
    assert_eq!(code(&run(&world.cluster, &["audit", "--sample", "0"], "")), 2);
    assert_eq!(code(&run(&world.cluster, &["audit", "run", "nobody"], "")), 4);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_partition_that_is_between_two_states_is_passed_over_and_named() {
    let mut world = World::new("audit-between", PARTITIONS, 4_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(4_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
    let mut spoiler = Spoiler {
        world: &world,
        told: Told::new(),
    };
    let all = documents(&world);
    let elsewhere = all.values().find(|copy| copy.partition == 2).expect("one of four");
    spoiler.set(elsewhere, "{}", "document_corrupt");
    let checkpoint = world.key(0, "checkpoint");
    spoiler.ask(&["HSET", &checkpoint, "intent", "of a later version"]);
    let (exit, found) = audit(&world, &[]);
    assert_eq!((exit, told(&found)), (3, spoiler.told.clone()));
    assert_eq!(found["skipped"][0]["partition"], json!(0));
    assert_eq!(found["skipped"].as_array().map(Vec::len), Some(1));
    let (exit, repaired) = audit(&world, &["--repair"]);
    assert_eq!((exit, &repaired["clean"]), (3, &json!(false)), "{repaired}");
    assert_eq!(repaired["repair"]["left"], json!([]));
    let rest = run(&world.cluster, &["audit"], "");
    let (said, errors) = (
        String::from_utf8_lossy(&rest.stdout).into_owned(),
        String::from_utf8_lossy(&rest.stderr).into_owned(),
    );
    assert_eq!(code(&rest), 1, "no drift, and not all is known");
    assert!(
        said.contains("partition 2") && errors.contains("not compared: partition 0"),
        "{said}{errors}"
    );
    let alone = run(&world.cluster, &["audit", "--partition", "0"], "");
    assert_eq!((code(&alone), alone.stdout.is_empty()), (1, true));
    spoiler.ask(&["HSET", &checkpoint, "intent", ""]);
    assert_eq!(audit(&world, &[]).0, 0);
    let marks = || -> u64 { world.redis.ask(&["XLEN", &world.key(2, "checkpoints")]) };
    let before = marks();
    assert_eq!(audit(&world, &[]).0, 0);
    assert_eq!(marks(), before, "what was said last is not said again");
}

/// One event of an entity, and where it must go.
fn event(subject: &str, n: u64) -> Message {
    let value = json!({
        "specversion": "1.0", "id": format!("late-{n}"), "source": "late", "type": "run.delta",
        "subject": subject, "sequence": n.to_string(),
    });
    Message {
        partition: None,
        key: Some(subject.as_bytes().to_vec()),
        value: Some(value.to_string().into_bytes()),
        headers: Vec::new(),
    }
}

#[test]
fn a_parked_entity_stops_alone_and_is_repaired_under_load() {
    let mut world = World::new("audit-parked", PARTITIONS, 60_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(8_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
    let all = documents(&world);
    let runs: Vec<Copy> = all
        .values()
        .filter(|copy| copy.kind() == "run_summary")
        .take(3)
        .cloned()
        .collect();
    let mut spoiler = Spoiler {
        world: &world,
        told: Told::new(),
    };
    spoiler.set(&runs[0], "gar{bage", "document_corrupt");
    spoiler.set(&runs[1], "also {garbage", "document_corrupt");
    spoiler.ask(&["DEL", &spoiler.key(&runs[2], "")]);
    spoiler.expect(&runs[2].name, runs[2].partition, "missing_document");
    let expected = spoiler.told;
    let khala = world.khala("two");
    for n in 1..=3 {
        let events: Vec<Message> = runs.iter().map(|copy| event(&copy.subject(), n)).collect();
        world.send(&events);
    }
    world.settle();
    let status = run(&world.cluster, &["status", "--json"], "");
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let parked = status["partitions"].to_string();
    for copy in &runs {
        assert!(
            parked.contains(&format!("\"{}\"", copy.subject())),
            "{} in {parked}",
            copy.subject()
        );
        assert_eq!(copy.partition, partition_of(copy.subject().as_bytes(), PARTITIONS));
    }
    let messages = world.messages(44_000);
    while_events_flow(&world, &messages, || {
        let (exit, found) = audit(&world, &[]);
        assert_eq!((exit, told(&found)), (3, expected.clone()));
        let (exit, repaired) = audit(&world, &["--repair"]);
        assert_eq!(exit, 0, "{repaired}");
        assert_eq!(audit(&world, &[]).0, 0);
    });
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
}

//! `khala replay --dry-run`: it names what the replay then does, and writes nothing; and what an audit can still tell of
//! documents whose beginning the log has lost.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::audit::{audit, code, told};
use super::compare::{Allow, assert_exact};
use super::spoil::{Copy, Spoiler, Told, documents, rehashed};
use super::world::{World, note};
use crate::support::khala::{Khala, run};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

fn json_of(world: &World, args: &[&str]) -> (i32, Value) {
    let output = run(&world.cluster, args, "");
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let value = serde_json::from_str(last).unwrap_or(Value::Null);
    assert!(
        value.is_object(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    (code(&output), value)
}

fn names(rows: &Value) -> BTreeSet<String> {
    let rows = rows.as_array().expect("a list");
    let name = |row: &Value| row["document_id"].as_str().expect("a name").to_owned();
    rows.iter().map(name).collect()
}

fn set_status(spoiler: &mut Spoiler<'_>, of: &Copy) {
    let text = rehashed(&of.text, |document| {
        let other = if document["status"] == "failed" {
            "running"
        } else {
            "failed"
        };
        document["status"] = json!(other);
    });
    spoiler.set(of, &text, "summary_hash_mismatch");
}

fn last_offset(copy: &Copy) -> u64 {
    copy.offset().parse().expect("a number")
}

/// By the command, in JSON and in words, and over HTTP.
fn assert_foretold(world: &World, (khala, dry): (&Khala, &[&str]), (changes, documents): (&BTreeSet<String>, usize)) {
    let (exit, forecast) = json_of(world, dry);
    assert_eq!((exit, names(&forecast["changed"])), (0, changes.clone()), "{forecast}");
    let status = &forecast["changes"]["fields"]["status"];
    assert_eq!(status["documents"], json!(changes.len() - 1), "{forecast}");
    assert_eq!(forecast["changes"]["unreadable"], json!(1), "{forecast}");
    assert!(forecast["expected_seconds"].as_f64() > Some(0.0), "{forecast}");
    let words = run(&world.cluster, &dry[..dry.len() - 1], "");
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    let says = format!(
        "{} of {} documents change; 1 unreadable; `status` in {}: ",
        changes.len(),
        documents,
        changes.len() - 1
    );
    assert!(words.contains(&says), "{says}: {words}");
    let body = json!({"partition": 1, "from": format!("offset {}", dry[5]), "dry_run": true}).to_string();
    let lines = khala.post("/v1/replays", &body);
    let last: Value = serde_json::from_str(lines.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!(&names(&last["report"]["changed"]), changes, "{last}");
}

#[test]
fn a_dry_run_names_what_the_replay_then_changes_and_writes_nothing() {
    let mut world = World::new("forecast", 3, 12_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(7_000);
    world.settle();
    let middle = world.offsets()[1];
    world.produce(4_000);
    world.settle();
    let all: Vec<Copy> = documents(&world)
        .into_values()
        .filter(|copy| copy.partition == 1)
        .collect();
    let from = middle.to_string();
    let dry = [
        "replay",
        "--partition",
        "1",
        "--from",
        "offset",
        &from,
        "--dry-run",
        "--json",
    ];
    let (exit, nothing) = json_of(&world, &dry);
    assert_eq!((exit, &nothing["changed"]), (0, &json!([])), "{nothing}");
    let mark = nothing["partitions"][0]["from"].as_u64().expect("a number");
    let (later, earlier): (Vec<Copy>, Vec<Copy>) = all.into_iter().partition(|copy| last_offset(copy) >= mark);
    assert!(
        mark > 0 && later.len() > 20 && earlier.len() > 2,
        "{mark} {} {}",
        later.len(),
        earlier.len()
    );
    assert_eq!(nothing["documents"], json!(later.len()), "those that it touches");

    let mut spoiler = Spoiler {
        world: &world,
        told: Told::new(),
    };
    for copy in later.iter().step_by(7).chain(&earlier[..3]) {
        set_status(&mut spoiler, copy);
    }
    spoiler.set(&later[1], "gar{bage", "document_corrupt");
    let changes: BTreeSet<String> = later
        .iter()
        .step_by(7)
        .chain([&later[1]])
        .map(|copy| copy.name.clone())
        .collect();
    let behind: BTreeSet<String> = earlier[..3].iter().map(|copy| copy.name.clone()).collect();
    let before = (documents(&world), world.checkpoint(1));
    assert_foretold(&world, (&khala, &dry), (&changes, later.len()));
    let after = (documents(&world), world.checkpoint(1));
    assert!(
        before
            .0
            .values()
            .map(|copy| &copy.text)
            .eq(after.0.values().map(|copy| &copy.text))
    );
    assert_eq!(before.1["digest"], after.1["digest"]);
    assert_eq!(before.1["intent"], after.1["intent"]);

    let wet = ["replay", "--partition", "1", "--from", "offset", &from, "--json"];
    let (exit, replayed) = json_of(&world, &wet);
    assert_eq!((exit, &replayed["proof"]["wrong"]), (0, &json!([])), "{replayed}");
    assert_eq!(replayed["proof"]["proven"], json!(later.len()), "{replayed}");
    let left: BTreeSet<String> = told(&audit(&world, &[]).1).into_iter().map(|row| row.0).collect();
    assert_eq!(left, behind, "what ended before the mark is as it was");
    assert_eq!(audit(&world, &["--repair"]).0, 0);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_stale_document_is_found_though_the_log_has_lost_its_beginning() {
    let mut world = World::new("forgotten", 2, 12_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(3_000);
    world.settle();
    let cut = world.offsets()[0];
    let at_cut = documents(&world);
    world.produce(2_000);
    world.settle();
    let later = documents(&world);
    world.produce(2_000);
    world.settle();
    world.kafka().delete_records(&world.cluster.topic, 0, cut);
    let now = documents(&world);
    let (exit, clean) = audit(&world, &[]);
    assert_eq!((exit, told(&clean)), (0, Told::new()), "{clean}");
    let forgotten = clean["unverifiable"].as_u64().expect("a number");
    assert!(forgotten > 10, "{clean}");
    let changed = |copy: &&Copy| copy.partition == 0 && now[&copy.subject()].text != copy.text;
    let began = |copy: &Copy| copy.first_offset() < cut;
    let good = later
        .values()
        .filter(|copy| began(copy) && last_offset(copy) >= cut)
        .find(changed);
    let good = good.expect("one whose later events are all in the log");
    let lost = at_cut
        .values()
        .filter(|copy| last_offset(copy) + 1 < cut && copy.name != good.name)
        .find(changed);
    let lost = lost.expect("one that may miss events which the log has lost");
    let mut spoiler = Spoiler {
        world: &world,
        told: Told::new(),
    };
    for copy in [good, lost] {
        spoiler.set_back(copy);
        spoiler.ask(&["ZADD", &spoiler.index(copy), &copy.offset(), copy.id()]);
    }
    let expected = spoiler.told;
    assert_eq!(told(&audit(&world, &[]).1), expected, "{forgotten} are unverifiable");
    let (exit, repaired) = audit(&world, &["--repair"]);
    assert_eq!(exit, 3, "{repaired}");
    assert_eq!(
        names(&repaired["repair"]["left"]),
        BTreeSet::from([lost.name.clone()]),
        "{repaired}"
    );
    let healed = documents(&world);
    let content = |copy: &Copy| rehashed(&copy.text, |document| document["projected_at"] = json!(""));
    assert_eq!(content(&healed[&good.subject()]), content(&now[&good.subject()]));
    assert_eq!(healed[&lost.subject()].text, lost.text, "it was left as it is");
    let replay = run(&world.cluster, &["replay", "run", "nobody-knows"], "");
    assert_eq!(code(&replay), 4);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_store_that_lost_writes_is_named_while_nobody_redoes_them() {
    let mut world = World::new("forecast-back", 2, 6_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(2_000);
    world.settle();
    let dump = world.redis.dump();
    world.produce(2_000);
    world.settle();
    assert_eq!(khala.term(), Some(0));
    world.redis.restore(&dump);
    eventually("the lease in the dump has run out", seconds(60), || {
        let owners: Vec<String> = world.redis.ask(&["KEYS", &world.key(0, "owner").replace('0', "*")]);
        if owners.is_empty() { Ok(()) } else { Err(owners) }
    });
    let (exit, found) = audit(&world, &[]);
    let reasons: BTreeSet<String> = told(&found).into_iter().map(|row| row.2).collect();
    assert_eq!(
        (exit, reasons),
        (3, BTreeSet::from(["sink_rolled_back".to_owned()])),
        "{found}"
    );
    let khala = world.khala("two");
    assert_exact(
        &world,
        Allow {
            repeated_dead_letters: true,
            ..Allow::default()
        },
    );
    let (exit, clean) = audit(&world, &[]);
    assert_eq!((exit, told(&clean)), (0, Told::new()));
    note(&format!("{clean}"));
    assert_eq!(khala.term(), Some(0));
}

//! Readers are led to a candidate in stages: they follow at once, no answer mixes, a broken gate leads them back by
//! itself, a killed leader is taken over, and all of it is in the record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::world::{World, note};
use crate::support::khala::{Cluster, Khala, run};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

/// Readers follow the route so fast.
const FOLLOW_MAX: Duration = Duration::from_millis(250);

pub fn beside(world: &World) -> Cluster {
    Cluster {
        namespace: format!("{}-2", world.cluster.namespace),
        ..world.cluster.clone()
    }
}

/// A plan of two stages and all, with these lines among its gates.
pub fn plan(dir: &Path, allow: &str, hold: &str, gates: &str) -> PathBuf {
    let stages = [0, 50, 100].map(|percent| format!("[[stage]]\npercent = {percent}\nhold = \"{hold}\"\n"));
    let latency = if gates.contains("read_latency_p95_ms_max") {
        ""
    } else {
        "read_latency_p95_ms_max = 60000\n"
    };
    let text = format!(
        "allow = [{allow}]\n[gates]\nparity_sample = 1000\n{latency}{gates}\n{}",
        stages.join("\n")
    );
    let path = dir.join("rollout.toml");
    std::fs::write(&path, text).expect("a file");
    path
}

/// Exit code, the JSON, and what stderr said.
pub fn rollout(cluster: &Cluster, words: &[&str]) -> (Option<i32>, Value, String) {
    let output = run(cluster, &[&["rollout"], words, &["--json"]].concat(), "");
    (
        output.status.code(),
        serde_json::from_slice(&output.stdout).unwrap_or_default(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

pub fn start(world: &World, plan: &Path) -> (Option<i32>, Value, String) {
    let candidate = beside(world).namespace;
    let plan = plan.display().to_string();
    rollout(&world.cluster, &["start", "--candidate", &candidate, "--plan", &plan])
}

pub fn report(khala: &Khala) -> Value {
    let (status, text) = khala.get("/v1/rollout").expect("an answer");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Waits until a process leads and has measured.
pub fn led(khala: &Khala) {
    eventually("somebody leads", seconds(60), || {
        let now = report(khala);
        let parity = &now["leader"]["gates"][0]["value"];
        if parity.is_number() { Ok(()) } else { Err(now) }
    });
}

/// All runs of one answer: whether each is the candidate's.
pub fn listed(khala: &Khala) -> BTreeMap<String, bool> {
    let (status, text) = khala.get("/v1/runs?limit=1000").expect("an answer");
    let page: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, &page["cursor"]), (200, &Value::Null), "{text}");
    let rows = page["documents"].as_array().expect("documents");
    let found: BTreeMap<_, _> = rows
        .iter()
        .map(|row| (row["run_id"].as_str().expect("an id").to_owned(), row["marked"] == true))
        .collect();
    assert_eq!(found.len(), rows.len(), "an entity twice in one answer");
    found
}

pub fn away(listed: &BTreeMap<String, bool>) -> BTreeSet<String> {
    let away = listed.iter().filter(|(_, away)| **away);
    away.map(|(id, _)| id.clone()).collect()
}

/// Marks documents of the candidate, so that an answer tells where it is from.
pub fn mark(world: &World, how_many: usize) {
    let tag = format!("{{{}:*}}:run_summary:*", beside(world).namespace);
    let keys: Vec<String> = world.redis.ask(&["KEYS", &tag]);
    for key in keys.iter().take(how_many) {
        let text: String = world.redis.ask(&["GET", key]);
        let marked = text.replacen('{', "{\"marked\":true,", 1);
        let _: String = world.redis.ask(&["SET", key, &marked]);
    }
}

/// Ends readers, also when the test fails.
pub struct Done<'a>(pub &'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until the candidate has all that the namespace has.
pub fn level(world: &World) {
    let other = beside(world).namespace;
    eventually("the candidate has all", seconds(60), || {
        let offset = |p| -> Option<String> {
            let key = format!("{{{other}:{p}}}:checkpoint");
            world.redis.ask(&["HGET", &key, "offset"])
        };
        let there: Vec<u64> = (0..world.partitions)
            .map(|p| offset(p).and_then(|text| text.parse().ok()).unwrap_or(0))
            .collect();
        if there == world.offsets() { Ok(()) } else { Err(there) }
    });
}

fn begun(name: &str, events: usize) -> (World, Khala, Khala) {
    let mut world = World::new(name, 2, events, Keeps::Dumps);
    let old = world.khala("old");
    let new = Khala::start(world.dir(), &beside(&world), "new", &[]);
    world.produce(events);
    world.settle();
    level(&world);
    (world, old, new)
}

#[test]
fn readers_follow_each_stage_at_once_and_no_answer_mixes() {
    let (world, old, _new) = begun("rollout", 2_000);
    mark(&world, usize::MAX);
    let all = listed(&old);
    assert!(all.len() > 30 && away(&all).is_empty(), "{}", all.len());
    let first = all.keys().next().expect("a run").clone();
    let plan = plan(
        world.dir(),
        &format!("\"run/{first}\""),
        "1h",
        "parity_differing_max = 100000\nparity_documents_min = 0",
    );
    let (done, mut sets) = (AtomicBool::new(false), vec![BTreeSet::new()]);
    let answers = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut answers: Vec<BTreeSet<String>> = Vec::new();
            while !done.load(Ordering::SeqCst) {
                let answer = listed(&old);
                answers.push(away(&answer));
            }
            answers
        });
        let ending = Done(&done);
        let (code, _, words) = start(&world, &plan);
        assert_eq!(code, Some(0), "{words}");
        sets.push(follow(&old, &sets[0]));
        led(&old);
        for _ in 0..2 {
            let before = sets.last().expect("a set").clone();
            let said = old.post("/v1/rollout/promote", "{}");
            assert!(said.contains("\"rolling\""), "{said}");
            sets.push(follow(&old, &before));
        }
        let before = sets.last().expect("a set").clone();
        let said = old.post("/v1/rollout/rollback", "{}");
        assert!(said.contains("\"rolled_back\""), "{said}");
        assert!(follow(&old, &before).is_empty());
        drop(ending);
        reader.join().expect("the reader")
    });
    let sizes: Vec<usize> = sets.iter().map(BTreeSet::len).collect();
    assert_eq!(sets[1], BTreeSet::from([first]), "the list alone");
    assert!(sizes[2] > all.len() / 5 && sizes[2] < all.len() * 4 / 5, "{sizes:?}");
    assert!(sets[1].is_subset(&sets[2]) && sizes[3] == all.len(), "{sizes:?}");
    for answer in &answers {
        assert!(sets.contains(answer), "an answer of two routes: {} away", answer.len());
    }
    let record = &report(&old)["record"];
    let did: Vec<&str> = record
        .as_array()
        .expect("steps")
        .iter()
        .filter_map(|step| step["did"].as_str())
        .collect();
    assert_eq!(did, ["start", "promote", "promote", "rollback"], "{record}");
    assert_eq!(record[1]["to"]["percent"], 50, "{record}");
    assert_eq!(record[1]["gates"].as_array().map(Vec::len), Some(7), "{record}");
    note(&format!("{} answers, away by stage: {sizes:?}", answers.len()));
}

/// Which runs are led away once that has changed, which must be soon.
pub fn follow(khala: &Khala, before: &BTreeSet<String>) -> BTreeSet<String> {
    let changed = Instant::now();
    loop {
        let asked = changed.elapsed();
        let now = away(&listed(khala));
        if now != *before {
            note(&format!("followed within {} ms", changed.elapsed().as_millis()));
            return now;
        }
        assert!(asked < FOLLOW_MAX, "not followed after {asked:?}");
    }
}

#[test]
fn documents_that_differ_lead_readers_back_by_themselves_and_the_reason_is_told() {
    let (world, old, new) = begun("rollback", 1_000);
    let (code, _, words) = rollout(&world.cluster, &["status"]);
    assert_eq!(code, Some(4), "{words}");
    let path = plan(world.dir(), "\"run/*\"", "1h", "parity_documents_min = 5");
    let (code, _, words) = start(&world, &path);
    assert_eq!(code, Some(0), "{words}");
    led(&old);
    assert_eq!(report(&old)["leader"]["gates"][0]["value"], 0.0);
    let (code, _, words) = start(&world, &path);
    assert_eq!((code, words.contains("is under way")), (Some(3), true), "{words}");
    assert!(new.metric("khala_rollout_percent", &[]) < 1.0);
    mark(&world, 1);
    let spoilt = Instant::now();
    let back = eventually("it is rolled back", seconds(60), || {
        let now = report(&old);
        if now["rollout"]["phase"] == "rolled_back" {
            Ok(now)
        } else {
            Err(now)
        }
    });
    note(&format!(
        "found and led back within {} ms",
        spoilt.elapsed().as_millis()
    ));
    let why = back["rollout"]["why"].as_str().expect("why");
    assert!(why.starts_with("gate parity is broken: 1 over 0"), "{why}");
    let last = back["record"]
        .as_array()
        .and_then(|steps| steps.last())
        .expect("a step");
    assert!(last["who"].as_str().expect("who").starts_with("leader/"), "{last}");
    assert_eq!(
        (&last["did"], &last["gates"][0]["value"]),
        (&"rollback".into(), &1.0.into()),
        "{last}"
    );
    eventually("readers are back", seconds(5), || {
        let away = away(&listed(&old));
        if away.is_empty() { Ok(()) } else { Err(away) }
    });
    let route: Option<String> = world.redis.ask(&["GET", "{rollback}:route"]);
    assert_eq!(route, None);
    assert!(old.metric("khala_rollout_steps_total", &[("step", "rollback")]) > 0.0);
    let (code, _, words) = rollout(&world.cluster, &["status"]);
    assert_eq!(code, Some(3), "{words}");
    let (code, _, words) = rollout(&world.cluster, &["promote"]);
    assert_eq!(code, Some(4), "{words}");
    std::fs::write(&path, "[gates]\ndrift_mx = 1\n").expect("a file");
    let (code, _, words) = start(&world, &path);
    assert_eq!(
        (code, words.contains("rollout.toml:2: unknown key `drift_mx`")),
        (Some(2), true),
        "{words}"
    );
}

#[test]
fn a_killed_leader_is_taken_over_and_the_rollout_goes_on_to_its_end() {
    let (world, one, _new) = begun("leader", 1_000);
    let two = world.khala("two");
    let path = plan(world.dir(), "", "2s", "parity_documents_min = 1");
    let (code, _, words) = start(&world, &path);
    assert_eq!(code, Some(0), "{words}");
    led(&one);
    let (code, _, words) = rollout(&world.cluster, &["pause"]);
    assert_eq!(code, Some(0), "{words}");
    let paused = report(&one);
    let who = paused["leader"]["who"].as_str().expect("a leader").to_owned();
    let [leader, left] = if who.ends_with(&format!("-{}", one.pid())) {
        [one, two]
    } else {
        [two, one]
    };
    assert!(who.ends_with(&format!("-{}", leader.pid())), "{who}");
    leader.kill9();
    eventually("another one leads", seconds(60), || {
        let now = report(&left);
        let who = now["leader"]["who"].as_str().unwrap_or_default();
        if who.ends_with(&format!("-{}", left.pid())) {
            Ok(())
        } else {
            Err(now)
        }
    });
    assert_eq!(report(&left)["rollout"]["phase"], "paused");
    let (code, _, words) = rollout(&world.cluster, &["resume"]);
    assert_eq!(code, Some(0), "{words}");
    let done = eventually("it is done", seconds(60), || {
        let now = report(&left);
        if now["rollout"]["phase"] == "done" {
            Ok(now)
        } else {
            Err(now)
        }
    });
    let steps = done["record"].as_array().expect("steps");
    let did: Vec<&str> = steps.iter().filter_map(|step| step["did"].as_str()).collect();
    assert_eq!(did.first(), Some(&"start"), "{did:?}");
    assert_eq!(did.last(), Some(&"finish"), "{did:?}");
    assert!(did.contains(&"pause") && did.contains(&"resume"), "{did:?}");
    let route: Option<String> = world.redis.ask(&["GET", "{leader}:route"]);
    assert_eq!(route.as_deref(), Some("leader-2"));
}

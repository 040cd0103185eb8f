//! Each gate of a rollout but parity (that one is in `rollout`), broken on a real Kafka and Redis: readers are led back
//! by themselves, and the record says which gate it was, with its number and limit.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::rollout::{beside, led, level, mark, plan, report, start};
use super::world::{World, note};
use crate::support::khala::{Cluster, Khala};
use crate::support::proxy::Proxy;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

/// Documents may differ as they like: the gate that a test is about is another one.
const ANY_PARITY: &str = "parity_differing_max = 1e9\nparity_documents_min = 0";

/// A namespace that serves, and a candidate that is level with it.
struct Stage {
    world: World,
    old: Khala,
    new: Khala,
}

impl Stage {
    /// `store`: what the served namespace's process, and the candidate's, take for the store's address.
    fn new(name: &str, events: usize, store: impl Fn(&World) -> [String; 2]) -> Self {
        let mut world = World::new(name, 2, 4 * events, Keeps::Dumps);
        let [own, other] = store(&world);
        let at = |cluster: Cluster, store: String| Cluster { store, ..cluster };
        let old = Khala::start(world.dir(), &at(world.cluster.clone(), own), "old", &[]);
        let new = Khala::start(world.dir(), &at(beside(&world), other), "new", &[]);
        world.produce(events);
        world.settle();
        level(&world);
        Self { world, old, new }
    }

    fn plain(name: &str, events: usize) -> Self {
        Self::new(name, events, |world| [world.redis.url(), world.redis.url()])
    }

    /// Begins a rollout of all readers of runs, which holds for an hour unless a gate breaks.
    fn begin(&self, gates: &str) {
        let path = plan(self.world.dir(), "\"run/*\"", "1h", &format!("{ANY_PARITY}\n{gates}"));
        let (code, _, words) = start(&self.world, &path);
        assert_eq!(code, Some(0), "{words}");
        led(&self.old);
        let now = eventually("the candidate's projectors tell of themselves", seconds(30), || {
            let now = report(&self.old);
            let drift = &now["leader"]["gates"][1]["value"];
            if drift.is_number() { Ok(now) } else { Err(now) }
        });
        assert_eq!(now["rollout"]["phase"], "rolling", "{now}");
    }

    /// Waits until it was rolled back by itself because of this gate; its number then.
    fn broken(&self, gate: &str) -> f64 {
        let since = Instant::now();
        let now = eventually(&format!("gate {gate} leads readers back"), seconds(90), || {
            let now = report(&self.old);
            if now["rollout"]["phase"] == "rolled_back" {
                Ok(now)
            } else {
                Err(now)
            }
        });
        let last = now["record"].as_array().and_then(|steps| steps.last()).expect("a step");
        let who = last["who"].as_str().expect("who");
        assert!(last["did"] == "rollback" && who.starts_with("leader/"), "{last}");
        let gates = last["gates"].as_array().expect("gates");
        let reading = gates.iter().find(|one| one["gate"] == gate).expect("the gate");
        let number = |name: &str| reading[name].as_f64().unwrap_or_else(|| panic!("{name}: {reading}"));
        let (value, limit) = (number("value"), number("limit"));
        let why = last["why"].as_str().expect("why");
        let words = format!("gate {gate} is broken: {value} over {limit}");
        assert!(why.starts_with(&words) && value > limit, "{why}; {words}");
        note(&format!("{why}: after {} ms", since.elapsed().as_millis()));
        let namespace = &self.world.cluster.namespace;
        let route: Option<String> = self.world.redis.ask(&["GET", &format!("{{{namespace}}}:route")]);
        assert_eq!(route, None, "readers are back");
        value
    }

    /// A key of the candidate's partition.
    fn key(&self, rest: &str) -> String {
        let keys: Vec<String> = self
            .world
            .redis
            .ask(&["KEYS", &format!("{{{}:*}}:{rest}", beside(&self.world).namespace)]);
        keys.into_iter().min().unwrap_or_else(|| panic!("a key {rest}"))
    }

    /// Puts a list where something else must be.
    fn spoil(&self, key: &str) {
        let _: i64 = self.world.redis.ask(&["DEL", key]);
        let _: i64 = self.world.redis.ask(&["LPUSH", key, "x"]);
    }
}

#[test]
fn drift_of_the_candidate_leads_readers_back() {
    let stage = Stage::plain("gate-drift", 500);
    stage.begin("");
    mark(&stage.world, 2);
    let said = stage.new.post("/v1/audits", "{}");
    assert!(said.contains("summary_hash_mismatch"), "{said}");
    assert!(stage.broken("drift") >= 2.0);
}

#[test]
fn writes_of_the_candidate_that_are_refused_lead_readers_back() {
    let mut stage = Stage::new("gate-writes", 500, |world| {
        let _: String = world
            .redis
            .ask(&["ACL", "SETUSER", "candidate", "on", ">secret", "~*", "&*", "+@all"]);
        let other = format!("redis://candidate:secret@{}", world.redis.address());
        [world.redis.url(), other]
    });
    stage.begin("");
    // It may go on to tell how it fares, and to write nothing of a partition.
    let own = format!("~{{{}}}:*", beside(&stage.world).namespace);
    let _: String = stage
        .world
        .redis
        .ask(&["ACL", "SETUSER", "candidate", "resetkeys", &own, "%R~*"]);
    stage.world.produce(200);
    let share = stage.broken("write_failures");
    assert!(share <= 1.0, "{share}");
    stage.world.settle();
}

#[test]
fn documents_that_cannot_be_read_lead_readers_back() {
    let stage = Stage::plain("gate-reads", 500);
    stage.begin("");
    let key = stage.key("run_summary:*");
    stage.spoil(&key);
    let (_, id) = key.rsplit_once(':').expect("an id");
    for _ in 0..8 {
        let (status, text) = stage.old.get(&format!("/v1/runs/{id}")).expect("an answer");
        assert!(
            status >= 500 || report(&stage.old)["route"].is_null(),
            "{status} {text}"
        );
    }
    assert!(stage.broken("read_errors") > 5.0);
    let (status, text) = stage.old.get(&format!("/v1/runs/{id}")).expect("an answer");
    assert_eq!(status, 200, "its own document is as it was: {text}");
}

#[test]
fn a_candidate_that_cannot_even_be_compared_leads_readers_back() {
    let stage = Stage::plain("gate-compare", 500);
    stage.begin("drift_max = 1000"); // its own projector notices too
    let key = stage.key("checkpoint");
    stage.spoil(&key);
    assert!(stage.broken("read_errors") > 5.0);
}

#[test]
fn a_candidate_that_stands_still_leads_readers_back() {
    let mut stage = Stage::plain("gate-lag", 500);
    stage.begin("lag_p95_events_max = 100");
    stage.new.sigstop();
    stage.world.produce(400);
    assert!(stage.broken("lag_p95_events") > 100.0);
    stage.new.sigcont();
    level(&stage.world);
}

#[test]
fn a_candidate_that_is_gone_leads_readers_back_also_where_nothing_happens() {
    let stage = Stage::plain("gate-silent", 500);
    stage.begin("silent_seconds_max = 3");
    stage.new.sigstop();
    assert!(stage.broken("silent_seconds") > 3.0);
    stage.new.sigcont();
}

#[test]
fn reads_of_the_candidate_that_take_long_lead_readers_back() {
    let proxy = std::cell::OnceCell::new();
    let stage = Stage::new("gate-latency", 500, |world| {
        let proxy = proxy.get_or_init(|| Proxy::to(&world.redis.address()));
        [format!("redis://{}", proxy.address()), world.redis.url()]
    });
    stage.begin("read_latency_p95_ms_max = 400");
    let fine: Value = report(&stage.old)["leader"]["gates"][5].clone();
    assert!(fine["value"].as_f64().expect("a number") < 400.0, "{fine}");
    proxy.get().expect("set above").delay(Duration::from_millis(150));
    assert!(stage.broken("read_latency_p95_ms") > 400.0);
}

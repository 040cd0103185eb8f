//! Any drift is found: documents are spoilt at random, and the audit must name those, and only those, that a slow fold
//! of its own finds different. `KHALA_SEED` makes the same spoils again.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::audit::{audit, told};
use super::compare::{Allow, assert_exact};
use super::spoil::{Copy, documents, rehashed};
use super::world::{World, note};
use crate::reference::decode::Rules;
use crate::reference::fold::{Partition, fold};
use crate::support::redis_server::Keeps;

const PARTITIONS: u32 = 3;
const ROUNDS: u32 = 8;
const SPOILS_MAX: u32 = 40;

/// Document and partition.
type Place = (String, u32);

struct Vandal<'a> {
    world: &'a World,
    dice: StdRng,
    now: Vec<Copy>,
    old: Vec<Copy>,
}

impl Vandal<'_> {
    fn ask(&self, parts: &[&str]) {
        let _: redis::Value = self.world.redis.ask(parts);
    }

    fn spoil(&mut self) -> String {
        let one = self.now.choose(&mut self.dice).expect("there are some").clone();
        let other = self.now.choose(&mut self.dice).expect("there are some").clone();
        let old = self.old.choose(&mut self.dice).expect("there are some").clone();
        let key = self.world.key(one.partition, &one.name);
        let state = self.world.key(one.partition, &format!("state:{}", one.name));
        let index = self.world.key(one.partition, &format!("index:{}", one.kind()));
        let kind = self.dice.random_range(0..16);
        match kind {
            0 => self.ask(&["DEL", &key]),
            1 => {
                self.ask(&["DEL", &key]);
                self.ask(&["ZREM", &index, one.id()]);
            }
            2 => {
                let text = "{[x\"".repeat(self.dice.random_range(0..9));
                self.ask(&["SET", &key, &text]);
            }
            3 => self.flip(&key, &one),
            4 => self.change(&key, &one),
            5 => {
                let names: Vec<String> = serde_json::from_str::<Value>(&one.text).map_or_else(
                    |_| Vec::new(),
                    |value| value.as_object().expect("an object").keys().cloned().collect(),
                );
                let name = names.choose(&mut self.dice).expect("there are some");
                let kept = ["summary_hash", "projected_at"].contains(&name.as_str());
                let text = rehashed(&one.text, |document| {
                    if !kept {
                        document.as_object_mut().expect("an object").remove(name);
                    }
                });
                self.ask(&["SET", &key, &text]);
            }
            6 => self.set_back(&old),
            7 => self.ask(&["SET", &key, &other.text]),
            8 => {
                self.ask(&["DEL", &key]);
                self.ask(&["HSET", &key, "a", "b"]);
            }
            9 => self.ask(&["ZREM", &index, one.id()]),
            10 => {
                let at = self.dice.random_range(0..3_000_u32).to_string();
                self.ask(&["ZADD", &index, &at, one.id()]);
            }
            11 => self.ask(&["DEL", &state]),
            12 => self.ask(&["SET", &state, "of somebody else"]),
            13 => self.invent(&one),
            14 => {
                let partition = (one.partition + self.dice.random_range(1..9)) % 9;
                self.ask(&["SET", &self.world.key(partition, &one.name), &one.text]);
            }
            _ => {
                let id = format!("ghost-{}", self.dice.random_range(0..99_u32));
                self.ask(&["ZADD", &index, "7", &id]);
            }
        }
        format!("{kind} at {}", one.name)
    }

    fn flip(&mut self, key: &str, one: &Copy) {
        let mut bytes = one.text.clone().into_bytes();
        let at = self.dice.random_range(0..bytes.len());
        bytes[at] ^= 1 << self.dice.random_range(0..7_u32);
        let mut command = redis::cmd("SET");
        let _: redis::Value = command
            .arg(key)
            .arg(bytes)
            .query(&mut self.world.redis.connect())
            .expect("done");
    }

    /// Another value in one field, with the hash that it asks for.
    fn change(&mut self, key: &str, one: &Copy) {
        let n = self.dice.random_range(0..4_u32);
        let text = rehashed(&one.text, |document| match n {
            0 => document["status"] = json!("canceled"),
            1 => document["event_count"] = json!(document["event_count"].as_u64().unwrap_or(0) + 1),
            2 => document["runtime_source"]["first_offset"] = json!(0),
            _ => document["runtime_source"]["sources"] = json!({}),
        });
        self.ask(&["SET", key, &text]);
    }

    fn set_back(&mut self, old: &Copy) {
        let key = self.world.key(old.partition, &old.name);
        let state = self.world.key(old.partition, &format!("state:{}", old.name));
        self.ask(&["SET", &key, &old.text]);
        let mut connection = self.world.redis.connect();
        let command = match &old.state {
            Some(bytes) => redis::cmd("SET").arg(&state).arg(bytes).to_owned(),
            None => redis::cmd("DEL").arg(&state).to_owned(),
        };
        let _: redis::Value = command.query(&mut connection).expect("done");
        if self.dice.random_bool(0.5) {
            let index = self.world.key(old.partition, &format!("index:{}", old.kind()));
            self.ask(&["ZADD", &index, &old.offset(), old.id()]);
        }
    }

    fn invent(&mut self, like: &Copy) {
        let id = format!("made-up-{}", self.dice.random_range(0..99_u32));
        let name = format!("{}:{id}", like.kind());
        let text = rehashed(&like.text, |document| {
            document["document_id"] = json!(name);
            document[like.kind().replace("summary", "id")] = json!(id);
            document["runtime_source"]["entity"] = json!(like.subject().replace(like.id(), &id));
        });
        self.ask(&["SET", &self.world.key(like.partition, &name), &text]);
        if self.dice.random_bool(0.5) {
            let index = self.world.key(like.partition, &format!("index:{}", like.kind()));
            self.ask(&["ZADD", &index, &like.offset(), &id]);
        }
    }
}

/// What differs from a fold of its own, from what Redis has by its keys; states from what they were.
fn differing(world: &World, right: &[Copy]) -> BTreeSet<Place> {
    let expected = fold(&world.read_back(), &Rules::of(world.partitions));
    let nothing = Partition::default();
    let mut differing = BTreeSet::new();
    let mut connection = world.redis.connect();
    for p in 0..9 {
        let partition = expected.get(&p).unwrap_or(&nothing);
        for kind in ["run_summary", "worker_summary"] {
            let prefix = world.key(p, "");
            let keys: Vec<String> = world.redis.ask(&["KEYS", &format!("{prefix}{kind}:*")]);
            let mut names: BTreeSet<String> = keys.iter().map(|key| key[prefix.len()..].to_owned()).collect();
            if p < world.partitions {
                let index = world.key(p, &format!("index:{kind}"));
                let ids: Vec<String> = world.redis.ask(&["ZRANGE", &index, "0", "-1"]);
                names.extend(ids.iter().map(|id| format!("{kind}:{id}")));
            }
            let of_kind = partition.entities.values().filter(|entity| entity.kind() == kind);
            names.extend(of_kind.map(|entity| format!("{kind}:{}", entity.id())));
            for name in names {
                let id = name.split_once(':').expect("a kind").1;
                let subject = format!("{}/{id}", kind.trim_end_matches("_summary"));
                let is_right = partition.entities.get(&subject).is_some_and(|entity| {
                    let get = |rest: &str| redis::cmd("GET").arg(world.key(p, &format!("{rest}{name}"))).to_owned();
                    let stored: Result<Vec<u8>, _> = get("").query(&mut connection);
                    let state: Option<Vec<u8>> = get("state:").query(&mut connection).expect("a string");
                    let index = world.key(p, &format!("index:{kind}"));
                    let place: Option<f64> = world.redis.ask(&["ZSCORE", &index, id]);
                    let was = right.iter().find(|copy| copy.name == name && copy.partition == p);
                    place == Some(entity.offset as f64)
                        && state == was.expect("it was there").state
                        && stored.is_ok_and(|stored| is_text_of(&stored, |at| entity.stored(at)))
                });
                if !is_right {
                    differing.insert((name, p));
                }
            }
        }
    }
    differing
}

/// Whether the text is a document's, with any legal time of writing.
fn is_text_of(stored: &[u8], text: impl Fn(&str) -> String) -> bool {
    let value: Value = serde_json::from_slice(stored).unwrap_or_default();
    let projected_at = value["projected_at"].as_str().unwrap_or_default();
    let legal = crate::reference::time::parse(projected_at).and_then(crate::reference::time::format);
    legal.as_deref() == Some(projected_at) && text(projected_at).as_bytes() == stored
}

#[test]
fn an_audit_names_just_what_an_independent_fold_finds_different_however_it_was_spoilt() {
    let seed = std::env::var("KHALA_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    note(&format!("KHALA_SEED={seed}"));
    let mut world = World::new("audit-random", PARTITIONS, 12_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(3_000);
    world.settle();
    let old: Vec<Copy> = documents(&world).into_values().collect();
    world.produce(3_000);
    assert_exact(&world, Allow::default());
    let now: Vec<Copy> = documents(&world).into_values().collect();
    let mut vandal = Vandal {
        world: &world,
        dice: StdRng::seed_from_u64(seed),
        now: now.clone(),
        old,
    };
    let mut found = 0;
    for round in 0..ROUNDS {
        let spoils = vandal.dice.random_range(1..=SPOILS_MAX);
        let done: Vec<String> = (0..spoils).map(|_| vandal.spoil()).collect();
        let expected = differing(&world, &now);
        found += expected.len();
        let (exit, report) = audit(&world, &[]);
        let named: BTreeSet<Place> = told(&report).into_iter().map(|row| (row.0, row.1)).collect();
        let why = format!("KHALA_SEED={seed} round {round}, done: {done:?}");
        let missed: Vec<_> = expected.difference(&named).collect();
        let false_alarms: Vec<_> = named.difference(&expected).collect();
        assert!(missed.is_empty(), "not named: {missed:?}; {why}");
        assert!(false_alarms.is_empty(), "named, and right: {false_alarms:?}; {why}");
        assert_eq!(exit, if expected.is_empty() { 0 } else { 3 }, "{why}");
        let (exit, repaired) = audit(&world, &["--repair", "--repair-max", "10000"]);
        assert_eq!(exit, 0, "{why}: {repaired}");
        assert_eq!(differing(&world, &now), BTreeSet::new(), "{why}");
    }
    assert!(found > 20, "{found}: next to nothing was spoilt");
    note(&format!("{found} spoilt documents found and repaired"));
    drop(vandal);
    world.produce(2_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
}

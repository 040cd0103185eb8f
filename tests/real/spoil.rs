//! Spoils documents in Redis in every way that an audit must name, and takes note of what it must say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::world::World;

/// A document as Redis has it.
#[derive(Clone)]
pub struct Copy {
    pub partition: u32,
    /// `run_summary:<id>` or `worker_summary:<id>`.
    pub name: String,
    pub text: String,
    pub state: Option<Vec<u8>>,
}

impl Copy {
    pub fn kind(&self) -> &str {
        self.name.split_once(':').expect("a kind").0
    }

    pub fn id(&self) -> &str {
        self.name.split_once(':').expect("an id").1
    }

    pub fn subject(&self) -> String {
        format!("{}/{}", self.kind().trim_end_matches("_summary"), self.id())
    }

    pub fn offset(&self) -> String {
        let value: Value = serde_json::from_str(&self.text).expect("JSON");
        value["runtime_source"]["offset"].to_string()
    }

    pub fn first_offset(&self) -> u64 {
        let value: Value = serde_json::from_str(&self.text).expect("JSON");
        value["runtime_source"]["first_offset"].as_u64().expect("a number")
    }
}

/// What must be told: document, partition, reason.
pub type Told = BTreeSet<(String, u32, String)>;

pub fn documents(world: &World) -> BTreeMap<String, Copy> {
    let mut connection = world.redis.connect();
    let mut found = BTreeMap::new();
    for partition in 0..world.partitions {
        let beginning = world.key(partition, "");
        for kind in ["run_summary", "worker_summary"] {
            let keys: Vec<String> = world.redis.ask(&["KEYS", &format!("{beginning}{kind}:*")]);
            for key in keys {
                let name = key.strip_prefix(&beginning).expect("asked for").to_owned();
                let get = |key: &str| redis::cmd("GET").arg(key).to_owned();
                let text: String = get(&key).query(&mut connection).expect("a string");
                let state: Option<Vec<u8>> = get(&format!("{beginning}state:{name}"))
                    .query(&mut connection)
                    .expect("a string");
                let copy = Copy {
                    partition,
                    name,
                    text,
                    state,
                };
                found.insert(copy.subject(), copy);
            }
        }
    }
    found
}

/// A changed document with the hash that its content asks for.
pub fn rehashed(text: &str, change: impl Fn(&mut Value)) -> String {
    let mut value: Value = serde_json::from_str(text).expect("JSON");
    change(&mut value);
    let object = value.as_object_mut().expect("an object");
    object.remove("summary_hash");
    let projected_at = object.remove("projected_at").expect("given");
    let hash = Sha256::digest(serde_json::to_vec(&value).expect("JSON"));
    let hex = hash
        .iter()
        .fold("sha256:".to_owned(), |hex, byte| hex + &format!("{byte:02x}"));
    value["summary_hash"] = json!(hex);
    value["projected_at"] = projected_at;
    value.to_string()
}

/// Spoils documents one by one and takes note of what must be told.
pub struct Spoiler<'a> {
    pub world: &'a World,
    pub told: Told,
}

impl Spoiler<'_> {
    pub fn ask(&self, parts: &[&str]) {
        let _: redis::Value = self.world.redis.ask(parts);
    }

    pub fn key(&self, of: &Copy, rest: &str) -> String {
        self.world.key(of.partition, &format!("{rest}{}", of.name))
    }

    pub fn index(&self, of: &Copy) -> String {
        self.world.key(of.partition, &format!("index:{}", of.kind()))
    }

    pub fn expect(&mut self, name: &str, partition: u32, reason: &str) {
        self.told.insert((name.to_owned(), partition, reason.to_owned()));
    }

    pub fn set(&mut self, of: &Copy, text: &str, reason: &str) {
        self.ask(&["SET", &self.key(of, ""), text]);
        self.expect(&of.name, of.partition, reason);
    }

    /// An older copy, with its state.
    pub fn set_back(&mut self, old: &Copy) {
        self.set(old, &old.text, "summary_hash_mismatch");
        let mut command = redis::cmd("DEL");
        if let Some(state) = &old.state {
            command = redis::cmd("SET");
            command.arg(self.key(old, "state:")).arg(state);
        } else {
            command.arg(self.key(old, "state:"));
        }
        let _: redis::Value = command.query(&mut self.world.redis.connect()).expect("done");
    }

    pub fn spoil_all(&mut self, quiet: &[Copy], stale: &[Copy], with_state: &Copy) {
        let of = |i: usize| quiet[i].clone();
        let one = of(0);
        self.ask(&["DEL", &self.key(&one, "")]);
        self.expect(&one.name, one.partition, "missing_document");
        let text = of(1).text.replacen("\"event_count\":", "\"event_count\":9", 1);
        self.set(&of(1), &text, "summary_hash_mismatch");
        let text = rehashed(&of(2).text, |document| {
            document["latest_event_type"] = json!("run.made_up");
        });
        self.set(&of(2), &text, "summary_hash_mismatch");
        self.set(&of(3), "gar{bage", "document_corrupt");
        let five = of(4);
        self.ask(&["DEL", &self.key(&five, "")]);
        self.ask(&["LPUSH", &self.key(&five, ""), "x"]);
        self.expect(&five.name, five.partition, "document_corrupt");
        self.invent(&of(5));
        let six = of(6);
        self.ask(&["ZREM", &self.index(&six), six.id()]);
        self.expect(&six.name, six.partition, "missing_document");
        // In the wrong partition, and in one that the topic does not have.
        for partition in [(of(7).partition + 1) % self.world.partitions, 9] {
            self.ask(&["SET", &self.world.key(partition, &of(7).name), &of(7).text]);
            self.expect(&of(7).name, partition, "unexpected_document");
        }
        let eight = of(8);
        self.ask(&["DEL", &self.key(&eight, "")]);
        self.ask(&["ZREM", &self.index(&eight), eight.id()]);
        self.expect(&eight.name, eight.partition, "missing_document");
        let nine = of(9);
        self.ask(&["ZADD", &self.index(&nine), "0", nine.id()]);
        self.expect(&nine.name, nine.partition, "summary_hash_mismatch");
        self.ask(&["ZADD", &self.world.key(1, "index:run_summary"), "3", "ghost"]);
        self.expect("run_summary:ghost", 1, "unexpected_document");
        self.set_back(&stale[0]);
        self.set_back(&stale[1]);
        self.ask(&["ZADD", &self.index(&stale[1]), &stale[1].offset(), stale[1].id()]);
        self.ask(&["DEL", &self.key(with_state, "state:")]);
        self.expect(&with_state.name, with_state.partition, "document_corrupt");
    }

    /// Documents that look right, of entities that never were: in the index, and not.
    fn invent(&mut self, like: &Copy) {
        for (name, indexed) in [("made-up-1", true), ("made-up-2", false)] {
            let id_field = like.kind().replace("summary", "id");
            let document_id = format!("{}:{name}", like.kind());
            let subject = like.subject().replace(like.id(), name);
            let text = rehashed(&like.text, |document| {
                document["document_id"] = json!(document_id);
                document[&id_field] = json!(name);
                document["runtime_source"]["entity"] = json!(subject);
            });
            self.ask(&["SET", &self.world.key(like.partition, &document_id), &text]);
            if indexed {
                self.ask(&["ZADD", &self.index(like), &like.offset(), name]);
            }
            self.expect(&document_id, like.partition, "unexpected_document");
        }
    }
}

//! What is stored, to the byte: a change of these files is a change of a stored format, and wants a line in the upgrade
//! guide (docs/deployment.md), a raised projection version, or both. Only what differs each time is left out.

use serde_json::{Value, json};

use super::rollout::{beside, led, level, plan, start};
use super::topic;
use super::upgrade::stored::{keys, put_back, record, text as lines};
use super::world::World;
use crate::support::broker::Kafka;
use crate::support::khala::{Khala, run};
use crate::support::wait::{eventually, seconds};

/// All events are of this day.
const DAY: &str = "2026-02-19T12:00:";
const DAY_MS: i64 = 1_771_502_400_000;

fn events() -> Vec<Value> {
    let event = |n: usize, (subject, kind, sequence, data): (&str, &str, Option<u64>, Value)| {
        let mut event = json!({
            "specversion": "1.0", "id": format!("id-{n}"), "source": "golden", "type": kind, "subject": subject,
            "time": format!("{DAY}{n:02}.000Z"), "data": data,
        });
        if let Some(sequence) = sequence {
            event["sequence"] = sequence.to_string().into();
        }
        (subject.to_owned(), event.to_string())
    };
    let mut records: Vec<(String, String)> = [
        (
            "run/a",
            "run.created",
            Some(1),
            json!({"thread_id": "t", "owner_user_id": "u"}),
        ),
        ("run/a", "run.started", Some(2), json!({})),
        ("run/a", "run.delta", Some(5), json!({"delta": "a gap"})),
        (
            "run/a",
            "run.finished",
            Some(6),
            json!({"status": "failed", "reason_class": "c", "reason": "r"}),
        ),
        ("run/b", "run.started", None, json!({"owner_guest_scope": "g"})),
        ("run/b", "run.executor_lost", None, json!({})),
        (
            "worker/w",
            "worker.started",
            Some(1),
            json!({"workspace_ref": "w", "adapter": "x", "metadata": {"k": 1}}),
        ),
        ("worker/w", "worker.heartbeat", Some(2), json!({})),
        ("worker/w", "worker.error", Some(3), json!({"fatal": false})),
        ("worker/w", "worker.stopped", Some(4), json!({})),
    ]
    .into_iter()
    .enumerate()
    .map(|(n, what)| event(n, what))
    .collect();
    records.push(("run/c".to_owned(), "no event".to_owned()));
    let rows = records.into_iter().enumerate().map(|(n, (key, value))| {
        json!({"partition": 0, "timestamp": DAY_MS + n as i64, "key": key, "value": value, "headers": []})
    });
    rows.collect()
}

/// A text without what differs each time: other times than the events', names of processes, what was drawn by lot.
fn steady(text: &str, volatile: &[(String, &str)]) -> String {
    let mut out = text.to_owned();
    for (what, name) in volatile {
        out = out.replace(what, name);
    }
    let is_time = |piece: &str| {
        piece.len() == 24
            && piece
                .bytes()
                .zip("0000-00-00T00:00:00.000Z".bytes())
                .all(|(is, form)| match form {
                    b'0' => is.is_ascii_digit(),
                    form => is == form,
                })
    };
    let is_ms = |piece: &str| piece.len() == 13 && piece.bytes().all(|byte| byte.is_ascii_digit());
    let (mut rest, mut done) = (&*out, String::new());
    while let Some(one) = rest.chars().next() {
        let begins = !done.ends_with(|last: char| last.is_ascii_digit());
        let piece = |length: usize| rest.get(..length).filter(|_| begins);
        let after = |length: usize| rest[length..].chars().next();
        if let Some(time) = piece(24).filter(|piece| is_time(piece) && !piece.starts_with(DAY)) {
            done.push_str("<time>");
            rest = &rest[time.len()..];
        } else if let Some(ms) = piece(13).filter(|piece| {
            is_ms(piece) && !piece.starts_with("17715024") && !after(13).is_some_and(|next| next.is_ascii_digit())
        }) {
            done.push_str("<ms>");
            rest = &rest[ms.len()..];
        } else {
            done.push(one);
            rest = &rest[one.len_utf8()..];
        }
    }
    done
}

/// Numbers and names of a note that is told again and again.
fn form(value: &Value) -> Value {
    match value {
        Value::Number(_) => 0.into(),
        Value::Array(items) => items.iter().map(form).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), form(value)))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn stored_formats_are_what_they_were() {
    let world = World::with_brokers(Kafka::start(), "formats", 1, 100, Kafka::create_lasting_topic);
    put_back(&world.config(), &world.cluster.topic, &events(), true);
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--snapshot-interval", "1s"]);
    world.settle();
    let documents = format!("{}.documents", world.cluster.topic);
    let marker = |rec: &crate::reference::Rec| rec.key.as_deref().is_some_and(|key| key.starts_with(b"marker/"));
    eventually("a snapshot", seconds(60), || {
        let records = topic::read_back(&world.config(), &documents);
        if records.iter().any(marker) {
            Ok(())
        } else {
            Err(records.len())
        }
    });
    assert!(run(&world.cluster, &["audit"], "").status.success());
    let stored = keys(&world.redis, "{formats");
    let snapshot = topic::read_back(&world.config(), &documents);
    let letters = topic::read_back(&world.config(), &format!("{}.dead-letters", world.cluster.topic));
    let epoch = snapshot.iter().find(|rec| marker(rec)).expect("a marker");
    let epoch: Value = serde_json::from_slice(epoch.value.as_deref().unwrap_or_default()).expect("JSON");
    let volatile = [
        (world.checkpoint(0).remove("topic_id").expect("an id"), "<topic id>"),
        (epoch["epoch"].as_str().expect("an epoch").to_owned(), "<epoch>"),
    ];
    let records = |records: &[crate::reference::Rec]| lines(&records.iter().map(record).collect::<Vec<_>>());
    insta::assert_snapshot!("redis", steady(&lines(&stored), &volatile));
    insta::assert_snapshot!("documents_topic", steady(&records(&snapshot), &volatile));
    insta::assert_snapshot!("dead_letters_topic", steady(&records(&letters), &volatile));

    let candidate = Khala::start(world.dir(), &beside(&world), "two", &["--snapshot-interval", "off"]);
    level(&world);
    let path = plan(world.dir(), "\"run/a\"", "1h", "parity_documents_min = 0");
    let (code, _, words) = start(&world, &path);
    assert_eq!(code, Some(0), "{words}");
    led(&khala);
    let health = eventually("the candidate's health", seconds(30), || {
        let text: String = world.redis.ask(&["GET", "{formats-2}:health"]);
        if text.contains("written") { Ok(text) } else { Err(text) }
    });
    let note = |name: &str| -> String { world.redis.ask(&["GET", &format!("{{formats}}:{name}")]) };
    let told = |text: &str| -> Value { form(&serde_json::from_str(text).expect("JSON")) };
    let mut lease = told(&note("rollout:lease"));
    (lease["who"], lease["waits_for"]) = ("<who>".into(), "<words>".into());
    for gate in lease["gates"].as_array_mut().expect("gates") {
        // A number, or nothing before there was enough to look at: a question of time.
        assert!(gate["value"].is_number() || gate["value"].is_null(), "{gate}");
        (gate["detail"], gate["value"]) = ("<words>".into(), "<value>".into());
    }
    let health: Vec<Value> = told(&health).as_object().expect("rows").values().cloned().collect();
    let who: Value = serde_json::from_str(&note("rollout:record")).expect("JSON");
    let who = [(who[0]["who"].as_str().expect("who").to_owned(), "<who>")];
    let notes = format!(
        "route {}\nrollout {}\nrollout:record {}\nrollout:lease {lease}\nhealth {}\n",
        note("route"),
        note("rollout"),
        note("rollout:record"),
        lines(&health)
    );
    insta::assert_snapshot!("notes", steady(&notes, &who));
    assert_eq!((khala.term(), candidate.term()), (Some(0), Some(0)));
}

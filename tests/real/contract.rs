//! `khala contract`: what a producer's CI is told, and who breaks what in a topic.

use serde_json::{Value, json};

use super::web::event;
use super::world::World;
use crate::reference::messy::Message;
use crate::reference::place::partition_of;
use crate::support::khala::run;
use crate::support::redis_server::Keeps;

fn message(subject: &str, event: String, partition: Option<u32>) -> Message {
    Message {
        partition,
        key: Some(subject.as_bytes().to_vec()),
        value: Some(event.into_bytes()),
        headers: Vec::new(),
    }
}

fn of<'a>(report: &'a Value, source: &str) -> &'a Value {
    let producers = report["producers"].as_array().expect("producers");
    producers
        .iter()
        .find(|one| one["source"] == source)
        .expect("it is told")
}

#[test]
fn each_producer_is_told_what_it_breaks() {
    let world = World::new("contract", 3, 100, Keeps::Dumps);
    let from = |source: &str, text: &str| text.replace(r#""source":"web""#, &format!(r#""source":"{source}""#));
    let lines = [
        from("good", &event("run/a", 1, "run.started", "{}")),
        from("lossy", &event("run/a", 1, "run.delta", "{}")),
        from("lossy", &event("run/a", 4, "run.delta", "{}")),
        from("lossy", &event("run/a", 4, "run.delta", "{}")),
        from("leaky", &event("run/a", 1, "run.delta", r#"{"password":"hunter2"}"#)),
        from("wrong", &event("job/a", 1, "run.delta", "{}")),
    ];
    let checked = run(&world.cluster, &["contract", "check", "-", "--json"], &lines.join("\n"));
    assert_eq!(checked.status.code(), Some(2), "one line is illegal");
    let report: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    assert_eq!((&report["good"], &report["bad"]), (&json!(5), &json!(1)));
    assert_eq!(
        (&report["lines"][0]["line"], &report["lines"][0]["reason"]),
        (&json!(6), &json!("bad_subject"))
    );
    assert_eq!(
        (&of(&report, "lossy")["missing"], &of(&report, "lossy")["duplicates"]),
        (&json!(2), &json!(1))
    );
    let fine = run(&world.cluster, &["contract", "check"], &lines[0]);
    assert_eq!(fine.status.code(), Some(0));

    let misplaced = (partition_of(b"run/a", 3) + 1) % 3;
    let mut messages: Vec<Message> = lines.iter().map(|line| message("run/a", line.clone(), None)).collect();
    messages.push(message(
        "run/a",
        from("crc", &event("run/a", 1, "run.delta", "{}")),
        Some(misplaced),
    ));
    messages.push(message(
        "run/other",
        from("keyless", &event("run/a", 1, "run.delta", "{}")),
        None,
    ));
    world.send(&messages);
    let watched = run(&world.cluster, &["contract", "watch", "--earliest", "--json"], "");
    assert_eq!(
        watched.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&watched.stderr)
    );
    let report: Value = serde_json::from_slice(&watched.stdout).expect("JSON");
    for (source, reason) in [
        ("crc", "wrong_partition"),
        ("keyless", "key_mismatch"),
        ("wrong", "bad_subject"),
    ] {
        assert_eq!(of(&report, source)["bad"][reason], 1, "{report}");
    }
    let detail = of(&report, "crc")["last_detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("partitioner=murmur2_random"),
        "it names the cure: {detail}"
    );
    assert_eq!(
        (&of(&report, "lossy")["missing"], &of(&report, "leaky")["secrets"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(of(&report, "good")["bad"], json!({}));
}

//! Acceptance row by row, the two documents, and that the messy input reaches the corners.

use serde_json::{Value, json};

use crate::reference::Rec;
use crate::reference::accept::Memory;
use crate::reference::decode::Rules;
use crate::reference::fold::{Entity, Outcome, Partition, fold};
use crate::reference::messy::{Messy, Shape};

fn told(partition: &mut Partition, subject: &str, type_: &str, rest: &Value) -> Outcome {
    let offset = partition.records;
    let mut event = json!({"specversion": "1.0", "id": format!("id{offset}"), "source": "s", "subject": subject,
        "type": type_, "time": format!("2026-02-19T12:00:{offset:02}Z")});
    let all = event.as_object_mut().unwrap();
    all.extend(rest.as_object().unwrap().clone());
    let rec = Rec {
        offset,
        timestamp_ms: 1000 * offset as i64,
        key: Some(subject.as_bytes().to_vec()),
        value: Some(event.to_string().into_bytes()),
        ..Rec::default()
    };
    partition.apply(&rec, &Rules::of(1))
}

fn only(partition: &Partition) -> &Entity {
    assert_eq!(partition.entities.len(), 1);
    partition.entities.values().next().unwrap()
}

#[test]
fn a_gap_is_remembered_and_filled_once() {
    let mut memory = Memory::default();
    let rows = [
        (1, true),
        (1, false),
        (5, true),
        (3, true),
        (3, false),
        (2, true),
        (4, true),
        (4, false),
        (6, true),
    ];
    for (n, expected) in rows {
        assert_eq!(memory.accept("s", "", Some(n)), expected, "{n}");
    }
    assert_eq!((memory.sources["s"].max, memory.sources["s"].missing.len()), (6, 0));
    assert!(memory.accept("other", "", Some(5)));
    assert_eq!(memory.sources["other"].missing, [(1, 4)]);
}

#[test]
fn the_33rd_range_and_the_65th_source_forget_the_oldest() {
    let mut memory = Memory::default();
    for n in 1..=33 {
        memory.accept("s", "", Some(n * 10));
    }
    let s = &memory.sources["s"];
    assert_eq!((s.missing.len(), s.missing[0], s.forgotten), (32, (11, 19), 9));
    assert!(memory.accept("s", "", Some(15)), "fills, and splits a range: 33 again");
    let s = &memory.sources["s"];
    assert_eq!((s.missing.len(), s.missing[0], s.forgotten), (32, (16, 19), 13));
    assert!(!memory.accept("s", "", Some(11)), "forgotten is not missing");
    for i in 0..63 {
        memory.accept(&format!("{i}"), "", Some(2));
    }
    memory.accept("s", "", Some(16));
    memory.accept("new", "", Some(1));
    assert_eq!(memory.sources.len(), 64);
    assert!(!memory.sources.contains_key("0"));
    assert_eq!(memory.sources["new"].forgotten, 1);
}

#[test]
fn without_a_sequence_the_last_32_ids_tell() {
    let mut memory = Memory::default();
    for i in 0..33 {
        assert!(memory.accept("s", &i.to_string(), None));
    }
    assert!(!memory.accept("s", "1", None));
    assert!(memory.accept("t", "1", None));
    assert!(memory.accept("s", "0", None));
}

#[test]
fn a_run_becomes_what_the_table_says() {
    let mut p = Partition::default();
    told(
        &mut p,
        "run/a",
        "run.created",
        &json!({"data": {"thread_id": null, "owner_user_id": "u"}}),
    );
    assert_eq!(only(&p).document["status"], "created");
    told(
        &mut p,
        "run/a",
        "run.started",
        &json!({"data": {"thread_id": "t", "owner_user_id": "v"}}),
    );
    told(&mut p, "run/a", "run.cancel_requested", &json!({}));
    assert_eq!(only(&p).document["status"], "canceling");
    told(
        &mut p,
        "run/a",
        "run.finished",
        &json!({"data": {"status": "failed", "reason": "r"}}),
    );
    told(
        &mut p,
        "run/a",
        "run.finished",
        &json!({"data": {"status": "succeeded"}, "sequence": 3}),
    );
    assert_eq!(
        told(&mut p, "run/a", "run.delta", &json!({"sequence": "3"})),
        Outcome::Duplicate
    );
    let got = Value::Object(only(&p).document.clone());
    let expected = json!({
        "document_id": "run_summary:a", "kind": "run_summary", "run_id": "a", "status": "failed", "thread_id": "t",
        "owner_user_id": "u", "owner_guest_scope": null, "event_count": 5, "latest_seq": 5, "late_event_count": 1,
        "executor_lost_count": 0, "latest_event_type": "run.finished", "latest_event_at": "2026-02-19T12:00:04.000Z",
        "started_at": "2026-02-19T12:00:01.000Z", "terminal_at": "2026-02-19T12:00:03.000Z",
        "terminal_reason_class": null, "terminal_reason": "r", "updated_at": "1970-01-01T00:00:04.000Z",
        "missing_events": 2, "projection_version": 1,
        "runtime_source": {"entity": "run/a", "partition": 0, "offset": 4, "first_offset": 0, "seq": 5,
            "sources": {"s": {"max": 3, "missing": [[1, 2]], "forgotten": 0}}},
    });
    assert_eq!(got, expected);
    assert_eq!((p.records, p.accepted, p.duplicates), (6, 5, 1));
}

#[test]
fn a_worker_becomes_what_the_table_says() {
    let mut p = Partition::default();
    told(&mut p, "worker/w", "custom", &json!({}));
    assert_eq!(only(&p).document["status"], "running");
    told(
        &mut p,
        "worker/w",
        "worker.started",
        &json!({"data": {"adapter": "a", "metadata": {"b": 1.0, "a": [1e3]}}}),
    );
    told(&mut p, "worker/w", "worker.stopped", &json!({}));
    assert_eq!(only(&p).document["status"], "stopped");
    told(
        &mut p,
        "worker/w",
        "worker.started",
        &json!({"data": {"workspace_ref": "x"}}),
    );
    told(&mut p, "worker/w", "worker.error", &json!({"data": {"fatal": true}}));
    told(&mut p, "worker/w", "worker.stopped", &json!({}));
    let document = &only(&p).document;
    assert_eq!(document["status"], "failed");
    assert_eq!(document["stopped_at"], Value::Null);
    assert_eq!(
        (&document["restart_count"], &document["error_count"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        (&document["adapter"], &document["workspace_ref"]),
        (&json!("a"), &json!("x"))
    );
    assert!(only(&p).stored("now").contains("\"metadata\":{\"a\":[1000],\"b\":1}"));
    assert!(!document.contains_key("thread_id") && !document.contains_key("terminal_at"));
}

#[test]
fn the_messy_input_reaches_the_corners() {
    let records = Messy::new(3, Shape::of(30_000, 4)).records(30_000, &mut [0; 4]);
    let partitions = fold(&records, &Rules::of(4));
    let all: Vec<&Entity> = partitions.values().flat_map(|p| p.entities.values()).collect();
    let any =
        |what: &str, test: &dyn Fn(&Entity) -> bool| assert!(all.iter().any(|e| test(e)), "no entity with {what}");
    for status in [
        "created",
        "running",
        "canceling",
        "succeeded",
        "failed",
        "canceled",
        "stopped",
    ] {
        any(status, &|e| e.document["status"] == status);
    }
    any("two sources", &|e| {
        e.document["runtime_source"]["sources"].as_object().unwrap().len() == 2
    });
    any("64 sources", &|e| {
        e.document["runtime_source"]["sources"].as_object().unwrap().len() == 64
    });
    any("forgotten", &|e| {
        e.document["runtime_source"]["sources"]["gappy"]["forgotten"].as_u64() > Some(0)
    });
    any("missing", &|e| e.document["missing_events"].as_u64() > Some(0));
    any("late events", &|e| {
        e.document.get("late_event_count").is_some_and(|n| n.as_u64() > Some(0))
    });
    any("metadata", &|e| {
        e.document.get("metadata").is_some_and(serde_json::Value::is_object)
    });
    any("restarts", &|e| {
        e.document.get("restart_count").is_some_and(|n| n.as_u64() > Some(0))
    });
    let duplicates: u64 = partitions.values().map(|p| p.duplicates).sum();
    assert!(duplicates > 300, "{duplicates} duplicates");
}

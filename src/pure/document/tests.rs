//! Documents: what is rendered is read back, redelivery changes nothing, the JSON is canonical.

use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::pure::canonical::canonical;
use crate::pure::event::decode_structured;

fn now() -> Time {
    Time::from_ms(1_771_502_400_123).expect("in range")
}

fn event(kind: Kind, what: u8, source: u8, sequence: Option<u64>, id: u8) -> String {
    let (name, data) = match (kind, what % 6) {
        (Kind::Run, 0) => ("run.created", r#"{"thread_id":"t\"é","owner_user_id":null}"#),
        (Kind::Run, 1) => ("run.started", r#"{"owner_user_id":"u"}"#),
        (Kind::Run, 2) => ("run.executor_lost", "{}"),
        (Kind::Run, 3) if id < 40 => ("run.finished", r#"{"status":"failed","reason":"r"}"#),
        (Kind::Worker, 0) => (
            "worker.started",
            r#"{"adapter":"a","metadata":{"z":[1.0,2],"a":{"\u20ac":1e3}}}"#,
        ),
        (Kind::Worker, 1) => ("worker.stopped", "{}"),
        (Kind::Worker, 2) => ("worker.error", r#"{"fatal":false}"#),
        (Kind::Worker, 3) => ("worker.heartbeat", "{}"),
        _ => ("note.taken", "{}"),
    };
    let subject = format!("{}/x", kind.name());
    let sequence = sequence.map_or_else(String::new, |n| format!(",\"sequence\":{n}"));
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"s{source}","type":"{name}","subject":"{subject}","data":{data}{sequence}}}"#
    )
}

fn apply(document: &mut Document, text: &str, offset: u64) -> Applied {
    let event = decode_structured(text.as_bytes(), 1 << 20).expect("legal");
    document.apply(&event, Offset(offset), 1_771_502_400_000 + offset as i64)
}

fn new(kind: Kind) -> Document {
    Document::new(Entity::new(kind, "x").expect("legal"), PartitionId(3))
}

fn bytes(document: &Document) -> (Vec<u8>, Vec<u8>) {
    let (mut json, mut state) = (Vec::new(), Vec::new());
    document.render(now(), &mut json);
    document.write_state(&mut state);
    (json, state)
}

#[test]
fn a_run_has_the_fields_of_the_interface() {
    let mut run = new(Kind::Run);
    apply(&mut run, &event(Kind::Run, 1, 1, Some(1), 50), 7);
    apply(&mut run, &event(Kind::Run, 5, 1, Some(4), 50), 9);
    let (json, state) = bytes(&run);
    let hash = &String::from_utf8_lossy(&json)[json.len() - 245..];
    assert!(state.is_empty(), "{hash}");
    let mut value: Value = serde_json::from_slice(&json).expect("JSON");
    let hash = value
        .as_object_mut()
        .expect("object")
        .remove("summary_hash")
        .expect("a hash");
    let expected = serde_json::json!({
        "document_id": "run_summary:x", "event_count": 2, "executor_lost_count": 0, "kind": "run_summary",
        "late_event_count": 0, "latest_event_at": "2026-02-19T12:00:00.009Z", "latest_event_type": "note.taken",
        "latest_seq": 2, "missing_events": 2, "owner_guest_scope": null, "owner_user_id": "u",
        "projected_at": "2026-02-19T12:00:00.123Z", "projection_version": 1, "run_id": "x",
        "runtime_source": {"entity": "run/x", "first_offset": 7, "offset": 9, "partition": 3, "seq": 2,
            "sources": {"s1": {"forgotten": 0, "max": 4, "missing": [[2, 3]]}}},
        "started_at": "2026-02-19T12:00:00.007Z", "status": "running", "terminal_at": null, "terminal_reason": null,
        "terminal_reason_class": null, "thread_id": null, "updated_at": "2026-02-19T12:00:00.009Z",
    });
    assert_eq!(value, expected);
    value.as_object_mut().expect("object").remove("projected_at");
    let text = canonical(value.to_string().as_bytes()).expect("JSON");
    let digest = Sha256::digest(text.as_bytes());
    let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, format!("sha256:{}", hex.concat()));
}

#[test]
fn a_worker_has_the_fields_of_the_interface() {
    let mut worker = new(Kind::Worker);
    apply(&mut worker, &event(Kind::Worker, 0, 1, None, 50), 7);
    let (json, state) = bytes(&worker);
    assert!(!state.is_empty(), "an event without sequence is remembered");
    let value: Value = serde_json::from_slice(&json).expect("JSON");
    let fields: Vec<_> = value.as_object().expect("object").keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "adapter",
            "document_id",
            "error_count",
            "event_count",
            "kind",
            "last_heartbeat_at",
            "latest_event_at",
            "latest_event_type",
            "latest_seq",
            "metadata",
            "missing_events",
            "owner_guest_scope",
            "owner_user_id",
            "projected_at",
            "projection_version",
            "restart_count",
            "runtime_source",
            "started_at",
            "status",
            "stopped_at",
            "summary_hash",
            "updated_at",
            "worker_id",
            "workspace_ref",
        ]
    );
    assert!(String::from_utf8_lossy(&json).contains(r#""metadata":{"a":{"€":1000},"z":[1,2]}"#));
}

#[test]
fn an_altered_document_is_not_gone_on_with() {
    let mut run = new(Kind::Run);
    apply(&mut run, &event(Kind::Run, 1, 1, Some(1), 50), 7);
    apply(&mut run, &event(Kind::Run, 1, 2, Some(1), 50), 8);
    let (json, state) = bytes(&run);
    let parse = |json: &[u8], state: Option<&[u8]>| Document::parse(run.entity(), PartitionId(3), json, state);
    assert_eq!(parse(&json, Some(&state)).expect("readable").0, run);
    let altered = String::from_utf8_lossy(&json).replace("running", "failed");
    assert_eq!(parse(altered.as_bytes(), Some(&state)), Err(Unreadable::Altered));
    assert!(
        matches!(parse(&json, None), Err(Unreadable::State(_))),
        "two sources have an order"
    );
    assert!(matches!(parse(&json, Some(&state[1..])), Err(Unreadable::State(_))));
    assert!(matches!(parse(b"{}", None), Err(Unreadable::Malformed(_))));
    let other = Document::parse(run.entity(), PartitionId(4), &json, Some(&state));
    assert!(matches!(other, Err(Unreadable::Malformed(_))));
}

/// What, source, sequence (0: none), id.
fn history() -> impl Strategy<Value = Vec<(u8, u8, u64, u8)>> {
    prop::collection::vec((0_u8..6, 0_u8..3, 0_u64..40, 0_u8..60), 1..80)
}

fn texts(kind: Kind, history: &[(u8, u8, u64, u8)]) -> Vec<String> {
    history
        .iter()
        .map(|&(what, source, n, id)| event(kind, what, source, (n > 0).then_some(n), id))
        .collect()
}

proptest! {
    /// Any suffix delivered again, also after a restart in between, changes no byte.
    #[test]
    fn redelivery_changes_no_byte(history in history(), from in any::<prop::sample::Index>(), run in any::<bool>()) {
        let kind = if run { Kind::Run } else { Kind::Worker };
        let texts = texts(kind, &history);
        let mut document = new(kind);
        for (offset, text) in texts.iter().enumerate() {
            apply(&mut document, text, offset as u64);
        }
        let before = bytes(&document);
        for (offset, text) in texts.iter().enumerate().skip(from.index(texts.len())) {
            if !document.includes(Offset(offset as u64)) {
                apply(&mut document, text, offset as u64);
            }
        }
        prop_assert_eq!(bytes(&document), before);
    }

    /// Stored and read back after any event, the fold goes on as if it had stayed in memory.
    #[test]
    fn a_restart_at_any_point_changes_no_byte(history in history(), every in 1_usize..10, run in any::<bool>()) {
        let kind = if run { Kind::Run } else { Kind::Worker };
        let (mut kept, mut restarted) = (new(kind), new(kind));
        for (offset, text) in texts(kind, &history).iter().enumerate() {
            let applied = apply(&mut kept, text, offset as u64);
            prop_assert_eq!(apply(&mut restarted, text, offset as u64), applied);
            if offset % every == 0 && !restarted.is_empty() {
                let (json, state) = bytes(&restarted);
                let state = (!state.is_empty()).then_some(state.as_slice());
                let parsed = Document::parse(restarted.entity(), PartitionId(3), &json, state);
                let (parsed, hash) = parsed.map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(hash, restarted.render(now(), &mut Vec::new()));
                restarted = parsed;
            }
            prop_assert_eq!(bytes(&kept), bytes(&restarted));
        }
        let (json, _) = bytes(&kept);
        let text = String::from_utf8_lossy(&json).into_owned();
        prop_assert_eq!(canonical(&json), Some(text));
    }

    #[test]
    fn no_stored_bytes_make_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), state in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut run = new(Kind::Run);
        apply(&mut run, &event(Kind::Run, 1, 1, None, 50), 7);
        let (mut json, _) = bytes(&run);
        let at = at.index(json.len());
        json[at] = byte;
        let _ = Document::parse(run.entity(), PartitionId(3), &json, Some(&state));
    }
}

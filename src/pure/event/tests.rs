//! Every rule, in its order; and what no record may do.

use proptest::prelude::*;

use super::*;
use crate::pure::place::Offset;
use crate::pure::record::RecordBatch;

const RULES: Rules = Rules {
    partitioner: Partitioner::Murmur2,
    partitions: 1,
    max_event_bytes: 2000,
    redact: crate::pure::redact::Redact::Secrets,
};

struct Sent<'a> {
    key: &'a [u8],
    value: Option<&'a [u8]>,
    headers: &'a [(&'a str, &'a str)],
}

fn reason(sent: &Sent<'_>, rules: &Rules) -> Option<Reason> {
    let mut batch = RecordBatch::default();
    batch.push(Offset(0), 0, Some(sent.key), sent.value);
    for (name, value) in sent.headers {
        batch.push_header(name.as_bytes(), Some(value.as_bytes()));
    }
    decode(&batch.get(0), PartitionId(0), rules)
        .err()
        .map(|rejection| rejection.reason)
}

fn structured(value: &str) -> Option<Reason> {
    reason(
        &Sent {
            key: b"run/a",
            value: Some(value.as_bytes()),
            headers: &[],
        },
        &RULES,
    )
}

const GOOD: &str =
    r#"{"specversion":"1.0","id":"i","source":"s","type":"run.delta","subject":"run/a","sequence":"17","data":{}}"#;

#[test]
#[rustfmt::skip] // a table is read by column
fn the_first_rule_broken_is_the_reason() {
    use Reason::*;
    let rows = [
        // change of the good event                                         reason
        ("",                            "",                                 None),
        ("}",                           "",                                 Some(NotJson)),
        (GOOD,                          "[]",                               Some(NotJson)),
        (GOOD,                          "null",                             Some(NotJson)),
        (GOOD,                          "{}",                               Some(NotCloudEvents)),
        ("\"1.0\"",                     "\"0.3\"",                          Some(NotCloudEvents)),
        ("\"1.0\"",                     "1.0",                              Some(NotCloudEvents)),
        ("\"id\":\"i\"",                "\"id\":\"\"",                      Some(NotCloudEvents)),
        ("\"id\":\"i\"",                "\"id\":7",                         Some(NotCloudEvents)),
        ("\"id\":\"i\",",               "",                                 Some(NotCloudEvents)),
        ("\"source\":\"s\"",            "\"source\":null",                  Some(NotCloudEvents)),
        ("\"id\":\"i\"",                "\"id\":\"\\ud800\"",               Some(NotJson)),
        ("{}}",                         "{\"a\":\"\\udc00\"}}",              Some(NotJson)),
        ("{}}",                         "{\"a\":\"\\ud83d\\ude00\"}}",        None),
        ("run/a",                       "run/a b",                          Some(BadSubject)),
        ("run/a",                       "task/a",                           Some(BadSubject)),
        ("\"subject\":\"run/a\",",      "",                                 Some(BadSubject)),
        ("run/a",                       "run/b",                            Some(KeyMismatch)),
        ("run.delta",                   "Run.delta",                        Some(BadType)),
        ("run.delta",                   "1run",                             Some(BadType)),
        ("run.delta",                   "",                                 Some(BadType)),
        ("run.delta",                   "worker.started",                   Some(BadType)),
        ("run.delta",                   "other.thing_2",                    None),
        ("\"sequence\":\"17\"",         "\"time\":\"yesterday\"",           Some(BadTime)),
        ("\"sequence\":\"17\"",         "\"time\":17",                      Some(BadTime)),
        ("\"sequence\":\"17\"",         "\"time\":null",                    None),
        ("\"sequence\":\"17\"",         "\"sequence\":17",                  None),
        ("\"sequence\":\"17\"",         "\"sequence\":null",                None),
        ("\"17\"",                      "\"017\"",                          None),
        ("\"17\"",                      "\"9007199254740991\"",             None),
        ("\"17\"",                      "\"9007199254740992\"",             Some(BadSequence)),
        ("\"17\"",                      "\"0\"",                            Some(BadSequence)),
        ("\"17\"",                      "\"+1\"",                           Some(BadSequence)),
        ("\"17\"",                      "1.5",                              Some(BadSequence)),
        ("\"17\"",                      "-1",                               Some(BadSequence)),
        ("\"17\"",                      "true",                             Some(BadSequence)),
        ("\"17\"",                      "\"\"",                             Some(BadSequence)),
        ("\"data\":{}",                 "\"data\":[]",                      Some(BadData)),
        ("\"data\":{}",                 "\"data\":null",                    None),
        ("run.delta",                   "run.finished",                     Some(BadData)),
    ];
    for (from, to, expected) in rows {
        assert_eq!(structured(&GOOD.replacen(from, to, 1)), expected, "{from} -> {to}");
    }
    assert_eq!(structured(&GOOD.replace("{}", &"x".repeat(2000))), Some(TooLarge));
    for value in [None, Some(&b""[..])] {
        assert_eq!(reason(&Sent { key: b"run/a", value, headers: &[] }, &RULES), Some(EmptyRecord));
    }
    let elsewhere = Rules { partitions: 1000, ..RULES };
    let sent = Sent { key: b"run/a", value: Some(GOOD.as_bytes()), headers: &[] };
    assert_eq!(reason(&sent, &elsewhere), Some(WrongPartition));
}

#[test]
fn data_fields_have_their_type_or_are_null() {
    let finished = |data: &str| structured(&GOOD.replace("run.delta", "run.finished").replace("\"data\":{}", data));
    assert_eq!(
        finished(r#""data":{"status":"failed","reason":null,"reason_class":"x","more":[1]}"#),
        None
    );
    assert_eq!(finished(r#""data":{"status":"done"}"#), Some(Reason::BadData));
    assert_eq!(
        finished(r#""data":{"status":"failed","reason":7}"#),
        Some(Reason::BadData)
    );
    assert_eq!(finished(r#""data":{"st\u0061tus":"failed"}"#), None);
    assert_eq!(finished(r#""data":{"status":1,"status":"failed"}"#), None);
    let worker = |kind: &str, data: &str| {
        let value = GOOD
            .replace("run/a", "worker/a")
            .replace("run.delta", kind)
            .replace("\"data\":{}", data);
        reason(
            &Sent {
                key: b"worker/a",
                value: Some(value.as_bytes()),
                headers: &[],
            },
            &RULES,
        )
    };
    assert_eq!(
        worker("worker.started", r#""data":{"metadata":{"b":1,"a":[1.50]}}"#),
        None
    );
    assert_eq!(
        worker("worker.started", r#""data":{"metadata":[]}"#),
        Some(Reason::BadData)
    );
    assert_eq!(
        worker("worker.started", r#""data":{"adapter":1}"#),
        Some(Reason::BadData)
    );
    assert_eq!(
        worker("worker.error", r#""data":{"fatal":"yes"}"#),
        Some(Reason::BadData)
    );
    assert_eq!(worker("run.delta", r#""data":{}"#), Some(Reason::BadType));
}

#[test]
fn headers_decide_the_mode() {
    let binary = [
        ("ce_specversion", "1.0"),
        ("ce_id", "i"),
        ("ce_source", "s"),
        ("ce_type", "run.delta"),
        ("ce_subject", "run/a"),
        ("ce_sequence", "3"),
        ("content-type", "application/json"),
    ];
    let sent = |value: Option<&'static [u8]>, headers| Sent {
        key: b"run/a",
        value,
        headers,
    };
    assert_eq!(reason(&sent(Some(b"{\"delta\":1}"), &binary), &RULES), None);
    assert_eq!(reason(&sent(None, &binary), &RULES), None);
    assert_eq!(reason(&sent(Some(b"[1]"), &binary), &RULES), Some(Reason::NotJson));
    assert_eq!(
        reason(&sent(Some(b"{}"), &binary[1..]), &RULES),
        Some(Reason::NotCloudEvents)
    );
    let json = [
        ("Content-Type", "application/CloudEvents+json; charset=utf-8"),
        ("ce_id", "ignored"),
    ];
    assert_eq!(reason(&sent(Some(GOOD.as_bytes()), &json), &RULES), None);
    let foreign = [("content-type", "text/plain")];
    assert_eq!(
        reason(&sent(Some(GOOD.as_bytes()), &foreign), &RULES),
        Some(Reason::NotCloudEvents)
    );
    assert_eq!(reason(&sent(Some(b"hello"), &foreign), &RULES), Some(Reason::NotJson));
    let other = [("trace", "1")];
    assert_eq!(reason(&sent(Some(GOOD.as_bytes()), &other), &RULES), None);
}

#[test]
fn a_binary_event_reads_back_as_a_structured_one() {
    let mut batch = RecordBatch::default();
    batch.push(Offset(0), 0, Some(b"run/a"), Some(b"{\"delta\":\"x\"}"));
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", "i\"1"),
        ("ce_source", "s"),
        ("ce_type", "run.delta"),
        ("ce_subject", "run/a"),
        ("ce_sequence", "3"),
        ("ce_traceparent", "00-1"),
        ("content-type", "application/json"),
    ] {
        batch.push_header(name.as_bytes(), Some(value.as_bytes()));
    }
    let event = decode(&batch.get(0), PartitionId(0), &RULES).expect("legal");
    let mut text = Vec::new();
    event.write_structured(&batch.get(0), Redact::Secrets, &mut text);
    let again = decode_structured(&text, 2000).expect("legal");
    assert_eq!((again.id(), again.source(), again.sequence()), ("i\"1", "s", Some(3)));
    let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(value["traceparent"], "00-1");
    assert_eq!(value["datacontenttype"], "application/json");
    assert_eq!(value["data"]["delta"], "x");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        key in prop::collection::vec(any::<u8>(), 0..20),
        value in prop::collection::vec(any::<u8>(), 0..200),
        headers in prop::collection::vec(("(ce_)?[a-z]{0,6}|content-type", ".{0,12}"), 0..5),
    ) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        reason(&Sent { key: &key, value: Some(&value), headers: &headers }, &RULES);
    }

    #[test]
    fn a_good_event_with_one_byte_changed_never_panics(at in 0..GOOD.len(), byte in any::<u8>()) {
        let mut value = GOOD.as_bytes().to_vec();
        value[at] = byte;
        reason(&Sent { key: b"run/a", value: Some(&value), headers: &[] }, &RULES);
    }
}

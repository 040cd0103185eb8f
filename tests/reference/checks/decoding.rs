//! Every reason, the order of reasons, and that the generator makes them all.

use std::collections::BTreeMap;

use crate::reference::Rec;
use crate::reference::decode::{REASONS, Rules, decode};
use crate::reference::messy::{Messy, Shape};
use crate::reference::place::partition_of;

const KEY: &str = "run/a";
const RULES: Rules = Rules {
    partitions: 4,
    max_event_bytes: 400,
};

fn record(value: &str, headers: &[(&str, &str)]) -> Rec {
    Rec {
        partition: partition_of(KEY.as_bytes(), 4),
        key: Some(KEY.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec())))
            .collect(),
        ..Rec::default()
    }
}

fn outcome(rec: &Rec) -> &'static str {
    decode(rec, &RULES).map_or_else(|reason| reason, |_| "ok")
}

#[test]
fn the_first_rule_broken_is_the_reason() {
    // Each row mends one more rule, from the top of the table to its end.
    let rows = [
        ("", "empty_record"),
        ("[\"too many bytes\"]", "not_json"),
        ("{}", "not_cloudevents"),
        (r#"{"specversion":"1.0","id":"i","source":""}"#, "not_cloudevents"),
        (
            r#"{"specversion":"1.0","id":"i","source":"s","subject":"run/"}"#,
            "bad_subject",
        ),
        (
            r#"{"specversion":"1.0","id":"i","source":"s","subject":"run/b"}"#,
            "key_mismatch",
        ),
        (
            r#"{"specversion":"1.0","id":"i","source":"s","subject":"run/a","type":"worker.x"}"#,
            "bad_type",
        ),
        (
            r#"{"specversion":"1.0","id":"i","source":"s","subject":"run/a","type":"x","time":1}"#,
            "bad_time",
        ),
        (
            r#"{"specversion":"1.0","id":"i","source":"s","subject":"run/a","type":"x","time":null,"sequence":0}"#,
            "bad_sequence",
        ),
        (
            r#"{"specversion":"1.0","id":"i","source":"s","subject":"run/a","type":"x","sequence":"7","data":[]}"#,
            "bad_data",
        ),
        (
            r#"{"specversion":"1.0","id":"i","source":"s","subject":"run/a","type":"x","data":null}"#,
            "ok",
        ),
    ];
    for (value, expected) in rows {
        assert_eq!(outcome(&record(value, &[])), expected, "{value}");
    }
    let (good, _) = rows[rows.len() - 1];
    let elsewhere = Rec {
        partition: (partition_of(KEY.as_bytes(), 4) + 1) % 4,
        ..record(good, &[])
    };
    assert_eq!(outcome(&elsewhere), "wrong_partition");
    assert_eq!(outcome(&record(&" ".repeat(401), &[])), "too_large");
}

#[test]
fn the_mode_is_told_by_the_headers() {
    let ce = [
        ("ce_specversion", "1.0"),
        ("ce_id", "i"),
        ("ce_source", "s"),
        ("ce_type", "x"),
        ("ce_subject", KEY),
    ];
    assert_eq!(outcome(&record("", &ce)), "ok");
    assert_eq!(outcome(&record("{\"a\":1}", &ce)), "ok");
    assert_eq!(outcome(&record("[1]", &ce)), "not_json");
    let mut both = ce.to_vec();
    both.push(("content-type", "Application/CloudEvents+JSON; charset=utf-8"));
    assert_eq!(outcome(&record("{\"a\":1}", &both)), "not_cloudevents");
    assert_eq!(outcome(&record("", &both)), "empty_record");
    assert_eq!(
        outcome(&record("{}", &[("content-type", "application/json")])),
        "not_cloudevents"
    );
    assert_eq!(
        outcome(&record("x", &[("content-type", "application/json")])),
        "not_json"
    );
}

#[test]
fn the_messy_input_has_every_reason_and_is_mostly_accepted() {
    let mut shape = Shape::of(20_000, 6);
    shape.huge = true;
    let records = Messy::new(1, shape).records(20_000, &mut [0; 6]);
    let rules = Rules::of(6);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for rec in &records {
        *counts
            .entry(decode(rec, &rules).map_or_else(|reason| reason, |_| "ok"))
            .or_default() += 1;
    }
    for reason in REASONS {
        assert!(counts.contains_key(reason), "no {reason} in {counts:?}");
    }
    assert!(counts["ok"] > 19_000, "{counts:?}");
    let again = Messy::new(1, shape).records(20_000, &mut [0; 6]);
    assert!(records == again, "the same seed gave other records");
}

#[test]
fn what_a_player_says_is_never_a_dead_letter() {
    let mut shape = Shape::of(5_000, 3);
    shape.garbage_one_in = 0;
    for rec in Messy::new(7, shape).records(5_000, &mut [0; 3]) {
        let got = decode(&rec, &Rules::of(3)).map(|_| ());
        assert_eq!(
            got,
            Ok(()),
            "{}",
            String::from_utf8_lossy(&rec.value.unwrap_or_default())
        );
    }
}

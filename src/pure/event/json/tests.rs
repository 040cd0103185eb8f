use super::*;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

fn members(text: &str) -> Result<Vec<(String, Value<'_>)>, NotAnObject> {
    let mut members = Vec::new();
    read_object(text, |key, value| {
        members.push((key.read().unwrap_or_default().into_owned(), value));
    })?;
    Ok(members)
}

#[test]
fn members_come_in_order_with_their_text() {
    let text = r#" {"a":"x\ny", "b" : [1,{"c":2}] ,"a":-1.5e+3,"d":{ },"e":null,"f":true} "#;
    let members = members(text).expect("an object");
    let keys: Vec<_> = members.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["a", "b", "a", "d", "e", "f"]);
    assert_eq!(members[1].1, Value::Array(r#"[1,{"c":2}]"#));
    assert_eq!(members[2].1, Value::Number("-1.5e+3"));
    let Value::String(text) = members[0].1 else {
        panic!("a string")
    };
    assert_eq!(text.read().as_deref(), Some("x\ny"));
}

#[test]
fn what_is_nested_too_deep_is_refused() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(members(&nested(127)).is_ok());
    assert!(members(&nested(128)).is_err());
}

fn serde_accepts(text: &str) -> bool {
    // A number without a double is JSON all the same.
    let large = |error: &serde_json::Error| error.to_string().contains("out of range");
    let read = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(text);
    let skipped = text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok();
    skipped && read.err().is_none_or(|error| large(&error))
}

/// JSON, and JSON with a few bytes of it changed.
fn almost_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("-0.5e-7".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        "\\PC{0,6}".prop_map(|text| serde_json::to_string(&text).unwrap_or_default()),
        Just("\"\\u00e9\\n\\/\"".to_owned()),
    ];
    let tree = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec(inner, 0..4).prop_map(|items| {
                let members: Vec<_> = items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| format!("\"k{i}\":{item}"))
                    .collect();
                format!("{{ {}}}", members.join(","))
            }),
        ]
    });
    (
        tree,
        any::<prop::sample::Index>(),
        "[\\[\\]{}\",:0-9a-z\\\\ .-]{0,2}",
        any::<bool>(),
    )
        .prop_map(|(json, at, insert, broken)| {
            let mut text = format!("{{\"x\":{json}}}");
            let place = at.index(text.len() + 1);
            if broken && text.is_char_boundary(place) {
                text.insert_str(place, &insert);
            }
            text
        })
}

proptest! {
    #[test]
    fn it_accepts_what_serde_json_accepts(text in almost_json()) {
        prop_assert_eq!(members(&text).is_ok(), serde_accepts(&text), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]{}\",:0-9eE+\\\\u.tfn-]{0,40}") {
        prop_assert_eq!(members(&text).is_ok(), serde_accepts(&text), "{}", text);
    }
}

//! A secret is one however its JSON is written: each letter may stand as an escape.

use proptest::prelude::*;
use serde_json::Value;

use crate::pure::event::decode_structured;
use crate::pure::redact::{Part, Redact, Redacted};

fn redacted(json: &str) -> Option<Redacted> {
    Redact::SecretsAndEmail.json(json.as_bytes(), Part::Data)
}

fn data(json: &str) -> Option<String> {
    redacted(json).map(|redacted| String::from_utf8(redacted.json).expect("UTF-8"))
}

/// Key-like text, made here so that no scanner takes this file for a leak.
fn key(begins: &str) -> String {
    format!("{begins}{}", "A1b2C3d4E5f6G7h8J9k0".repeat(2))
}

/// A letter as an escape.
fn escape(letter: char) -> String {
    let mut units = [0; 2];
    let units = letter.encode_utf16(&mut units).iter();
    units.fold(String::new(), |text, unit| format!("{text}\\u{unit:04x}"))
}

#[test]
fn what_is_found_behind_escapes_goes_and_all_else_stays_as_it_is_written() {
    let rows = [
        (
            r#"{"reason":"could not reach postgres:\/\/app:pw123456@db\/x"}"#,
            r#"{"reason":"could not reach postgres:\/\/app:***@db\/x"}"#,
        ),
        (r#"{"a":"redis:/\/u:pw1@h\/0"}"#, r#"{"a":"redis:/\/u:***@h\/0"}"#),
        (r#"{"a":"redis:\//u:pw1@h\/0"}"#, r#"{"a":"redis:\//u:***@h\/0"}"#),
        (r#"{"a":"redis:/\u002fu:pw1@h"}"#, r#"{"a":"redis:/\u002fu:***@h"}"#),
        (
            r#"{"a":"redis://u:pw\u00e91\u0040h"}"#,
            r#"{"a":"redis://u:***\u0040h"}"#,
        ),
        (
            r#"{"a":"\u00e9 ada+x\u0040example.com\n"}"#,
            r#"{"a":"\u00e9 [redacted:email]\n"}"#,
        ),
        (
            r#"{"adapter":"Bearer\u0020abcdefghijklmnopqrstuvwxyz0123"}"#,
            r#"{"adapter":"Bearer\u0020[redacted:bearer_token]"}"#,
        ),
        (
            r#"{"x":"A\u004bIA\u0049OSFODNN7EXAMPLE","y":"\u00e9\/\ud83d\ude00"}"#,
            r#"{"x":"[redacted:aws_key]","y":"\u00e9\/\ud83d\ude00"}"#,
        ),
        (r#"{"p\u0061ssword":"sekret"}"#, r#"{"p\u0061ssword":"***"}"#),
        (
            r#"{"\u0050ASSWORD":["\ud83d\ude00","b\""]}"#,
            r#"{"\u0050ASSWORD":["***","**"]}"#,
        ),
        (
            r#"{"pa\nss\/word":"sekret","a":"password"}"#,
            r#"{"pa\nss\/word":"***","a":"password"}"#,
        ),
    ];
    for (json, clean) in rows {
        assert_eq!(data(json).as_deref(), Some(clean), "{json}");
    }
}

#[test]
fn a_key_whose_last_letter_is_escaped_leaves_no_tail() {
    for (begins, what) in [
        ("ghp_", "github_token"),
        ("sk-", "api_key"),
        ("hf_", "huggingface_token"),
    ] {
        let json = format!(r#"{{"a":"{}\u0047\u0031 b"}}"#, key(begins));
        assert_eq!(data(&json), Some(format!(r#"{{"a":"[redacted:{what}] b"}}"#)));
    }
}

#[test]
fn wherever_one_letter_is_escaped_the_same_goes() {
    let secrets = [
        r#"{"a":"see https://ada:correct-horse@db/x"}"#.to_owned(),
        format!(r#"{{"a":"Bearer {}"}}"#, key("")),
        r#"{"a":"write to ada@example.com"}"#.to_owned(),
        r#"{"openai-Api-Key":"x","accessToken":"y","webhook_secrets":["z"],"dbPwd":"v"}"#.to_owned(),
        r#"{"set-cookie":"a=0123456789","authorization":"Basic abc","tokens":["abcdefghijklmnop0123"]}"#.to_owned(),
        format!(r#"{{"a":"use {}, please"}}"#, key("github_pat_")),
        format!(r#"{{"a":"{}.{}.{}"}}"#, key("eyJ"), key("eyJ"), key("")),
    ];
    for json in secrets {
        let clean = redacted(&json).unwrap_or_else(|| panic!("overlooked: {json}"));
        let wanted: Value = serde_json::from_slice(&clean.json).expect("JSON");
        for (at, letter) in json
            .char_indices()
            .filter(|(_, letter)| !r#"{}[]":,"#.contains(*letter))
        {
            let escaped = format!("{}{}{}", &json[..at], escape(letter), &json[at + 1..]);
            let found = redacted(&escaped).unwrap_or_else(|| panic!("overlooked: {escaped}"));
            let value: Value = serde_json::from_slice(&found.json).expect("JSON");
            assert_eq!((value, found.count), (wanted.clone(), clean.count), "{escaped}");
        }
    }
}

#[test]
fn a_text_without_a_secret_stays_byte_for_byte() {
    for json in [
        r#"{"url":"https:\/\/example.com\/a","text":"a\u0020b \u0026 \u003cp\u003e \ud83d\ude00 \u00e9"}"#,
        r#"{"code":"\\u0041KIA","path":"C:\\Users\\ada","p\u0061ssword":"${X}","p\u0061th":"sekret"}"#,
        r#"{"p\u0061ssword":"\u002a\u002a\u002a","secret":""}"#,
    ] {
        assert_eq!(data(json), None, "{json}");
    }
}

/// As events that no reader takes they are refused or become dead letters: nothing of them is published or folded.
#[test]
fn an_escape_that_is_none_stays_for_those_who_say_so() {
    for escape in [
        r"\ud800",
        r"\ude00",
        r"\ud800\u0041",
        r"\u12",
        r"\u00g0",
        r"\u",
        r"\x41",
        r"\u+041",
    ] {
        for json in [
            format!(r#"{{"password":"{escape}"}}"#),
            format!(r#"{{"a":"{escape} {}"}}"#, key("sk-")),
        ] {
            assert_eq!(data(&json), None, "{json}");
        }
    }
}

#[test]
fn what_names_the_event_is_never_touched_however_it_is_written() {
    let secret = key("sk-");
    let event = format!(
        r#"{{"specversion":"1.0","\u0069d":"{secret}","sour\u0063e":"{secret}","type":"run.delta","s\u0075bject":"run/{secret}","tok\u0065n":"{secret}"}}"#
    );
    let clean = Redact::Secrets.json(event.as_bytes(), Part::Event).expect("a secret");
    let read = decode_structured(&clean.json, 1 << 20).expect("legal");
    assert_eq!((read.id(), read.source()), (secret.as_str(), secret.as_str()));
    assert_eq!((read.subject(), clean.count), (format!("run/{secret}").as_str(), 1));
    assert!(clean.json.ends_with(br#""tok\u0065n":"[redacted:token]"}"#));
}

/// Texts of secrets, of what stands around them, and of what a reader may stumble over.
fn text() -> impl Strategy<Value = String> {
    let pieces = [
        key("ghp_"),
        key("sk-"),
        ["AKIA", "IOSFODNN7EXAMPLE"].concat(),
        key("Bearer "),
        "https://ada:correct-horse@db/x".to_owned(),
        "ada@example.com".to_owned(),
        ["-----BEGIN ", "PRIVATE KEY-----\nMIIE\n-----END ", "PRIVATE KEY-----"].concat(),
        "://".to_owned(),
        "@".to_owned(),
    ];
    let marks = " \n\t\"\\/\u{0}:,a0-\u{e9}\u{1f600}*[";
    let pieces = prop::sample::select(pieces.to_vec());
    let marks = prop::sample::select(marks.chars().collect::<Vec<_>>()).prop_map(String::from);
    prop::collection::vec(prop_oneof![pieces, marks], 0..6).prop_map(|pieces| pieces.concat())
}

/// The text in quotes; a letter is escaped where it must be, and where `escaped` says so.
fn quoted(text: &str, escaped: &[bool]) -> String {
    let letters = text.chars().zip(escaped.iter().cycle());
    let letters = letters.map(|(letter, escaped)| match letter {
        _ if *escaped => escape(letter),
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        _ if letter < ' ' => escape(letter),
        _ => letter.to_string(),
    });
    format!("\"{}\"", letters.collect::<String>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// With and without escapes the same comes out, as JSON, no longer than before.
    #[test]
    fn escapes_change_nothing_of_what_is_found(
        name in prop::sample::select(vec!["a", "password", "api_keys", "token", "authorization"]),
        text in text(),
        escaped in prop::collection::vec(prop::bool::weighted(0.2), 1..40),
    ) {
        let plain = format!("{{{}:{}}}", quoted(name, &[false]), quoted(&text, &[false]));
        let json = format!("{{{}:{}}}", quoted(name, &escaped), quoted(&text, &escaped));
        let read = |json: &str| {
            let found = redacted(json);
            let (json, count) = found.map_or((json.as_bytes().to_vec(), 0), |found| (found.json, found.count));
            (serde_json::from_slice::<Value>(&json).expect("JSON"), count)
        };
        prop_assert_eq!(read(&json), read(&plain));
        prop_assert!(data(&json).is_none_or(|clean| clean.len() <= json.len()));
    }
}

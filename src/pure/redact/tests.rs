//! Secrets that must go, and ordinary texts that must stay as they are.

use aho_corasick::Input;

use super::hints::{HINTS, is_letter_of_hints};
use super::*;

fn data(json: &str) -> Option<String> {
    let redacted = Redact::Secrets.json(json.as_bytes(), Part::Data)?;
    Some(String::from_utf8(redacted.json).expect("UTF-8"))
}

/// Key-like text, made here so that no scanner takes this file for a leak.
fn key(begins: &str, length: usize) -> String {
    let letters = "A1b2C3d4E5f6G7h8J9k0";
    format!(
        "{begins}{}",
        letters.repeat(length.div_ceil(20)).get(..length).expect("ASCII")
    )
}

#[test]
fn keys_of_the_usual_vendors_go_wherever_they_stand() {
    let upper = |begins: &str| key(begins, 16).to_ascii_uppercase();
    let secrets = [
        (key("sk-", 48), "api_key"),
        (key("sk-proj-", 60), "api_key"),
        (key("sk-ant-api03-", 40), "anthropic_key"),
        (key("sk_live_", 24), "stripe_key"),
        (upper("AKIA"), "aws_key"),
        (key("ghp_", 36), "github_token"),
        (key("github_pat_", 40), "github_token"),
        (key("glpat-", 20), "gitlab_token"),
        (key("xoxb-", 24), "slack_token"),
        (key("AIza", 35), "google_key"),
        (key("ya29.", 40), "google_token"),
        (key("npm_", 36), "npm_token"),
        (key("hf_", 34), "huggingface_token"),
        (key("xapp-1-", 24), "slack_token"),
        (key("GOCSPX-", 28), "google_secret"),
        (key("dckr_pat_", 27), "docker_token"),
        (key("gsk_", 52), "groq_key"),
        (key("xai-", 80), "xai_key"),
        (key("tvly-dev-", 32), "tavily_key"),
        (format!("{}.{}", key("SG.", 22), key("", 43)), "sendgrid_key"),
        (format!("{}.{}.{}", key("eyJ", 20), key("eyJ", 20), key("", 20)), "jwt"),
    ];
    for (secret, what) in secrets {
        for text in [
            secret.clone(),
            format!("use {secret}, please"),
            format!("a\\n{secret}\\nb"),
            format!("KEY={secret}"),
        ] {
            let json = format!(r#"{{"delta":"{text}","n":[1,{{"x":"{text}"}}]}}"#);
            let clean = data(&json).unwrap_or_else(|| panic!("overlooked: {json}"));
            assert_eq!(clean.matches(&format!("[redacted:{what}]")).count(), 2, "{clean}");
            assert!(
                !clean.contains(&secret) && serde_json::from_str::<serde_json::Value>(&clean).is_ok(),
                "{clean}"
            );
        }
    }
}

#[test]
fn bearers_private_keys_and_passwords_in_urls_go() {
    let bearer = key("", 24);
    let rows = [
        (
            format!("Authorization: Bearer {bearer}"),
            "Authorization: Bearer [redacted:bearer_token]".to_owned(),
        ),
        (
            [
                r"-----BEGIN RSA ",
                r"PRIVATE KEY-----\nMIIEpAIB\n-----END RSA ",
                r"PRIVATE KEY-----\nrest",
            ]
            .concat(),
            r"[redacted:private_key]\nrest".to_owned(),
        ),
        (
            format!("-----BEGIN {}", r"PRIVATE KEY-----\nMIIEpA"),
            "[redacted:private_key]".to_owned(),
        ),
        (
            "postgres://ada:correct-horse-battery-staple@db:5432/x".to_owned(),
            "postgres://ada:[redacted:url_password]@db:5432/x".to_owned(),
        ),
    ];
    for (text, clean) in rows {
        assert_eq!(
            data(&format!(r#"{{"x":"{text}"}}"#)),
            Some(format!(r#"{{"x":"{clean}"}}"#))
        );
    }
}

#[test]
fn a_field_that_says_it_is_a_secret_is_one() {
    let (long, longer) = (key("", 20), key("", 40));
    let rows = [
        ("password", "correct horse battery", "[redacted:secret]"),
        ("password", "hunter2", "***"),
        ("password", r"\u0041\u0042", "**"),
        ("secret_santa", &longer, &longer),
        ("token", &long, "[redacted:token]"),
        ("github_token", &long, "[redacted:token]"),
        (
            "authorization",
            "Basic dXNlcjpwYXNzd29yZA==",
            "[redacted:authorization]",
        ),
        ("Authorization", "Bearer abc", "***"),
        ("cookie", "session=0123456789", "[redacted:cookie]"),
    ];
    for (name, value, clean) in rows {
        let json = |text| format!(r#"{{"a":{{ "{name}" : "{text}" }},"b":"{name}"}}"#);
        let found = data(&json(value)).unwrap_or_else(|| json(value));
        assert_eq!(found, json(clean), "{name}");
    }
    for name in ["password", "passwords", "secrets", "api_keys", "accessTokens"] {
        let list = |first, third| format!(r#"{{"pwd":[],"{name}":["{first}",{{"a":"b"}},"{third}"],"c":"d"}}"#);
        assert_eq!(data(&list("first", "third")), Some(list("***", "***")));
    }
    let token = key("", 20);
    let tokens = format!(r#"{{"TOKENS" : [ "{token}","the"],"tokens":"{token}","cookies":["a=0123456789"]}}"#);
    let clean = tokens
        .replace(&token, "[redacted:token]")
        .replace("a=0123456789", "***");
    assert_eq!(data(&tokens), Some(clean));
}

#[test]
fn each_secret_name_is_known_in_each_spelling() {
    let words = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "secret key",
        "secret access key",
        "client secret",
        "api key",
        "api secret",
        "api token",
        "access token",
        "refresh token",
        "auth token",
        "session token",
        "bearer token",
        "private key",
        "signing key",
        "encryption key",
        "webhook secret",
        "db password",
        "aws secret access key",
        "x api key",
        "openai api key",
    ];
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    let plurals = words.map(|word| format!("{word}s"));
    let words = words.map(str::to_owned).into_iter().chain(plurals);
    for name in words.chain(["pwd", "db pwd"].map(str::to_owned)) {
        let parts: Vec<&str> = name.split(' ').collect();
        let camel: String = parts.iter().map(|part| capital(part)).collect();
        let spellings = [
            parts.join("_"),
            parts.join("-"),
            parts.join("_").to_uppercase(),
            parts.join("-").split('-').map(capital).collect::<Vec<_>>().join("-"),
            camel[..1].to_lowercase() + &camel[1..],
            camel.clone(),
        ];
        for spelled in spellings {
            let json = format!(r#"{{"{spelled}":"x"}}"#);
            assert_eq!(data(&json), Some(format!(r#"{{"{spelled}":"*"}}"#)));
        }
    }
}

/// Sentences, code, ids, paths as agents write them, with words that look a little like secrets.
const ORDINARY: &[&str] = &[
    r#"{"delta":"hello"}"#,
    r#"{"token":" the"}"#,
    r#"{"token":"authentication"}"#,
    r#"{"token":"self.partition.offsets[0]","next_token":"/v1/runs/r1/events","last_token":"partitioner=murmur2_random"}"#,
    r#"{"tokens":1234,"max_tokens":"4096","total_token_count":"12"}"#,
    r#"{"input_tokens":12,"output_tokens":"34","total_tokens":46,"tokens":["the"," cat","12345678901234567"],"cookies":3}"#,
    r#"{"pwd":"/home/ada/x","PWD":"C:\\src","OLDPWD":"~","cwd":"src","pwd ":"./a","env":{"pwd":"$HOME"}}"#,
    r#"{"text":"Please reset your password, the token has expired; see https://example.com/docs/secret-santa"}"#,
    r#"{"text":"the bearer of this letter is authorized to sign"}"#,
    r#"{"text":"Bearer authentication-mechanisms-explained"}"#,
    r#"{"cmd":"pip install scikit-learn==1.4.2 task-runner-12345678901234567890"}"#,
    r#"{"path":"src/sk-learn-model-v2-training-run-2024/main.rs","branch":"risk-assessment-20260219120000"}"#,
    r#"{"url":"https://git.example.com:8443/a/b?c=d&e=f@g","redis":"redis://localhost:6379/0","ssh":"ssh://git@host/x"}"#,
    r#"{"password":"${DB_PASSWORD}","api_key":"","secret":null,"authorization":"granted","cookie":"chocolate"}"#,
    r#"{"password_changed":true,"password_policy":"strict","secret_count":3,"authorization_status":"ok"}"#,
    r#"{"digest":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","id":"01K0XW3V9GQ6TB1N5V3M9G7H2D"}"#,
    r#"{"uuid":"123e4567-e89b-12d3-a456-426614174000","commit":"da39a3ee5e6b4b0d3255bfef95601890afd80709"}"#,
    r#"{"code":"if let Some(token) = tokens.next() { token_secret_count += 1 } // AKIA is a prefix"}"#,
    r#"{"text":"eyJ is how a JWT begins; npm_config_registry, hf_hub_download, xoxo, SG.A., ghp_ and sk- are prefixes"}"#,
    r#"{"public":"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----","key":"-----BEGIN PUBLIC KEY-----"}"#,
    r#"{"mail":"write to ada@example.com","time":"12:00","mention":"@khala: done"}"#,
    r#"["a","b",{"thread_id":"thread_9f86d081884c7d65","owner_user_id":"user_01K0XW3V9GQ6TB1N5V3M9G7H2D"}]"#,
];

#[test]
fn ordinary_texts_stay_as_they_are() {
    for json in ORDINARY {
        assert_eq!(data(json), None, "{json}");
    }
}

/// This repository's own prose, code, settings and checksums, a line an event, with their passwords of examples.
#[test]
fn of_ordinary_lines_none_is_changed() {
    let mut changed = Vec::new();
    let mut lines = 0;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut places = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "Cargo.lock",
        "docs",
        "src",
        "config",
        "scripts",
    ]
    .map(|name| root.join(name))
    .to_vec();
    while let Some(place) = places.pop() {
        if place.is_dir() {
            places.extend(
                std::fs::read_dir(&place)
                    .expect("a folder")
                    .map(|entry| entry.expect("an entry").path()),
            );
            continue;
        }
        let text = std::fs::read(&place).expect("a file");
        for line in String::from_utf8_lossy(&text).lines() {
            lines += 1;
            let json = serde_json::json!({"delta": line}).to_string();
            changed.extend(data(&json));
        }
    }
    assert!(lines > 20_000, "{lines} lines are no measure");
    let allowed = |line: &String| line.contains("://");
    changed.retain(|line| !allowed(line));
    assert_eq!(changed, Vec::<String>::new(), "of {lines} lines");
}

#[test]
fn what_names_the_event_is_never_touched() {
    let secret = key("sk-", 48);
    let event = format!(
        r#"{{"id":"{secret}","source":"{secret}","subject":"run/{secret}","type":"run.delta","token":"{secret}","data":{{"x":"{secret}"}}}}"#
    );
    let clean = Redact::Secrets.json(event.as_bytes(), Part::Event).expect("secrets");
    let clean = String::from_utf8(clean.json).expect("UTF-8");
    assert_eq!(clean.matches(&secret).count(), 3, "{clean}");
    assert!(
        clean.ends_with(r#""token":"[redacted:token]","data":{"x":"[redacted:api_key]"}}"#),
        "{clean}"
    );
}

#[test]
fn twice_changes_nothing_more_and_off_changes_nothing() {
    let json = format!(r#"{{"password":"x","a":"{} and {}"}}"#, key("ghp_", 36), key("sk-", 40));
    let once = Redact::Secrets.json(json.as_bytes(), Part::Data).expect("secrets");
    assert_eq!((once.count, once.json.starts_with(br#"{"password":"*","#)), (3, true));
    assert_eq!(Redact::Secrets.json(&once.json, Part::Data), None);
    assert_eq!(Redact::Off.json(json.as_bytes(), Part::Data), None);
}

#[test]
fn addresses_go_only_where_that_is_asked_for() {
    let json = br#"{"to":"ada.l+x@mail.example.com, bob@example","at":"@here a@b.c1"}"#;
    assert_eq!(Redact::Secrets.json(json, Part::Data), None);
    let clean = Redact::SecretsAndEmail.json(json, Part::Data).expect("an address");
    assert_eq!(
        clean.json,
        br#"{"to":"[redacted:email], bob@example","at":"@here a@b.c1"}"#
    );
}

/// Found by fuzzing: `\\nada@example.com` lost its `n` with the address, and the event was no JSON any more.
#[test]
fn what_stands_behind_an_escape_goes_and_the_escape_stays() {
    let escapes = [
        r"\n", r"\t", r"\b", r"\f", r"\r", r"\/", r#"\""#, r"\\", r"\u00a0", r"\u00FC",
    ];
    for escape in escapes {
        for (secret, what) in [("ada+x@example.com".to_owned(), "email"), (key("sk-", 48), "api_key")] {
            let json = format!(r#"{{"a":"see{escape}{secret}, {secret}"}}"#);
            let clean = Redact::SecretsAndEmail
                .json(json.as_bytes(), Part::Data)
                .expect("two secrets");
            let wanted = format!(r#"{{"a":"see{escape}[redacted:{what}], [redacted:{what}]"}}"#);
            assert_eq!(String::from_utf8_lossy(&clean.json), wanted);
        }
    }
    for begins in ["npm_", "rk_live_", "tvly-"] {
        let json = format!(r#"{{"a":"a line\{}"}}"#, key(begins, 36));
        assert_eq!(data(&json), None, "the first letter is the escape's");
    }
}

#[test]
fn what_is_no_json_is_left_to_those_who_say_so() {
    for text in ["{\"password\":\"x", "}{\"password\":\"x\"}", "password"] {
        assert_eq!(data(text), None, "{text}");
    }
}

#[test]
fn an_event_that_is_as_large_as_may_be_stays_legal() {
    let metadata = format!(
        r#"{{"a":"{}","password":"x","token":"{}"}}"#,
        "y".repeat(4030),
        key("", 20)
    );
    let event = format!(
        r#"{{"specversion":"1.0","id":"1","source":"s","type":"worker.started","subject":"worker/w","data":{{"metadata":{metadata}}}}}"#
    );
    assert!(metadata.len() > 4080 && metadata.len() <= 4096, "{}", metadata.len());
    let clean = Redact::Secrets.json(event.as_bytes(), Part::Event).expect("secrets");
    assert!(clean.json.len() <= event.len());
    crate::pure::event::decode_structured(&clean.json, event.len()).expect("legal");
}

#[test]
fn a_secret_in_a_header_of_a_binary_event_is_not_kept() {
    let mut batch = crate::pure::record::RecordBatch::default();
    batch.push(
        crate::pure::place::Offset(7),
        0,
        Some(b"run/a"),
        Some(br#"{"password":"correct horse battery"}"#),
    );
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", "1"),
        ("ce_source", "s"),
        ("ce_type", "run.delta"),
        ("ce_subject", "run/a"),
        ("ce_authorization", "Bearer abcdefghijklmnopqrstuvwxyz"),
    ] {
        batch.push_header(name.as_bytes(), Some(value.as_bytes()));
    }
    let rules = crate::pure::event::Rules {
        partitioner: crate::pure::place::Partitioner::Murmur2,
        partitions: 1,
        max_event_bytes: 1 << 20,
        redact: Redact::Secrets,
    };
    let mut room = Vec::new();
    let here = crate::pure::place::PartitionId(0);
    let decoded = crate::pure::event::decode_clean(&batch.get(0), here, &rules, &mut room);
    let (event, record, count) = decoded.expect("legal");
    let mut kept = Vec::new();
    event.write_structured(&record, rules.redact, &mut kept);
    let kept: serde_json::Value = serde_json::from_slice(&kept).expect("JSON");
    assert_eq!(count, 1);
    assert_eq!(kept["authorization"], "[redacted:authorization]");
    assert_eq!(kept["data"]["password"], "[redacted:secret]");
}

#[test]
fn vectors_of_bytes_find_what_is_found_byte_by_byte() {
    for (hints, words) in [(&*SECRETS, HINTS.to_vec()), (&*WITH_EMAIL, [HINTS, &["@"]].concat())] {
        for length in 0..130 {
            let plain = "x".repeat(length);
            assert_eq!(hints.find(plain.as_bytes(), 0), None);
            for word in &words {
                let at = length / 2;
                let text = format!("{}{word}{}", &plain[..at], &plain[at..]);
                for from in [0, at, at + 1] {
                    let wanted = hints.any.find(Input::new(&text).range(from..));
                    assert_eq!(hints.find(text.as_bytes(), from), wanted, "{text} from {from}");
                }
            }
        }
    }
}

#[test]
fn an_escape_that_may_hide_a_hint_is_one() {
    for letter in HINTS.concat().chars() {
        assert!(is_letter_of_hints(letter) || matches!(letter, '"' | '\\'), "{letter}");
    }
    assert!(HINTS.len() <= 64, "more make each look slow");
}

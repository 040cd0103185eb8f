//! Secrets in events: gone from the log if Khala publishes them, from documents and streams wherever they come from, and
//! an audit and a replay find nothing to mend in what was redacted.

use std::path::{Path, PathBuf};

use khala::pure::redact::{Part, Redact};
use serde_json::json;

use super::web::{Events, ONE, event, get, post};
use super::world::{World, note};
use crate::reference::Rec;
use crate::reference::messy::Message;
use crate::reference::place::partition_of;
use crate::support::khala::run;
use crate::support::redis_server::Keeps;

/// Made here, so that no scanner takes this file for a leak.
fn api_key() -> String {
    format!("sk-{}", "A1b2C3d4E5f6".repeat(3))
}

#[test]
fn no_secret_is_published_or_kept_and_an_audit_finds_nothing_to_mend() {
    let world = World::new("redaction", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let (http, key) = (khala.http(), api_key());
    let published = event(
        "run/a",
        1,
        "run.started",
        &json!({"x": format!("use {key}")}).to_string(),
    );
    assert_eq!(post(http, "/v1/events", &[ONE], published.as_bytes()).status, 202);
    let by_command = event("run/a", 2, "run.delta", r#"{"password":"correct horse battery"}"#);
    assert!(run(&world.cluster, &["publish"], &by_command).status.success());
    let in_log = world.read_back();
    let logged = |rec: &Rec| String::from_utf8_lossy(rec.value.as_deref().unwrap_or_default()).into_owned();
    let logged: String = in_log.iter().map(logged).collect();
    assert!(!logged.contains(&key) && !logged.contains("correct horse"), "{logged}");
    assert!(
        logged.contains("use [redacted:api_key]") && logged.contains(r#""password":"[redacted:secret]""#),
        "{logged}"
    );

    // Not through Khala: the log keeps what its producer wrote.
    let reason = json!({"status": "failed", "reason_class": "auth", "reason": format!("401 for {key}")});
    world.send(&[Message {
        partition: None,
        key: Some(b"run/a".to_vec()),
        value: Some(event("run/a", 3, "run.finished", &reason.to_string()).into_bytes()),
        headers: Vec::new(),
    }]);
    world.settle();
    let document = get(http, "/v1/runs/a", &[]);
    assert_eq!(
        document.json()["terminal_reason"],
        "401 for [redacted:api_key]",
        "{document:?}"
    );
    let stream = world.key(partition_of(b"run/a", world.partitions), "events:run_summary:a");
    let stored: Vec<(String, Vec<String>)> = world.redis.ask(&["XRANGE", &stream, "-", "+"]);
    let mut events = Events::open(http, "/v1/runs/a/events", &[]);
    let mut sent = String::new();
    while let Some(frame) = events.next().filter(|frame| frame.data != "[DONE]") {
        sent.push_str(&frame.data);
    }
    for kept in [format!("{stored:?}"), sent] {
        assert_eq!(kept.matches("[redacted:").count(), 3, "{kept}");
        assert!(!kept.contains(&key) && !kept.contains("correct horse"), "{kept}");
    }
    let counted = |stage| khala.metric("khala_redactions_total", &[("stage", stage)]).to_string();
    assert_eq!(
        (counted("publish"), counted("projection")),
        ("1".to_owned(), "1".to_owned())
    );

    for args in [
        &["audit"][..],
        &["replay", "run", "a", "--dry-run"],
        &["replay", "--from", "earliest"],
        &["audit"],
    ] {
        let output = run(&world.cluster, args, "");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {told}");
    }
    world.settle();
    let redone = get(http, "/v1/runs/a", &[]).json();
    assert_eq!(redone["summary_hash"], document.json()["summary_hash"]);
    assert_eq!(khala.term(), Some(0));
}

/// Files of a folder and all below, by the end of their names.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    const TEXTS: [&str; 9] = ["rs", "md", "toml", "lock", "py", "html", "lua", "json", "yml"];
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "redact"].contains(&name) {
                files(&path, found);
            }
        } else if path
            .extension()
            .is_some_and(|end| TEXTS.iter().any(|text| end == *text))
        {
            found.push(path);
        }
    }
}

/// This repository as ordinary text: prose, code, hashes, settings, URLs, line by line and word by word.
#[test]
fn ordinary_text_is_left_alone() {
    const FALSE_PER_MILLION_MAX: usize = 100;
    let mut found = Vec::new();
    files(Path::new(env!("CARGO_MANIFEST_DIR")), &mut found);
    let (mut texts, mut taken) = (0, Vec::new());
    for path in found {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        // Passwords in URLs are what tests of settings are about: nothing ordinary.
        for line in text.lines().filter(|line| !line.contains("pa55")) {
            let words = line.split_whitespace().map(|word| json!({"token": word}));
            for data in words.chain([json!({"delta": line})]) {
                texts += 1;
                let redacted = Redact::Secrets.json(data.to_string().as_bytes(), Part::Data);
                taken.extend(redacted.map(|_| format!("{}: {data}", path.display())));
            }
        }
    }
    let per_million = taken.len() * 1_000_000 / texts;
    note(&format!(
        "{texts} texts, {} redacted: {per_million} in a million\n{}",
        taken.len(),
        taken.join("\n")
    ));
    assert!(texts > 100_000, "{texts}");
    assert!(
        per_million <= FALSE_PER_MILLION_MAX,
        "{per_million} in a million: {taken:#?}"
    );
}

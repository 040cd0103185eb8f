//! docs/reference.md is what the code says: commands and settings by the binary's own help, calls by the `OpenAPI` document,
//! metrics by the text that dashboards hold on to. `BLESS=1 cargo test --test reference_page` writes it anew.

use std::fmt::Write;
use std::process::Command;

use serde_json::Value;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md");
const OPENAPI: &str = include_str!("../src/serve/openapi.json");
const METRICS: &str = include_str!(
    "../src/telemetry/metrics/snapshots/khala__telemetry__metrics__tests__the_text_is_what_dashboards_hold_on_to.snap"
);

fn help(words: &[&str], flag: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_khala"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KHALA_")) {
        command.env_remove(name); // a help text shows what is set
    }
    let output = command.args(words).arg(flag).env("COLUMNS", "100").output();
    let text = String::from_utf8(output.expect("khala runs").stdout).expect("UTF-8");
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim().to_owned()
}

/// Names under `Commands:` of a help text.
fn commands(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    // A name begins two spaces in; what is further in goes on from the line above.
    let first_lines = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = first_lines.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

/// A command's short help without the settings, which are the same for all.
fn command(page: &mut String, words: &[&str]) {
    let text = help(words, "-h");
    let own = text.split("\nSettings:").next().unwrap_or_default();
    let examples = text.split("\n\n").filter(|part| part.starts_with("Example"));
    let examples: Vec<&str> = examples.filter(|part| !own.contains(*part)).collect();
    let _ = writeln!(page, "\n### khala {}\n\n```text\n{}", words.join(" "), own.trim());
    for example in examples {
        let _ = writeln!(page, "\n{example}");
    }
    page.push_str("```\n");
    for name in commands(&text) {
        command(page, &[words, &[name]].concat());
    }
}

fn calls(page: &mut String) {
    page.push_str("\n## HTTP\n\n`GET /openapi.json` has parameters and answers.\n\n| call | what |\n|---|---|\n");
    let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("methods") {
            if let Some(summary) = operation["summary"].as_str() {
                let _ = writeln!(page, "| `{} {path}` | {summary} |", method.to_uppercase());
            }
        }
    }
}

fn metrics(page: &mut String) {
    page.push_str("\n## Metrics\n\nAll carry `namespace`.\n\n| metric | kind | what |\n|---|---|---|\n");
    for line in METRICS.lines() {
        let Some((name, what)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) else {
            continue;
        };
        let begin = format!("# TYPE {name} ");
        let kind = METRICS.lines().find_map(|line| line.strip_prefix(&begin));
        let _ = writeln!(page, "| `{name}` | {} | {what} |", kind.unwrap_or_default());
    }
}

fn page() -> String {
    let mut page = "# Reference\n\nMade from the code; a test keeps it so. Do not edit.\n\n## Commands\n\n".to_owned();
    let top = help(&[], "-h");
    let own = top.split("\nSettings:").next().unwrap_or_default();
    let _ = writeln!(page, "```text\n{}\n```", own.trim());
    for name in commands(&top) {
        command(&mut page, &[name]);
    }
    let settings = help(&["serve"], "--help");
    let settings = settings.split("\nSettings:\n").nth(1).unwrap_or_default();
    let settings = settings.split("\n\nSIGTERM").next().unwrap_or_default();
    let _ = writeln!(
        page,
        "\n## Settings\n\nFlags of every command; [config/khala.toml](../config/khala.toml) has them as keys, with units.\n\n\
         ```text\n{}\n```",
        settings.trim_end()
    );
    calls(&mut page);
    metrics(&mut page);
    page
}

#[test]
fn the_reference_says_what_the_code_says() {
    let made = page();
    assert!(made.contains("### khala serve"), "{made}");
    assert!(made.contains("KHALA_NAMESPACE"), "{made}");
    assert!(made.contains("`khala_projection_lag_events`"), "{made}");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(PAGE, &made).expect("docs/reference.md");
    }
    let there = std::fs::read_to_string(PAGE).unwrap_or_default();
    let differs = made.lines().zip(there.lines()).find(|(made, there)| made != there);
    assert!(
        made == there,
        "docs/reference.md is not what the code says: {differs:?}\nBLESS=1 cargo test --test reference_page"
    );
}

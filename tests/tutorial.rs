//! docs/tutorial.md, as a newcomer would type it: each block in order, in one shell, and under it what it must print.

#[path = "support/mod.rs"]
mod support;

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use support::guarded::{free_port, temp_dir};

const TUTORIAL: &str = include_str!("../docs/tutorial.md");

struct Step {
    commands: String,
    printed: String,
}

/// The blocks of commands, each with the text that follows it.
fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = None;
    for line in TUTORIAL.lines() {
        match (inside, line) {
            (None, "```sh") => {
                inside = Some("sh");
                steps.push(Step {
                    commands: String::new(),
                    printed: String::new(),
                });
            }
            (None, "```text") => inside = Some("text"),
            (Some(_), "```") => inside = None,
            (Some(kind), line) => {
                let step = steps.last_mut().expect("a text stands under its commands");
                let text = if kind == "sh" {
                    &mut step.commands
                } else {
                    &mut step.printed
                };
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    steps.retain(|step| !step.commands.starts_with("cargo install"));
    steps
}

#[test]
fn what_the_tutorial_says_happens() {
    let steps = steps();
    assert!(steps.len() >= 8, "{} blocks", steps.len());
    let dir = temp_dir("tutorial");
    let port = free_port();
    let mut script = "set -u\ntrap 'kill -9 $(jobs -p) 2>/dev/null' EXIT\n".to_owned();
    for (i, step) in steps.iter().enumerate() {
        let _ = writeln!(script, "printf '\\n@@ {i}\\n'");
        script.push_str(&step.commands.replace("7600", &port.to_string()));
    }
    let khala = Path::new(env!("CARGO_BIN_EXE_khala")).parent().expect("a directory");
    let path = format!("{}:{}", khala.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("timeout");
    command
        .args(["120", "bash", "-m", "-c", &script])
        .current_dir(dir.path())
        .stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KHALA_")) {
        command.env_remove(name);
    }
    let output = command
        .env("PATH", path)
        .env("KHALA_HTTP", format!("127.0.0.1:{port}"))
        .output()
        .expect("bash runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    for (i, step) in steps.iter().enumerate() {
        let begin = format!("@@ {i}\n");
        let said = printed.split(&begin).nth(1).unwrap_or_default();
        let said = said.split("\n@@ ").next().unwrap_or_default();
        let mut rest = said.lines();
        for line in step.printed.lines() {
            assert!(
                rest.any(|printed| printed.trim() == line),
                "`{line}` is not printed by\n{}\nbut\n{said}\nstderr:\n{errors}",
                step.commands
            );
        }
    }
}

//! What the documents tell people to type and click: commands, flags, variables, settings and files that exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use khala::config::{Flags, KEYS, load};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Global flags with a value, which may stand before the command.
const WITH_VALUE: [&str; 7] = [
    "--log",
    "--store",
    "--topic",
    "--namespace",
    "--http",
    "--token-file",
    "--config",
];
/// Commands that have commands of their own.
const GROUPS: [&str; 4] = ["dead-letters", "topics", "config", "contract"];

/// Every Markdown file that is part of the project, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(ROOT);
    let mut found: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .map(|name| root.join(name))
        .into();
    for folder in ["docs", "docs/decisions", "docs/runbooks"] {
        let entries = std::fs::read_dir(root.join(folder))
            .expect("the documents' folder")
            .map(|entry| entry.expect("a readable folder").path());
        found.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    found.sort();
    found
        .into_iter()
        .map(|path| (path.clone(), std::fs::read_to_string(path).expect("UTF-8")))
        .collect()
}

/// Lines to type: of `sh` blocks all, of `console` blocks those behind `$ `; a `\` at the end joins the next line.
fn typed(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut language = None;
    let mut open = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(fence) = line.strip_prefix("```") {
            language = if language.is_none() {
                Some(fence.to_owned())
            } else {
                None
            };
            continue;
        }
        let command = match language.as_deref() {
            Some("sh") => Some(line),
            Some("console") => line.strip_prefix("$ ").or((!open.is_empty()).then_some(line)),
            _ => None,
        };
        let Some(command) = command else { continue };
        open.push_str(command.trim_end_matches('\\'));
        if !command.ends_with('\\') {
            lines.push(std::mem::take(&mut open));
        }
    }
    lines
}

/// Rows of tables whose first cell is a command: "| `khala get` | …".
fn tabled(text: &str) -> Vec<String> {
    let cell = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    text.lines()
        .filter_map(cell)
        .filter(|cell| cell.starts_with("khala "))
        .collect()
}

/// Commands in the text: `khala …` between backticks.
fn inline(text: &str) -> Vec<String> {
    let parts = text.split('`').skip(1).step_by(2);
    let calls = parts.filter(|part| part.starts_with("khala ") && !part.contains('\n'));
    calls.map(str::to_owned).collect()
}

/// A call of khala in a typed line: its command, and the flags it uses.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    command: Vec<String>,
    flags: Vec<String>,
}

fn calls(line: &str) -> Vec<Call> {
    let line = line
        .replace("cargo run --release -- ", "khala ")
        .replace("docker compose exec khala ", "");
    let parts = line.split("&&").flat_map(|part| part.split([';', '|', '&', '<', '>']));
    parts
        .filter_map(|part| part.trim().strip_prefix("khala "))
        .map(call)
        .collect()
}

fn call(words: &str) -> Call {
    let mut call = Call {
        command: Vec::new(),
        flags: Vec::new(),
    };
    let mut words = words.split_whitespace();
    while let Some(word) = words.next() {
        let is_whole = call
            .command
            .first()
            .is_some_and(|first| !GROUPS.contains(&first.as_str()) || call.command.len() > 1);
        if word.starts_with("--") {
            let flag = word.split('=').next().unwrap_or(word);
            call.flags.push(flag.to_owned());
            if WITH_VALUE.contains(&word) {
                words.next();
            }
        } else if !is_whole {
            call.command.push(word.to_owned());
        }
    }
    call
}

fn help(command: &[String]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_khala"))
        .args(command)
        .arg("--help")
        .output()
        .expect("khala runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_help = output.status.success() && text.contains("Usage:");
    if is_help {
        Ok(text)
    } else {
        Err(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

#[test]
fn commands_and_flags_in_the_documents_exist() {
    let mut helps: BTreeMap<Vec<String>, Result<String, String>> = BTreeMap::new();
    let mut broken = Vec::new();
    let mut seen = 0;
    for (path, text) in documents() {
        for line in [typed(&text), tabled(&text), inline(&text)].concat() {
            for call in calls(&line) {
                seen += 1;
                match helps
                    .entry(call.command.clone())
                    .or_insert_with_key(|command| help(command))
                {
                    Err(error) => broken.push(format!("{}: `{line}`: {error}", path.display())),
                    Ok(help) => {
                        let missing = call.flags.iter().filter(|flag| !help.contains(flag.as_str()));
                        broken.extend(missing.map(|flag| format!("{}: `{line}` has no {flag}", path.display())));
                    }
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} calls found: is the reader of blocks broken?");
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn variables_in_the_documents_are_legal() {
    for (path, text) in documents() {
        for rest in text.split("KHALA_").skip(1) {
            let end = rest
                .find(|letter: char| !letter.is_ascii_uppercase() && letter != '_')
                .unwrap_or(rest.len());
            let variable = format!("KHALA_{}", &rest[..end]);
            // `KHALA_*` and `KHALA_KAFKA__…` name families. An empty value sets nothing, an unknown name is refused.
            if !variable.ends_with('_') {
                let loaded = load(&Flags::default(), [(variable, String::new())].into_iter());
                assert!(loaded.is_ok(), "{}: {}", path.display(), loaded.unwrap_err());
            }
        }
    }
}

#[test]
fn the_guarantees_name_settings_that_exist() {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    for name in ["allow_eviction", "cache_bytes", "batch_bytes"] {
        assert!(
            readme.contains(&format!("`{name}`")) && KEYS.iter().any(|key| key.name == name),
            "{name}"
        );
    }
}

#[test]
fn links_lead_to_files_that_exist() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| Some(rest.split_once(')')?.0));
        for target in targets.filter(|target| !target.contains("://")) {
            let file = path.parent().unwrap().join(target.split('#').next().unwrap_or(target));
            if !file.exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_reader_finds_calls_in_pipes_and_behind_global_flags() {
    let call = |command: &[&str], flags: &[&str]| Call {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
    };
    assert_eq!(
        calls("echo x | khala publish --json -"),
        [call(&["publish"], &["--json"])]
    );
    assert_eq!(
        calls("khala --config config/khala.toml config check --connect && khala serve &"),
        [
            call(&["config", "check"], &["--config", "--connect"]),
            call(&["serve"], &[])
        ]
    );
    assert_eq!(
        typed("```sh\na \\\n  b\n```\nc\n```console\n$ d\nout\n```"),
        ["a b", "d"]
    );
}

#[test]
fn the_tests_that_reliability_names_exist() {
    let root = Path::new(ROOT);
    let text = std::fs::read_to_string(root.join("docs/reliability.md")).expect("UTF-8");
    let named: Vec<(&str, &str)> = text.split('`').filter_map(|word| word.split_once("::")).collect();
    assert!(named.len() > 25, "{}", named.len());
    for (module, test) in named {
        let places =
            ["tests/real", "tests/embedded_crash"].map(|folder| root.join(folder).join(format!("{module}.rs")));
        let is_there = places
            .iter()
            .any(|file| std::fs::read_to_string(file).is_ok_and(|source| source.contains(&format!("fn {test}()"))));
        assert!(is_there, "docs/reliability.md names {module}::{test}, which is no test");
    }
}

/// `scripts/reliability` writes the last column.
#[test]
fn each_fault_in_reliability_tells_how_its_test_ended_last() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("docs/reliability.md")).expect("UTF-8");
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("::"))
        .collect();
    assert!(rows.len() > 30, "{}", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let date = cells.last().and_then(|last| last.strip_prefix("passed "));
        let is_date = |text: &str| text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        assert!(
            cells.len() == 4 && date.is_some_and(is_date),
            "run scripts/reliability: {row}"
        );
    }
}

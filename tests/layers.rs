//! The house's walls: which room may name which, and how long files and functions grow (STYLE.md).

use std::path::{Path, PathBuf};

/// Room, and what its files may name after `crate::`.
const ROOMS: &[(&str, &[&str])] = &[
    ("pure", &["pure"]),
    ("telemetry", &["telemetry", "pure"]),
    ("config", &["config", "telemetry", "pure"]),
    ("disk", &["disk"]),
    ("client", &["client"]),
    ("log", &["log", "disk", "telemetry", "pure"]),
    ("store", &["store", "disk", "telemetry", "pure"]),
    ("repair", &["repair", "log", "store", "telemetry", "pure"]),
    ("rollout", &["rollout", "config", "pure"]),
    (
        "projector",
        &["projector", "repair", "log", "store", "telemetry", "pure"],
    ),
    (
        "access",
        &[
            "access",
            "projector",
            "repair",
            "rollout",
            "log",
            "store",
            "config",
            "telemetry",
            "pure",
        ],
    ),
    (
        "serve",
        &[
            "serve",
            "access",
            "projector",
            "repair",
            "rollout",
            "log",
            "store",
            "config",
            "telemetry",
            "pure",
        ],
    ),
    (
        "cli",
        &[
            "cli",
            "client",
            "serve",
            "access",
            "projector",
            "repair",
            "rollout",
            "log",
            "store",
            "config",
            "telemetry",
            "pure",
        ],
    ),
];

/// What a pure function has no use for.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "std::time::",
    "SystemTime",
    "Instant::",
    "async ",
    ".await",
    "tokio",
    "rand::",
    "tracing::",
    "redis::",
    "rdkafka::",
];

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

struct Source {
    place: String,
    text: String,
}

impl Source {
    /// Lines outside tests and comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.place.ends_with("/tests.rs") || self.place.contains("/tests/");
        let text = if is_test { "" } else { self.text.as_str() };
        let mut in_tests = false;
        (1..).zip(text.lines()).filter(move |(_, line)| {
            // rustfmt keeps `mod tests {` and its `}` at the left edge.
            in_tests = (in_tests && *line != "}") || line.starts_with("mod tests {");
            !in_tests && !line.trim_start().starts_with("//")
        })
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.expect("a readable folder").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let place = path.strip_prefix(root).expect("below the root").display().to_string();
                found.push(Source {
                    place,
                    text: std::fs::read_to_string(&path).expect("UTF-8"),
                });
            }
        }
    }
    found.sort_by(|one, other| one.place.cmp(&other.place));
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

/// What a line names after `crate::`, also in `crate::{a, b}`.
fn named(line: &str) -> Vec<&str> {
    let word = |text: &str| {
        text.find(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .unwrap_or(text.len())
    };
    let mut names = Vec::new();
    // `$crate::` is a macro's own room; `crate::` at a word's end (`my_crate::`) is no path to a room.
    for rest in line.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            names.push(&rest[..word(rest)]);
            continue;
        };
        let mut depth = 0;
        for part in list.split_inclusive(['{', '}', ',']) {
            let name = part.trim_start();
            if depth == 0 && word(name) > 0 {
                names.push(&name[..word(name)]);
            }
            depth += i32::from(part.ends_with('{')) - i32::from(part.ends_with('}'));
        }
    }
    names
}

#[test]
fn rooms_name_only_the_rooms_below_them() {
    let mut broken = Vec::new();
    for (room, allowed) in ROOMS {
        for source in sources(&format!("src/{room}")) {
            for (number, line) in source.code() {
                let strangers = named(line).into_iter().filter(|name| !allowed.contains(name));
                broken.extend(
                    strangers.map(|name| format!("{}:{number}: `{room}` may not use `crate::{name}`", source.place)),
                );
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_room_is_in_the_table() {
    for source in sources("src") {
        let mut parts = Path::new(&source.place).components().skip(1);
        let room = parts.next().unwrap().as_os_str().to_str().unwrap();
        let is_known = ROOMS.iter().any(|(name, _)| *name == room) || ["lib.rs", "main.rs"].contains(&room);
        assert!(is_known, "{}: the room `{room}` is not in ROOMS", source.place);
    }
}

#[test]
fn pure_rooms_have_no_clock_no_randomness_no_io_and_no_async() {
    let mut broken = Vec::new();
    for source in ["src/pure", "src/rollout"].into_iter().flat_map(sources) {
        for (number, line) in source.code() {
            let impure = IMPURE.iter().filter(|word| line.contains(**word));
            broken.extend(impure.map(|word| format!("{}:{number}: `{}`", source.place, word.trim())));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn no_file_is_over_400_lines_and_no_function_over_70() {
    let mut broken = Vec::new();
    for source in ["src", "tests"].into_iter().flat_map(sources) {
        let lines: Vec<&str> = source.text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            broken.push(format!("{}: {} lines", source.place, lines.len()));
        }
        for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
            let length = function_lines(&lines[start..], line);
            if length > FUNCTION_LINES_MAX {
                broken.push(format!("{}:{}: a function of {length} lines", source.place, start + 1));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || ["async", "const", "unsafe", "extern", "\"C\"", "in"].contains(word)
    });
    words.next() == Some("fn")
}

/// Lines of code of the function that begins here: up to the brace below its `fn`, as rustfmt sets it, without
/// blank lines and comments. A declaration without a body ends at its `;`.
fn function_lines(lines: &[&str], first: &str) -> usize {
    let indent = &first[..first.len() - first.trim_start().len()];
    let closing = format!("{indent}}}");
    let declared = format!("{indent})");
    let ends = |line: &&str| **line == closing || (line.starts_with(&declared) && line.ends_with(';'));
    if first.ends_with(';') || first.ends_with('}') {
        return 1;
    }
    let length = lines.iter().position(ends).unwrap_or(0);
    let code = |line: &&&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    // Without the line of `fn` and of the closing brace.
    lines[..length].iter().filter(code).count().saturating_sub(1)
}

#[test]
fn nothing_outside_tests_unwraps_or_is_left_for_later() {
    let mut broken = Vec::new();
    for source in sources("src") {
        for (number, line) in source.code() {
            let words = [".unwrap()", "todo!(", "unimplemented!(", "#[allow("];
            let found = words.iter().filter(|word| line.contains(**word));
            broken.extend(found.map(|word| format!("{}:{number}: `{word}`", source.place)));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_reader_of_paths_sees_through_braces() {
    assert_eq!(named("use crate::pure::place::Offset;"), ["pure"]);
    assert_eq!(named("use crate::{log::{Log, Role}, store};"), ["log", "store"]);
    assert_eq!(named("let x: crate::log::Log = crate::serve::y();"), ["log", "serve"]);
    assert!(named("use super::place;").is_empty());
}

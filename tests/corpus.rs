//! The fuzz targets on every run of the tests: over the corpus that the coverage-guided runs left (`scripts/fuzz`), over
//! messy records, and over mutations of both, shrunk by proptest to the few that matter.
//! `SEEDS=<dir>` also writes the messy ones there, a folder a target, for a coverage-guided run to begin with.

#[path = "../fuzz/src/lib.rs"]
mod bodies;
#[path = "reference/mod.rs"]
mod reference;

use std::path::Path;
use std::sync::LazyLock;

use bodies::{TARGETS, envelope, http, settings};
use proptest::prelude::*;
use proptest::sample::Index;
use reference::messy::dice::Dice;
use reference::messy::{Message, Messy, Shape};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SEEDS: usize = 60;
/// What mutations put in: the joints of JSON, TOML and HTTP, and numbers at their limits.
const WORDS: [&str; 24] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "\\ud800",
    "\\u0000",
    ":",
    ",",
    "null",
    "true",
    "-1",
    "1e400",
    "0.1",
    "\n",
    "=",
    "%c3",
    "9007199254740993",
    "18446744073709551616",
    "\u{1e}",
    "khala",
    "\"data\":{}",
    "2026-02-29T24:00:60Z",
];

/// Its name, and its bytes.
type Input = (String, Vec<u8>);

/// The corpus of a target, and its messy seeds.
fn inputs(target: &str) -> Vec<Input> {
    let folder = Path::new(ROOT).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .map(|path| {
            (
                path.display().to_string(),
                std::fs::read(&path).expect("a readable file"),
            )
        })
        .collect();
    found.sort();
    let seeds = seeds(target).into_iter().enumerate();
    found.extend(seeds.map(|(i, bytes)| (format!("messy-{i}"), bytes)));
    found
}

static INPUTS: LazyLock<Vec<Vec<Input>>> = LazyLock::new(|| TARGETS.iter().map(|(target, _)| inputs(target)).collect());

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut messy = Messy::new(7, Shape::of(SEEDS, 1));
    let messages = messy.take(SEEDS);
    match target {
        "envelope" => messages.iter().map(as_record).collect(),
        "http" => messages.chunks(3).flat_map(as_requests).collect(),
        "settings" => as_settings(),
        _ => {
            let mut dice = Dice::new(7);
            let length = |dice: &mut Dice| 200 + dice.below(900);
            let bytes = |dice: &mut Dice| (0..length(dice)).map(|_| dice.next() as u8).collect();
            (0..SEEDS / 3).map(|_| bytes(&mut dice)).collect()
        }
    }
}

fn part(bytes: &[u8], out: &mut Vec<u8>) {
    let bytes = &bytes[..bytes.len().min(255)];
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a [u8]> {
    let value = message.headers.iter().find(|(known, _)| known == name);
    value.and_then(|(_, value)| value.as_deref())
}

/// As `envelope` reads it: headers up to the last that the message has.
fn as_record(message: &Message) -> Vec<u8> {
    let last = envelope::HEADERS
        .iter()
        .rposition(|name| header(message, name).is_some());
    let count = last.map_or(0, |last| last + 1);
    let mut out = vec![count as u8];
    part(message.key.as_deref().unwrap_or_default(), &mut out);
    for name in &envelope::HEADERS[..count] {
        part(header(message, name).unwrap_or_default(), &mut out);
    }
    out.extend_from_slice(message.value.as_deref().unwrap_or_default());
    out
}

/// As `http` reads them: each for itself, and all in one batch.
fn as_requests(messages: &[Message]) -> Vec<Vec<u8>> {
    let values: Vec<&[u8]> = messages.iter().filter_map(|message| message.value.as_deref()).collect();
    let mut batch = vec![1, 0, b'['];
    batch.extend(values.join(&b','));
    batch.push(b']');
    let mut requests = vec![batch];
    for message in messages {
        let names = [
            "ce_specversion",
            "ce_id",
            "ce_source",
            "ce_type",
            "ce_subject",
            "ce_time",
            "ce_sequence",
        ];
        let is_binary = header(message, "ce_subject").is_some();
        let count = if is_binary { names.len() } else { 0 };
        let mut out = vec![
            if is_binary {
                http::CONTENT_TYPES.len() as u8 - 1
            } else {
                0
            },
            count as u8,
        ];
        for name in &names[..count] {
            part(header(message, name).unwrap_or_default(), &mut out);
        }
        out.extend_from_slice(message.value.as_deref().unwrap_or_default());
        requests.push(out);
    }
    requests
}

/// The example with everything switched on, each of its lines alone, and the same as variables.
fn as_settings() -> Vec<Vec<u8>> {
    let example = std::fs::read_to_string(Path::new(ROOT).join("config/khala.toml")).expect("the example");
    let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && !line.contains("_file");
    let lines: Vec<&str> = example.lines().filter(is_setting).map(|line| &line[1..]).collect();
    let table = lines
        .iter()
        .position(|line| *line == "[kafka]")
        .expect("a [kafka] table");
    let mut seeds = vec![lines.join("\n").into_bytes()];
    seeds.extend(lines[..table].iter().map(|line| line.as_bytes().to_vec()));
    seeds.extend(
        lines[table + 1..]
            .iter()
            .map(|line| format!("[kafka]\n{line}").into_bytes()),
    );
    let variable = |line: &str| {
        let (name, value) = line.split_once(" = ")?;
        Some(format!(
            "KHALA_{}={}\n",
            name.to_ascii_uppercase(),
            value.trim_matches('"')
        ))
    };
    let variables: String = lines[..table].iter().filter_map(|line| variable(line)).collect();
    seeds.push([&[settings::SEPARATOR], variables.as_bytes()].concat());
    seeds
}

#[test]
fn every_input_of_the_corpus_is_as_it_must_be() {
    for ((target, run), inputs) in TARGETS.iter().zip(INPUTS.iter()) {
        for (name, bytes) in inputs {
            let done = std::panic::catch_unwind(|| run(bytes));
            assert!(done.is_ok(), "{target}: {name}: {}", bytes.escape_ascii());
        }
        if let Some(dir) = std::env::var_os("SEEDS") {
            let dir = Path::new(&dir).join(target);
            std::fs::create_dir_all(&dir).expect("a folder for seeds");
            for (name, bytes) in inputs.iter().filter(|(name, _)| name.starts_with("messy")) {
                std::fs::write(dir.join(name), bytes).expect("a seed");
            }
        }
    }
}

#[test]
fn each_target_has_a_small_corpus() {
    for ((target, _), inputs) in TARGETS.iter().zip(INPUTS.iter()) {
        let kept = inputs.iter().filter(|(name, _)| !name.starts_with("messy")).count();
        assert!((10..=100).contains(&kept), "fuzz/corpus/{target} has {kept} files");
    }
}

/// One change of an input.
#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    Cut(Index, u8),
    Double(Index, u8),
    Put(Index, Index),
    /// The rest of another input.
    Join(Index, Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (at(), any::<u8>()).prop_map(|(at, length)| Mutation::Cut(at, length)),
        (at(), any::<u8>()).prop_map(|(at, length)| Mutation::Double(at, length)),
        (at(), at()).prop_map(|(at, word)| Mutation::Put(at, word)),
        (at(), at(), at()).prop_map(|(at, other, from)| Mutation::Join(at, other, from)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation, others: &[Input]) {
    let place = |at: &Index| at.index(bytes.len() + 1);
    match mutation {
        Mutation::Set(at, byte) => {
            let at = place(at);
            bytes.get_mut(at).into_iter().for_each(|found| *found = *byte);
        }
        Mutation::Cut(at, length) => {
            let at = place(at);
            bytes.drain(at..bytes.len().min(at + usize::from(*length)));
        }
        Mutation::Double(at, length) => {
            let at = place(at);
            bytes.extend_from_within(at..bytes.len().min(at + usize::from(*length)));
        }
        Mutation::Put(at, word) => {
            let at = place(at);
            bytes.splice(at..at, word.get(&WORDS).bytes());
        }
        Mutation::Join(at, other, from) => {
            bytes.truncate(place(at));
            let other = &other.get(others).1;
            bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutations_of_the_corpus_are_as_they_must_be(
        target in 0..TARGETS.len(), from: Index, mutations in prop::collection::vec(mutation(), 1..5),
    ) {
        let (inputs, (_, run)) = (&INPUTS[target], TARGETS[target]);
        let mut bytes = from.get(inputs).1.clone();
        for mutation in &mutations {
            mutate(&mut bytes, mutation, inputs);
        }
        run(&bytes);
    }
}

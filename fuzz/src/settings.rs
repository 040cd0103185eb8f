//! Settings as people write them: refused with the place, or settings that read back as they are.
//! What stands before the first byte 0x1e is the file, what comes behind it are variables, one `NAME=value` a line.

use std::path::Path;

use khala::config::{Flags, KEYS, Settings, load};

/// What parts the file from the variables.
pub const SEPARATOR: u8 = 0x1e;

/// The settings that these bytes are.
pub fn run(bytes: &[u8]) {
    // A device or a pipe in the place of a secret's file could wait for ever.
    if bytes.windows(5).any(|part| part == b"_file" || part == b"_FILE") {
        return;
    }
    let (file, variables) = match bytes.iter().position(|byte| *byte == SEPARATOR) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[][..]),
    };
    let variables = String::from_utf8_lossy(variables);
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let variables: Vec<(String, String)> = variables
        .filter(|(name, _)| *name != "KHALA_CONFIG")
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    match read(file, &variables) {
        Ok(settings) => {
            let again = read(written(&settings).as_bytes(), &[]);
            assert_eq!(again.expect("settings are legal"), settings, "they read back");
        }
        Err(words) => refused(&words, file),
    }
}

fn read(file: &[u8], variables: &[(String, String)]) -> Result<Settings, String> {
    let place = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    std::fs::write(place.path(), file).expect("a file of ours");
    let flags = Flags {
        config: Some(place.path().to_owned()),
        values: Vec::new(),
    };
    let loaded = load(&flags, variables.iter().cloned());
    loaded
        .map(|loaded| loaded.settings)
        .map_err(|error| without_dir(&error.to_string(), place.path()))
}

fn without_dir(words: &str, path: &Path) -> String {
    words.replace(&path.display().to_string(), "FILE")
}

/// The place comes first: a line of the file, a variable, the flag that named the file, or settings that do not fit.
fn refused(words: &str, file: &[u8]) {
    let lines = file.split(|byte| *byte == b'\n').count();
    let line_of = |rest: &str| {
        let (line, problem) = rest.split_once(": ")?;
        let line: usize = line.parse().ok()?;
        Some((1..=lines).contains(&line) && !problem.is_empty())
    };
    let is_placed = match words.strip_prefix("FILE:") {
        Some(rest) => line_of(rest).unwrap_or(false),
        None => {
            words.starts_with("environment KHALA_")
                || (words.starts_with("settings: `") && words.matches('`').count() >= 4)
                || (words.starts_with("--config: cannot read FILE: ") && std::str::from_utf8(file).is_err())
        }
    };
    assert!(is_placed, "{words}");
}

/// The settings as a file.
fn written(settings: &Settings) -> String {
    let of_keys = KEYS.iter().map(|key| (key.name.to_owned(), key.show(settings)));
    let properties = settings.kafka.iter();
    let properties = properties.map(|(property, value)| (format!("kafka.{}", quoted(property)), value.clone()));
    let lines = of_keys
        .chain(properties)
        .map(|(name, value)| format!("{name} = {}\n", quoted(&value)));
    lines.collect()
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter.is_control() => out.extend(format!("\\u{:04X}", u32::from(letter)).chars()),
            letter => out.push(letter),
        }
    }
    out + "\""
}

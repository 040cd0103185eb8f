//! The settings file: TOML with one level of keys and the table `[kafka]`.
//! In: a path. Out: names and texts with their lines.
//! Invariant: an error names file and line, and quotes no value (it may be a secret).

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::KEYS;
use super::load::{ConfigError, Given, Origin, Target};
use super::nearest;

/// Reads and flattens the file that `origin` named.
pub(super) fn read(path: &Path, origin: &Origin) -> Result<Vec<Given>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::new(origin, format!("cannot read {}: {error}", path.display())))?;
    parse(&path.display().to_string(), &text)
}

/// Parses `text`; `path` is for messages.
pub(super) fn parse(path: &str, text: &str) -> Result<Vec<Given>, ConfigError> {
    let document = Document { path, text };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        ConfigError::new(document.origin(at), error.message().trim())
    })?;
    let mut given = Vec::new();
    for (key, value) in table.get_ref() {
        let name = key.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Table(properties) if name == "kafka" => document.flatten("kafka", properties, &mut given)?,
            _ if Target::of(name).is_some() => document.take(name, key.span().start, value, &mut given)?,
            _ => return Err(document.unknown(name, key.span().start)),
        }
    }
    given.sort_by_key(|given| match given.origin {
        Origin::File(_, line) => line,
        _ => 0,
    });
    Ok(given)
}

struct Document<'a> {
    path: &'a str,
    text: &'a str,
}

impl Document<'_> {
    fn origin(&self, byte: usize) -> Origin {
        let line = 1 + self.text.bytes().take(byte).filter(|byte| *byte == b'\n').count();
        Origin::File(self.path.to_owned(), line)
    }

    fn unknown(&self, name: &str, byte: usize) -> ConfigError {
        if name.starts_with("kafka") {
            let hint = format!("unknown key `{name}`; librdkafka's properties go under `[kafka]`");
            return ConfigError::new(self.origin(byte), hint);
        }
        let files = KEYS
            .iter()
            .filter(|key| key.secret)
            .map(|key| format!("{}_file", key.name));
        let names = KEYS
            .iter()
            .map(|key| key.name.to_owned())
            .chain(files)
            .chain(["kafka".to_owned()]);
        ConfigError::new(
            self.origin(byte),
            format!("unknown key `{name}`{}", nearest::hint(name, names)),
        )
    }

    /// `sasl.username`, whether written as one quoted name or as nested tables.
    fn flatten(&self, prefix: &str, table: &DeTable<'_>, given: &mut Vec<Given>) -> Result<(), ConfigError> {
        for (key, value) in table {
            let name = format!("{prefix}.{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => self.flatten(&name, inner, given)?,
                _ => self.take(&name, key.span().start, value, given)?,
            }
        }
        Ok(())
    }

    fn take(
        &self,
        name: &str,
        byte: usize,
        value: &Spanned<DeValue<'_>>,
        given: &mut Vec<Given>,
    ) -> Result<(), ConfigError> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| ConfigError::new(self.origin(byte), format!("`{name}`: the number is too large")))?
                .to_string(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(truth) => truth.to_string(),
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                let problem = format!("`{name}` takes a text, a number, or true or false");
                return Err(ConfigError::new(self.origin(byte), problem));
            }
        };
        given.push(Given {
            name: name.to_owned(),
            text,
            origin: self.origin(byte),
        });
        Ok(())
    }
}

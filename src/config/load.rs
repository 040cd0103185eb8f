//! Flags, then `KHALA_*`, then a TOML file, then defaults: one set of settings, each with its origin.
//! In: texts by name. Out: [`Loaded`], or the first thing wrong, with its place.
//! Invariant: every given value is parsed, also one that a stronger layer overrides; nothing unknown passes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::keys::{Key, key};
use super::show::is_secret_property;
use super::{Settings, environment, file, librdkafka, limits};

/// What the command line gave.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// Settings by their name in [`super::KEYS`].
    pub values: Vec<(&'static str, String)>,
}

/// Settings in force, and where each came from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Where the setting of that name (`store`, `kafka.acks`) came from.
    pub fn origin(&self, name: &str) -> &Origin {
        self.origins.get(name).unwrap_or(&Origin::Default)
    }
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere.
    Default,
    /// In the settings file, at this line.
    File(String, usize),
    /// By this variable.
    Environment(String),
    /// By this flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{path}:{line}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Something is wrong with the settings; a person must change what stands at `place`.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    place: String,
    problem: String,
}

impl ConfigError {
    pub(super) fn new(place: impl fmt::Display, problem: impl Into<String>) -> Self {
        Self {
            place: place.to_string(),
            problem: problem.into(),
        }
    }
}

/// A value as given, in one layer.
pub(super) struct Given {
    /// As the file spells it: `store`, `store_file`, `kafka.acks`.
    pub name: String,
    pub text: String,
    pub origin: Origin,
}

/// Reads all layers, and the settings file and secret files that they name.
///
/// # Errors
/// The first unknown name, bad value, unreadable file, or pair of settings that do not fit.
pub fn load(flags: &Flags, env: impl Iterator<Item = (String, String)>) -> Result<Loaded, ConfigError> {
    let environment = environment::read(env)?;
    let path = match &flags.config {
        Some(path) => Some((path.clone(), Origin::Flag("--config".into()))),
        None => environment
            .config
            .map(|path| (path, Origin::Environment("KHALA_CONFIG".into()))),
    };
    let file = path.map_or(Ok(Vec::new()), |(path, origin)| file::read(&path, &origin))?;
    let mut loaded = Loaded {
        settings: Settings::default(),
        origins: BTreeMap::new(),
    };
    for layer in [file, environment.given, from_flags(flags)] {
        loaded.apply(layer)?;
    }
    limits::check(&loaded)?;
    Ok(loaded)
}

fn from_flags(flags: &Flags) -> Vec<Given> {
    let given = |(name, text): &(&'static str, String)| Given {
        name: (*name).to_owned(),
        text: text.clone(),
        origin: Origin::Flag(format!("--{}", name.replace('_', "-"))),
    };
    flags.values.iter().map(given).collect()
}

impl Loaded {
    fn apply(&mut self, layer: Vec<Given>) -> Result<(), ConfigError> {
        let mut seen: BTreeMap<String, Origin> = BTreeMap::new();
        for given in layer {
            let Some((target, via_file)) = Target::of(&given.name) else {
                return Err(ConfigError::new(&given.origin, format!("unknown key `{}`", given.name)));
            };
            let name = target.name();
            if let Some(first) = seen.insert(name.clone(), given.origin.clone()) {
                return Err(ConfigError::new(
                    &given.origin,
                    format!("`{name}` is given twice, also at {first}"),
                ));
            }
            let text = if via_file {
                secret(Path::new(&given.text))
            } else {
                Ok(given.text)
            };
            let set = text.and_then(|text| match target {
                Target::Key(key) => (key.set)(&mut self.settings, &text),
                Target::Kafka(property) => librdkafka::check(&property, &text).map(|()| {
                    self.settings.kafka.insert(property, text);
                }),
            });
            set.map_err(|problem| ConfigError::new(&given.origin, format!("`{}`: {problem}", given.name)))?;
            self.origins.insert(name, given.origin);
        }
        Ok(())
    }
}

/// What a name stands for.
pub(super) enum Target {
    Key(&'static Key),
    Kafka(String),
}

impl Target {
    /// The target of a name as the file spells it, and whether the value names a file that holds it.
    pub(super) fn of(name: &str) -> Option<(Self, bool)> {
        if let Some(property) = name.strip_prefix("kafka.") {
            let base = property.strip_suffix("_file").filter(|base| is_secret_property(base));
            return Some((Self::Kafka(base.unwrap_or(property).to_owned()), base.is_some()));
        }
        if let Some(key) = key(name) {
            return Some((Self::Key(key), false));
        }
        let key = name.strip_suffix("_file").and_then(key).filter(|key| key.secret)?;
        Some((Self::Key(key), true))
    }

    fn name(&self) -> String {
        match self {
            Self::Key(key) => key.name.to_owned(),
            Self::Kafka(property) => format!("kafka.{property}"),
        }
    }
}

/// No secret is longer, and a wrong path (a device, a log) must not fill the memory.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The text of a secret's file, without the line end that editors add.
fn secret(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let bytes = file
        .take(SECRET_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if bytes as u64 > SECRET_BYTES_MAX {
        return Err(format!(
            "{} is larger than {SECRET_BYTES_MAX} bytes: is it the right file?",
            path.display()
        ));
    }
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    Ok(text.to_owned())
}

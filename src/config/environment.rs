//! Variables `KHALA_*`: settings, librdkafka's properties, and the few that other parts read.
//! In: all variables of the process. Out: names and texts, and the settings file's path.
//! Invariant: an unknown `KHALA_` variable is refused. An empty one counts as not set, as compose files write it.

use std::path::PathBuf;

use super::keys::{ELSEWHERE, KEYS};
use super::load::{ConfigError, Given, Origin, Target};
use super::nearest;
use super::show::is_secret_property;
use crate::telemetry::logs;

const PREFIX: &str = "KHALA_";
const KAFKA: &str = "KHALA_KAFKA__";

/// What the variables say.
pub(super) struct Environment {
    pub config: Option<PathBuf>,
    pub given: Vec<Given>,
}

/// The process' variables that [`super::load`] looks at. Unlike `std::env::vars` it does not
/// panic over a variable of somebody else that is not UTF-8.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(move |(name, value)| (lossy(name), lossy(value)))
        .filter(|(name, _)| name.starts_with(PREFIX))
}

pub(super) fn read(variables: impl Iterator<Item = (String, String)>) -> Result<Environment, ConfigError> {
    let mut environment = Environment {
        config: None,
        given: Vec::new(),
    };
    // Sorted, so that of two wrong ones always the same is reported.
    let mut variables: Vec<_> = variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    for (variable, text) in variables {
        let origin = Origin::Environment(variable.clone());
        if let Some(name) = setting(&variable) {
            if !text.is_empty() {
                environment.given.push(Given { name, text, origin });
            }
        } else if is_elsewhere(&variable) {
            check_elsewhere(&variable, &text).map_err(|problem| ConfigError::new(&origin, problem))?;
            if variable == "KHALA_CONFIG" && !text.is_empty() {
                environment.config = Some(PathBuf::from(text));
            }
        } else if !is_service_link(&variable, &text) {
            return Err(ConfigError::new(&origin, unknown(&variable)));
        }
    }
    Ok(environment)
}

/// The setting's name as the file spells it.
fn setting(variable: &str) -> Option<String> {
    if let Some(property) = variable.strip_prefix(KAFKA) {
        let property = property.to_ascii_lowercase();
        let file = property.strip_suffix("_file").map(|base| base.replace('_', "."));
        return Some(match file.filter(|base| is_secret_property(base)) {
            Some(base) => format!("kafka.{base}_file"),
            None => format!("kafka.{}", property.replace('_', ".")),
        });
    }
    let rest = variable.strip_prefix(PREFIX)?;
    let name = rest.to_ascii_lowercase();
    (rest == name.to_ascii_uppercase() && Target::of(&name).is_some()).then_some(name)
}

fn is_elsewhere(variable: &str) -> bool {
    variable.starts_with("KHALA_TEST_") || ELSEWHERE.iter().any(|(name, _)| *name == variable)
}

fn check_elsewhere(variable: &str, text: &str) -> Result<(), String> {
    match variable {
        "KHALA_LOG_LEVEL" => logs::check_level(text),
        "KHALA_LOG_FORMAT" => logs::check_format(text),
        _ => Ok(()),
    }
}

/// What Kubernetes sets in every pod for a Service called `khala` or `khala-…`: nobody's mistake.
fn is_service_link(variable: &str, text: &str) -> bool {
    let links = [
        "_SERVICE_HOST",
        "_SERVICE_PORT",
        "_TCP_PROTO",
        "_UDP_PROTO",
        "_TCP_PORT",
        "_UDP_PORT",
        "_TCP_ADDR",
        "_UDP_ADDR",
    ];
    let is_port = variable.contains("_PORT") && (text.starts_with("tcp://") || text.starts_with("udp://"));
    is_port || links.iter().any(|link| variable.ends_with(link)) || variable.contains("_SERVICE_PORT_")
}

fn unknown(variable: &str) -> String {
    if let Some(property) = variable.strip_prefix("KHALA_KAFKA_") {
        return format!("unknown variable; did you mean `{KAFKA}{property}`, with two underscores?");
    }
    let files = KEYS
        .iter()
        .filter(|key| key.secret)
        .map(|key| format!("{}_FILE", key.variable()));
    let elsewhere = ELSEWHERE.iter().map(|(name, _)| (*name).to_owned());
    let names = KEYS.iter().map(super::Key::variable).chain(files).chain(elsewhere);
    format!("unknown variable{}", nearest::hint(variable, names))
}

//! Logs on stderr: text for people, JSON for collectors.
//! In: `KHALA_LOG_LEVEL`, `KHALA_LOG_FORMAT`, `NO_COLOR`. Out: one line an event; stdout stays data.
//! Invariant: a wrong value never silences the log (`config::load` refuses it; here the default stands in).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging. A second call changes nothing.
pub fn init() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let filter = filter(&variable("KHALA_LOG_LEVEL"))
        .or_else(|_| filter("info"))
        .unwrap_or_else(|_| EnvFilter::default());
    let builder = SubscriberBuilder::default()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // `try_init` fails only if somebody has begun to log already: theirs stays.
    _ = if variable("KHALA_LOG_FORMAT") == "json" {
        builder.json().flatten_event(true).try_init()
    } else {
        let is_colored = std::io::stderr().is_terminal() && variable("NO_COLOR").is_empty();
        builder.with_ansi(is_colored).try_init()
    };
}

/// A bare level is Khala's own; libraries then speak only when something is wrong.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let text = if text.is_empty() { "info" } else { text };
    let level = text.to_ascii_lowercase();
    let directives = match level.as_str() {
        "off" | "error" => level,
        level if LEVELS.contains(&level) => format!("warn,khala={level}"),
        _ if text.contains('=') => text.to_owned(),
        _ => {
            return Err(format!(
                "`{text}` is not one of {}, and no directive as `khala=debug`",
                LEVELS.join(", ")
            ));
        }
    };
    EnvFilter::try_new(directives).map_err(|error| format!("`{text}`: {error}"))
}

/// Whether `KHALA_LOG_LEVEL` may be `text`.
///
/// # Errors
/// What is wrong with it.
pub fn check_level(text: &str) -> Result<(), String> {
    filter(text).map(drop)
}

/// Whether `KHALA_LOG_FORMAT` may be `text`.
///
/// # Errors
/// What is legal.
pub fn check_format(text: &str) -> Result<(), String> {
    if ["", "text", "json"].contains(&text) {
        return Ok(());
    }
    Err(format!("`{text}` is not one of text, json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_levels_formats_and_directives_are_legal() {
        for text in ["", "info", "DEBUG", "off", "khala=debug", "warn,khala::log=trace"] {
            assert_eq!(check_level(text), Ok(()), "{text}");
        }
        for text in ["loud", "embedded:khala-data", "khala=loud"] {
            assert!(check_level(text).is_err(), "{text}");
        }
        assert!(check_format("xml").is_err());
        assert!(check_format("json").is_ok());
    }

    #[test]
    fn a_bare_level_is_for_khala_and_libraries_warn() {
        assert_eq!(filter("debug").unwrap().to_string(), "khala=debug,warn");
    }
}

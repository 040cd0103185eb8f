//! Logs on stderr: text for people, JSON for collectors; and by OTLP where the environment says so.
//! In: `KHALA_LOG_LEVEL`, `KHALA_LOG_FORMAT`, `NO_COLOR`. Out: one line an event, with the ids of the trace it belongs
//! to; stdout stays data. Invariant: a wrong value never silences the log (`config::load` refuses it; here the default
//! stands in); what repeats itself is summed up.

use std::fmt;
use std::io::IsTerminal;

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::messaging::current_ids;
use super::otlp::Export;
use super::repeats::{AUDIT, Unrepeated};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging, at the level `usual` if none is asked for. A second call changes nothing.
pub fn init(export: &Export, usual: &str) {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let asked = variable("KHALA_LOG_LEVEL");
    let filter = filter(if asked.is_empty() { usual } else { &asked })
        .or_else(|_| filter(usual))
        .unwrap_or_else(|_| EnvFilter::default());
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let to_stderr = if variable("KHALA_LOG_FORMAT") == "json" {
        let format = Format::default().json().flatten_event(true);
        to_stderr.json().event_format(Traced(format, '}', in_json)).boxed()
    } else {
        let is_colored = std::io::stderr().is_terminal() && variable("NO_COLOR").is_empty();
        let format = Format::default().with_ansi(is_colored);
        let to_stderr = to_stderr.with_ansi(is_colored);
        to_stderr.event_format(Traced(format, '\n', in_text)).boxed()
    };
    let to_collector = export.logs().map(|logs| OpenTelemetryTracingBridge::new(logs).boxed());
    let layers: Vec<_> = to_collector.into_iter().chain([to_stderr]).collect();
    // `try_init` fails only if somebody has begun to log already: theirs stays.
    _ = tracing_subscriber::registry()
        .with(filter)
        .with(layers.with_filter(Unrepeated))
        .try_init();
}

/// A format, the character that ends its lines, and how the ids of a trace stand before it.
struct Traced<F>(F, char, fn(&str, &str) -> String);

impl<F, S, N> FormatEvent<S, N> for Traced<F>
where
    F: FormatEvent<S, N>,
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some((trace, span)) = current_ids() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let ids = (self.2)(&trace.to_string(), &span.to_string());
        let (text, end) = line.split_at(line.rfind(self.1).unwrap_or(line.len()));
        write!(writer, "{text}{ids}{end}")
    }
}

fn in_json(trace: &str, span: &str) -> String {
    format!(",\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"")
}

fn in_text(trace: &str, span: &str) -> String {
    format!(" trace_id={trace} span_id={span}")
}

/// A bare level is Khala's own; libraries then speak only when something is wrong.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let text = if text.is_empty() { "info" } else { text };
    let level = text.to_ascii_lowercase();
    let directives = match level.as_str() {
        "off" | "error" => level.clone(),
        level if LEVELS.contains(&level) => format!("warn,khala={level}"),
        _ if text.contains('=') => text.to_owned(),
        _ => {
            return Err(format!(
                "`{text}` is not one of {}, and no directive as `khala=debug`",
                LEVELS.join(", ")
            ));
        }
    };
    let directives = if level == "off" {
        level
    } else {
        format!("{directives},{AUDIT}=info")
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
    fn a_bare_level_is_for_khala_and_what_operators_do_is_told_at_each() {
        for (text, directives) in [
            ("debug", "khala::audit=info,khala=debug,warn"),
            ("error", "khala::audit=info,error"),
            ("off", "off"),
        ] {
            assert_eq!(filter(text).unwrap().to_string(), directives, "{text}");
        }
    }
}

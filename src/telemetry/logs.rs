//! Logs on stderr: one line a decision, as fields. `KHALA_LOG_LEVEL` says how much (`info`; any filter of
//! `tracing`), `KHALA_LOG_FORMAT` how: `text`, or `json` with the fields at the top level.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging, once per process; a second call changes nothing.
pub fn init() {
    let level = std::env::var("KHALA_LOG_LEVEL").unwrap_or_default();
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .parse_lossy(level);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let _ = if std::env::var("KHALA_LOG_FORMAT").is_ok_and(|format| format.eq_ignore_ascii_case("json")) {
        builder.json().flatten_event(true).try_init()
    } else {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder.with_ansi(colour).try_init()
    };
}

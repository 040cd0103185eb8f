//! Settings as text and back: addresses, durations, sizes, names.
//! In: the text of a flag, a variable or a file's value. Out: a typed value, or what is wrong with the text.
//! Invariant: `show(parse(text))` parses to the same value, and no message here repeats a secret.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::show::hide_url;
use super::{LogTarget, StoreTarget};
use crate::pure::place::Partitioner;
use crate::pure::redact::Redact;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
/// Schemes of a store's address.
const STORE_SCHEMES: [&str; 4] = ["redis://", "rediss://", "redis+cluster://", "redis+sentinel://"];

pub(super) fn log_target(text: &str) -> Result<LogTarget, String> {
    if let Some(dir) = text.strip_prefix("embedded:") {
        return directory(dir).map(LogTarget::Embedded);
    }
    let Some(servers) = text.strip_prefix("kafka://") else {
        let what = format!(
            "`{}` is no log's address: `embedded:DIR` or `kafka://host:port[,host:port]`",
            hide_url(text)
        );
        return Err(if looks_like_a_level(text) {
            format!("{what}; the log level is KHALA_LOG_LEVEL")
        } else {
            what
        });
    };
    let servers = servers.strip_suffix('/').unwrap_or(servers);
    if servers.contains('@') {
        return Err("a Kafka address holds no user: `sasl.username` and `sasl.password` go under `[kafka]`".into());
    }
    match servers.split(',').find(|server| !is_host_port(server)) {
        Some(bad) => Err(format!("`{bad}` in the log's address is not `host:port`")),
        None => Ok(LogTarget::Kafka(servers.to_owned())),
    }
}

pub(super) fn store_target(text: &str) -> Result<StoreTarget, String> {
    if let Some(dir) = text.strip_prefix("embedded:") {
        return directory(dir).map(StoreTarget::Embedded);
    }
    if STORE_SCHEMES
        .iter()
        .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
    {
        return Ok(StoreTarget::Redis(text.to_owned()));
    }
    Err(format!(
        "`{}` is no store's address: `embedded:DIR`, or {}…",
        hide_url(text),
        STORE_SCHEMES.join("…, ")
    ))
}

fn directory(dir: &str) -> Result<PathBuf, String> {
    if dir.is_empty() {
        return Err("`embedded:` needs a directory, as in `embedded:khala-data`".into());
    }
    Ok(PathBuf::from(dir))
}

fn is_host_port(server: &str) -> bool {
    server.rsplit_once(':').is_some_and(|(host, port)| {
        let plain = !host.is_empty() && !host.contains(['/', ' ']) && (host.starts_with('[') || !host.contains(':'));
        plain && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// `KHALA_LOG=debug` is what a hand writes that knows other programs.
fn looks_like_a_level(text: &str) -> bool {
    let level = text.rsplit('=').next().unwrap_or(text).to_ascii_lowercase();
    ["trace", "debug", "info", "warn", "error", "off"].contains(&level.as_str())
}

/// Letters, digits, `.`, `_`, `-`; not `.` or `..`, which Kafka refuses.
pub(super) fn name(text: &str, bytes_max: usize) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || text.len() > bytes_max || !text.bytes().all(legal) || text == "." || text == ".." {
        return Err(format!(
            "`{}` is not 1–{bytes_max} of A–Z a–z 0–9 . _ -",
            hide_url(text)
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let parsed = numeric.as_deref().unwrap_or(text).parse();
    parsed.map_err(|_| format!("`{}` is not `address:port`, as in `127.0.0.1:7600`", hide_url(text)))
}

pub(super) fn partitioner(text: &str) -> Result<Partitioner, String> {
    match text {
        "murmur2" => Ok(Partitioner::Murmur2),
        "crc32" => Ok(Partitioner::Crc32),
        _ => Err(format!("`{}` is not one of murmur2, crc32", hide_url(text))),
    }
}

pub(super) fn show_partitioner(partitioner: Partitioner) -> &'static str {
    match partitioner {
        Partitioner::Murmur2 => "murmur2",
        Partitioner::Crc32 => "crc32",
    }
}

/// 0 to 1 with up to three digits behind the point, per thousand.
pub(super) fn share(text: &str) -> Result<u32, String> {
    let legal = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let parsed: Option<f64> = Some(text).filter(|text| legal(text)).and_then(|text| text.parse().ok());
    let share = parsed.filter(|share| (0.0..=1.0).contains(share));
    share
        .map(|share| (share * 1000.0).round() as u32)
        .ok_or_else(|| format!("`{}` is not a share from 0 to 1, as in `0.9`", hide_url(text)))
}

pub(super) fn show_share(permille: u32) -> String {
    (f64::from(permille) / 1000.0).to_string()
}

pub(super) fn redact(text: &str) -> Result<Redact, String> {
    match text {
        "off" => Ok(Redact::Off),
        "secrets" => Ok(Redact::Secrets),
        "secrets+email" => Ok(Redact::SecretsAndEmail),
        _ => Err(format!(
            "`{}` is not one of off, secrets, secrets+email",
            hide_url(text)
        )),
    }
}

pub(super) fn show_redact(redact: Redact) -> &'static str {
    match redact {
        Redact::Off => "off",
        Redact::Secrets => "secrets",
        Redact::SecretsAndEmail => "secrets+email",
    }
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{}` is not one of true, false", hide_url(text))),
    }
}

/// `none`, or what `parse` makes of the text.
pub(super) fn optional<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text == "none" {
        return Ok(None);
    }
    parse(text).map(Some)
}

#[expect(clippy::unnecessary_wraps, reason = "what `optional` takes")]
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

pub(super) fn show_path(path: Option<&PathBuf>) -> String {
    path.map_or("none".into(), |path| path.display().to_string())
}

/// Origins as browsers spell them, or `*`.
pub(super) fn origins(text: &str) -> Result<Vec<String>, String> {
    let legal = |origin: &str| {
        let host = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"));
        origin == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '*']))
    };
    let origins: Vec<String> = text.split(',').map(|origin| origin.trim().to_owned()).collect();
    match origins.iter().find(|origin| !legal(origin)) {
        Some(bad) => Err(format!("`{bad}` is no origin, as in `https://app.example`, or `*`")),
        None => Ok(origins),
    }
}

pub(super) fn number(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let parsed = text.parse().ok().filter(|number| range.contains(number));
    parsed.ok_or_else(|| {
        format!(
            "`{}` is not a number from {} to {}",
            hide_url(text),
            range.start(),
            range.end()
        )
    })
}

/// Bytes: a plain number, or with B, kB, MB, GB, KiB, MiB, GiB.
pub(super) fn size(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let (digits, unit) = split_unit(text);
    let factor = match unit {
        "" | "B" => Some(1),
        "kB" | "KB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "KiB" => Some(KIB),
        "MiB" => Some(MIB),
        "GiB" => Some(GIB),
        _ => None,
    };
    let bytes = factor.and_then(|factor| digits.parse::<usize>().ok()?.checked_mul(factor));
    let bytes = bytes.ok_or_else(|| format!("`{}` is not a size, as in `8MiB`, `64KiB` or `1000`", hide_url(text)))?;
    if range.contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!(
        "{} is not from {} to {}",
        show_size(bytes),
        show_size(*range.start()),
        show_size(*range.end())
    ))
}

pub(super) fn show_size(bytes: usize) -> String {
    let units = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
    match units
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// A time span: a number with ms, s, m or h. A bare number is refused: nobody should have to guess its unit.
pub(super) fn span(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let (digits, unit) = split_unit(text);
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let total = milliseconds.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor));
    let total =
        total.ok_or_else(|| format!("`{}` is not a time span, as in `500ms`, `10s` or `2m`", hide_url(text)))?;
    let span = Duration::from_millis(total);
    if range.contains(&span) {
        return Ok(span);
    }
    Err(format!(
        "{} is not from {} to {}",
        show_span(span),
        show_span(*range.start()),
        show_span(*range.end())
    ))
}

/// A span as [`span`], or `off`: none.
pub(super) fn span_or_off(text: &str, range: RangeInclusive<Duration>) -> Result<Option<Duration>, String> {
    match text {
        "off" => Ok(None),
        text => span(text, range).map(Some),
    }
}

pub(super) fn show_span(span: Duration) -> String {
    let milliseconds = span.as_millis();
    match milliseconds {
        _ if !milliseconds.is_multiple_of(1_000) || milliseconds == 0 => format!("{milliseconds}ms"),
        _ if !milliseconds.is_multiple_of(60_000) => format!("{}s", milliseconds / 1_000),
        _ if !milliseconds.is_multiple_of(3_600_000) => format!("{}m", milliseconds / 60_000),
        _ => format!("{}h", milliseconds / 3_600_000),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_have_one_meaning() {
        let any = 0..=usize::MAX;
        for (text, bytes) in [
            ("8MiB", 8 << 20),
            ("1GiB", 1 << 30),
            ("1000", 1_000),
            ("64 KiB", 65_536),
            ("2MB", 2_000_000),
        ] {
            assert_eq!(size(text, any.clone()), Ok(bytes), "{text}");
            assert_eq!(size(&show_size(bytes), any.clone()), Ok(bytes), "{text}");
        }
        let spans = Duration::ZERO..=Duration::MAX;
        for (text, milliseconds) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("90s", 90_000),
        ] {
            let span_value = Duration::from_millis(milliseconds);
            assert_eq!(span(text, spans.clone()), Ok(span_value), "{text}");
            assert_eq!(span(&show_span(span_value), spans.clone()), Ok(span_value), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "8mib", "99999999999GiB"] {
            assert!(size(text, any.clone()).is_err(), "{text}");
        }
        for text in ["", "10", "s", "1d", "-1s", "99999999999999999h"] {
            assert!(span(text, spans.clone()).is_err(), "{text}");
        }
    }

    #[test]
    fn only_real_addresses_pass() {
        for text in [
            "kafka://a:9092",
            "kafka://a:9092,b:9093",
            "kafka://[::1]:9092",
            "embedded:khala-data",
        ] {
            assert!(log_target(text).is_ok(), "{text}");
        }
        for text in [
            "kafka://",
            "kafka://a",
            "kafka://a:0",
            "kafka://a:9092,",
            "kafka://::1:9092",
            "embedded:",
            "debug",
        ] {
            assert!(log_target(text).is_err(), "{text}");
        }
        for text in [
            "redis://h",
            "rediss://u:p@h:1/2",
            "redis+cluster://a:1,b:2",
            "redis+sentinel://a:1/m",
        ] {
            assert!(store_target(text).is_ok(), "{text}");
        }
        for text in ["redis://", "redsi://h", "embedded:", "khala-data"] {
            assert!(store_target(text).is_err(), "{text}");
        }
    }
}

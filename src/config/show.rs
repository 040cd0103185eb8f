//! Settings for people's eyes: `khala config check`, errors, debug output.
//! In: settings with their origins. Out: rows of text.
//! Invariant: no password leaves through here, whatever is shown and however it was misspelt.

use std::fmt;

use super::keys::KEYS;
use super::load::Loaded;
use super::{Settings, StoreTarget};

const HIDDEN: &str = "***";

/// One setting in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name, `kafka.<property>` for librdkafka's.
    pub key: String,
    /// Its value; what is secret in it is `***`.
    pub value: String,
    /// `default`, `config/khala.toml:14`, `environment KHALA_STORE`, `--store`.
    pub origin: String,
}

impl Loaded {
    /// All settings in force, in the table's order, librdkafka's properties last.
    pub fn rows(&self) -> Vec<Row> {
        let origin = |name: &str| self.origin(name).to_string();
        let rows = shown(&self.settings).into_iter();
        rows.map(|(key, value)| Row {
            origin: origin(&key),
            key,
            value,
        })
        .collect()
    }
}

fn shown(settings: &Settings) -> Vec<(String, String)> {
    let keys = KEYS
        .iter()
        .map(|key| (key.name.to_owned(), hide_url(&(key.get)(settings))));
    let properties = settings.kafka.iter().map(|(property, value)| {
        let value = if is_secret_property(property) {
            HIDDEN.to_owned()
        } else {
            value.clone()
        };
        (format!("kafka.{property}"), value)
    });
    keys.chain(properties).collect()
}

/// librdkafka's properties that hold a secret: hidden when shown, and legal with `_file`.
pub fn is_secret_property(property: &str) -> bool {
    let marks = ["password", "secret", "passphrase", "key.pem", "oauthbearer.config"];
    property.starts_with("sasl.jaas")
        || property.starts_with("ssl.key")
        || marks.iter().any(|mark| property.contains(mark))
}

/// An address with its password, and any secret in its query, as `***`. Other texts come back as they are.
pub fn hide_url(text: &str) -> String {
    let (scheme, rest) = match text.find("://") {
        Some(at) => text.split_at(at + "://".len()),
        None => ("", text),
    };
    // The last `@`: a password that should have been percent-encoded is no reason to show half of it.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (
            user.split_once(':')
                .map_or(String::new(), |(user, _)| format!("{user}:")),
            rest,
        ),
        None => return format!("{scheme}{}", hide_query(rest)),
    };
    format!("{scheme}{user}{HIDDEN}@{}", hide_query(rest))
}

fn hide_query(text: &str) -> String {
    match text.split_once('?') {
        Some((rest, query)) if is_secret_property(query) || query.contains("token") => format!("{rest}?{HIDDEN}"),
        _ => text.to_owned(),
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(shown(self)).finish()
    }
}

impl fmt::Debug for StoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(dir) => f.debug_tuple("Embedded").field(dir).finish(),
            Self::Redis(url) => f.debug_tuple("Redis").field(&hide_url(url)).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for text in [
            "redis://user:pa55@host:6379/0",
            "redis://:pa55@host",
            "redis://:pa55/x@y@host",
            "redis://user:pa55?x@host",
            "rediss://host/0?password=pa55",
            "redsi//user:pa55@host",
        ] {
            let shown = hide_url(text);
            assert!(!shown.contains("pa55"), "{text} became {shown}");
        }
        assert_eq!(
            hide_url("redis://user:pa55@host:6379/0"),
            "redis://user:***@host:6379/0"
        );
        assert_eq!(
            hide_url("redis://host:6379/0?protocol=resp3"),
            "redis://host:6379/0?protocol=resp3"
        );
        assert_eq!(hide_url("khala.events"), "khala.events");
    }
}

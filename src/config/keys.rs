//! The table of settings: name, unit, default, meaning, how its text is read and shown.
//! In: nothing. Out: [`KEYS`], from which flags, variables, the file's keys and `config check` come.
//! Invariant: one row a setting, and nothing else in the program knows a setting's default.

use std::time::Duration;

use super::value::{self, show_partitioner, show_size, show_span};
use super::{LogTarget, Settings, StoreTarget};

/// One setting.
pub struct Key {
    /// As in the file; the flag is `--name-with-dashes`, the variable `KHALA_NAME`.
    pub name: &'static str,
    /// What its value counts; empty for texts.
    pub unit: &'static str,
    /// As text.
    pub default: &'static str,
    /// One line for people.
    pub doc: &'static str,
    /// Whether the value may hold a password, and may therefore come from a file (`<name>_file`).
    pub secret: bool,
    pub(super) set: fn(&mut Settings, &str) -> Result<(), String>,
    pub(super) get: fn(&Settings) -> String,
}

impl Key {
    /// `KHALA_<NAME>`.
    pub fn variable(&self) -> String {
        format!("KHALA_{}", self.name.to_ascii_uppercase())
    }

    /// `--<name>`.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }

    /// Its value, as text; may hold a secret.
    pub fn show(&self, settings: &Settings) -> String {
        (self.get)(settings)
    }
}

/// The setting of that name.
pub fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Variables of other parts, legal though no settings, and what they are.
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("KHALA_CONFIG", "the settings file, as `--config`"),
    (
        "KHALA_LOG_LEVEL",
        "error, warn, info (default), debug, trace, or tracing's directives",
    ),
    ("KHALA_LOG_FORMAT", "text (default) or json"),
    ("KHALA_INSTANCE", "this process' name in `owner`; default: the host's"),
    ("KHALA_SEED", "the seed of tests and of `demo`"),
    ("KHALA_KAFKA_DIR", "where `scripts/test` keeps Kafka's jars"),
];

/// Kafka's limit is 249 bytes, and `.dead-letters` comes behind.
const TOPIC_BYTES_MAX: usize = 249 - ".dead-letters".len();
pub(super) const NAMESPACE_BYTES_MAX: usize = 64;
const MIB: usize = 1 << 20;

/// All settings but `kafka.*`, in the order of `config/khala.toml`.
pub static KEYS: &[Key] = &[
    Key {
        name: "log",
        unit: "",
        default: "embedded:khala-data",
        doc: "The event log: embedded:DIR or kafka://host:port[,host:port]",
        secret: false,
        set: |settings, text| value::log_target(text).map(|log| settings.log = log),
        get: |settings| match &settings.log {
            LogTarget::Embedded(dir) => format!("embedded:{}", dir.display()),
            LogTarget::Kafka(servers) => format!("kafka://{servers}"),
        },
    },
    Key {
        name: "store",
        unit: "",
        default: "embedded:khala-data",
        doc: "The document store: embedded:DIR, redis://…, rediss://…, redis+cluster://…, redis+sentinel://…",
        secret: true,
        set: |settings, text| value::store_target(text).map(|store| settings.store = store),
        get: |settings| match &settings.store {
            StoreTarget::Embedded(dir) => format!("embedded:{}", dir.display()),
            StoreTarget::Redis(url) => url.clone(),
        },
    },
    Key {
        name: "topic",
        unit: "",
        default: "khala.events",
        doc: "The events' topic; dead letters go to <topic>.dead-letters",
        secret: false,
        set: |settings, text| value::name(text, TOPIC_BYTES_MAX).map(|topic| settings.topic = topic),
        get: |settings| settings.topic.clone(),
    },
    Key {
        name: "namespace",
        unit: "",
        default: "khala",
        doc: "One complete set of documents and checkpoints; also the consumer group's name",
        secret: false,
        set: |settings, text| super::namespace(text).map(|namespace| settings.namespace = namespace),
        get: |settings| settings.namespace.clone(),
    },
    Key {
        name: "http",
        unit: "",
        default: "127.0.0.1:7600",
        doc: "Address of the HTTP server; off loopback only with token_file",
        secret: false,
        set: |settings, text| value::address(text).map(|http| settings.http = http),
        get: |settings| settings.http.to_string(),
    },
    Key {
        name: "token_file",
        unit: "",
        default: "none",
        doc: "Bearer tokens, one a line: `role[,role] token [scope]` (read, publish, operate) or a bare token for all",
        secret: false,
        set: |settings, text| value::optional(text, value::path).map(|file| settings.token_file = file),
        get: |settings| value::show_path(settings.token_file.as_ref()),
    },
    Key {
        name: "http_connections",
        unit: "connections",
        default: "10000",
        doc: "Connections that the HTTP server holds at once; more are answered with 503",
        secret: false,
        set: |settings, text| {
            value::number(text, 1..=1_000_000).map(|count| settings.http_connections = count as usize)
        },
        get: |settings| settings.http_connections.to_string(),
    },
    Key {
        name: "http_rate",
        unit: "requests a second",
        default: "0",
        doc: "Requests that each token may make a second, twice that at once; more are answered with 429; 0: no limit",
        secret: false,
        set: |settings, text| value::number(text, 0..=1_000_000).map(|rate| settings.http_rate = rate as u32),
        get: |settings| settings.http_rate.to_string(),
    },
    Key {
        name: "http_cors",
        unit: "",
        default: "none",
        doc: "Origins whose pages may call the HTTP server: https://a.example[,https://b.example], or *",
        secret: false,
        set: |settings, text| {
            let origins = value::optional(text, value::origins)?;
            settings.http_cors = origins.unwrap_or_default();
            Ok(())
        },
        get: |settings| match settings.http_cors.as_slice() {
            [] => "none".into(),
            origins => origins.join(","),
        },
    },
    Key {
        name: "http_tls_cert",
        unit: "",
        default: "none",
        doc: "The HTTP server's certificate chain, a PEM file; read again on SIGHUP",
        secret: false,
        set: |settings, text| value::optional(text, value::path).map(|file| settings.http_tls_cert = file),
        get: |settings| value::show_path(settings.http_tls_cert.as_ref()),
    },
    Key {
        name: "http_tls_key",
        unit: "",
        default: "none",
        doc: "The certificate's key, a PEM file",
        secret: false,
        set: |settings, text| value::optional(text, value::path).map(|file| settings.http_tls_key = file),
        get: |settings| value::show_path(settings.http_tls_key.as_ref()),
    },
    Key {
        name: "partitioner",
        unit: "",
        default: "murmur2",
        doc: "How producers place keys: murmur2 (Java, kafkajs, franz-go) or crc32 (librdkafka's default)",
        secret: false,
        set: |settings, text| value::partitioner(text).map(|partitioner| settings.partitioner = partitioner),
        get: |settings| show_partitioner(settings.partitioner).into(),
    },
    Key {
        name: "partitions",
        unit: "partitions",
        default: "12",
        doc: "Partitions of a topic that Khala makes; one that is there keeps its own",
        secret: false,
        set: |settings, text| value::number(text, 1..=10_000).map(|count| settings.partitions = count as u32),
        get: |settings| settings.partitions.to_string(),
    },
    Key {
        name: "replication_factor",
        unit: "replicas",
        default: "none",
        doc: "Replicas of a topic that Khala makes; none: the broker's default",
        secret: false,
        set: |settings, text| {
            let factor = value::optional(text, |text| value::number(text, 1..=100))?;
            settings.replication_factor = factor.map(|factor| factor as u16);
            Ok(())
        },
        get: |settings| {
            settings
                .replication_factor
                .map_or("none".into(), |factor| factor.to_string())
        },
    },
    Key {
        name: "max_event_bytes",
        unit: "bytes",
        default: "1MiB",
        doc: "The largest value that is an event; larger ones are dead letters (too_large)",
        secret: false,
        set: |settings, text| value::size(text, 1024..=100 * MIB).map(|bytes| settings.max_event_bytes = bytes),
        get: |settings| show_size(settings.max_event_bytes),
    },
    Key {
        name: "redact",
        unit: "off, secrets or secrets+email",
        default: "secrets",
        doc: "What is taken out of events before they are published, folded and kept",
        secret: false,
        set: |settings, text| value::redact(text).map(|redact| settings.redact = redact),
        get: |settings| value::show_redact(settings.redact).into(),
    },
    Key {
        name: "events_kept",
        unit: "events",
        default: "1000",
        doc: "Events kept in each entity's stream; 0 turns the streams off",
        secret: false,
        set: |settings, text| value::number(text, 0..=1_000_000).map(|kept| settings.events_kept = kept),
        get: |settings| settings.events_kept.to_string(),
    },
    Key {
        name: "cache_bytes",
        unit: "bytes",
        default: "256MiB",
        doc: "Memory for cached documents, over all partitions of this process",
        secret: false,
        set: |settings, text| value::size(text, MIB..=1 << 40).map(|bytes| settings.cache_bytes = bytes),
        get: |settings| show_size(settings.cache_bytes),
    },
    Key {
        name: "batch_events",
        unit: "events",
        default: "20000",
        doc: "The most events of one batch, which is one atomic step in the store; without event streams 10000",
        secret: false,
        set: |settings, text| value::number(text, 1..=1_000_000).map(|events| settings.batch_events = events as usize),
        get: |settings| settings.batch_events.to_string(),
    },
    Key {
        name: "batch_bytes",
        unit: "bytes",
        default: "8MiB",
        doc: "The most bytes of one batch; at least max_event_bytes",
        secret: false,
        set: |settings, text| value::size(text, 1024..=512 * MIB).map(|bytes| settings.batch_bytes = bytes),
        get: |settings| show_size(settings.batch_bytes),
    },
    Key {
        name: "snapshot_interval",
        unit: "time",
        default: "1m",
        doc: "How often changed documents go into <topic>.documents (in Kafka); off: never",
        secret: false,
        set: |settings, text| {
            value::span_or_off(text, seconds(1)..=seconds(86_400)).map(|span| settings.snapshot_interval = span)
        },
        get: |settings| settings.snapshot_interval.map_or("off".into(), show_span),
    },
    Key {
        name: "keep_terminal",
        unit: "time",
        default: "off",
        doc: "Documents of runs that ended so long ago are taken away; off: none",
        secret: false,
        set: |settings, text| {
            value::span_or_off(text, seconds(1)..=seconds(315_360_000)).map(|span| settings.keep_terminal = span)
        },
        get: |settings| settings.keep_terminal.map_or("off".into(), show_span),
    },
    Key {
        name: "dead_letter_share_max",
        unit: "share",
        default: "0.9",
        doc: "A larger share of dead letters holds a partition until `khala resume`; 1: none does",
        secret: false,
        set: |settings, text| value::share(text).map(|permille| settings.dead_letter_permille_max = permille),
        get: |settings| value::show_share(settings.dead_letter_permille_max),
    },
    Key {
        name: "dead_letter_share_records",
        unit: "records",
        default: "5000",
        doc: "Records of a partition that are looked at together for dead_letter_share_max, at least",
        secret: false,
        set: |settings, text| {
            value::number(text, 1..=1_000_000_000).map(|records| settings.dead_letter_share_records = records)
        },
        get: |settings| settings.dead_letter_share_records.to_string(),
    },
    Key {
        name: "owner_lease",
        unit: "time",
        default: "10s",
        doc: "How long a partition's lease lives without being renewed",
        secret: false,
        set: |settings, text| value::span(text, seconds(1)..=seconds(600)).map(|span| settings.owner_lease = span),
        get: |settings| show_span(settings.owner_lease),
    },
    Key {
        name: "store_timeout",
        unit: "time",
        default: "5s",
        doc: "How long one call to the store may take; one with much to carry a second more for each 256 KiB",
        secret: false,
        set: |settings, text| {
            value::span(text, Duration::from_millis(100)..=seconds(300)).map(|span| settings.store_timeout = span)
        },
        get: |settings| show_span(settings.store_timeout),
    },
    Key {
        name: "backoff_max",
        unit: "time",
        default: "5s",
        doc: "The longest wait between two tries against a log or store that is away",
        secret: false,
        set: |settings, text| {
            value::span(text, Duration::from_millis(100)..=seconds(600)).map(|span| settings.backoff_max = span)
        },
        get: |settings| show_span(settings.backoff_max),
    },
    Key {
        name: "allow_eviction",
        unit: "true or false",
        default: "false",
        doc: "Go on although Redis may evict keys, which loses documents",
        secret: false,
        set: |settings, text| value::switch(text).map(|allow| settings.allow_eviction = allow),
        get: |settings| settings.allow_eviction.to_string(),
    },
    Key {
        name: "history_kept",
        unit: "marks",
        default: "10000",
        doc: "Marks kept in a partition's checkpoint history, at most one a second",
        secret: false,
        set: |settings, text| value::number(text, 1..=1_000_000).map(|marks| settings.history_kept = marks as usize),
        get: |settings| settings.history_kept.to_string(),
    },
    Key {
        name: "audit_memory",
        unit: "bytes",
        default: "256MiB",
        doc: "Memory of an audit; what does not fit is audited in slices, each one more pass over the log",
        secret: false,
        set: |settings, text| value::size(text, 64 * 1024..=1 << 40).map(|bytes| settings.audit_memory = bytes),
        get: |settings| show_size(settings.audit_memory),
    },
    Key {
        name: "audit_every",
        unit: "time",
        default: "24h",
        doc: "How often `serve` audits the partitions it has, in the background; none: never",
        secret: false,
        set: |settings, text| {
            let span = value::optional(text, |text| value::span(text, seconds(1)..=seconds(31_536_000)))?;
            settings.audit_every = span;
            Ok(())
        },
        get: |settings| settings.audit_every.map_or("none".into(), show_span),
    },
    Key {
        name: "audit_share",
        unit: "percent",
        default: "5",
        doc: "The share of one core that the background audit may take, 1-100",
        secret: false,
        set: |settings, text| value::number(text, 1..=100).map(|share| settings.audit_share = share as u8),
        get: |settings| settings.audit_share.to_string(),
    },
];

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

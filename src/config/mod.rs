//! Settings: flags, then `KHALA_*`, then a TOML file, then defaults. Read once, handed down as small structs.
//! In: the command line, the environment, files. Out: [`Settings`] with the origin of each.
//! Invariant: what is unknown or does not parse is refused with its place; no secret is ever shown.

mod environment;
mod file;
mod keys;
mod librdkafka;
mod limits;
mod load;
mod nearest;
mod show;
mod tokens;
mod value;

pub use environment::variables;
pub use keys::{ELSEWHERE, KEYS, Key, key};
pub use load::{ConfigError, Flags, Loaded, Origin, load};
pub use nearest::hint as nearest_name;
pub use show::{Row, hide_url, is_secret_property};
pub use tokens::{Role, Token, read_tokens};

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::pure::place::Partitioner;
use crate::pure::redact::Redact;

/// A legal namespace.
///
/// # Errors
/// It is none: why.
pub fn namespace(text: &str) -> Result<String, String> {
    value::name(text, keys::NAMESPACE_BYTES_MAX)
}

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// `embedded:DIR`.
    Embedded(PathBuf),
    /// `kafka://host:port[,host:port]`: the bootstrap servers.
    Kafka(String),
}

/// Where the store is. Its debug form hides the password.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreTarget {
    /// `embedded:DIR`.
    Embedded(PathBuf),
    /// `redis://…`, `rediss://…`, `redis+cluster://…`, `redis+sentinel://…`, as given (may hold a password).
    Redis(String),
}

/// All settings in force. Their debug form hides secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the log is.
    pub log: LogTarget,
    /// Where the store is.
    pub store: StoreTarget,
    /// The events' topic.
    pub topic: String,
    /// One complete set of documents and checkpoints; also the consumer group's name.
    pub namespace: String,
    /// Address of the HTTP server.
    pub http: SocketAddr,
    /// Bearer tokens; without it only loopback is served.
    pub token_file: Option<PathBuf>,
    /// Connections that the HTTP server holds at once.
    pub http_connections: usize,
    /// Requests of each token a second; 0: no limit.
    pub http_rate: u32,
    /// Origins whose pages may call the HTTP server; `*` for all.
    pub http_cors: Vec<String>,
    /// The HTTP server's certificate chain, PEM.
    pub http_tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub http_tls_key: Option<PathBuf>,
    /// How producers place keys on partitions.
    pub partitioner: Partitioner,
    /// Partitions of a topic that Khala makes.
    pub partitions: u32,
    /// Replicas of a topic that Khala makes; `None`: the broker's default.
    pub replication_factor: Option<u16>,
    /// The largest value that is an event.
    pub max_event_bytes: usize,
    /// What is taken out of events before they are published, folded and kept.
    pub redact: Redact,
    /// Events kept per entity's stream; 0 turns streams off.
    pub events_kept: u64,
    /// Memory for cached documents, over all partitions of this process.
    pub cache_bytes: usize,
    /// The most records of one batch.
    pub batch_events: usize,
    /// The most bytes of one batch.
    pub batch_bytes: usize,
    /// How long a partition's lease lives without being renewed.
    pub owner_lease: Duration,
    /// How long one call to the store may take.
    pub store_timeout: Duration,
    /// The longest wait between two tries against a log or store that is away.
    pub backoff_max: Duration,
    /// Go on although Redis may evict keys.
    pub allow_eviction: bool,
    /// How often changed documents go into the documents' topic; `None`: never.
    pub snapshot_interval: Option<Duration>,
    /// Documents of runs that ended so long ago are taken away; `None`: none.
    pub keep_terminal: Option<Duration>,
    /// More dead letters per thousand records hold a partition; 1000: none does.
    pub dead_letter_permille_max: u32,
    /// Records that are looked at together for it, at least.
    pub dead_letter_share_records: u64,
    /// Marks kept in a partition's history.
    pub history_kept: usize,
    /// Memory of an audit.
    pub audit_memory: usize,
    /// How often `serve` audits what it has; `None`: never.
    pub audit_every: Option<Duration>,
    /// The share of one core that the background audit may take, in percent.
    pub audit_share: u8,
    /// librdkafka's properties by their own names.
    pub kafka: BTreeMap<String, String>,
}

impl Default for Settings {
    /// The defaults of [`KEYS`]; what stands here first is overwritten by them.
    fn default() -> Self {
        let mut settings = Self {
            log: LogTarget::Embedded(PathBuf::new()),
            store: StoreTarget::Embedded(PathBuf::new()),
            topic: String::new(),
            namespace: String::new(),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            token_file: None,
            http_connections: 0,
            http_rate: 0,
            http_cors: Vec::new(),
            http_tls_cert: None,
            http_tls_key: None,
            partitioner: Partitioner::default(),
            partitions: 1,
            replication_factor: None,
            max_event_bytes: 0,
            redact: Redact::Off,
            events_kept: 0,
            cache_bytes: 0,
            batch_events: 0,
            batch_bytes: 0,
            owner_lease: Duration::ZERO,
            store_timeout: Duration::ZERO,
            backoff_max: Duration::ZERO,
            allow_eviction: false,
            snapshot_interval: None,
            keep_terminal: None,
            dead_letter_permille_max: 0,
            dead_letter_share_records: 0,
            history_kept: 0,
            audit_memory: 0,
            audit_every: None,
            audit_share: 0,
            kafka: BTreeMap::new(),
        };
        for key in KEYS {
            (key.set)(&mut settings, key.default).expect("the table's defaults are legal");
        }
        settings
    }
}

impl Settings {
    /// How often snapshots are written; `None`: never. The embedded log keeps all events and needs none.
    pub fn snapshots_every(&self) -> Option<Duration> {
        match self.log {
            LogTarget::Kafka(_) => self.snapshot_interval,
            LogTarget::Embedded(_) => None,
        }
    }
}

/// Reads a time span as settings spell it: a number with `ms`, `s`, `m` or `h`.
///
/// # Errors
/// What it must look like.
pub fn read_span(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_hours(878_400);
    value::span(text, Duration::ZERO..=LONGEST)
}

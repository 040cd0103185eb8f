//! Settings: flags, then `KHALA_*`, then a TOML file, then defaults. Read once, handed down as small structs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::pure::place::Partitioner;

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// `embedded:DIR`.
    Embedded(PathBuf),
    /// `kafka://host:port[,host:port]`: the bootstrap servers.
    Kafka(String),
}

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreTarget {
    /// `embedded:DIR`.
    Embedded(PathBuf),
    /// `redis://…`, `rediss://…`, `redis+cluster://…`, `redis+sentinel://…`, as given (may hold a password).
    Redis(String),
}

/// All settings in force.
#[derive(Clone, Debug)]
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
    /// How producers place keys on partitions.
    pub partitioner: Partitioner,
    /// Partitions of a topic that Khala makes.
    pub partitions: u32,
    /// Replicas of a topic that Khala makes; `None`: the broker's default.
    pub replication_factor: Option<u16>,
    /// The largest value that is an event.
    pub max_event_bytes: usize,
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
    /// Marks kept in a partition's history.
    pub history_kept: usize,
    /// librdkafka's properties by their own names.
    pub kafka: BTreeMap<String, String>,
}

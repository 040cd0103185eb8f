//! Opens what the settings name.

use std::path::Path;
use std::sync::Arc;

use super::{Access, AccessError};
use crate::config::{LogTarget, Settings, StoreTarget};
use crate::log::embedded::{EmbeddedLog, EmbeddedSettings, RunningServer, in_use};
use crate::log::kafka::{KafkaLog, KafkaSettings};
use crate::log::{Log, Role};
use crate::projector::ProjectorSettings;
use crate::pure::partition::ShareLimit;
use crate::store::Store;
use crate::store::embedded::{EmbeddedSettings as EmbeddedStoreSettings, EmbeddedStore};
use crate::store::redis::{RedisSettings, RedisStore};
use crate::telemetry::Topics;
use crate::telemetry::messaging::Place;

/// What the settings led to.
pub enum Opened {
    /// Log and store, ours.
    Direct(Access),
    /// A running process owns the embedded directory.
    Running(RunningServer),
}

/// Opens log and store, or finds the process that owns their directory.
///
/// # Errors
/// A setting is refused, or a directory cannot be opened.
pub fn open(settings: &Arc<Settings>) -> Result<Opened, AccessError> {
    if let Some(server) = directories(settings).find_map(in_use) {
        return Ok(Opened::Running(server));
    }
    Ok(Opened::Direct(Access {
        log: open_log(settings)?,
        store: open_store(settings)?,
        settings: Arc::clone(settings),
        serving: None,
        partition_count: Arc::default(),
        route: Arc::default(),
    }))
}

fn directories(settings: &Settings) -> impl Iterator<Item = &Path> {
    let log = match &settings.log {
        LogTarget::Embedded(dir) => Some(dir.as_path()),
        LogTarget::Kafka(_) => None,
    };
    let store = match &settings.store {
        StoreTarget::Embedded(dir) => Some(dir.as_path()),
        StoreTarget::Redis(_) => None,
    };
    log.into_iter().chain(store)
}

/// Opens the log.
///
/// # Errors
/// As [`open`].
pub fn open_log(settings: &Settings) -> Result<Arc<dyn Log>, AccessError> {
    Ok(match &settings.log {
        LogTarget::Embedded(dir) => Arc::new(EmbeddedLog::open(
            dir,
            EmbeddedSettings {
                topic: settings.topic.clone(),
                group: settings.namespace.clone(),
                partitions: settings.partitions,
                partitioner: settings.partitioner,
            },
        )?),
        LogTarget::Kafka(bootstrap) => Arc::new(KafkaLog::new(kafka_settings(settings, bootstrap))?),
    })
}

/// What a projector needs of the settings; `instance` names it in leases.
pub fn projector_settings(settings: &Settings, instance: &str) -> ProjectorSettings {
    ProjectorSettings {
        topic: settings.topic.clone(),
        instance: instance.to_owned(),
        partitioner: settings.partitioner,
        max_event_bytes: settings.max_event_bytes,
        redact: settings.redact,
        events_kept: settings.events_kept,
        cache_bytes: settings.cache_bytes,
        batch_events: settings.batch_events,
        batch_bytes: settings.batch_bytes,
        dead_letter_share: ShareLimit {
            permille_max: settings.dead_letter_permille_max,
            records_min: settings.dead_letter_share_records,
        },
        owner_lease: settings.owner_lease,
        backoff_max: settings.backoff_max,
    }
}

/// What a Kafka log at `bootstrap` is made with.
pub fn kafka_settings(settings: &Settings, bootstrap: &str) -> KafkaSettings {
    KafkaSettings {
        bootstrap: bootstrap.to_owned(),
        topic: settings.topic.clone(),
        group: settings.namespace.clone(),
        partitions: settings.partitions,
        replication_factor: settings.replication_factor,
        partitioner: settings.partitioner,
        max_event_bytes: settings.max_event_bytes,
        properties: settings.kafka.clone(),
    }
}

/// Opens the store.
///
/// # Errors
/// As [`open`].
pub fn open_store(settings: &Settings) -> Result<Arc<dyn Store>, AccessError> {
    Ok(match &settings.store {
        StoreTarget::Embedded(dir) => Arc::new(EmbeddedStore::open(
            dir,
            &settings.namespace,
            EmbeddedStoreSettings {
                events_kept: settings.events_kept,
                history_kept: settings.history_kept,
            },
        )?),
        StoreTarget::Redis(url) => Arc::new(RedisStore::new(redis_settings(settings, url))?),
    })
}

/// What a Redis store at `url` is made with.
pub fn redis_settings(settings: &Settings, url: &str) -> RedisSettings {
    RedisSettings {
        url: url.to_owned(),
        namespace: settings.namespace.clone(),
        timeout: settings.store_timeout,
        events_kept: settings.events_kept,
        history_kept: settings.history_kept,
        allow_eviction: settings.allow_eviction,
        large: RedisSettings::LARGE,
    }
}

/// This process' name in leases and telemetry.
pub fn instance() -> String {
    let name = std::env::var("KHALA_INSTANCE").or_else(|_| std::env::var("HOSTNAME"));
    format!("{}-{}", name.unwrap_or_else(|_| "khala".to_owned()), std::process::id())
}

/// What metrics tell of the log.
pub fn topics(settings: &Settings) -> Topics {
    let topic = |role: Role| role.topic(&settings.topic);
    Topics {
        system: place(settings).system,
        events: topic(Role::Events),
        dead_letters: topic(Role::DeadLetters),
        group: settings.namespace.clone(),
    }
}

/// What spans tell of log and store.
pub fn place(settings: &Settings) -> Place {
    let (store, store_operation, store_address) = match &settings.store {
        StoreTarget::Embedded(_) => ("fjall", "commit", None),
        StoreTarget::Redis(url) => ("redis", "EVALSHA", first_address(url)),
    };
    Place {
        system: match settings.log {
            LogTarget::Kafka(_) => "kafka",
            LogTarget::Embedded(_) => "khala",
        },
        destination: settings.topic.clone(),
        group: settings.namespace.clone(),
        client: instance(),
        ids: "khala",
        store,
        store_operation,
        store_address,
    }
}

/// Host and port of a URL with one node or several; no password comes with them.
fn first_address(url: &str) -> Option<(String, u16)> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let nodes = authority.rsplit_once('@').map_or(authority, |(_, nodes)| nodes);
    let (host, port) = nodes.split(',').next()?.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

//! Where a gate or a drill plays: a topic, a namespace and a group of its own, on the log and store of the settings.
//! Invariant: nothing else is written to, and what was made goes with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::bench::{directory, partitions_max};
use super::super::exit::{Exit, Failure};
use super::failed;
use crate::access::{Access, Opened, kafka_settings, open, redis_settings};
use crate::config::{LogTarget, Settings, StoreTarget};
use crate::log::kafka;
use crate::store::redis::RedisStore;

pub(in crate::cli) struct Place {
    pub settings: Arc<Settings>,
    pub dir: PathBuf,
}

impl Place {
    pub(in crate::cli) fn new(what: &str, settings: &Settings) -> Self {
        let id = format!("{what}-{:08x}", rand::random::<u32>());
        let dir = directory(settings, &id);
        Self {
            settings: Arc::new(own(settings, &id, &dir)),
            dir,
        }
    }

    /// Opens log and store, and makes the topics.
    pub(in crate::cli) async fn open(&self) -> Result<Access, Failure> {
        let access = match open(&self.settings)? {
            Opened::Direct(access) => access,
            Opened::Running(server) => return Err(failed(format!("process {} owns the directory", server.pid))),
        };
        let away = |error: &dyn std::fmt::Display| Failure::new(Exit::Unreachable, error);
        access.log.prepare().await.map_err(|error| away(&error))?;
        access.store.check().await.map_err(|error| away(&error))?;
        Ok(access)
    }

    /// The place that another process has made.
    pub(in crate::cli) fn at(settings: &Settings, topic: &str, namespace: &str, dir: &Path, http: SocketAddr) -> Self {
        let own = Settings {
            topic: topic.to_owned(),
            namespace: namespace.to_owned(),
            http,
            ..own(settings, "", dir)
        };
        Self {
            settings: Arc::new(own),
            dir: dir.to_owned(),
        }
    }

    /// One of log and store at least: then one process has it.
    pub(in crate::cli) fn is_embedded(&self) -> bool {
        matches!(self.settings.log, LogTarget::Embedded(_)) || matches!(self.settings.store, StoreTarget::Embedded(_))
    }

    /// Takes away all that was made. Nobody may use it any more.
    pub(in crate::cli) async fn remove(&self) -> Result<(), Failure> {
        if let LogTarget::Kafka(bootstrap) = &self.settings.log {
            let kafka = kafka_settings(&self.settings, bootstrap);
            kafka::remove_topics(&kafka).await.map_err(failed)?;
            kafka::remove_group(&kafka).await.map_err(failed)?;
        }
        if let StoreTarget::Redis(url) = &self.settings.store {
            let store = RedisStore::new(redis_settings(&self.settings, url)).map_err(failed)?;
            store.remove(partitions_max(&self.settings)).await.map_err(failed)?;
        }
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

/// The settings in force, but for names, the embedded directory, and what only guards a server that others reach.
fn own(settings: &Settings, id: &str, dir: &Path) -> Settings {
    let mut own = Settings {
        topic: format!("khala.{id}"),
        namespace: format!("khala-{id}"),
        http: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        token_file: None,
        http_rate: 0,
        http_cors: Vec::new(),
        http_tls_cert: None,
        http_tls_key: None,
        audit_every: None,
        keep_terminal: None,
        ..settings.clone()
    };
    if let LogTarget::Embedded(at) = &mut own.log {
        dir.clone_into(at);
    }
    if let StoreTarget::Embedded(at) = &mut own.store {
        dir.clone_into(at);
    }
    own
}

//! One way to log and store for all commands: directly, or through the server that owns the embedded directory.

use std::time::Duration;

use serde_json::Value;

use super::Context;
use super::exit::{Exit, Failure};
use super::remote::Remote;
use crate::access::{
    Access, AccessError, AuditOrder, CheckpointRow, DeadLetter, EntityOrder, LetThrough, ListRequest, Opened, Page,
    Publication, Published, RedriveReport, RedriveRequest, ReplayReport, ReplayRequest, ResumeRequest, RolloutOrder,
    RolloutReport, RolloutStart, StatusReport, StreamEvent, Told, Watch, open,
};
use crate::config::{LogTarget, Settings, StoreTarget};
use crate::log::embedded::{RunningServer, Serves};
use crate::projector::now_ms;
use crate::pure::entity::Entity;
use crate::repair::{AuditReport, EntityReplay, Forecast};

pub(super) enum Door {
    Direct(Access),
    Remote(Remote),
}

impl Door {
    /// Opens what the settings name.
    pub(super) fn open(context: &Context) -> Result<Self, Failure> {
        match open(&context.settings).map_err(|error| Failure {
            exit: setup_exit(&error),
            ..Failure::from(error)
        })? {
            Opened::Direct(access) => Ok(Self::Direct(access)),
            Opened::Running(server) => {
                serves_the_same(&server, &context.settings)?;
                match server.http {
                    Some(http) => Ok(Self::Remote(Remote::new(http, &context.settings)?)),
                    None => Err(Failure::new(
                        Exit::Failed,
                        format!("process {} owns the directory and has no HTTP to ask", server.pid),
                    )
                    .hint("wait until it has ended, or name another directory with --log and --store")),
                }
            }
        }
    }

    /// As [`Self::open`], for reading: an embedded directory that is not there is not made.
    pub(super) fn open_existing(context: &Context) -> Result<Self, Failure> {
        if let Some(dir) = missing_directory(&context.settings) {
            return Err(
                Failure::new(Exit::NotFound, format!("there is no directory {}", dir.display()))
                    .hint("`khala demo` or `khala serve` makes it; --log and --store name another place"),
            );
        }
        Self::open(context)
    }

    pub(super) async fn publish(&self, publications: Vec<Publication>) -> Vec<Result<Published, AccessError>> {
        match self {
            Self::Direct(access) => access.publish(publications).await,
            Self::Remote(remote) => remote.publish(publications).await,
        }
    }

    pub(super) async fn document(&self, entity: &Entity) -> Result<Value, AccessError> {
        match self {
            Self::Direct(access) => access.document(entity, now_ms()).await,
            Self::Remote(remote) => remote.document(entity).await,
        }
    }

    pub(super) async fn list(&self, request: &ListRequest) -> Result<Page, AccessError> {
        match self {
            Self::Direct(access) => access.list(request, now_ms()).await,
            Self::Remote(remote) => remote.list(request).await,
        }
    }

    pub(super) async fn events(
        &self,
        entity: &Entity,
        after: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<StreamEvent>, AccessError> {
        match self {
            Self::Direct(access) => access.events(entity, after, limit, wait).await,
            Self::Remote(remote) => remote.events(entity, after, limit, wait).await,
        }
    }

    pub(super) async fn replay(&self, request: &ReplayRequest, told: Told<'_>) -> Result<ReplayReport, AccessError> {
        match self {
            Self::Direct(access) => access.replay(request, told).await,
            Self::Remote(remote) => remote.follow("/v1/replays", request, told).await,
        }
    }

    pub(super) async fn forecast(&self, request: &ReplayRequest, watch: Watch<'_>) -> Result<Forecast, AccessError> {
        match self {
            Self::Direct(access) => access.forecast(request, watch).await,
            Self::Remote(remote) => {
                remote
                    .follow("/v1/replays", request, &mut |progress| watch(progress))
                    .await
            }
        }
    }

    pub(super) async fn status(&self) -> Result<StatusReport, AccessError> {
        match self {
            Self::Direct(access) => access.status(now_ms()).await,
            Self::Remote(remote) => remote.status().await,
        }
    }

    pub(super) async fn checkpoints(
        &self,
        partition: Option<u32>,
        limit: usize,
    ) -> Result<Vec<CheckpointRow>, AccessError> {
        match self {
            Self::Direct(access) => access.checkpoints(partition, limit).await,
            Self::Remote(remote) => remote.checkpoints(partition, limit).await,
        }
    }

    pub(super) async fn audit(&self, order: &AuditOrder, watch: Watch<'_>) -> Result<AuditReport, AccessError> {
        match self {
            Self::Direct(access) => access.audit(order, watch).await,
            Self::Remote(remote) => {
                remote
                    .follow("/v1/audits", order, &mut |progress| watch(progress))
                    .await
            }
        }
    }

    pub(super) async fn replay_entity(&self, order: &EntityOrder) -> Result<EntityReplay, AccessError> {
        match self {
            Self::Direct(access) => access.replay_entity(order).await,
            Self::Remote(remote) => remote.operate("/v1/replays", order).await,
        }
    }

    pub(super) async fn rollout(&self) -> Result<RolloutReport, AccessError> {
        match self {
            Self::Direct(access) => access.rollout().await,
            Self::Remote(remote) => remote.rollout().await,
        }
    }

    pub(super) async fn start_rollout(&self, start: &RolloutStart, who: &str) -> Result<RolloutReport, AccessError> {
        match self {
            Self::Direct(access) => access.start_rollout(start, who).await,
            Self::Remote(remote) => remote.operate("/v1/rollout/start", start).await,
        }
    }

    pub(super) async fn order_rollout(&self, order: RolloutOrder, who: &str) -> Result<RolloutReport, AccessError> {
        let path = match order {
            RolloutOrder::Promote => "/v1/rollout/promote",
            RolloutOrder::Rollback => "/v1/rollout/rollback",
            RolloutOrder::Pause => "/v1/rollout/pause",
            RolloutOrder::Resume => "/v1/rollout/resume",
        };
        match self {
            Self::Direct(access) => access.order_rollout(order, who).await,
            Self::Remote(remote) => remote.operate(path, &serde_json::Map::new()).await,
        }
    }

    pub(super) async fn dead_letters(
        &self,
        reason: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, AccessError> {
        match self {
            Self::Direct(access) => access.dead_letters(reason, limit).await,
            Self::Remote(remote) => remote.dead_letters(reason, limit).await,
        }
    }

    pub(super) async fn dead_letter(&self, partition: u32, offset: u64) -> Result<DeadLetter, AccessError> {
        match self {
            Self::Direct(access) => access.dead_letter(partition, offset).await,
            Self::Remote(remote) => remote.dead_letter(partition, offset).await,
        }
    }

    pub(super) async fn resume(&self, request: ResumeRequest) -> Result<Vec<LetThrough>, AccessError> {
        match self {
            Self::Direct(access) => access.resume(request).await,
            Self::Remote(remote) => remote.operate("/v1/resume", &request).await,
        }
    }

    pub(super) async fn redrive(&self, request: &RedriveRequest) -> Result<RedriveReport, AccessError> {
        match self {
            Self::Direct(access) => access.redrive(request).await,
            Self::Remote(remote) => remote.operate("/v1/dead-letters/redrive", request).await,
        }
    }
}

/// What is refused before anything was asked is a setting.
pub(super) fn setup_exit(error: &AccessError) -> Exit {
    match error {
        AccessError::Unreachable(_) => Exit::Unreachable,
        _ => Exit::Usage,
    }
}

fn missing_directory(settings: &Settings) -> Option<&std::path::Path> {
    let log = if let LogTarget::Embedded(dir) = &settings.log {
        Some(dir.as_path())
    } else {
        None
    };
    let store = if let StoreTarget::Embedded(dir) = &settings.store {
        Some(dir.as_path())
    } else {
        None
    };
    log.into_iter().chain(store).find(|dir| !dir.exists())
}

/// A server that owns the directory is asked for what it serves, and for nothing else.
fn serves_the_same(server: &RunningServer, settings: &Settings) -> Result<(), Failure> {
    let Some(Serves { topic, namespace }) = &server.serves else {
        return Ok(()); // of an earlier version
    };
    if (topic, namespace) == (&settings.topic, &settings.namespace) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the server that owns the directory (process {}) serves topic {topic}, namespace {namespace}; asked was for topic {}, \
         namespace {}",
        server.pid, settings.topic, settings.namespace
    ))
    .hint("leave out --topic and --namespace, or stop it first"))
}

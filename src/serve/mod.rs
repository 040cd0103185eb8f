//! `khala serve`: the projector, and HTTP beside it (INTERFACE.md §4, as far as it is built).
//! In: settings. Out: documents, `/metrics`, answers. Invariant: publishing waits for the log alone, never for the
//! store; a signal finishes the batch in hand, commits, leaves the group.

mod auth;
mod error;
mod events;
mod operations;
mod reads;
mod repairs;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::access::{Access, Serving, projector_settings};
use crate::config::{LogTarget, Settings, StoreTarget, Token};
use crate::log::LogError;
use crate::log::embedded::announce;
use crate::projector;
use crate::store::StoreError;

/// Room of a request's body beside its events.
const BODY_ROOM: usize = 64 << 10;
/// A process that was assigned nothing by then is ready all the same: others have all partitions.
const ASSIGNMENT_PATIENCE: Duration = Duration::from_secs(15);
/// How long open requests may take at the end.
const REQUESTS_PATIENCE: Duration = Duration::from_secs(3);
/// The pause between two looks at a log or store that is away at the start.
const START_PAUSE: Duration = Duration::from_millis(500);

/// What every request may use.
#[derive(Clone)]
struct App {
    access: Access,
    serving: Serving,
    tokens: Arc<Vec<Token>>,
    started: Instant,
}

/// Serves until `stop`.
///
/// # Errors
/// The address cannot be listened on, or log or store refuse for a reason that a person must mend.
pub async fn run(
    mut access: Access,
    serving: Serving,
    tokens: Vec<Token>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    access.serving = Some(serving.clone());
    let settings = Arc::clone(&access.settings);
    let listener = TcpListener::bind(settings.http)
        .await
        .with_context(|| format!("cannot listen on {}; `--http` takes another address", settings.http))?;
    let address = listener.local_addr()?;
    announce_in_directories(&settings, address);
    let app = App {
        access: access.clone(),
        serving: serving.clone(),
        tokens: Arc::new(tokens),
        started: Instant::now(),
    };
    let mut tasks = JoinSet::new();
    let http_stop = CancellationToken::new();
    let (told, router) = (http_stop.clone(), router(app, &settings));
    tasks.spawn(async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(told.cancelled_owned())
            .await
            .context("HTTP")
    });
    info!(%address, namespace = settings.namespace, topic = settings.topic, "serving");
    let projected = tokio::select! {
        projected = project(&access, &serving, &stop) => projected,
        Some(ended) = tasks.join_next() => Err(anyhow::anyhow!("HTTP ended: {ended:?}")),
    };
    http_stop.cancel();
    if tokio::time::timeout(REQUESTS_PATIENCE, async { while tasks.join_next().await.is_some() {} })
        .await
        .is_err()
    {
        warn!("some requests were still open");
    }
    projected
}

fn announce_in_directories(settings: &Settings, address: SocketAddr) {
    let log = if let LogTarget::Embedded(dir) = &settings.log {
        Some(dir)
    } else {
        None
    };
    let store = if let StoreTarget::Embedded(dir) = &settings.store {
        Some(dir)
    } else {
        None
    };
    for dir in log.into_iter().chain(store) {
        if let Err(error) = announce(dir, address) {
            error!(%error, dir = %dir.display(), "other commands will not find this server");
        }
    }
}

/// Makes sure of log and store, then projects until `stop`.
async fn project(access: &Access, serving: &Serving, stop: &CancellationToken) -> anyhow::Result<()> {
    let ready = async {
        prepare_log(access).await?;
        check_store(access).await
    };
    tokio::select! {
        ready = ready => ready?,
        () = stop.cancelled() => return Ok(()),
    }
    let settings = &access.settings;
    let projector = projector_settings(settings, &instance());
    let (log, store) = (Arc::clone(&access.log), Arc::clone(&access.store));
    let (metrics, board) = (Arc::clone(&serving.metrics), Arc::clone(&serving.board));
    projector::run(log, store, projector, metrics, board, stop.clone()).await
}

/// This process' name in leases.
fn instance() -> String {
    let name = std::env::var("KHALA_INSTANCE").or_else(|_| std::env::var("HOSTNAME"));
    format!("{}-{}", name.unwrap_or_else(|_| "khala".to_owned()), std::process::id())
}

async fn prepare_log(access: &Access) -> anyhow::Result<()> {
    loop {
        match access.log.prepare().await {
            Ok(lines) => {
                lines.iter().for_each(|line| info!("{line}"));
                return Ok(());
            }
            Err(LogError::Refused(words)) => anyhow::bail!(crate::access::Refusal(words)),
            Err(error) => warn!(%error, "waiting for the log"),
        }
        tokio::time::sleep(START_PAUSE).await;
    }
}

async fn check_store(access: &Access) -> anyhow::Result<()> {
    loop {
        match access.store.check().await {
            Ok(warnings) => {
                warnings.iter().for_each(|warning| warn!("{warning}"));
                return Ok(());
            }
            Err(error @ StoreError::Unreachable { .. }) => warn!(%error, "waiting for the store"),
            Err(error) => anyhow::bail!(crate::access::Refusal(error.to_string())),
        }
        tokio::time::sleep(START_PAUSE).await;
    }
}

fn router(app: App, settings: &Settings) -> Router {
    let body_max = settings.batch_bytes.max(settings.max_event_bytes) + BODY_ROOM;
    let guarded = Router::new()
        .route("/v1/events", post(events::publish))
        .route("/v1/runs", get(reads::list_runs))
        .route("/v1/workers", get(reads::list_workers))
        .route("/v1/runs/{id}", get(reads::run))
        .route("/v1/workers/{id}", get(reads::worker))
        .route("/v1/runs/{id}/events", get(reads::run_events))
        .route("/v1/workers/{id}/events", get(reads::worker_events))
        .route("/v1/status", get(operations::status))
        .route("/v1/checkpoints", get(operations::checkpoints))
        .route("/v1/dead-letters", get(operations::dead_letters))
        .route("/v1/dead-letters/{partition}/{offset}", get(operations::dead_letter))
        .route("/v1/dead-letters/redrive", post(operations::redrive))
        .route("/v1/resume", post(operations::resume))
        .route("/v1/replays", post(repairs::replay))
        .route("/metrics", get(operations::metrics))
        .layer(middleware::from_fn_with_state(app.clone(), auth::check));
    Router::new()
        .route("/healthz", get(operations::healthz))
        .route("/readyz", get(operations::readyz))
        .merge(guarded)
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(DefaultBodyLimit::max(body_max))
        .with_state(app)
}

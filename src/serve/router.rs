//! Which path leads where.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use super::{
    App, auth, changes, envelope, error, events, openapi, operations, page, reads, repairs, rollout, streams, unread,
};
use crate::config::Settings;

/// Room of a request's body beside its events.
const BODY_ROOM: usize = 64 << 10;
/// Smaller answers are not worth the work.
const COMPRESSED_FROM_BYTES: u16 = 1024;

pub(super) fn router(app: App, settings: &Settings) -> Router {
    let body_max = settings.batch_bytes.max(settings.max_event_bytes) + BODY_ROOM;
    let guarded = Router::new()
        .route("/v1/events", post(events::publish))
        .route("/v1/runs", get(reads::list_runs))
        .route("/v1/workers", get(reads::list_workers))
        .route("/v1/runs/{id}", get(reads::run))
        .route("/v1/workers/{id}", get(reads::worker))
        .route("/v1/runs/{id}/events", get(streams::run))
        .route("/v1/workers/{id}/events", get(streams::worker))
        .route("/v1/stream", get(changes::follow))
        .route("/v1/status", get(operations::status))
        .route("/v1/checkpoints", get(operations::checkpoints))
        .route("/v1/dead-letters", get(operations::dead_letters))
        .route("/v1/dead-letters/{partition}/{offset}", get(operations::dead_letter))
        .route("/v1/dead-letters/redrive", post(operations::redrive))
        .route("/v1/resume", post(operations::resume))
        .route("/v1/replays", post(repairs::replay))
        .route("/v1/audits", post(repairs::audit))
        .route("/v1/rollout", get(rollout::status))
        .route("/v1/rollout/start", post(rollout::start))
        .route("/v1/rollout/promote", post(rollout::promote))
        .route("/v1/rollout/rollback", post(rollout::rollback))
        .route("/v1/rollout/pause", post(rollout::pause))
        .route("/v1/rollout/resume", post(rollout::resume))
        .route("/metrics", get(operations::metrics))
        .method_not_allowed_fallback(error::wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), auth::check));
    Router::new()
        .route("/", get(page::page))
        .route("/openapi.json", get(openapi::document))
        .route("/healthz", get(operations::healthz))
        .route("/readyz", get(operations::readyz))
        .merge(guarded)
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(DefaultBodyLimit::max(body_max))
        .layer(
            CompressionLayer::new()
                .quality(CompressionLevel::Fastest)
                .compress_when(is_compressed()),
        )
        .layer(middleware::from_fn_with_state(app.clone(), envelope::wrap))
        .layer(middleware::from_fn(unread::read_out))
        .with_state(app)
}

/// Whole answers are; what comes piece by piece must not wait in a compressor.
fn is_compressed() -> impl Predicate {
    SizeAbove::new(COMPRESSED_FROM_BYTES.into())
        .and(NotForContentType::SSE)
        .and(NotForContentType::const_new("application/x-ndjson"))
}

//! What operators and machines ask: health, metrics, status, checkpoints, dead letters.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::auth::Caller;
use super::error::HttpError;
use super::extract::{At, Params, Sent};
use super::{ASSIGNMENT_PATIENCE, App};
use crate::access::{AccessError, Chosen, DISK_FULL, RedriveRequest, ResumeRequest};
use crate::log::LogError;
use crate::projector::now_ms;
use crate::pure::event::Reason;
use crate::store::StoreError;

const MARKS_DEFAULT: usize = 20;
const LETTERS_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointsQuery {
    partition: Option<u32>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadLettersQuery {
    reason: Option<String>,
    limit: Option<usize>,
}

/// The process is alive.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Nothing is held, and what a person must mend stops neither log nor store. A store that is away does not make it
/// unready: publishing goes on without it.
pub(super) async fn readyz(State(app): State<App>) -> Response {
    let board = &app.serving.board;
    let held: Vec<_> = board
        .snapshot()
        .into_iter()
        .filter_map(|status| {
            let reason = status.reason()?;
            Some(json!({"partition": status.partition.0, "reason": reason, "detail": status.detail()}))
        })
        .collect();
    if let Some((why, detail)) = stopped(app.access.log.running(), app.access.store.running()) {
        let body = json!({"ready": false, "why": why, "detail": detail, "held": held});
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    }
    if !held.is_empty() {
        let body = json!({"ready": false, "why": "held", "held": held});
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    }
    if !board.has_joined() && app.started.elapsed() < ASSIGNMENT_PATIENCE {
        let body = json!({"ready": false, "why": "starting", "held": []});
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    }
    Json(json!({"ready": true, "held": []})).into_response()
}

/// Why an embedded log or store takes nothing until a restart, in one word and in all.
fn stopped(log: Result<(), LogError>, store: Result<(), StoreError>) -> Option<(&'static str, String)> {
    let error = log
        .map_err(AccessError::from)
        .and(store.map_err(AccessError::from))
        .err()?;
    let why = match error {
        AccessError::Full(_) => DISK_FULL,
        _ => "disk_failed",
    };
    Some((why, error.to_string()))
}

pub(super) async fn metrics(State(app): State<App>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, app.serving.metrics.render()).into_response()
}

pub(super) async fn status(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, HttpError> {
    let mut status = app.access.status(now_ms()).await?;
    for row in &mut status.partitions {
        row.parked_entities.retain(|subject| caller.may(subject).is_ok());
    }
    Ok(Json(status).into_response())
}

pub(super) async fn checkpoints(
    State(app): State<App>,
    Params(query): Params<CheckpointsQuery>,
) -> Result<Response, HttpError> {
    let limit = query.limit.unwrap_or(MARKS_DEFAULT).min(LIMIT_MAX);
    let rows = app.access.checkpoints(query.partition, limit).await?;
    Ok(Json(json!({"checkpoints": rows})).into_response())
}

pub(super) async fn dead_letters(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<DeadLettersQuery>,
) -> Result<Response, HttpError> {
    caller.sees_all()?;
    query.reason.as_deref().map_or(Ok(()), check_reason)?;
    let limit = query.limit.unwrap_or(LETTERS_DEFAULT).min(LIMIT_MAX);
    let letters = app.access.dead_letters(query.reason.as_deref(), limit).await?;
    Ok(Json(json!({"dead_letters": letters})).into_response())
}

/// Refuses a reason that no dead letter can have.
fn check_reason(reason: &str) -> Result<(), HttpError> {
    if Reason::from_name(reason).is_some() {
        return Ok(());
    }
    let legal = Reason::ALL.map(Reason::name).join(", ");
    let message = format!("reason {reason:?}: one of {legal}");
    Err(HttpError::bad_request("bad_request", message))
}

pub(super) async fn redrive(
    State(app): State<App>,
    Sent(request): Sent<RedriveRequest>,
) -> Result<Response, HttpError> {
    if let Chosen::OfReason(reason) = &request.chosen {
        check_reason(reason)?;
    }
    Ok(Json(app.access.redrive(&request).await?).into_response())
}

pub(super) async fn resume(State(app): State<App>, Sent(request): Sent<ResumeRequest>) -> Result<Response, HttpError> {
    Ok(Json(app.access.resume(request).await?).into_response())
}

pub(super) async fn dead_letter(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    At((partition, offset)): At<(u32, u64)>,
) -> Result<Response, HttpError> {
    caller.sees_all()?;
    Ok(Json(app.access.dead_letter(partition, offset).await?).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_disk_that_takes_nothing_is_named_and_the_logs_first() {
        let log = |full| if full { LogError::Full } else { LogError::Refused }("the log's".to_owned());
        let store = |full| if full { StoreError::Full } else { StoreError::Rejected }("the store's".to_owned());
        let words = |why, detail: &str| Some((why, detail.to_owned()));
        assert_eq!(stopped(Ok(()), Ok(())), None);
        assert_eq!(
            stopped(Err(log(true)), Err(store(false))),
            words("disk_full", "the log's")
        );
        assert_eq!(stopped(Ok(()), Err(store(true))), words("disk_full", "the store's"));
        assert_eq!(stopped(Err(log(false)), Ok(())), words("disk_failed", "the log's"));
    }
}

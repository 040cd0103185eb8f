//! Documents and lists of them over HTTP.

use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::App;
use super::auth::Caller;
use super::error::HttpError;
use super::extract::{At, Params};
use super::projected::is_applied;
use crate::access::ListRequest;
use crate::config::read_span;
use crate::projector::now_ms;
use crate::pure::entity::{Entity, Kind};
use crate::pure::run::RunStatus;
use crate::pure::time::Time;
use crate::pure::worker::WorkerStatus;

pub(super) const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 1000;
/// The longest that a request waits for something to come.
const WAIT_MAX: Duration = Duration::from_secs(30);
const WAIT_DEFAULT: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    status: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentQuery {
    min_offset: Option<u64>,
    timeout: Option<String>,
}

pub(super) async fn list_runs(
    app: State<App>,
    caller: Extension<Caller>,
    query: Params<ListQuery>,
) -> Result<Response, HttpError> {
    list(app, caller, Kind::Run, query).await
}

pub(super) async fn list_workers(
    app: State<App>,
    caller: Extension<Caller>,
    query: Params<ListQuery>,
) -> Result<Response, HttpError> {
    list(app, caller, Kind::Worker, query).await
}

async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    kind: Kind,
    Params(query): Params<ListQuery>,
) -> Result<Response, HttpError> {
    if let Some(status) = &query.status {
        check_status(kind, status)?;
    }
    let since = query.since.as_deref().map(|text| {
        Time::parse(text)
            .ok_or_else(|| HttpError::bad_request("bad_query", format!("since {text:?}: must be RFC 3339")))
    });
    let request = ListRequest {
        kind,
        status: query.status,
        since: since.transpose()?,
        limit: page_limit(query.limit)?.unwrap_or(LIMIT_DEFAULT),
        cursor: query.cursor,
        scope: caller.scope,
    };
    Ok(Json(app.access.list(&request, now_ms()).await?).into_response())
}

/// How many a page may have, if the request says so. An empty page would be the last one for all that it tells.
pub(super) fn page_limit(asked: Option<usize>) -> Result<Option<usize>, HttpError> {
    if asked == Some(0) {
        return Err(HttpError::bad_request("bad_query", "limit: a page has 1 or more"));
    }
    Ok(asked.map(|limit| limit.min(LIMIT_MAX)))
}

/// Refuses a status that no document of the kind can have.
pub(super) fn check_status(kind: Kind, status: &str) -> Result<(), HttpError> {
    let legal: Vec<&str> = match kind {
        Kind::Run => RunStatus::ALL.iter().map(|status| status.name()).collect(),
        Kind::Worker => WorkerStatus::ALL.iter().map(|status| status.name()).collect(),
    };
    if legal.contains(&status) {
        return Ok(());
    }
    let message = format!("status {status:?}: a {} is one of {}", kind.name(), legal.join(", "));
    Err(HttpError::bad_request("bad_query", message))
}

pub(super) async fn run(
    app: State<App>,
    caller: Extension<Caller>,
    id: At<String>,
    query: Params<DocumentQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    document(app, caller, Kind::Run, id, query, headers).await
}

pub(super) async fn worker(
    app: State<App>,
    caller: Extension<Caller>,
    id: At<String>,
    query: Params<DocumentQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    document(app, caller, Kind::Worker, id, query, headers).await
}

async fn document(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    kind: Kind,
    At(id): At<String>,
    Params(query): Params<DocumentQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let entity = entity(kind, &id)?;
    caller.may(entity.subject())?;
    let patience = wait(query.timeout.as_deref())?;
    if let Some(offset) = query.min_offset {
        wait_for(&app, &entity, offset, patience).await?;
    }
    let document = app.access.document(&entity, now_ms()).await?;
    let tag = format!("\"{}\"", document["summary_hash"].as_str().unwrap_or_default());
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| names(known, &tag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(document).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Whether an `If-None-Match` names the tag (weakly compared: RFC 9110 §13.1.2).
fn names(known: &str, tag: &str) -> bool {
    let mut each = known.split(',').map(str::trim);
    each.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// Waits until the entity's partition has applied the record at `offset`.
async fn wait_for(app: &App, entity: &Entity, offset: u64, patience: Duration) -> Result<(), HttpError> {
    let partition = app.access.place(entity).await?;
    if is_applied(app, partition, offset, Instant::now() + patience).await? {
        return Ok(());
    }
    if app.stop.is_cancelled() {
        let message = "the server stops; ask again";
        return Err(HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message));
    }
    let message = format!("offset {offset} of partition {partition} was not projected in time");
    let error = HttpError::new(StatusCode::GATEWAY_TIMEOUT, "not_projected_in_time", message);
    Err(error.with_detail(json!({"partition": partition.0, "min_offset": offset})))
}

pub(super) fn entity(kind: Kind, id: &str) -> Result<Entity, HttpError> {
    let must = "must be 1–128 of A–Z a–z 0–9 . _ : -";
    Entity::new(kind, id).ok_or_else(|| HttpError::bad_request("bad_subject", format!("id {id:?}: {must}")))
}

pub(super) fn wait(text: Option<&str>) -> Result<Duration, HttpError> {
    let Some(text) = text else { return Ok(WAIT_DEFAULT) };
    let span = read_span(text).map_err(|problem| HttpError::bad_request("bad_query", problem))?;
    Ok(span.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_tag_is_known_strongly_weakly_or_by_a_star() {
        for known in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*"] {
            assert!(names(known, "\"a\""), "{known}");
        }
        assert!(!names("\"b\"", "\"a\"") && !names("", "\"a\""));
    }
}

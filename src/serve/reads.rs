//! Documents and streams over HTTP.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::error::HttpError;
use crate::access::ListRequest;
use crate::config::read_span;
use crate::projector::now_ms;
use crate::pure::entity::{Entity, Kind};
use crate::pure::time::Time;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 1000;
/// The longest that a request waits for something to come.
const WAIT_MAX: Duration = Duration::from_secs(30);
const WAIT_DEFAULT: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Deserialize)]
pub(super) struct ListQuery {
    status: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct DocumentQuery {
    min_offset: Option<u64>,
    timeout: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct EventsQuery {
    after: Option<u64>,
    limit: Option<usize>,
    wait: Option<String>,
}

pub(super) async fn list_runs(app: State<App>, query: Query<ListQuery>) -> Result<Response, HttpError> {
    list(app, Kind::Run, query).await
}

pub(super) async fn list_workers(app: State<App>, query: Query<ListQuery>) -> Result<Response, HttpError> {
    list(app, Kind::Worker, query).await
}

async fn list(State(app): State<App>, kind: Kind, Query(query): Query<ListQuery>) -> Result<Response, HttpError> {
    let since = query.since.as_deref().map(|text| {
        Time::parse(text)
            .ok_or_else(|| HttpError::bad_request("bad_request", format!("since {text:?}: must be RFC 3339")))
    });
    let request = ListRequest {
        kind,
        status: query.status,
        since: since.transpose()?,
        limit: query.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX),
        cursor: query.cursor,
    };
    Ok(Json(app.access.list(&request, now_ms()).await?).into_response())
}

pub(super) async fn run(
    app: State<App>,
    id: Path<String>,
    query: Query<DocumentQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    document(app, Kind::Run, id, query, headers).await
}

pub(super) async fn worker(
    app: State<App>,
    id: Path<String>,
    query: Query<DocumentQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    document(app, Kind::Worker, id, query, headers).await
}

async fn document(
    State(app): State<App>,
    kind: Kind,
    Path(id): Path<String>,
    Query(query): Query<DocumentQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let entity = entity(kind, &id)?;
    let document = match query.min_offset {
        None => app.access.document(&entity, now_ms()).await?,
        Some(offset) => wait_for(&app, &entity, offset, wait(query.timeout.as_deref())?).await?,
    };
    let tag = format!("\"{}\"", document["summary_hash"].as_str().unwrap_or_default());
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let unchanged = known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag || known.trim() == "*"));
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(document).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// The document once its partition has applied the record at `offset`.
async fn wait_for(app: &App, entity: &Entity, offset: u64, patience: Duration) -> Result<Value, HttpError> {
    let partition = app.access.home(entity).await?;
    let until = tokio::time::Instant::now() + patience;
    loop {
        let checkpoint = app
            .access
            .store
            .checkpoint(partition)
            .await
            .map_err(crate::access::AccessError::from)?;
        if checkpoint.is_some_and(|checkpoint| checkpoint.next.0 > offset) {
            return Ok(app.access.document(entity, now_ms()).await?);
        }
        if tokio::time::Instant::now() >= until {
            let message = format!("offset {offset} of partition {partition} was not projected in time");
            return Err(HttpError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "not_projected_in_time",
                message,
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub(super) async fn run_events(
    app: State<App>,
    id: Path<String>,
    query: Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    events(app, Kind::Run, id, query, headers).await
}

pub(super) async fn worker_events(
    app: State<App>,
    id: Path<String>,
    query: Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    events(app, Kind::Worker, id, query, headers).await
}

/// A page of the stream: `{"events":[{"seq","event"}],"next_after"}`.
async fn events(
    State(app): State<App>,
    kind: Kind,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("*/*");
    if !accept.contains("json") && !accept.contains("*/*") {
        let message =
            "this version gives pages only: send `Accept: application/json`, and `after` and `wait` to follow";
        return Err(HttpError::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message));
    }
    let (entity, after) = (entity(kind, &id)?, query.after.unwrap_or(0));
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let wait = query
        .wait
        .as_deref()
        .map_or(Ok(Duration::ZERO), |text| wait(Some(text)))?;
    let events = app.access.events(&entity, after, limit, wait).await?;
    let next_after = events.last().map_or(after, |event| event.seq);
    Ok(Json(json!({"events": events, "next_after": next_after})).into_response())
}

fn entity(kind: Kind, id: &str) -> Result<Entity, HttpError> {
    let must = "must be 1–128 of A–Z a–z 0–9 . _ : -";
    Entity::new(kind, id).ok_or_else(|| HttpError::bad_request("bad_subject", format!("id {id:?}: {must}")))
}

fn wait(text: Option<&str>) -> Result<Duration, HttpError> {
    let Some(text) = text else { return Ok(WAIT_DEFAULT) };
    let span = read_span(text).map_err(|problem| HttpError::bad_request("bad_request", problem))?;
    Ok(span.min(WAIT_MAX))
}

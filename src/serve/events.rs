//! `POST /v1/events`: 202 once the log has all of a request's events. One with a bad event writes nothing.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, TraceContextExt};
use serde::Deserialize;
use serde_json::json;

use super::App;
use super::auth::Caller;
use super::error::HttpError;
use super::extract::{Params, Whole};
use super::projected::{self, named};
use super::reads::wait;
use super::received;
use crate::access::{Publication, Published};
use crate::telemetry::messaging::{TRACEPARENT, parse};

/// How long the log may take to acknowledge a request's events.
const LOG_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishQuery {
    wait: Option<String>,
    timeout: Option<String>,
}

pub(super) async fn publish(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<PublishQuery>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, HttpError> {
    let patience = wait(query.timeout.as_deref())?;
    let patience = match query.wait.as_deref() {
        None => None,
        Some("projected") => Some(patience),
        Some(other) => {
            let message = format!("wait {other:?}: must be `projected`");
            return Err(HttpError::bad_request("bad_query", message));
        }
    };
    let may = |subject: &str| caller.may(subject);
    let publications = received::read(&headers, &body, &app.access.settings, may).inspect_err(|_| {
        app.serving.metrics.rejected(1);
    })?;
    let named: Vec<_> = publications.iter().filter_map(named).collect();
    let published = append(&app, publications).with_context(trace_of(&headers)).await?;
    let Some(patience) = patience else {
        return Ok((StatusCode::ACCEPTED, Json(json!({"events": published}))).into_response());
    };
    if let Some(projected) = projected::all(&app, &named, &published, patience).await? {
        return Ok(Json(projected).into_response());
    }
    // The log has them for good: that they are not in documents yet is no failure.
    let body = json!({"events": published, "projected": false});
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

/// The trace that the request belongs to, if it says so.
fn trace_of(headers: &HeaderMap) -> Context {
    let text = headers.get(TRACEPARENT).and_then(|text| parse(text.as_bytes()));
    text.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent))
}

/// Where each went; an error if the log did not acknowledge all of them in time.
async fn append(app: &App, publications: Vec<Publication>) -> Result<Vec<Published>, HttpError> {
    let count = publications.len();
    let Ok(results) = tokio::time::timeout(LOG_PATIENCE, app.access.publish(publications)).await else {
        let message = format!(
            "the log did not acknowledge within {} s; the events may be there all the same: send them again, with the \
             same ids",
            LOG_PATIENCE.as_secs()
        );
        app.serving
            .metrics
            .published("error", LOG_PATIENCE.as_secs_f64(), count as u64);
        return Err(HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "unreachable", message));
    };
    let (mut published, mut failed) = (Vec::with_capacity(count), None);
    for result in results {
        match result {
            Ok(place) => published.push(place),
            Err(error) => failed = Some(failed.unwrap_or(error)),
        }
    }
    match failed {
        None => Ok(published),
        Some(error) => Err(HttpError::from(error).with_detail(json!({"published": published, "of": count}))),
    }
}

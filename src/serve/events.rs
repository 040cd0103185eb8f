//! `POST /v1/events`: `CloudEvents` over HTTP, structured, batched or binary. 202 once the log has all of them.
//! A request with one bad event writes nothing. Source: `CloudEvents` 1.0.2, HTTP protocol binding.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, TraceContextExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::App;
use super::auth::Caller;
use super::error::HttpError;
use super::extract::{Params, Whole};
use super::projected::{self, named};
use super::reads::wait;
use crate::access::{Publication, Published, prepare_event};
use crate::telemetry::messaging::{TRACEPARENT, parse};

/// The most events of one request.
const EVENTS_MAX: usize = 10_000;

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
    let publications = prepare(&app, &caller, &headers, &body).inspect_err(|_| {
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

/// All events of a request, checked: one that breaks a rule refuses all.
fn prepare(app: &App, caller: &Caller, headers: &HeaderMap, body: &Bytes) -> Result<Vec<Publication>, HttpError> {
    let mut publications: Vec<Publication> = Vec::new();
    for (i, event) in read(headers, body)?.iter().enumerate() {
        let publication = prepare_event(event, &app.access.settings).map_err(|rejection| {
            let detail = json!({"index": i, "reason": rejection.reason.name()});
            let status = match rejection.reason.name() {
                "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            };
            HttpError::new(status, rejection.reason.name(), rejection.detail).with_detail(detail)
        })?;
        let subject = publication.record.key.as_deref().map(String::from_utf8_lossy);
        caller.may(&subject.unwrap_or_default())?;
        publications.push(publication);
    }
    Ok(publications)
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

/// The events of a request, each as one structured object.
fn read(headers: &HeaderMap, body: &Bytes) -> Result<Vec<Vec<u8>>, HttpError> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let has_attributes = headers.keys().any(|name| name.as_str().starts_with("ce-"));
    match media_type.as_str() {
        "application/cloudevents-batch+json" => batch(body),
        "application/cloudevents+json" => Ok(vec![body.to_vec()]),
        _ if has_attributes => binary(headers, &media_type, body),
        "application/json" | "" if body.trim_ascii_start().starts_with(b"[") => batch(body),
        "application/json" | "" => Ok(vec![body.to_vec()]),
        other => {
            let message = format!(
                "content type {other:?}: send application/cloudevents+json, application/cloudevents-batch+json, \
                 or ce- headers"
            );
            Err(HttpError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                message,
            ))
        }
    }
}

fn batch(body: &Bytes) -> Result<Vec<Vec<u8>>, HttpError> {
    let events: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|error| HttpError::bad_request("not_json", format!("a batch is a JSON array: {error}")))?;
    if events.len() > EVENTS_MAX {
        let message = format!("{} events: at most {EVENTS_MAX} a request", events.len());
        return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
    }
    Ok(events
        .into_iter()
        .map(|event| event.get().as_bytes().to_vec())
        .collect())
}

/// Headers are percent-encoded UTF-8 (HTTP protocol binding §3.1.3.2).
fn binary(headers: &HeaderMap, media_type: &str, body: &Bytes) -> Result<Vec<Vec<u8>>, HttpError> {
    let mut event = Map::new();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else {
            continue;
        };
        let text = value.to_str().ok().and_then(percent_decoded).ok_or_else(|| {
            HttpError::bad_request("not_cloudevents", format!("header {name}: not percent-encoded UTF-8"))
        })?;
        event.insert(attribute.to_owned(), Value::String(text));
    }
    if !media_type.is_empty() {
        event.insert("datacontenttype".to_owned(), Value::String(media_type.to_owned()));
    }
    let mut text = serde_json::to_vec(&event).unwrap_or_default();
    if !body.is_empty() {
        let data: &RawValue = serde_json::from_slice(body)
            .map_err(|error| HttpError::bad_request("not_json", format!("data must be JSON: {error}")))?;
        text.pop();
        text.extend_from_slice(if event.is_empty() { b"\"data\":" } else { b",\"data\":" });
        text.extend_from_slice(data.get().as_bytes());
        text.push(b'}');
    }
    Ok(vec![text])
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_and_nothing_else() {
        assert_eq!(percent_decoded("a%20b%C3%A9+").as_deref(), Some("a bé+"));
        for broken in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(percent_decoded(broken), None, "{broken}");
        }
    }
}

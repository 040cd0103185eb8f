//! `POST /v1/events`: `CloudEvents` over HTTP, structured, batched or binary. 202 once the log has all of them.
//! A request with one bad event writes nothing. Source: `CloudEvents` 1.0.2, HTTP protocol binding.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::App;
use super::error::HttpError;
use crate::access::{Publication, prepare_event};

/// The most events of one request.
const EVENTS_MAX: usize = 10_000;

pub(super) async fn publish(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Response, HttpError> {
    let max_bytes = app.access.settings.max_event_bytes;
    let events = read(&headers, &body)?;
    let mut publications: Vec<Publication> = Vec::with_capacity(events.len());
    for (i, event) in events.iter().enumerate() {
        publications.push(prepare_event(event, max_bytes).map_err(|rejection| {
            app.serving.metrics.rejected(events.len() as u64);
            let detail = json!({"index": i, "reason": rejection.reason.name()});
            let status = match rejection.reason.name() {
                "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            };
            HttpError::new(status, rejection.reason.name(), rejection.detail).with_detail(detail)
        })?);
    }
    let mut published = Vec::with_capacity(publications.len());
    for result in app.access.publish(publications).await {
        published.push(result.map_err(HttpError::from)?);
    }
    Ok((StatusCode::ACCEPTED, Json(json!({"events": published}))).into_response())
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

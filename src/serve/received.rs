//! A request's body as events: `CloudEvents` over HTTP, structured, batched or binary.
//! In: headers and body. Out: what goes into the log, or the answer that refuses all of it.
//! Source: `CloudEvents` 1.0.2, HTTP protocol binding.

use axum::http::{HeaderMap, StatusCode, header};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::error::HttpError;
use crate::access::{Publication, prepare_event};
use crate::config::Settings;

/// The most events of one request.
const EVENTS_MAX: usize = 10_000;

/// What a request to publish would put into the log, for one who may publish anything.
///
/// # Errors
/// Status and body of the answer: one bad event refuses all.
pub fn publications(
    headers: &HeaderMap,
    body: &[u8],
    settings: &Settings,
) -> Result<Vec<Publication>, (StatusCode, Value)> {
    read(headers, body, settings, |_| Ok(())).map_err(|error| (error.status(), error.body()))
}

/// All events of a request, checked; `may` refuses subjects that are not the caller's.
pub(super) fn read(
    headers: &HeaderMap,
    body: &[u8],
    settings: &Settings,
    may: impl Fn(&str) -> Result<(), HttpError>,
) -> Result<Vec<Publication>, HttpError> {
    let mut publications: Vec<Publication> = Vec::new();
    for (i, event) in structured(headers, body)?.iter().enumerate() {
        let publication = prepare_event(event, settings).map_err(|rejection| {
            let detail = json!({"index": i, "reason": rejection.reason.name()});
            let status = match rejection.reason.name() {
                "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            };
            HttpError::new(status, rejection.reason.name(), rejection.detail).with_detail(detail)
        })?;
        let subject = publication.record.key.as_deref().map(String::from_utf8_lossy);
        may(&subject.unwrap_or_default())?;
        publications.push(publication);
    }
    Ok(publications)
}

/// The events of a request, each as one structured object.
fn structured(headers: &HeaderMap, body: &[u8]) -> Result<Vec<Vec<u8>>, HttpError> {
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

fn batch(body: &[u8]) -> Result<Vec<Vec<u8>>, HttpError> {
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
fn binary(headers: &HeaderMap, media_type: &str, body: &[u8]) -> Result<Vec<Vec<u8>>, HttpError> {
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

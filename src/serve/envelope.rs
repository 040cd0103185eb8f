//! Around every request: an id, a deadline, CORS, headers that browsers heed.
//! In: a request. Out: its answer, with `x-request-id`. Invariant: an answer's head comes within the deadline
//! (streams go on after it).

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use super::App;
use super::error::HttpError;
use super::listen::HEAD_BYTES_MAX;
use super::origin::allowed_origin;

/// How long a request may take up to the head of its answer: its body, and the longest wait that it may ask for.
const DEADLINE: Duration = Duration::from_secs(45);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ID_BYTES_MAX: usize = 128;

const SECURITY: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
];
const CORS: [(HeaderName, &str); 4] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "accept, authorization, content-type, if-none-match, last-event-id, traceparent, x-request-id, ce-id, ce-source, \
         ce-type, ce-subject, ce-specversion, ce-time, ce-sequence",
    ),
    (
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        "etag, x-request-id, khala-first-seq, retry-after",
    ),
    (header::ACCESS_CONTROL_MAX_AGE, "600"),
];

/// Names a request in logs and in its answer.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestId(pub String);

pub(super) async fn wrap(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = RequestId(given_id(request.headers()).unwrap_or_else(|| format!("{:016x}", rand::random::<u64>())));
    let origin = allowed_origin(&app.access.settings.http_cors, request.headers());
    let preflight = request.method() == Method::OPTIONS && origin.is_some();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(id.clone());
    let mut answer = if preflight {
        StatusCode::NO_CONTENT.into_response()
    } else if let Some(refusal) = refusal(&request) {
        refusal.into_response()
    } else {
        tokio::time::timeout(DEADLINE, next.run(request))
            .await
            .unwrap_or_else(|_| {
                let message = format!("not answered within {} s", DEADLINE.as_secs());
                HttpError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message).into_response()
            })
    };
    let status = answer.status().as_u16();
    // 504 answers a wait that the client limited itself.
    if answer.status().is_server_error() && status != 504 && path != "/readyz" {
        warn!(%method, path, status, request_id = id.0, "request failed");
    }
    let headers = answer.headers_mut();
    weaken_tag(headers);
    for (name, value) in SECURITY {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if path.starts_with("/v1/") {
        let entry = headers.entry(header::CACHE_CONTROL);
        entry.or_insert(HeaderValue::from_static("no-store"));
    }
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        for (name, value) in CORS {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID, id);
    }
    answer
}

/// A strong tag is of the very bytes: compressed ones are others, and a weak tag says so (RFC 9110 §8.8.3).
fn weaken_tag(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONTENT_ENCODING) {
        return;
    }
    let strong = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    let weak = strong
        .filter(|tag| !tag.starts_with("W/"))
        .map(|tag| format!("W/{tag}"));
    if let Some(weak) = weak.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
        headers.insert(header::ETAG, weak);
    }
}

/// What no path takes.
fn refusal(request: &Request) -> Option<HttpError> {
    let bytes = head_bytes(request);
    if bytes > HEAD_BYTES_MAX {
        let message = format!(
            "the head of the request has {bytes} bytes, at most {HEAD_BYTES_MAX} are taken: send fewer or shorter headers"
        );
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Some(HttpError::new(status, "head_too_large", message));
    }
    let message = format!(
        "content-encoding {:?}: send the body as it is",
        coding(request.headers())?
    );
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Some(HttpError::new(status, "unsupported_media_type", message))
}

/// The head as HTTP/1.1 writes it, but for its first and last few bytes.
fn head_bytes(request: &Request) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let headers = request.headers().iter();
    target
        + headers
            .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
            .sum::<usize>()
}

/// How a request's body is coded, if it is.
fn coding(headers: &HeaderMap) -> Option<String> {
    let coding = headers.get(header::CONTENT_ENCODING)?.to_str().unwrap_or("?").trim();
    (!coding.is_empty() && !coding.eq_ignore_ascii_case("identity")).then(|| coding.to_owned())
}

fn given_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let legal = (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    legal.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_break_a_log_line_is_not_taken() {
        let id = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(text));
            given_id(&headers)
        };
        assert_eq!(id("abc-1").as_deref(), Some("abc-1"));
        assert_eq!((id("a b"), id("")), (None, None));
    }
}

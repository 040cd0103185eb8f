//! What handlers take from a request, with refusals in our form of errors.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::HttpError;

/// The query; an unknown or ill-typed parameter is 400.
pub(super) struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                let words = rejection.body_text();
                let words = words
                    .strip_prefix("Failed to deserialize query string: ")
                    .unwrap_or(&words);
                Err(HttpError::bad_request("bad_query", words))
            }
        }
    }
}

/// Parts of the path; what is not of their type is not there.
pub(super) struct At<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(at)) => Ok(Self(at)),
            Err(rejection) => Err(HttpError::bad_request("bad_path", rejection.body_text())),
        }
    }
}

/// The body, within the limit.
pub(super) struct Whole(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = HttpError;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpError> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(BytesRejection::FailedToBufferBody(refused)) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let message = "the body is over the limit (batch_bytes); send smaller batches";
                Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message))
            }
            Err(rejection) => Err(HttpError::bad_request("bad_body", rejection.body_text())),
        }
    }
}

/// A JSON object in the body. Its content type must say so: then no page of elsewhere can send it unasked (CORS).
pub(super) struct Sent<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpError> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            let message = format!("content type {content_type:?}: send application/json");
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(HttpError::new(status, "unsupported_media_type", message));
        }
        let Whole(body) = Whole::from_request(request, state).await?;
        let text = if body.is_empty() { &b"{}"[..] } else { &body[..] };
        // As an object first: serde takes an array for a struct too.
        let object = serde_json::from_slice(text).map_err(bad_body)?;
        typed(object).map(Self)
    }
}

/// A JSON object as what it is meant to be.
pub(super) fn typed<T: DeserializeOwned>(object: Map<String, Value>) -> Result<T, HttpError> {
    serde_json::from_value(Value::Object(object)).map_err(bad_body)
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn bad_body(error: serde_json::Error) -> HttpError {
    HttpError::bad_request("bad_body", format!("the body must be a JSON object: {error}"))
}

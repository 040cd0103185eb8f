//! What handlers take from a request, with refusals in our form of errors.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

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

/// A JSON body.
pub(super) struct Sent<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpError> {
        match Json::from_request(request, state).await {
            Ok(Json(sent)) => Ok(Self(sent)),
            Err(rejection) => Err(HttpError::new(rejection.status(), "bad_body", rejection.body_text())),
        }
    }
}

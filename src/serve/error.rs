//! Errors as HTTP answers: `{"error":{"code","message","detail"}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::access::{AccessError, DISK_FULL};

/// Seconds until what passes by itself may have passed; what a person must mend first takes longer.
const SOON: HeaderValue = HeaderValue::from_static("1");
const MENDED: HeaderValue = HeaderValue::from_static("30");

/// An answer that can only be an error.
pub(super) struct HttpError {
    status: StatusCode,
    code: &'static str,
    message: String,
    detail: Value,
    more: Vec<(&'static str, Value)>,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: Value::Null,
            more: Vec::new(),
        }
    }

    pub(super) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn with_detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// Adds a member beside `code`, `message` and `detail`.
    pub(super) fn with(mut self, name: &'static str, value: Value) -> Self {
        self.more.push((name, value));
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// `{"error":{"code","message","detail"}}`.
    pub(super) fn body(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message, "detail": self.detail});
        for (name, value) in &self.more {
            error[*name] = value.clone();
        }
        json!({"error": error})
    }
}

impl From<AccessError> for HttpError {
    fn from(error: AccessError) -> Self {
        let message = error.to_string();
        match error {
            AccessError::BadRequest(_) => Self::bad_request("bad_request", message),
            AccessError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not_found", message),
            AccessError::Refused(_) => Self::new(StatusCode::CONFLICT, "refused", message),
            AccessError::Unreachable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "unreachable", message),
            AccessError::Full(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, DISK_FULL, message),
            AccessError::Failed(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message),
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut answer = (self.status, Json(self.body())).into_response();
        let headers = answer.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            let after = if self.code == DISK_FULL { MENDED } else { SOON };
            headers.insert(header::RETRY_AFTER, after);
        }
        answer
    }
}

pub(super) async fn no_such_path(uri: Uri) -> HttpError {
    HttpError::new(
        StatusCode::NOT_FOUND,
        "no_such_path",
        format!("there is nothing at {}", uri.path()),
    )
}

pub(super) async fn wrong_method(uri: Uri) -> HttpError {
    let message = format!("{} does not take this method", uri.path());
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
}

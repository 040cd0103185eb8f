//! Bearer tokens, where a token file is set. Compared in constant time.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::App;
use super::error::HttpError;
use crate::config::Role;

pub(super) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    if app.tokens.is_empty() {
        return next.run(request).await;
    }
    let role = match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/events") => Role::Publish,
        (&Method::POST, _) => Role::Operate,
        _ => Role::Read,
    };
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let Some(given) = given.and_then(|value| value.strip_prefix("Bearer ")) else {
        let message = "send `Authorization: Bearer <token>`";
        return HttpError::new(StatusCode::UNAUTHORIZED, "no_token", message).into_response();
    };
    // All are compared, by hashes of equal length: the time tells nothing of a token.
    let given = Sha256::digest(given.as_bytes());
    let (mut known, mut allowed) = (false, false);
    for token in app.tokens.iter() {
        let theirs = Sha256::digest(token.secret.as_bytes());
        let differs = given.iter().zip(theirs.iter()).fold(0, |sum, (a, b)| sum | (a ^ b));
        known |= differs == 0;
        allowed |= differs == 0 && token.allows(role);
    }
    match (known, allowed) {
        (_, true) => next.run(request).await,
        (true, false) => {
            HttpError::new(StatusCode::FORBIDDEN, "wrong_role", "the token does not allow this").into_response()
        }
        (false, false) => HttpError::new(StatusCode::UNAUTHORIZED, "bad_token", "no such token").into_response(),
    }
}

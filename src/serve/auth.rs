//! Bearer tokens, where a token file is set: who may do what, and with which entities.
//! In: a request. Out: the same request with its [`Caller`], or 401 or 403. Invariant: only hashes are kept, all of
//! them are compared whatever is given, so that the time tells nothing; a file that cannot be read changes nothing.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tracing::info;

use super::App;
use super::envelope::RequestId;
use super::error::HttpError;
use super::origin::is_of_elsewhere;
use crate::config::{Role, Token, read_tokens};
use crate::pure::entity::Entity;
use crate::telemetry::AUDIT;

/// Whom the token stands for.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The first digits of the token's hash, for the audit log; `anyone` without a token file.
    pub name: String,
    /// Beginnings of subjects that it may see and write; empty: all.
    pub scope: Vec<String>,
}

impl Caller {
    fn anyone() -> Self {
        Self {
            name: "anyone".to_owned(),
            scope: Vec::new(),
        }
    }

    /// Refuses an entity of others.
    pub(super) fn may(&self, subject: &str) -> Result<(), HttpError> {
        if self.scope.is_empty() || self.scope.iter().any(|begin| subject.starts_with(begin)) {
            return Ok(());
        }
        let message = format!("the token's scope does not reach {subject}");
        Err(HttpError::new(StatusCode::FORBIDDEN, "out_of_scope", message))
    }

    pub(super) fn sees(&self, entity: &Entity) -> bool {
        self.may(entity.subject()).is_ok()
    }

    /// Refuses a token with a scope: what is asked for tells of all entities.
    pub(super) fn sees_all(&self) -> Result<(), HttpError> {
        if self.scope.is_empty() {
            return Ok(());
        }
        let message = "this tells of all entities, and the token has a scope";
        Err(HttpError::new(StatusCode::FORBIDDEN, "out_of_scope", message))
    }
}

/// The tokens in force.
pub(super) struct Guard {
    file: Option<PathBuf>,
    tokens: RwLock<Arc<Vec<Token>>>,
}

impl Guard {
    pub(super) fn new(file: Option<PathBuf>, tokens: Vec<Token>) -> Self {
        Self {
            file,
            tokens: RwLock::new(Arc::new(tokens.into_iter().map(Token::without_secret).collect())),
        }
    }

    /// Reads the file again; how many tokens it holds now, `None` if there is no file.
    pub(super) fn reload(&self) -> anyhow::Result<Option<usize>> {
        let Some(file) = &self.file else { return Ok(None) };
        let tokens: Vec<Token> = read_tokens(file)?.into_iter().map(Token::without_secret).collect();
        let count = tokens.len();
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
        Ok(Some(count))
    }

    /// Who calls.
    fn caller(&self, headers: &HeaderMap, host: &str, role: Role) -> Result<Caller, HttpError> {
        if self.file.is_none() {
            return is_local(host).then(Caller::anyone).ok_or_else(|| {
                let message = "without tokens only this machine's own names are answered: localhost, or an address";
                HttpError::new(StatusCode::FORBIDDEN, "wrong_host", message)
            });
        }
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| {
            value
                .split_once(' ')
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        });
        let Some((_, given)) = given else {
            let message = "send `Authorization: Bearer <token>`";
            return Err(HttpError::new(StatusCode::UNAUTHORIZED, "no_token", message));
        };
        let given: [u8; 32] = Sha256::digest(given.trim().as_bytes()).into();
        let tokens = Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner));
        let mut known = None;
        for token in tokens.iter() {
            let differs = given.iter().zip(token.hash).fold(0, |sum, (a, b)| sum | (a ^ b));
            if differs == 0 {
                known = Some(token);
            }
        }
        match known {
            Some(token) if role == Role::Operate && token.allows(role) && !token.scope.is_empty() => {
                let message = "operators act on all entities, and the token has a scope";
                Err(HttpError::new(StatusCode::FORBIDDEN, "out_of_scope", message))
            }
            Some(token) if token.allows(role) => Ok(Caller {
                name: token.name(),
                scope: token.scope.clone(),
            }),
            Some(_) => {
                let message = format!("this needs a token of role {}", role.name());
                Err(HttpError::new(StatusCode::FORBIDDEN, "wrong_role", message))
            }
            None => Err(HttpError::new(StatusCode::UNAUTHORIZED, "bad_token", "no such token")),
        }
    }
}

/// Whether this names the machine itself. A name of elsewhere that leads here is a page of elsewhere that would have its
/// browser act here (DNS rebinding).
fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// Refuses a page of elsewhere that would have its browser change something here. With tokens there is no such page: it
/// would need one.
fn check_page(app: &App, request: &Request, host: &str) -> Result<(), HttpError> {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let allowed = &app.access.settings.http_cors;
    if !changes || app.guard.file.is_some() || !is_of_elsewhere(request.headers(), host, allowed) {
        return Ok(());
    }
    let message = "a page of another origin may change nothing here; http_cors allows origins";
    Err(HttpError::new(StatusCode::FORBIDDEN, "wrong_origin", message))
}

/// What a call needs: reading, publishing events, or (all that changes anything else) operating.
fn role_for(method: &Method, path: &str) -> Role {
    match *method {
        Method::GET | Method::HEAD => Role::Read,
        _ if path == "/v1/events" => Role::Publish,
        _ => Role::Operate,
    }
}

pub(super) async fn check(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let role = role_for(request.method(), request.uri().path());
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host
        .or(request.uri().authority().map(Authority::as_str))
        .unwrap_or_default();
    let caller = app.guard.caller(request.headers(), host, role);
    let caller = match caller.and_then(|caller| check_page(&app, &request, host).map(|()| caller)) {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    if !app.rate.takes(&caller.name, Instant::now()) {
        let message = "this token has made its requests of this second (http_rate); try again";
        return HttpError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).into_response();
    }
    request.extensions_mut().insert(caller.clone());
    if role != Role::Operate {
        return next.run(request).await;
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
    let answer = next.run(request).await;
    let status = answer.status().as_u16();
    info!(target: AUDIT, token = caller.name, %method, path, status, request_id = id.0, "operator action");
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_anything_but_the_log_needs_an_operator() {
        assert_eq!(role_for(&Method::GET, "/v1/runs"), Role::Read);
        assert_eq!(role_for(&Method::POST, "/v1/events"), Role::Publish);
        assert_eq!(role_for(&Method::POST, "/v1/replays"), Role::Operate);
        assert_eq!(role_for(&Method::DELETE, "/v1/events/x"), Role::Operate);
    }

    #[test]
    fn a_name_of_elsewhere_is_not_this_machine() {
        for host in [
            "localhost:7600",
            "LOCALHOST",
            "127.0.0.1:7600",
            "[::1]:7600",
            "10.0.0.7",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example:7600",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "a:b",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn a_scope_is_a_list_of_beginnings() {
        let caller = Caller {
            name: String::new(),
            scope: vec!["run/acme.".to_owned()],
        };
        assert!(caller.may("run/acme.1").is_ok());
        for other in ["run/acme", "run/other.1", "worker/acme.1"] {
            assert!(caller.may(other).is_err(), "{other}");
        }
        assert!(caller.sees_all().is_err() && Caller::anyone().sees_all().is_ok());
    }
}

//! A running server's HTTP API, for commands whose embedded directory it owns.

use std::net::SocketAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::exit::Failure;
use crate::access::{
    AccessError, CheckpointRow, DISK_FULL, DeadLetter, ListRequest, Page, Publication, Published, RolloutReport,
    StatusReport, StreamEvent,
};
use crate::config::{Role, Settings, Token, read_tokens};
use crate::pure::entity::{Entity, Kind};

/// The longest that one call may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Lines of progress that may wait.
const LINES: usize = 64;
/// Events sent in one request.
const EVENTS_MAX: usize = 1000;

#[derive(Clone)]
pub(super) struct Remote {
    base: String,
    agent: ureq::Agent,
    read: Option<String>,
    publish: Option<String>,
    operate: Option<String>,
}

#[derive(Deserialize)]
struct Checkpoints {
    checkpoints: Vec<CheckpointRow>,
}

#[derive(Deserialize)]
struct DeadLetters {
    dead_letters: Vec<DeadLetter>,
}

/// A line of a repair's answer.
enum Line<P, R> {
    Report(R),
    Error(AccessError),
    Progress(P),
}

impl<'de, P: DeserializeOwned, R: DeserializeOwned> Deserialize<'de> for Line<P, R> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let part = |value: &mut Value, name: &str| value.get_mut(name).map(Value::take);
        let wrong = serde::de::Error::custom::<serde_json::Error>;
        if let Some(report) = part(&mut value, "report") {
            return serde_json::from_value(report).map(Self::Report).map_err(wrong);
        }
        if let Some(error) = part(&mut value, "error") {
            return serde_json::from_value(error).map(Self::Error).map_err(wrong);
        }
        serde_json::from_value(value).map(Self::Progress).map_err(wrong)
    }
}

#[derive(Deserialize)]
struct Events<T> {
    events: Vec<T>,
}

impl Remote {
    pub(super) fn new(http: SocketAddr, settings: &Settings) -> Result<Self, Failure> {
        let tokens = match &settings.token_file {
            Some(path) => read_tokens(path).map_err(Failure::usage)?,
            None => Vec::new(),
        };
        let token = |role| {
            tokens
                .iter()
                .filter(|token: &&Token| token.allows(role) && token.scope.is_empty())
                .find_map(|token| token.secret.clone())
        };
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .build();
        Ok(Self {
            base: format!("http://{http}"),
            agent: config.new_agent(),
            read: token(Role::Read),
            publish: token(Role::Publish),
            operate: token(Role::Operate),
        })
    }

    async fn get<T: DeserializeOwned + Send + 'static>(
        &self,
        path: String,
        query: Vec<(&'static str, String)>,
    ) -> Result<T, AccessError> {
        let remote = self.clone();
        blocking(move || {
            let mut request = remote
                .agent
                .get(format!("{}{path}", remote.base))
                .header("accept", "application/json");
            if let Some(token) = &remote.read {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            for (name, value) in query {
                request = request.query(name, value);
            }
            answer(request.call())
        })
        .await
    }

    /// Asks for what needs the role `operate`.
    pub(super) async fn operate<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &'static str,
        request: &impl serde::Serialize,
    ) -> Result<T, AccessError> {
        let body = serde_json::to_vec(request).map_err(|error| AccessError::BadRequest(error.to_string()))?;
        let remote = self.clone();
        blocking(move || {
            let mut request = remote
                .agent
                .post(format!("{}{path}", remote.base))
                .header("content-type", "application/json");
            if let Some(token) = &remote.operate {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            answer(request.send(&body[..]))
        })
        .await
    }

    pub(super) async fn publish(&self, publications: Vec<Publication>) -> Vec<Result<Published, AccessError>> {
        let mut results = Vec::with_capacity(publications.len());
        for chunk in publications.chunks(EVENTS_MAX) {
            let values = chunk
                .iter()
                .map(|publication| publication.record.value.as_deref().unwrap_or_default());
            let mut body = b"[".to_vec();
            for (i, value) in values.enumerate() {
                if i > 0 {
                    body.push(b',');
                }
                body.extend_from_slice(value);
            }
            body.push(b']');
            let remote = self.clone();
            let sent: Result<Events<Published>, AccessError> = blocking(move || {
                let mut request = remote
                    .agent
                    .post(format!("{}/v1/events", remote.base))
                    .header("content-type", "application/cloudevents-batch+json");
                if let Some(token) = &remote.publish {
                    request = request.header("authorization", format!("Bearer {token}"));
                }
                answer(request.send(&body[..]))
            })
            .await;
            match sent {
                Ok(sent) => results.extend(sent.events.into_iter().map(Ok)),
                Err(error) => results.extend(chunk.iter().map(|_| Err(error.clone()))),
            }
        }
        results
    }

    /// Has a repair done: progress as it comes, then the report.
    pub(super) async fn follow<P, R>(
        &self,
        path: &'static str,
        request: &impl Serialize,
        told: &mut (dyn FnMut(P) + Send),
    ) -> Result<R, AccessError>
    where
        P: DeserializeOwned + Send + 'static,
        R: DeserializeOwned + Send + 'static,
    {
        let body = serde_json::to_vec(request).map_err(|error| AccessError::Failed(error.to_string()))?;
        let (progress, mut come) = mpsc::channel(LINES);
        let remote = self.clone();
        let mut work = JoinSet::new();
        work.spawn_blocking(move || remote.post_for_lines(path, &body, &progress));
        while let Some(now) = come.recv().await {
            told(now);
        }
        match work.join_next().await {
            Some(Ok(report)) => report,
            Some(Err(error)) => Err(AccessError::Failed(format!("the request ended: {error}"))),
            None => Err(AccessError::Failed("the request was never made".to_owned())),
        }
    }

    fn post_for_lines<P: DeserializeOwned, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &[u8],
        progress: &mpsc::Sender<P>,
    ) -> Result<R, AccessError> {
        let mut request = self
            .agent
            .post(format!("{}{path}", self.base))
            .config()
            .timeout_global(None)
            .build()
            .header("content-type", "application/json");
        if let Some(token) = &self.operate {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = request
            .send(body)
            .map_err(|error| AccessError::Unreachable(format!("the running server: {error}")))?;
        if !response.status().is_success() {
            return answer(Ok(response));
        }
        let broken = |error: &dyn std::fmt::Display| AccessError::Unreachable(format!("the running server: {error}"));
        let reader = response.body_mut().with_config().limit(u64::MAX).reader();
        for line in std::io::BufRead::lines(std::io::BufReader::new(reader)) {
            let line = line.map_err(|error| broken(&error))?;
            match serde_json::from_str(&line).map_err(|error| broken(&error))? {
                Line::Report(report) => return Ok(report),
                Line::Error(error) => return Err(error),
                Line::Progress(now) => _ = progress.blocking_send(now),
            }
        }
        Err(broken(&"the answer ended before its report"))
    }

    pub(super) async fn document(&self, entity: &Entity) -> Result<Value, AccessError> {
        self.get(path(entity, ""), Vec::new()).await
    }

    pub(super) async fn list(&self, request: &ListRequest) -> Result<Page, AccessError> {
        let mut query = vec![("limit", request.limit.to_string())];
        query.extend(request.status.clone().map(|status| ("status", status)));
        query.extend(request.since.map(|since| ("since", since.to_string())));
        query.extend(request.cursor.clone().map(|cursor| ("cursor", cursor)));
        self.get(format!("/v1/{}s", request.kind.name()), query).await
    }

    pub(super) async fn events(
        &self,
        entity: &Entity,
        after: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<StreamEvent>, AccessError> {
        let wait = format!("{}ms", wait.as_millis());
        let mut query = vec![("limit", limit.to_string()), ("wait", wait)];
        // From the start means from what is kept; behind a seq means exactly that.
        query.extend((after > 0).then(|| ("after", after.to_string())));
        let page: Events<StreamEvent> = self.get(path(entity, "/events"), query).await?;
        Ok(page.events)
    }

    pub(super) async fn status(&self) -> Result<StatusReport, AccessError> {
        self.get("/v1/status".to_owned(), Vec::new()).await
    }

    pub(super) async fn rollout(&self) -> Result<RolloutReport, AccessError> {
        self.get("/v1/rollout".to_owned(), Vec::new()).await
    }

    pub(super) async fn checkpoints(
        &self,
        partition: Option<u32>,
        limit: usize,
    ) -> Result<Vec<CheckpointRow>, AccessError> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(partition.map(|partition| ("partition", partition.to_string())));
        let rows: Checkpoints = self.get("/v1/checkpoints".to_owned(), query).await?;
        Ok(rows.checkpoints)
    }

    pub(super) async fn dead_letters(
        &self,
        reason: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, AccessError> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(reason.map(|reason| ("reason", reason.to_owned())));
        let letters: DeadLetters = self.get("/v1/dead-letters".to_owned(), query).await?;
        Ok(letters.dead_letters)
    }

    pub(super) async fn dead_letter(&self, partition: u32, offset: u64) -> Result<DeadLetter, AccessError> {
        self.get(format!("/v1/dead-letters/{partition}/{offset}"), Vec::new())
            .await
    }
}

fn path(entity: &Entity, rest: &str) -> String {
    let kinds = match entity.kind() {
        Kind::Run => "runs",
        Kind::Worker => "workers",
    };
    format!("/v1/{kinds}/{}{rest}", entity.id())
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, AccessError> + Send + 'static,
) -> Result<T, AccessError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => Err(AccessError::Failed(error.to_string())),
    }
}

fn answer<T: DeserializeOwned>(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T, AccessError> {
    let mut response = response.map_err(|error| AccessError::Unreachable(format!("the running server: {error}")))?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec();
    let body = body.map_err(|error| AccessError::Unreachable(format!("the running server: {error}")))?;
    if (200..300).contains(&status) {
        return serde_json::from_slice(&body)
            .map_err(|error| AccessError::Failed(format!("the running server's answer is not understood: {error}")));
    }
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = said["error"]["message"].as_str().unwrap_or("no message").to_owned();
    Err(match status {
        404 => AccessError::NotFound(message),
        409 => AccessError::Refused(message),
        503 if said["error"]["code"] == DISK_FULL => AccessError::Full(message),
        503 | 504 => AccessError::Unreachable(message),
        400 | 413 | 415 => AccessError::BadRequest(message),
        401 | 403 => AccessError::BadRequest(format!("{message}; set token_file as the server has it")),
        _ => AccessError::Failed(format!("the running server answered {status}: {message}")),
    })
}

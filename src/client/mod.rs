//! A client for Rust programs: publish, read, follow. In: the address of a `khala serve`. Out: places, documents, events.
//! Blocking: where there is a runtime, call it from `spawn_blocking`. Invariant: what a call returned as published is in
//! the log for good; a followed entity gives each event once and in order, across reconnects.
//!
//! ```no_run
//! # fn main() -> Result<(), khala::client::ClientError> {
//! use khala::client::{Client, Entity};
//!
//! let khala = Client::new("http://localhost:7600").with_token("s3cret");
//! khala.publish(&[serde_json::json!({
//!     "specversion": "1.0", "id": "1", "source": "me", "type": "run.started", "subject": "run/run_1", "sequence": 1,
//! })])?;
//! for received in khala.follow(Entity::Run("run_1"), 0) {
//!     let received = received?;
//!     println!("{} {}", received.seq, received.event["type"]);
//! }
//! # Ok(())
//! # }
//! ```

mod follow;

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

pub use self::follow::{Follow, Received};

/// How long an answer may take beyond what was asked for.
const PATIENCE: Duration = Duration::from_secs(30);
const BATCH: &str = "application/cloudevents-batch+json";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Entity<'a> {
    /// A run by its id.
    Run(&'a str),
    /// A worker by its id.
    Worker(&'a str),
}

/// Where an event is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Published {
    /// The event's id.
    pub id: String,
    /// The partition of its subject.
    pub partition: u32,
    /// Its offset there: a reader that must see it asks for a document with it ([`Client::document_at`]).
    pub offset: u64,
    /// Its place in its entity's events, where the answer waited for the projection.
    #[serde(default)]
    pub seq: Option<u64>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refuses: the same call will be refused again, unless `status` is 503 or 504.
    #[error("{status} {code}: {message}")]
    Refused {
        /// Of the answer.
        status: u16,
        /// What is wrong, one word: a reason of the contract, `out_of_scope`, `retention_floor_breach` …
        code: String,
        /// The same for people.
        message: String,
        /// More about it; null if there is none.
        detail: Value,
    },
    /// No answer. Events may be published all the same: send them again, with the same ids and sequences.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// An answer that is none of Khala's.
    #[error("not an answer of khala: {0}")]
    Strange(String),
}

impl ClientError {
    /// Whether the same call may well succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { status, .. } => matches!(status, 429 | 502..=504),
            Self::Strange(_) => false,
        }
    }
}

/// A server, as seen by one token.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
}

impl Client {
    /// The server at `http://host:port`.
    pub fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Self {
            agent: config.timeout_connect(Some(PATIENCE)).build().into(),
            url: url.trim_end_matches('/').to_owned(),
            authorization: None,
        }
    }

    /// The same with a token.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.authorization = Some(format!("Bearer {token}"));
        self
    }

    /// Publishes events, all or none that is illegal; returns when the log has all of them for good.
    ///
    /// # Errors
    /// `Refused` with 400: nothing was written. `Unreachable`, 503: some may be written; send all of them again.
    pub fn publish(&self, events: &[Value]) -> Result<Vec<Published>, ClientError> {
        self.post("/v1/events", events, PATIENCE)
    }

    /// As [`Self::publish`], and waits until the documents have them. After `patience` the events are published all the
    /// same, and have no `seq`.
    pub fn publish_and_wait(&self, events: &[Value], patience: Duration) -> Result<Vec<Published>, ClientError> {
        let path = format!("/v1/events?wait=projected&timeout={}ms", patience.as_millis());
        self.post(&path, events, patience + PATIENCE)
    }

    /// The document of an entity, if it has one.
    pub fn document(&self, entity: Entity<'_>) -> Result<Option<Value>, ClientError> {
        found(self.get(&entity.path(), PATIENCE))
    }

    /// The document once it covers `offset` of its partition; 504 if that takes longer than `patience`.
    pub fn document_at(
        &self,
        entity: Entity<'_>,
        offset: u64,
        patience: Duration,
    ) -> Result<Option<Value>, ClientError> {
        let millis = patience.as_millis();
        let path = format!("{}?min_offset={offset}&timeout={millis}ms", entity.path());
        found(self.get(&path, patience + PATIENCE))
    }

    /// The events of an entity behind `after` (0: from the first), as they come, until its last one.
    pub fn follow(&self, entity: Entity<'_>, after: u64) -> Follow {
        Follow::new(self.clone(), format!("{}/events", entity.path()), after)
    }

    fn post(&self, path: &str, events: &[Value], patience: Duration) -> Result<Vec<Published>, ClientError> {
        #[derive(Deserialize)]
        struct Answer {
            events: Vec<Published>,
        }
        let body = serde_json::to_vec(events).map_err(|error| ClientError::Strange(error.to_string()))?;
        let mut request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("content-type", BATCH);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let sent = request.config().timeout_global(Some(patience)).build().send(&body[..]);
        let answer: Answer =
            serde_json::from_value(json(sent)?).map_err(|error| ClientError::Strange(error.to_string()))?;
        Ok(answer.events)
    }

    fn get(&self, path: &str, patience: Duration) -> Result<Value, ClientError> {
        let request = self.request(path, "application/json");
        json(request.config().timeout_global(Some(patience)).build().call())
    }

    fn request(&self, path: &str, accept: &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        let request = self.agent.get(format!("{}{path}", self.url)).header("accept", accept);
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }
}

impl Entity<'_> {
    fn path(self) -> String {
        match self {
            Self::Run(id) => format!("/v1/runs/{id}"),
            Self::Worker(id) => format!("/v1/workers/{id}"),
        }
    }
}

type Sent = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

/// An answer that is none of the errors.
fn answered(sent: Sent) -> Result<ureq::http::Response<ureq::Body>, ClientError> {
    let mut answer = sent.map_err(|error| ClientError::Unreachable(error.to_string()))?;
    let status = answer.status().as_u16();
    if status < 400 {
        return Ok(answer);
    }
    let body: Value = answer.body_mut().read_json().unwrap_or_default();
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    Err(ClientError::Refused {
        status,
        code: text("code"),
        message: text("message"),
        detail: body["error"]["detail"].clone(),
    })
}

fn json(sent: Sent) -> Result<Value, ClientError> {
    let read = answered(sent)?.body_mut().with_config().limit(u64::MAX).read_json();
    read.map_err(|error| ClientError::Strange(error.to_string()))
}

fn found(answer: Result<Value, ClientError>) -> Result<Option<Value>, ClientError> {
    match answer {
        Err(ClientError::Refused { status: 404, .. }) => Ok(None),
        other => other.map(Some),
    }
}

//! `GET /v1/stream`: documents as they change, over all runs and workers; what dashboards follow.
//! In: `kind`, `status`. Out: `event: document` for each, `event: reset` when some were passed over, or readers are led
//! to another namespace (list anew). Invariant: a listener that is too slow is told so, and holds nobody up; behind a
//! reset nothing comes that was read by the route before it.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tracing::debug;

use super::App;
use super::auth::Caller;
use super::error::HttpError;
use super::extract::Params;
use super::feeds::{Changes, Listening};
use super::reads::check_status;
use super::streams::{HEARTBEAT, HEARTBEAT_EVERY, OPENING, event_stream, write_frame};
use crate::access::with_heartbeat_state;
use crate::projector::now_ms;
use crate::pure::entity::{Entity, Kind};

/// How long a listener waits for log and store at its beginning.
const BEGIN_PATIENCE: Duration = Duration::from_secs(1);
/// The pause between two pieces: a document that changes all the time is not sent each time.
const PIECE_EVERY: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    kind: Option<String>,
    status: Option<String>,
}

struct Stream {
    app: App,
    caller: Caller,
    kind: Option<Kind>,
    status: Option<String>,
    listening: Listening,
}

pub(super) async fn follow(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<ChangesQuery>,
) -> Result<Response, HttpError> {
    let kind = match query.kind.as_deref() {
        None => None,
        Some("run") => Some(Kind::Run),
        Some("worker") => Some(Kind::Worker),
        Some(other) => {
            let message = format!("kind {other:?}: must be run or worker");
            return Err(HttpError::bad_request("bad_query", message));
        }
    };
    if let Some(status) = &query.status {
        let legal = Kind::ALL.into_iter().filter(|one| kind.is_none_or(|kind| kind == *one));
        let mut refused = legal.filter_map(|kind| check_status(kind, status).err());
        let all = if kind.is_some() { 1 } else { 2 };
        if let Some(error) = refused.by_ref().nth(all - 1) {
            return Err(error);
        }
    }
    let led = app.access.led().await?;
    let begun = tokio::time::timeout(BEGIN_PATIENCE, app.feeds.begin(&app.access, &led)).await;
    if !matches!(begun, Ok(Ok(()))) {
        debug!(?begun, "a listener begins without log or store");
    }
    let stream = Stream {
        listening: app.feeds.listen(&led),
        app,
        caller,
        kind,
        status: query.status,
    };
    let mut opening = OPENING.as_bytes().to_vec();
    write_frame(None, "ready", b"{}", &mut opening);
    Ok(event_stream(opening, stream, Stream::next))
}

impl Stream {
    async fn next(mut self) -> Option<(Vec<u8>, Self)> {
        let stop = self.app.stop.clone();
        let changes = &mut self.listening.changes;
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            first = tokio::time::timeout(HEARTBEAT_EVERY, changes.recv()) => first,
        };
        let mut piece = Vec::new();
        let (mut batches, mut missed) = (Vec::new(), false);
        match first {
            Err(_) => return Some((HEARTBEAT.as_bytes().to_vec(), self)),
            Ok(Ok(changes)) => batches.push(changes),
            Ok(Err(RecvError::Lagged(_))) => missed = true,
            Ok(Err(RecvError::Closed)) => return None,
        }
        tokio::time::sleep(PIECE_EVERY).await;
        loop {
            match changes.try_recv() {
                Ok(changes) => batches.push(changes),
                Err(TryRecvError::Lagged(_)) => missed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        missed |= batches.iter().any(|changes| changes.more);
        self.write(&batches, &mut piece);
        if missed {
            write_frame(None, "reset", b"{}", &mut piece);
        }
        Some((piece, self))
    }

    /// Each changed document once, as it is by now.
    fn write(&self, batches: &[std::sync::Arc<Changes>], piece: &mut Vec<u8>) {
        let mut written: std::collections::HashSet<&Entity> = std::collections::HashSet::new();
        let newest_first = batches.iter().rev().flat_map(|changes| &changes.documents);
        for (entity, json) in newest_first {
            let wanted = self.kind.is_none_or(|kind| kind == entity.kind()) && self.caller.sees(entity);
            if !wanted || !written.insert(entity) {
                continue;
            }
            let Ok(document) = serde_json::from_slice::<Value>(json) else {
                continue;
            };
            if self
                .status
                .as_ref()
                .is_some_and(|status| document["status"] != status.as_str())
            {
                continue;
            }
            let document = with_heartbeat_state(document, now_ms());
            write_frame(None, "document", document.to_string().as_bytes(), piece);
        }
    }
}

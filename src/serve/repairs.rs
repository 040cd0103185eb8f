//! `POST /v1/replays` and `/v1/audits`: what the commands do. The answer is JSON lines: progress, then the report or
//! an error; of one entity's replay it is the report alone.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::App;
use super::error::HttpError;
use super::extract::{Sent, typed};
use crate::access::{Access, AccessError, AuditOrder, EntityOrder, ReplayProgress, ReplayRequest};
use crate::repair::{AuditProgress, From};

/// Lines that may wait for a slow reader; what is more is passed over.
const LINES: usize = 64;

/// One entity if the body names one, else back to a mark.
pub(super) async fn replay(
    State(app): State<App>,
    Sent(body): Sent<Map<String, Value>>,
) -> Result<Response, HttpError> {
    if body.contains_key("entity") {
        let order: EntityOrder = typed(body)?;
        return Ok(Json(app.access.replay_entity(&order).await?).into_response());
    }
    let request: ReplayRequest = typed(body)?;
    let from: Result<From, String> = request.from.parse();
    from.map_err(|problem| HttpError::bad_request("bad_request", problem))?;
    ensure_there(&app.access, request.partition).await?;
    let access = app.access.clone();
    if request.dry_run {
        return Ok(lines(async move |sender: mpsc::Sender<Bytes>| {
            let progress = sender.clone();
            let watch = move |now: AuditProgress| _ = progress.try_send(line(&now));
            let forecast = access.forecast(&request, &watch).await;
            let _ = sender.send(last_line(forecast)).await;
        }));
    }
    Ok(lines(async move |sender: mpsc::Sender<Bytes>| {
        let progress = sender.clone();
        let mut told = move |now: ReplayProgress| _ = progress.try_send(line(&now));
        let report = access.replay(&request, &mut told).await;
        let _ = sender.send(last_line(report)).await;
    }))
}

pub(super) async fn audit(State(app): State<App>, Sent(order): Sent<AuditOrder>) -> Result<Response, HttpError> {
    order.check()?;
    ensure_there(&app.access, order.partition).await?;
    let access = app.access.clone();
    Ok(lines(async move |sender: mpsc::Sender<Bytes>| {
        let progress = sender.clone();
        let watch = move |now: AuditProgress| _ = progress.try_send(line(&now));
        let report = access.audit(&order, &watch).await;
        let _ = sender.send(last_line(report)).await;
    }))
}

/// Refuses a partition that is none, while the answer's status can still tell it. Whether log and store answer is the
/// work's to say: one that fails for it counts.
async fn ensure_there(access: &Access, partition: Option<u32>) -> Result<(), HttpError> {
    match access.chosen(partition).await {
        Err(error @ AccessError::BadRequest(_)) => Err(error.into()),
        _ => Ok(()),
    }
}

/// An answer whose lines come as the work goes on. The work ends with its reader; whoever projects next finishes what
/// is half done.
pub(super) fn lines<W>(work: impl FnOnce(mpsc::Sender<Bytes>) -> W) -> Response
where
    W: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(LINES);
    let mut task = JoinSet::new();
    task.spawn(work(sender));
    let body = stream::unfold((receiver, task), |(mut receiver, task)| async {
        let line = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), (receiver, task)))
    });
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (content_type, Body::from_stream(body)).into_response()
}

pub(super) fn line(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

pub(super) fn last_line<T: Serialize>(report: Result<T, AccessError>) -> Bytes {
    match report {
        Ok(report) => line(&json!({"report": report})),
        Err(error) => line(&HttpError::from(error).body()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_line_is_an_error_like_any_and_the_commands_read_it() {
        for (error, code) in [
            (AccessError::Refused("a \"word\"".to_owned()), "refused"),
            (AccessError::Full("no room".to_owned()), "disk_full"),
        ] {
            let said: Value = serde_json::from_slice(&last_line::<()>(Err(error.clone()))).expect("JSON");
            let message = error.to_string();
            let expected = json!({"error": {"code": code, "message": message, "detail": null}});
            assert_eq!(said, expected);
            let read: AccessError = serde_json::from_value(said["error"].clone()).expect("an error");
            assert_eq!(format!("{read:?}"), format!("{error:?}"));
        }
    }
}

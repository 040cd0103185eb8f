//! `GET /v1/runs/{id}/events`: an entity's events as `text/event-stream`, or a page of them as JSON.
//! In: where to begin (`after`, `Last-Event-ID`, or the first that is kept). Out: each event once, in order, then
//! `[DONE]` when the entity ended. A reader that is too slow holds nobody up: it is behind, until its connection is
//! given up, and resumes by the last id it has. So does one whose stream ends because readers are led to another
//! namespace: all of one answer is from one.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, extract};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::debug;

use super::App;
use super::auth::Caller;
use super::error::HttpError;
use super::extract::{At, Params};
use super::feeds::Entry;
use super::reader::{Begin, News, Reader};
use super::reads::{LIMIT_DEFAULT, entity, page_limit, wait};
use crate::access::{AccessError, StreamEvent};
use crate::pure::entity::Kind;

/// How often a quiet stream shows that it lives.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// The pause while the store is away.
const AWAY_PAUSE: Duration = Duration::from_secs(1);
/// Events of one piece of a stream.
const PIECE: usize = 200;
/// Bytes that a piece is meant to have: what a slow reader holds in memory.
const PIECE_BYTES: usize = 256 << 10;
/// Events of the first piece, when nobody knows how large they are.
const PIECE_FIRST: usize = 16;
pub(super) const OPENING: &str = "retry: 1000\n\n";
pub(super) const HEARTBEAT: &str = ":\n\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    after: Option<u64>,
    limit: Option<usize>,
    wait: Option<String>,
}

pub(super) async fn run(
    app: State<App>,
    caller: Extension<Caller>,
    id: At<String>,
    query: Params<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    events(app, caller, Kind::Run, id, query, headers).await
}

pub(super) async fn worker(
    app: State<App>,
    caller: Extension<Caller>,
    id: At<String>,
    query: Params<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    events(app, caller, Kind::Worker, id, query, headers).await
}

async fn events(
    State(app): State<App>,
    extract::Extension(caller): Extension<Caller>,
    kind: Kind,
    At(id): At<String>,
    Params(query): Params<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let entity = entity(kind, &id)?;
    caller.may(entity.subject())?;
    if app.access.settings.events_kept == 0 {
        let message = "events_kept is 0: no events are kept to read";
        return Err(HttpError::new(StatusCode::NOT_FOUND, "no_streams", message));
    }
    let begin = begin(&query, &headers)?;
    let patience = query
        .wait
        .as_deref()
        .map_or(Ok(Duration::ZERO), |text| wait(Some(text)))?;
    let as_page = wants_page(&headers);
    let limit = page_limit(query.limit)?.unwrap_or(if as_page { LIMIT_DEFAULT } else { PIECE_FIRST });
    let mut reader = Reader::open(&app, &entity, begin).await?;
    let entries = first(&mut reader, limit, patience).await?;
    let floor = entries.first().map(|(seq, _)| *seq);
    let mut answer = if as_page {
        page(&entries, reader.cursor)?
    } else {
        stream(&app, reader, &entries)
    };
    if let Some(floor) = floor {
        answer.headers_mut().insert("khala-first-seq", HeaderValue::from(floor));
    }
    Ok(answer)
}

/// What a reader gets first: none if it has all there is.
async fn first(reader: &mut Reader, limit: usize, patience: Duration) -> Result<Vec<Entry>, HttpError> {
    let mut news = reader.next(limit, patience).await?;
    let mut latest = 0;
    if let News::Quiet | News::Breach { .. } = news {
        latest = latest_seq(&reader.document().await?);
        if latest > reader.cursor {
            // What came between the two looks is no hole.
            reader.look_again();
            news = reader.next(limit, Duration::ZERO).await?;
        }
    }
    match news {
        News::Entries(entries) => Ok(entries),
        News::Breach { floor } => Err(breach(reader, floor, latest)),
        News::Quiet if latest > reader.cursor => Err(breach(reader, latest + 1, latest)),
        News::Quiet | News::LedElsewhere => Ok(Vec::new()),
    }
}

fn latest_seq(document: &serde_json::Value) -> u64 {
    document["latest_seq"].as_u64().unwrap_or(0)
}

fn wants_page(headers: &HeaderMap) -> bool {
    accepts(headers, "application/json") && !accepts(headers, "text/event-stream")
}

/// Whether a media type is asked for by its name. A weight of 0 says that it is not wanted (RFC 9110 §12.4.2).
fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    let mut ranges = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    ranges.any(|range| {
        let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
        let is_unwanted = parameters.split(';').any(|parameter| {
            let weight = parameter
                .trim()
                .strip_prefix(['q', 'Q'])
                .and_then(|rest| rest.strip_prefix('='));
            weight.is_some_and(|weight| weight.parse().is_ok_and(|weight: f32| weight <= 0.0))
        });
        name.trim().eq_ignore_ascii_case(wanted) && !is_unwanted
    })
}

fn begin(query: &EventsQuery, headers: &HeaderMap) -> Result<Begin, HttpError> {
    let Some(last) = headers.get("last-event-id") else {
        return Ok(query.after.map_or(Begin::Kept, Begin::After));
    };
    // A browser that reconnects repeats the URL: what it has seen since counts.
    let last = last.to_str().ok().and_then(|text| text.trim().parse().ok());
    let must = "Last-Event-ID must be a seq: the `id` of the last event seen";
    last.map(Begin::After)
        .ok_or_else(|| HttpError::bad_request("bad_cursor", must))
}

/// What was asked for is not kept any more: the document has it all the same, folded.
fn breach(reader: &Reader, floor: u64, latest: u64) -> HttpError {
    let (entity, after) = (&reader.entity, reader.cursor);
    let document = format!("/v1/{}s/{}", entity.kind().name(), entity.id());
    let message = format!(
        "events of {entity} behind seq {after} are not kept: the first one is {floor}. Load {document}, go on after its \
         latest_seq ({latest})"
    );
    HttpError::new(StatusCode::CONFLICT, "retention_floor_breach", message)
        .with("floor", floor.into())
        .with("plan", json!({"document": document, "after": latest}))
        .with_detail(json!({"after": after, "floor": floor, "latest_seq": latest}))
}

#[derive(Serialize)]
struct Page {
    events: Vec<StreamEvent>,
    next_after: u64,
}

fn page(entries: &[Entry], next_after: u64) -> Result<Response, HttpError> {
    let event = |(seq, json): &Entry| StreamEvent::new(*seq, json.to_vec());
    let events = entries.iter().map(event).collect::<Result<_, _>>()?;
    Ok(Json(Page { events, next_after }).into_response())
}

/// A stream on its way.
struct Stream {
    app: App,
    reader: Reader,
    state: Phase,
    /// Events of the next piece.
    piece: usize,
}

#[derive(PartialEq, Eq)]
enum Phase {
    On,
    /// A terminal event was seen, or nothing at all: whether it is over, the document tells.
    PerhapsOver,
    Over,
}

fn stream(app: &App, reader: Reader, first: &[Entry]) -> Response {
    let mut opening = OPENING.as_bytes().to_vec();
    write_entries(first, &mut opening);
    let stream = Stream {
        app: app.clone(),
        reader,
        state: Phase::PerhapsOver,
        piece: fitting(first),
    };
    event_stream(opening, stream, Stream::next)
}

/// A body that gives `opening`, then whatever `next` makes, until it makes nothing.
pub(super) fn event_stream<S, F>(opening: Vec<u8>, state: S, next: impl Fn(S) -> F + Send + Clone + 'static) -> Response
where
    S: Send + 'static,
    F: Future<Output = Option<(Vec<u8>, S)>> + Send + 'static,
{
    use futures_util::StreamExt;
    let opening = futures_util::stream::once(async move { opening });
    let rest = futures_util::stream::unfold(state, next);
    let pieces = opening.chain(rest).map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that buffer would keep events back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

impl Stream {
    /// The next piece of the stream.
    async fn next(mut self) -> Option<(Vec<u8>, Self)> {
        let stop = self.app.stop.clone();
        loop {
            let patience = match self.state {
                Phase::On => HEARTBEAT_EVERY,
                Phase::PerhapsOver => Duration::ZERO,
                Phase::Over => return None,
            };
            let news = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                news = self.reader.next(self.piece, patience) => news,
            };
            let mut piece = Vec::new();
            match news {
                Ok(News::Entries(entries)) => {
                    self.piece = fitting(&entries);
                    if write_entries(&entries, &mut piece) == Last::Terminal {
                        self.state = Phase::PerhapsOver;
                    }
                }
                Ok(News::Quiet) if self.state == Phase::PerhapsOver => match self.reader.document().await {
                    Ok(document) if self.reader.is_over(&document) => {
                        piece.extend_from_slice(b"data: [DONE]\n\n");
                        self.state = Phase::Over;
                    }
                    Ok(_) | Err(AccessError::NotFound(_)) => {
                        self.state = Phase::On;
                        continue;
                    }
                    Err(error) => self.away(&error, &mut piece).await,
                },
                Ok(News::Quiet) => piece.extend_from_slice(HEARTBEAT.as_bytes()),
                Ok(News::LedElsewhere) => return None,
                Ok(News::Breach { floor }) => {
                    let latest = self
                        .reader
                        .document()
                        .await
                        .map_or(floor, |document| latest_seq(&document));
                    let error = breach(&self.reader, floor, latest).body();
                    write_frame(None, "error", error.to_string().as_bytes(), &mut piece);
                    self.state = Phase::Over;
                }
                Err(error) => self.away(&error, &mut piece).await,
            }
            return Some((piece, self));
        }
    }

    /// A stream outlives an outage of the store.
    async fn away(&self, error: &AccessError, piece: &mut Vec<u8>) {
        debug!(%error, entity = %self.reader.entity, "a stream waits");
        piece.extend_from_slice(HEARTBEAT.as_bytes());
        tokio::select! {
            () = self.app.stop.cancelled() => {}
            () = tokio::time::sleep(AWAY_PAUSE) => {}
        }
    }
}

/// How many events like these make a piece.
fn fitting(entries: &[Entry]) -> usize {
    let bytes: usize = entries.iter().map(|(_, json)| json.len()).sum();
    let each = bytes.checked_div(entries.len()).unwrap_or(PIECE_BYTES / PIECE_FIRST);
    (PIECE_BYTES / each.max(1)).clamp(1, PIECE)
}

/// Whether an entity's life may have ended with what was written.
#[derive(PartialEq, Eq)]
enum Last {
    Terminal,
    Other,
}

fn write_entries(entries: &[Entry], out: &mut Vec<u8>) -> Last {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        name: std::borrow::Cow<'a, str>,
    }
    let mut last = Last::Other;
    for (seq, json) in entries {
        write_frame(Some(*seq), "message", json, out);
        let typed: Option<Typed<'_>> = serde_json::from_slice(json).ok();
        if typed.is_some_and(|typed| matches!(&*typed.name, "run.finished" | "worker.stopped" | "worker.error")) {
            last = Last::Terminal;
        }
    }
    last
}

/// One frame of a stream. Line ends in JSON are white space, and would end the line of a frame.
pub(super) fn write_frame(id: Option<u64>, event: &str, json: &[u8], out: &mut Vec<u8>) {
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    out.extend_from_slice(format!("event: {event}\ndata: ").as_bytes());
    out.extend(
        json.iter()
            .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }),
    );
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_line_of_data_whatever_white_space_the_event_has() {
        let mut out = Vec::new();
        write_frame(Some(7), "message", b"{\"a\":\r\n 1}", &mut out);
        assert_eq!(out, b"id: 7\nevent: message\ndata: {\"a\":   1}\n\n");
    }

    #[test]
    fn a_piece_of_large_events_has_few_of_them() {
        let entries = |bytes: usize| -> Vec<Entry> { vec![(1, vec![b'x'; bytes].into()); 3] };
        assert_eq!(fitting(&entries(1 << 20)), 1);
        assert_eq!(fitting(&entries(32 << 10)), 8);
        assert_eq!((fitting(&entries(10)), fitting(&[])), (PIECE, PIECE_FIRST));
    }

    #[test]
    fn json_is_for_those_who_ask_for_nothing_else() {
        let wants = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            wants_page(&headers)
        };
        assert!(wants("application/json") && !wants("text/event-stream") && !wants("*/*"));
        assert!(!wants("text/event-stream, application/json") && !wants_page(&HeaderMap::new()));
        assert!(wants("Application/JSON") && !wants("application/json, Text/Event-Stream"));
        assert!(!wants("application/json;q=0") && !wants("application/json; Q=0.000") && !wants("application/jsonx"));
        assert!(wants("application/json; charset=utf-8; q=0.5, text/event-stream;q=0"));
    }
}

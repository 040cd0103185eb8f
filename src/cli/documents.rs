//! `khala get` and `khala list`.

use serde_json::Value;

use super::Context;
use super::args::{EntityKind, ListArgs};
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::access::ListRequest;
use crate::config::read_span;
use crate::projector::now_ms;
use crate::pure::entity::{Entity, Kind};
use crate::pure::run::RunStatus;
use crate::pure::time::Time;
use crate::pure::worker::WorkerStatus;

/// Documents asked for at once.
const PAGE: usize = 1000;

/// The entity of two words of the command line.
pub(super) fn entity(kind: EntityKind, id: &str) -> Result<Entity, Failure> {
    let must = "an id is 1–128 of A–Z a–z 0–9 . _ : -";
    Entity::new(kind.into(), id).ok_or_else(|| Failure::usage(format!("{id:?} is no id: {must}")))
}

pub(super) async fn get(kind: EntityKind, id: &str, context: &Context) -> Result<Exit, Failure> {
    let entity = entity(kind, id)?;
    let document = Door::open_existing(context)?.document(&entity).await?;
    if context.out.json {
        context.out.value(&document);
    } else {
        context
            .out
            .line(serde_json::to_string_pretty(&document).unwrap_or_default());
    }
    Ok(Exit::Done)
}

pub(super) async fn list(args: &ListArgs, context: &Context) -> Result<Exit, Failure> {
    let kind = Kind::from(args.what);
    let since = args.since.as_deref().map(since).transpose()?;
    if let Some(status) = args.status.as_deref() {
        check_status(kind, status)?;
    }
    let door = Door::open_existing(context)?;
    let (mut left, mut cursor, mut found) = (args.limit, None, Vec::new());
    while left > 0 {
        let status = args.status.clone();
        let request = ListRequest {
            kind,
            status,
            since,
            limit: left.min(PAGE),
            cursor,
            scope: Vec::new(),
        };
        let page = door.list(&request).await?;
        left -= page.documents.len().min(left);
        if context.out.json {
            page.documents.iter().for_each(|document| context.out.value(document));
        } else {
            found.extend(page.documents);
        }
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    if !context.out.json {
        print(kind, &found, context);
    }
    Ok(Exit::Done)
}

fn print(kind: Kind, documents: &[Value], context: &Context) {
    let text = |document: &Value, name: &str| match &document[name] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let (headings, names): (&[&str], &[&str]) = match kind {
        Kind::Run => (
            &["run", "status", "events", "missing", "late", "last event", "updated"],
            &[
                "run_id",
                "status",
                "event_count",
                "missing_events",
                "late_event_count",
                "latest_event_type",
                "updated_at",
            ],
        ),
        Kind::Worker => (
            &[
                "worker",
                "status",
                "heartbeat",
                "events",
                "errors",
                "restarts",
                "last event",
                "updated",
            ],
            &[
                "worker_id",
                "status",
                "heartbeat_state",
                "event_count",
                "error_count",
                "restart_count",
                "latest_event_type",
                "updated_at",
            ],
        ),
    };
    let row = |document: &Value| names.iter().map(|name| text(document, name)).collect();
    context
        .out
        .table(headings, &documents.iter().map(row).collect::<Vec<_>>());
}

fn since(text: &str) -> Result<Time, Failure> {
    if let Some(time) = Time::parse(text) {
        return Ok(time);
    }
    let span = read_span(text)
        .ok()
        .and_then(|span| Time::from_ms(now_ms().saturating_sub(span.as_millis() as i64)));
    span.ok_or_else(|| Failure::usage(format!("--since {text:?}: must be RFC 3339, or a span as in `10m`")))
}

fn check_status(kind: Kind, status: &str) -> Result<(), Failure> {
    let legal: Vec<&str> = match kind {
        Kind::Run => RunStatus::ALL.iter().map(|status| status.name()).collect(),
        Kind::Worker => WorkerStatus::ALL.iter().map(|status| status.name()).collect(),
    };
    if legal.contains(&status) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--status {status:?}: a {} is one of {}",
        kind.name(),
        legal.join(", ")
    )))
}

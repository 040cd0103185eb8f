//! `khala tail`: an entity's events as they come.

use std::time::Duration;

use serde_json::Value;

use super::Context;
use super::args::EntityKind;
use super::documents::entity;
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::access::StreamEvent;

const WAIT: Duration = Duration::from_secs(10);
const PAGE: usize = 500;

pub(super) async fn run(kind: EntityKind, id: &str, after: u64, context: &Context) -> Result<Exit, Failure> {
    let entity = entity(kind, id)?;
    if context.settings.events_kept == 0 {
        return Err(Failure::usage("events_kept is 0: no events are kept to follow"));
    }
    let door = Door::open_existing(context)?;
    let mut after = after;
    // An entity that ended before `after` has nothing more to say.
    let mut ended = is_over(&door.document(&entity).await?, after);
    loop {
        let wait = if ended { Duration::ZERO } else { WAIT };
        let events = door.events(&entity, after, PAGE, wait).await?;
        for event in &events {
            if after > 0 && event.seq > after + 1 {
                context
                    .out
                    .note(format!("seq {} to {} are not kept any more", after + 1, event.seq - 1));
            }
            after = event.seq;
            print(event, context);
        }
        ended |= events.iter().any(is_terminal);
        if events.is_empty() && (ended || is_over(&door.document(&entity).await?, after)) {
            return Ok(Exit::Done);
        }
    }
}

fn is_terminal(event: &StreamEvent) -> bool {
    matches!(event.text("type").as_deref(), Some("run.finished" | "worker.stopped"))
}

/// Whether the entity ended, and all its events up to `after` were shown.
fn is_over(document: &Value, after: u64) -> bool {
    let status = document["status"].as_str().unwrap_or_default();
    let terminal = matches!(status, "succeeded" | "failed" | "canceled" | "stopped");
    terminal && document["latest_seq"].as_u64().is_some_and(|latest| latest <= after)
}

fn print(event: &StreamEvent, context: &Context) {
    if context.out.json {
        return context.out.value(event);
    }
    let text = |name: &str| event.text(name).unwrap_or_else(|| "-".to_owned());
    let data = event.member("data").unwrap_or_default();
    context.out.line(format!(
        "{:>6}  {}  {}  {}  {data}",
        event.seq,
        text("time"),
        text("type"),
        text("source")
    ));
}

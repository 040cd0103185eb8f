//! The shape of streams: who reads sees each event once, in order, to the end.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::exit::Failure;
use super::events::{delta, event, finished};
use super::failed;
use super::report::Check;
use super::system::System;

const READERS: usize = 8;
const READ: u64 = 6;
/// Between two events of the slow producer.
const DELAY: Duration = Duration::from_millis(100);
const FRAMES: u64 = 30;
const CANCELLED: u64 = 10;
const CANCELS: u64 = 3;
/// Events of the lost executor, and of the one after it.
const BEFORE: u64 = 5;
const AFTER: u64 = 5;

pub(super) async fn readers(system: &System) -> Result<Vec<Check>, Failure> {
    let (subject, source) = ("run/gate_readers", "gate/slow");
    system
        .calls
        .publish_and_see(vec![event(subject, source, 1, "run.started", &json!({}))])
        .await?;
    let mut reading = JoinSet::new();
    for _ in 0..READERS {
        let calls = system.calls.clone();
        reading.spawn(async move { calls.follow(subject, 0, usize::MAX).await });
    }
    for sequence in 2..=READ {
        tokio::time::sleep(DELAY).await;
        let next = match sequence {
            READ => finished(subject, source, READ, "succeeded"),
            _ => delta(subject, source, sequence),
        };
        system.calls.publish(vec![next]).await?;
    }
    let wanted: Vec<u64> = (1..=READ).collect();
    let mut right = 0;
    while let Some(read) = reading.join_next().await {
        // A stream that ends otherwise than with `[DONE]` is opened again, and fails in the end.
        let seqs: Vec<u64> = read.map_err(failed)??.iter().map(|received| received.seq).collect();
        right += usize::from(seqs == wanted);
    }
    Ok(vec![Check::equal("readers that saw 1 to 6 and [DONE]", right, READERS)])
}

pub(super) async fn frames(system: &System) -> Result<Vec<Check>, Failure> {
    let subject = "run/gate_frames";
    let mut writing = JoinSet::new();
    for i in 1..=FRAMES {
        let calls = system.calls.clone();
        let frame = delta(subject, &format!("gate/frame_{i}"), 1);
        writing.spawn(async move { calls.publish_and_see(vec![frame]).await });
    }
    let mut seqs = Vec::new();
    while let Some(written) = writing.join_next().await {
        seqs.extend(written.map_err(failed)??.iter().filter_map(|place| place.seq));
    }
    seqs.sort_unstable();
    let streamed = system.calls.follow(subject, 0, FRAMES as usize).await?;
    let streamed: Vec<u64> = streamed.iter().map(|received| received.seq).collect();
    let wanted: Vec<u64> = (1..=FRAMES).collect();
    Ok(vec![
        Check::is("the producers were told 1 to 30, each once", seqs == wanted),
        Check::is("a reader sees 1 to 30 in order", streamed == wanted),
    ])
}

pub(super) async fn cancels(system: &System) -> Result<Vec<Check>, Failure> {
    let mut writing = JoinSet::new();
    for run in 0..CANCELLED {
        let subject = format!("run/gate_cancels_{run}");
        let started = event(&subject, "gate/owner", 1, "run.started", &json!({}));
        system.calls.publish(vec![started]).await?;
        for canceller in 0..CANCELS {
            let (calls, source) = (system.calls.clone(), format!("gate/canceller_{canceller}"));
            let events = vec![
                event(&subject, &source, 1, "run.cancel_requested", &json!({})),
                finished(&subject, &source, 2, "canceled"),
            ];
            writing.spawn(async move { calls.publish_and_see(events).await });
        }
    }
    while let Some(written) = writing.join_next().await {
        written.map_err(failed)??;
    }
    let (mut canceled, mut terminals, mut counted) = (0, 0, 0);
    for run in 0..CANCELLED {
        let subject = format!("run/gate_cancels_{run}");
        let document = system.calls.document_at(&subject, 0).await?;
        let number = |field: &str| document[field].as_u64().unwrap_or(0);
        canceled += u64::from(document["status"] == "canceled");
        // All behind the first end is late, and ended nothing again.
        let streamed = system.calls.follow(&subject, 0, usize::MAX).await?;
        let end = streamed
            .iter()
            .find(|received| received.event["type"] == "run.finished");
        let late = end.map(|end| number("event_count") - end.seq);
        terminals += u64::from(late == Some(number("late_event_count")));
        counted += u64::from(number("event_count") == 1 + 2 * CANCELS);
    }
    Ok(vec![
        Check::equal("runs that are canceled", canceled, CANCELLED),
        Check::equal("runs with one end, all behind it late", terminals, CANCELLED),
        Check::equal("runs with all events counted", counted, CANCELLED),
    ])
}

pub(super) async fn executor_lost(system: &System) -> Result<Vec<Check>, Failure> {
    let subject = "run/gate_lost";
    let (first, second) = ("gate/executor_1", "gate/executor_2");
    let mut events = vec![event(subject, first, 1, "run.started", &json!({}))];
    events.extend((2..=BEFORE).map(|sequence| delta(subject, first, sequence)));
    system.calls.publish_and_see(events).await?;
    let read = system.calls.follow(subject, 0, BEFORE as usize).await?;
    let cursor = read.last().map_or(0, |received| received.seq);
    let mut rest: Vec<Value> = vec![event(subject, "gate/control", 1, "run.executor_lost", &json!({}))];
    rest.extend((1..AFTER).map(|sequence| delta(subject, second, sequence)));
    rest.push(finished(subject, second, AFTER, "succeeded"));
    let last = system.calls.publish_and_see(rest).await?;
    let resumed = system.calls.follow(subject, cursor, usize::MAX).await?;
    let seqs: Vec<u64> = resumed.iter().map(|received| received.seq).collect();
    let wanted: Vec<u64> = (BEFORE + 1..=BEFORE + 1 + AFTER).collect();
    let offset = last.last().map_or(0, |place| place.offset);
    let document = system.calls.document_at(subject, offset).await?;
    let number = |field: &str| document[field].as_u64().unwrap_or(u64::MAX);
    Ok(vec![
        Check::equal("cursor of the reader that left", cursor, BEFORE),
        Check::is("it resumed there and saw the rest without a gap", seqs == wanted),
        Check::equal("executor_lost_count", number("executor_lost_count"), 1),
        Check::equal("missing_events", number("missing_events"), 0),
        Check::equal("status", document["status"].as_str().unwrap_or_default(), "succeeded"),
    ])
}

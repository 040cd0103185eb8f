//! One run's and one worker's burst: how far the documents are behind, and that they end where the log does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::exit::Failure;
use super::GateArgs;
use super::events::{burst, event};
use super::failed;
use super::report::Check;
use super::system::{LagWatch, System};
use crate::pure::place::PartitionId;

const DELTAS: u64 = 180;
const HEARTBEATS: u64 = 140;
/// How often lag is looked at while a burst is applied.
const SAMPLE_EVERY: Duration = Duration::from_millis(1);

fn seq(document: &Value) -> u64 {
    document["latest_seq"].as_u64().unwrap_or(0)
}

/// Each event is read back before the next is written: a reader of its own writes.
pub(super) async fn paced(system: &System, args: &GateArgs) -> Result<Vec<Check>, Failure> {
    let subject = "run/gate_burst_paced";
    let (mut lag_max, mut unread, mut last) = (0, 0, Value::Null);
    for (i, next) in (1..).zip(burst(subject, DELTAS)) {
        let place = system
            .calls
            .publish(vec![next])
            .await?
            .pop()
            .ok_or_else(|| failed("no place"))?;
        let applied = system
            .truth
            .store
            .checkpoint(PartitionId(place.partition))
            .await
            .map_err(failed)?;
        let applied = applied.map_or(0, |checkpoint| checkpoint.next.0);
        lag_max = lag_max.max((place.offset + 1).saturating_sub(applied));
        last = system.calls.document_at(subject, place.offset).await?;
        unread += u64::from(seq(&last) != i);
    }
    Ok(vec![
        Check::at_most("lag_events, the most", lag_max, args.max_lag),
        Check::equal("events not read back at once", unread, 0),
        Check::equal("latest_seq", seq(&last), DELTAS + 1),
        Check::equal("status", last["status"].as_str().unwrap_or_default(), "succeeded"),
    ])
}

pub(super) async fn unpaced(system: &System, args: &GateArgs) -> Result<Vec<Check>, Failure> {
    let subject = "run/gate_burst_unpaced";
    let watching = LagWatch::start(system, SAMPLE_EVERY);
    let began = Instant::now();
    let places = system.calls.publish(burst(subject, DELTAS)).await?;
    system.calls.settle(args.settle).await?;
    let to_zero_ms = began.elapsed().as_secs_f64() * 1000.0;
    let lag_max = watching.stop().await?;
    let last = places.last().map_or(0, |place| place.offset);
    let document = system.calls.document_at(subject, last).await?;
    Ok(vec![
        Check::told("lag_events, the most seen", lag_max),
        Check::within(
            "from the first event to lag 0",
            to_zero_ms,
            args.settle.as_secs_f64() * 1000.0,
        ),
        Check::equal("latest_seq", seq(&document), DELTAS + 1),
        Check::equal("status", document["status"].as_str().unwrap_or_default(), "succeeded"),
    ])
}

pub(super) async fn worker(system: &System, args: &GateArgs) -> Result<Vec<Check>, Failure> {
    let (subject, source) = ("worker/gate_burst", "gate/worker");
    let wanted = HEARTBEATS + 2;
    let mut events = vec![event(subject, source, 1, "worker.started", &json!({"adapter": "gate"}))];
    events.extend((2..wanted).map(|sequence| event(subject, source, sequence, "worker.heartbeat", &json!({}))));
    events.push(event(subject, source, wanted, "worker.stopped", &json!({})));
    let mut place = None;
    for event in events {
        place = system.calls.publish(vec![event]).await?.pop();
    }
    let place = place.ok_or_else(|| failed("no place"))?;
    let document = system.calls.document_at(subject, place.offset).await?;
    system.calls.settle(args.settle).await?;
    let checkpoint = system
        .truth
        .store
        .checkpoint(PartitionId(place.partition))
        .await
        .map_err(failed)?;
    let applied = checkpoint.map_or(0, |checkpoint| checkpoint.next.0);
    Ok(vec![
        Check::equal("latest_seq", seq(&document), wanted),
        Check::equal("checkpoint behind the worker's latest event", applied, place.offset + 1),
        Check::equal("status", document["status"].as_str().unwrap_or_default(), "stopped"),
    ])
}

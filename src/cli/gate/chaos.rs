//! The store goes away: nobody who publishes notices, no checkpoint moves, nothing is lost.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::exit::Failure;
use super::GateArgs;
use super::calls::blocking;
use super::events::{delta, event, finished, quantile_ms};
use super::failed;
use super::report::Check;
use super::system::System;
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::PartitionId;

/// Publications in each phase of the write path.
const PUBLICATIONS: u64 = 200;
/// Events of the chaos run.
const EVENTS: u64 = 61;
const WRITES: &str = "khala_projection_writes_total";
const ERRORS: &str = "result=\"error\"";

/// What publishing one by one came to.
#[derive(Default)]
struct Phase {
    times: Vec<Duration>,
    refused: u64,
}

async fn publish(system: &System, first: u64) -> Result<Phase, Failure> {
    let client = system.calls.client();
    blocking(move || {
        let mut phase = Phase::default();
        for sequence in first..first + PUBLICATIONS {
            let began = Instant::now();
            match client.publish(&[delta("run/gate_write_path", "gate/path", sequence)]) {
                Ok(_) => phase.times.push(began.elapsed()),
                Err(_) => phase.refused += 1,
            }
        }
        Ok(phase)
    })
    .await
}

pub(super) async fn write_path(system: &System, args: &GateArgs) -> Result<Vec<Check>, Failure> {
    let mut checks = vec![Check::told("how the store is taken away", system.sink.means())];
    let limit_ms = args.publish_p99.as_secs_f64() * 1000.0;
    let mut judge = |when: &str, phase: &Phase| {
        checks.extend([
            Check::told(
                format!("publications {when}, p50"),
                format!("{:.1} ms", quantile_ms(&phase.times, 0.5)),
            ),
            Check::within(
                format!("publications {when}, p99"),
                quantile_ms(&phase.times, 0.99),
                limit_ms,
            ),
            Check::equal(format!("refused {when}"), phase.refused, 0),
        ]);
    };
    judge("before", &publish(system, 1).await?);
    system.calls.settle(args.settle).await?;
    let errors = system.calls.metrics().await?.sum(WRITES, ERRORS);
    system.sink.cut();
    judge("during", &publish(system, 1 + PUBLICATIONS).await?);
    let failures = system.until_counted(WRITES, ERRORS, errors, args.settle).await?;
    system.sink.mend();
    judge("after", &publish(system, 1 + 2 * PUBLICATIONS).await?);
    let settled = system.calls.settle(args.settle).await?;
    checks.push(Check::at_least("failed writes counted meanwhile", failures as u64, 1));
    checks.push(Check::told(
        "until all was applied",
        format!("{} ms", settled.as_millis()),
    ));
    let places = system.calls.publish(vec![finished(
        "run/gate_write_path",
        "gate/path",
        1 + 3 * PUBLICATIONS,
        "succeeded",
    )]);
    let last = places.await?.first().map_or(0, |place| place.offset);
    let document = system.calls.document_at("run/gate_write_path", last).await?;
    let seq = document["latest_seq"].as_u64().unwrap_or(0);
    checks.push(Check::equal("latest_seq of the run", seq, 1 + 3 * PUBLICATIONS));
    Ok(checks)
}

pub(super) async fn chaos(system: &System, args: &GateArgs) -> Result<Vec<Check>, Failure> {
    let subject = "run/gate_chaos";
    let partition = system.truth.home(&run_of(subject)?).await?;
    // Its document is in the projector's cache, so that what fails is the write, not the reading before it.
    let warm = neighbour(system, partition).await?;
    system
        .calls
        .publish_and_see(vec![event(&warm, "gate/chaos", 1, "run.started", &json!({}))])
        .await?;
    system.calls.settle(args.settle).await?;
    let before = system.checkpoints().await?;
    let errors = system.calls.metrics().await?.sum(WRITES, ERRORS);
    system.sink.cut();
    system.calls.publish(vec![delta(&warm, "gate/chaos", 2)]).await?;
    system.until_counted(WRITES, ERRORS, errors, args.settle).await?;
    let mut persisted = 0;
    let mut last = 0;
    for sequence in 1..=EVENTS {
        let next = match sequence {
            1 => event(subject, "gate/chaos", 1, "run.started", &json!({})),
            EVENTS => finished(subject, "gate/chaos", EVENTS, "succeeded"),
            _ => delta(subject, "gate/chaos", sequence),
        };
        let places = system.calls.publish(vec![next]).await?;
        persisted += places.len() as u64;
        last = places.first().map_or(last, |place| place.offset);
    }
    let moved = before
        .iter()
        .zip(system.checkpoints().await?)
        .filter(|(one, other)| *one != other)
        .count();
    let attempts = system.sink.failed_commits();
    system
        .until_counted(WRITES, ERRORS, errors + attempts as f64 - 0.5, args.settle)
        .await?;
    let counted = (system.calls.metrics().await?.sum(WRITES, ERRORS) - errors) as u64;
    system.sink.mend();
    let settled = system.calls.settle(args.settle).await?;
    let replay = system.calls.replay("last-good").await?;
    let document = system.calls.document_at(subject, last).await?;
    let checkpoint = system.truth.store.checkpoint(partition).await.map_err(failed)?;
    let end = system.truth.log.bounds(partition).await.map_err(failed)?.end;
    Ok(vec![
        Check::equal("events persisted while every write failed", persisted, EVENTS),
        Check::equal("checkpoints that moved meanwhile", moved, 0),
        Check::at_least("write attempts meanwhile", attempts, 1),
        Check::at_least("write failures counted", counted, attempts),
        Check::told("until all was applied", format!("{} ms", settled.as_millis())),
        Check::equal("documents that the replay found wrong", replay.proof.wrong.len(), 0),
        Check::equal(
            "checkpoint after the replay",
            checkpoint.map_or(0, |it| it.next.0),
            end.0,
        ),
        Check::equal(
            "latest_seq after the replay",
            document["latest_seq"].as_u64().unwrap_or(0),
            EVENTS,
        ),
        Check::equal("status", document["status"].as_str().unwrap_or_default(), "succeeded"),
    ])
}

fn run_of(subject: &str) -> Result<Entity, Failure> {
    let id = subject.trim_start_matches("run/");
    Entity::new(Kind::Run, id).ok_or_else(|| failed(format!("no legal subject: {subject}")))
}

/// A run of the same partition.
async fn neighbour(system: &System, partition: PartitionId) -> Result<String, Failure> {
    for i in 0_u32.. {
        let subject = format!("run/gate_chaos_neighbour_{i}");
        if system.truth.home(&run_of(&subject)?).await? == partition {
            return Ok(subject);
        }
    }
    Err(failed("no run of the same partition"))
}

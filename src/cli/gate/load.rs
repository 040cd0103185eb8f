//! Many runs at once under a steady rate: the lag stays bounded, and what comes of it is determined by the log alone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::exit::Failure;
use super::GateArgs;
use super::calls::blocking;
use super::events::{delta, event, finished, quantile_ms};
use super::failed;
use super::report::Check;
use super::system::{LagWatch, System};
use crate::client::Client;

/// Events of one request while runs are begun and ended.
const CHUNK: u64 = 500;
/// Between two requests of the steady rate.
const TICK: Duration = Duration::from_millis(20);
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
const SOURCE: &str = "gate/load";

fn subject(run: u64) -> String {
    format!("run/gate_load_{run:06}")
}

/// What the steady rate came to.
struct Steady {
    sent: u64,
    took: Duration,
    times: Vec<Duration>,
}

/// One event for every run, in chunks.
async fn for_all(system: &System, runs: u64, make: impl Fn(u64) -> Value) -> Result<(), Failure> {
    let mut run = 0;
    while run < runs {
        let until = (run + CHUNK).min(runs);
        system.calls.publish((run..until).map(&make).collect()).await?;
        run = until;
    }
    Ok(())
}

/// Sends what is due, tick by tick, over the runs in turn: run i's n-th round has sequence n + 1.
fn steady(client: &Client, (rate, lasts, runs): (u64, Duration, u64)) -> Result<Steady, Failure> {
    let total = (rate as f64 * lasts.as_secs_f64()) as u64;
    let began = Instant::now();
    let (mut sent, mut times) = (0, Vec::new());
    while sent < total {
        let due = ((rate as f64 * began.elapsed().as_secs_f64()) as u64).min(total);
        if due > sent {
            let next = |i: u64| delta(&subject(i % runs), SOURCE, i / runs + 2);
            let events: Vec<Value> = (sent..due).map(next).collect();
            let asked = Instant::now();
            client.publish(&events).map_err(failed)?;
            times.push(asked.elapsed());
            sent = due;
        }
        std::thread::sleep(TICK);
    }
    Ok(Steady {
        sent,
        took: began.elapsed(),
        times,
    })
}

pub(super) async fn sustained(system: &System, args: &GateArgs) -> Result<Vec<Check>, Failure> {
    let runs = args.runs;
    for_all(system, runs, |run| {
        event(&subject(run), SOURCE, 1, "run.started", &json!({}))
    })
    .await?;
    system.calls.settle(args.settle).await?;
    let watching = LagWatch::start(system, SAMPLE_EVERY);
    let (client, load) = (system.calls.client(), (args.rate, args.lasts, runs));
    let steady = blocking(move || steady(&client, load)).await?;
    let settled = system.calls.settle(args.settle).await?;
    let lag_max = watching.stop().await?;
    let rounds = |run: u64| steady.sent / runs + u64::from(run < steady.sent % runs);
    for_all(system, runs, |run| {
        finished(&subject(run), SOURCE, rounds(run) + 2, "succeeded")
    })
    .await?;
    system.calls.settle(args.settle).await?;
    let mut unfinished = 0;
    // The audit of the next scenario looks at all of them; here the first, the last and some between.
    for run in (0..runs).step_by((runs / 100).max(1) as usize).chain([runs - 1]) {
        let document = system.calls.document_at(&subject(run), 0).await?;
        let is_right = document["status"] == "succeeded" && document["latest_seq"].as_u64() == Some(rounds(run) + 2);
        unfinished += u64::from(!is_right);
    }
    Ok(vec![
        Check::equal(
            "events sent at the rate",
            steady.sent,
            (args.rate as f64 * args.lasts.as_secs_f64()) as u64,
        ),
        Check::told(
            "rate reached",
            format!("{:.0} events a second", steady.sent as f64 / steady.took.as_secs_f64()),
        ),
        Check::within("time that it took", ms(steady.took), ms(args.lasts + args.behind)),
        Check::told(
            "publications, p50",
            format!("{:.1} ms", quantile_ms(&steady.times, 0.5)),
        ),
        Check::within(
            "publications, p99",
            quantile_ms(&steady.times, 0.99),
            ms(args.publish_p99),
        ),
        Check::at_most("lag_events, the most seen", lag_max, args.behind_events()),
        Check::within("lag 0 after the last event", ms(settled), ms(args.settle)),
        Check::equal("sampled runs that are not as they must be", unfinished, 0),
    ])
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Back to the log's start and redone: the same bytes, and the log agrees.
pub(super) async fn converges(system: &System, args: &GateArgs) -> Result<Vec<Check>, Failure> {
    system.calls.settle(args.settle).await?;
    let before = system.digests().await?;
    let replay = system.calls.replay("earliest").await?;
    system.calls.settle(args.settle).await?;
    let after = system.digests().await?;
    let mut behind = 0;
    for (partition, checkpoint) in system
        .truth
        .partitions()
        .await?
        .into_iter()
        .zip(system.checkpoints().await?)
    {
        let end = system.truth.log.bounds(partition).await.map_err(failed)?.end;
        behind += u64::from(checkpoint.map_or(0, |checkpoint| checkpoint.next.0) != end.0);
    }
    let audit = system.calls.audit().await?;
    Ok(vec![
        Check::told("records redone", replay.records),
        Check::told("documents proven by the replay", replay.proof.proven),
        Check::equal("documents it found wrong", replay.proof.wrong.len(), 0),
        Check::equal("checkpoints that are not at the log's end", behind, 0),
        Check::is("documents have the digests of before", before == after),
        Check::at_least("documents audited", audit.documents, args.runs),
        Check::equal("documents that are not what the log says", audit.drift.len(), 0),
        Check::is("the audit is clean", audit.clean),
    ])
}

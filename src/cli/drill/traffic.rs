//! What goes on while something is broken: events at a steady rate over some runs, each sent again until a server takes
//! it, as a good producer does. Invariant: it knows what each run must come to.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::exit::Failure;
use super::super::gate::calls::Calls;
use super::super::gate::events::{delta, finished, quantile_ms};
use super::super::gate::failed;
use super::super::gate::report::Check;
use super::DrillArgs;

/// Between two requests.
const TICK: Duration = Duration::from_millis(20);
/// Before what was not taken is sent again.
const PAUSE: Duration = Duration::from_millis(100);
/// The most events of one request.
const CHUNK: u64 = 500;
const SOURCE: &str = "drill/traffic";

pub(super) struct Traffic {
    runs: u64,
    stop: CancellationToken,
    task: JoinSet<Result<Sent, Failure>>,
}

/// What was sent.
pub(super) struct Sent {
    runs: u64,
    events: u64,
    pub refused: u64,
    times: Vec<Duration>,
}

fn subject(run: u64) -> String {
    format!("run/drill_{run:05}")
}

impl Traffic {
    pub(super) fn start(calls: &Calls, args: &DrillArgs) -> Self {
        let (stop, runs) = (CancellationToken::new(), args.runs);
        let mut task = JoinSet::new();
        task.spawn(send(calls.clone(), args.rate, runs, stop.clone()));
        Self { runs, stop, task }
    }

    /// Ends every run; what was sent in all.
    pub(super) async fn stop(mut self, calls: &Calls) -> Result<Sent, Failure> {
        self.stop.cancel();
        let sent = self.task.join_next().await.ok_or_else(|| failed("nobody sends"))?;
        let sent = sent.map_err(failed)??;
        let last = |run| finished(&subject(run), SOURCE, sent.of(run) + 1, "succeeded");
        for from in (0..self.runs).step_by(CHUNK as usize) {
            let until = (from + CHUNK).min(self.runs);
            calls.publish((from..until).map(last).collect()).await?;
        }
        Ok(sent)
    }
}

async fn send(calls: Calls, rate: u64, runs: u64, stop: CancellationToken) -> Result<Sent, Failure> {
    let mut sent = Sent {
        runs,
        events: 0,
        refused: 0,
        times: Vec::new(),
    };
    let mut due = 0.0;
    let mut before = Instant::now();
    while tokio::time::timeout(TICK, stop.cancelled()).await.is_err() {
        due += before.elapsed().as_secs_f64() * rate as f64;
        before = Instant::now();
        let until = (due as u64).min(sent.events + CHUNK);
        if until == sent.events {
            continue;
        }
        let next = |i: u64| delta(&subject(i % runs), SOURCE, i / runs + 1);
        let events: Vec<_> = (sent.events..until).map(next).collect();
        let asked = Instant::now();
        while calls.publish(events.clone()).await.is_err() {
            sent.refused += 1;
            tokio::time::sleep(PAUSE).await;
        }
        sent.times.push(asked.elapsed());
        sent.events = until;
    }
    Ok(sent)
}

impl Sent {
    /// Events of one run, without its last one.
    fn of(&self, run: u64) -> u64 {
        self.events / self.runs + u64::from(run < self.events % self.runs)
    }

    /// What it was like, and that the documents have all of it, once.
    pub(super) async fn verify(&self, calls: &Calls, args: &DrillArgs) -> Result<Vec<Check>, Failure> {
        let settled = calls.settle(args.settle).await?;
        let mut wrong = 0;
        for run in 0..self.runs {
            let document = calls.document_at(&subject(run), 0).await?;
            let is_whole =
                document["latest_seq"].as_u64() == Some(self.of(run) + 1) && document["status"] == "succeeded";
            wrong += u64::from(!is_whole);
        }
        let audit = calls.audit().await?;
        Ok(vec![
            Check::told("events acknowledged", self.events + self.runs),
            Check::told("publications, p50", format!("{:.1} ms", quantile_ms(&self.times, 0.5))),
            Check::told("publications, p99", format!("{:.1} ms", quantile_ms(&self.times, 0.99))),
            Check::within(
                "lag 0 after the last event",
                settled.as_secs_f64() * 1000.0,
                args.settle.as_secs_f64() * 1000.0,
            ),
            Check::equal("runs with an event lost or counted twice", wrong, 0),
            Check::at_least("documents audited", audit.documents, self.runs),
            Check::equal("documents that are not what the log says", audit.drift.len(), 0),
            Check::is("the audit is clean", audit.clean),
        ])
    }
}

//! From when an event was due until its document is visible, at a given rate. The load is open: an event is due
//! whether or not those before it are done, and its time counts from when it was due, not from when it was sent
//! (no coordinated omission; Tene, "How NOT to Measure Latency", 2013).
//! Visible: another client reads a checkpoint from the store that includes the event, as documents and checkpoint
//! move in one step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::exit::Failure;
use super::stages::{Projecting, Watch, failed};
use super::task::{Latency, Outcome, Task};
use super::workload::Sent;
use crate::access::Access;
use crate::log::Role;
use crate::pure::partition::State;
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::store::Store;
use crate::telemetry::Export;

/// The first second is not counted: connections, caches and the broker's compiler warm up.
const WARM_UP: Duration = Duration::from_secs(1);
/// Events that may wait to be sent or to be seen.
const QUEUE: usize = 65_536;
const PATIENCE: Duration = Duration::from_secs(30);

/// An event in the log, not yet seen in the store.
type Awaited = (PartitionId, Offset, Instant);

pub(super) async fn measure(access: &Access, task: &Task, export: &Export) -> Result<Outcome, Failure> {
    access.log.prepare().await.map_err(failed)?;
    access.store.check().await.map_err(failed)?;
    let partitions = access.partitions().await?.len();
    let mut projecting = Projecting::start(access, export)?;
    projecting
        .until("running all partitions", |board| {
            let all = board.snapshot();
            all.len() == partitions && all.iter().all(|status| status.state == State::Running)
        })
        .await?;
    let watch = Watch::start(task);
    let counted_from = Instant::now() + WARM_UP;
    let due = pace(task)?;
    let (awaited, seen) = mpsc::channel(QUEUE);
    let mut watching = JoinSet::new();
    watching.spawn(see(Arc::clone(&access.store), seen, counted_from));
    let acknowledged = send(access, task, due, awaited, counted_from).await?;
    let visible = watching.join_next().await.ok_or_else(|| failed("nobody watches"))?;
    let visible = visible.map_err(failed)??;
    let mut outcome = watch.stop(acknowledged.len());
    projecting.stop().await?;
    outcome.acknowledged = Some(summary(&acknowledged));
    outcome.visible = Some(summary(&visible));
    Ok(outcome)
}

/// A thread that tells when each event is due: a timer of the runtime is too coarse.
fn pace(task: &Task) -> Result<mpsc::Receiver<(Sent, Instant)>, Failure> {
    let (sender, due) = mpsc::channel(QUEUE);
    let (workload, rate) = (task.workload, task.rate.max(1));
    let tell = move || {
        let started = Instant::now();
        for (i, sent) in workload.sent().enumerate() {
            let at = started + Duration::from_nanos(i as u64 * 1_000_000_000 / rate);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if sender.blocking_send((sent, at)).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("khala-pace".to_owned());
    thread.spawn(tell).map_err(failed)?;
    Ok(due)
}

async fn send(
    access: &Access,
    task: &Task,
    mut due: mpsc::Receiver<(Sent, Instant)>,
    awaited: mpsc::Sender<Awaited>,
    counted_from: Instant,
) -> Result<Histogram<u64>, Failure> {
    let mut times = histogram()?;
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some((sent, at)) = due.recv() => {
                let record = task.workload.record(sent);
                under_way.push(async move { (access.log.append(Role::Events, vec![record]).await, at) });
            }
            Some((appended, at)) = under_way.next() => {
                let appended = appended.into_iter().next().ok_or_else(|| failed("no answer to an append"))?;
                let (partition, offset) = appended.map_err(failed)?;
                record(&mut times, at, Instant::now(), counted_from);
                awaited.send((partition, offset, at)).await.map_err(failed)?;
            }
            else => return Ok(times),
        }
    }
}

/// Looks at the checkpoints of partitions that have events to be seen, until all are.
async fn see(
    store: Arc<dyn Store>,
    mut events: mpsc::Receiver<Awaited>,
    counted_from: Instant,
) -> Result<Histogram<u64>, Failure> {
    let mut times = histogram()?;
    let mut awaited: BTreeMap<PartitionId, VecDeque<(Offset, Instant)>> = BTreeMap::new();
    let mut last_seen = Instant::now();
    loop {
        if awaited.is_empty() {
            let Some((partition, offset, at)) = events.recv().await else {
                return Ok(times);
            };
            awaited.entry(partition).or_default().push_back((offset, at));
            last_seen = Instant::now();
        }
        while let Ok((partition, offset, at)) = events.try_recv() {
            awaited.entry(partition).or_default().push_back((offset, at));
        }
        for (partition, waiting) in &mut awaited {
            let checkpoint = store.checkpoint(*partition).await.map_err(failed)?;
            let (next, now) = (
                checkpoint.map_or(NextOffset::START, |checkpoint| checkpoint.next),
                Instant::now(),
            );
            while let Some((_, at)) = waiting.front().filter(|(offset, _)| next.is_past(*offset)) {
                record(&mut times, *at, now, counted_from);
                waiting.pop_front();
                last_seen = now;
            }
        }
        awaited.retain(|_, waiting| !waiting.is_empty());
        if last_seen.elapsed() > PATIENCE {
            return Err(failed(format!("nothing became visible for {} s", PATIENCE.as_secs())));
        }
    }
}

/// Microseconds from 1 to a minute, three digits.
pub(super) fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(failed)
}

fn record(times: &mut Histogram<u64>, due: Instant, done: Instant, counted_from: Instant) {
    if due >= counted_from {
        times.saturating_record(done.saturating_duration_since(due).as_micros() as u64);
    }
}

pub(super) fn summary(times: &Histogram<u64>) -> Latency {
    let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
    Latency {
        p50_ms: ms(0.5),
        p90_ms: ms(0.9),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        max_ms: times.max() as f64 / 1000.0,
        events: times.len(),
    }
}

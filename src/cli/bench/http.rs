//! `khala bench --over-http`: what HTTP costs. In: a log and a store. Out: publishing next to a bare producer (librdkafka,
//! `acks=all`) in turns, from an event until a reader has it, and the memory of a reader that only waits.
//! Invariant: what is compared was measured within one repetition, one behind the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::{JoinSet, spawn_blocking};

use super::super::exit::Failure;
use super::super::out::Out;
use super::Bench;
use super::latency::{histogram, summary};
use super::report::{Spread, spread};
use super::stages::{self, failed};
use super::task::{Latency, Stage};
use super::usage;
use super::wire::{Publisher, Server, follow, idle};
use super::workload::Workload;
use crate::access::kafka_settings;
use crate::config::LogTarget;
use crate::log::kafka::BareProducer;
use crate::serve::raise_file_limit;

/// Requests at once, and events of each.
const LOADS: [(usize, usize); 3] = [(1, 1), (16, 1), (1, 500)];
/// Runs that are followed, each by one reader.
const FOLLOWED: u64 = 8;
/// Events a second over all of them.
const FOLLOWED_RATE: u64 = 200;
const IDLE: usize = 2000;

#[derive(Serialize)]
struct Report {
    khala: &'static str,
    machine: String,
    /// Made for it, and taken away.
    topic: String,
    publish: Vec<Row>,
    /// From when an event was due to be published until its reader has it.
    event_to_reader: Latency,
    event_to_reader_rate: u64,
    idle_readers: usize,
    bytes_per_idle_reader: Option<u64>,
}

/// One way to publish under one load.
#[derive(Serialize)]
struct Row {
    way: &'static str,
    at_once: usize,
    batch: usize,
    events_per_second: Spread,
    /// Of the bare producer's events a second in the same repetition.
    of_bare: Option<Spread>,
    /// Of a request.
    time: Latency,
}

/// What one way did in one repetition.
struct Sample {
    events: u64,
    seconds: f64,
    times: Histogram<u64>,
}

pub(super) async fn run(bench: &Bench<'_>) -> Result<(), Failure> {
    let task = bench.task(Stage::Latency, 0);
    let settings = stages::settings(&task, &bench.context.settings);
    raise_file_limit();
    let server = spawn_blocking(move || Server::start(&settings))
        .await
        .map_err(failed)??;
    let made = measure(bench, &server).await;
    drop(server);
    bench.remove_namespace(&task).await?;
    tell(&made?, bench.context.out);
    Ok(())
}

async fn measure(bench: &Bench<'_>, server: &Server) -> Result<Report, Failure> {
    let task = bench.task(Stage::Latency, 0);
    let settings = stages::settings(&task, &bench.context.settings);
    let LogTarget::Kafka(bootstrap) = &settings.log else {
        return Err(failed("--over-http needs Kafka"));
    };
    let bare = Arc::new(BareProducer::new(&kafka_settings(&settings, bootstrap)).map_err(failed)?);
    let events = Arc::new(Events::new(task.workload));
    let span = Duration::from_secs(bench.args.seconds.max(1));
    let mut publish = Vec::new();
    for (at_once, batch) in LOADS {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..bench.args.repetitions {
            theirs.push(publish_bare(&bare, &events, (at_once, batch), span).await?);
            let (address, events) = (server.address.clone(), Arc::clone(&events));
            let http = spawn_blocking(move || publish_http(&address, &events, (at_once, batch), span));
            ours.push(http.await.map_err(failed)??);
            bench
                .context
                .out
                .note(format!("{at_once} at once, {batch} a request: measured"));
        }
        let of_bare = spread(
            ours.iter()
                .zip(&theirs)
                .map(|(ours, theirs)| ours.rate() / theirs.rate()),
        );
        publish.push(row("bare", (at_once, batch), &theirs, None)?);
        publish.push(row("HTTP", (at_once, batch), &ours, of_bare)?);
    }
    let address = server.address.clone();
    let followed = spawn_blocking(move || event_to_reader(&address, span))
        .await
        .map_err(failed)??;
    let (address, before) = (server.address.clone(), server.resident_bytes());
    let readers = spawn_blocking(move || {
        Publisher::new(&address, "?wait=projected&timeout=30s").publish(&[event("bench_idle", 1, 0)])?;
        idle(&address, "bench_idle", IDLE)
    });
    let readers = readers.await.map_err(failed)??;
    let after = server.resident_bytes();
    let each = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before) / readers.len() as u64);
    Ok(Report {
        khala: env!("CARGO_PKG_VERSION"),
        machine: usage::machine(),
        topic: task.topic,
        publish,
        event_to_reader: summary(&followed),
        event_to_reader_rate: FOLLOWED_RATE,
        idle_readers: readers.len(),
        bytes_per_idle_reader: each,
    })
}

/// Events for all publishers, each once.
struct Events {
    workload: Workload,
    next: AtomicU64,
}

impl Events {
    fn new(workload: Workload) -> Self {
        let next = AtomicU64::new(0);
        Self { workload, next }
    }

    /// The next event's key and value.
    fn take(&self) -> (String, String) {
        let (n, of_a_run) = (
            self.next.fetch_add(1, Ordering::Relaxed),
            self.workload.events_per_run(),
        );
        let (run, index) = (n / of_a_run, n % of_a_run);
        (self.workload.subject(run), self.workload.value(run, index))
    }
}

impl Sample {
    fn rate(&self) -> f64 {
        self.events as f64 / self.seconds.max(1e-9)
    }
}

async fn publish_bare(
    bare: &Arc<BareProducer>,
    events: &Arc<Events>,
    (at_once, batch): (usize, usize),
    span: Duration,
) -> Result<Sample, Failure> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (bare, events) = (Arc::clone(bare), Arc::clone(events));
        tasks.spawn(async move {
            let mut times = histogram()?;
            while started.elapsed() < span {
                let made: Vec<_> = (0..batch).map(|_| events.take()).collect();
                let sent = Instant::now();
                let all = made.iter().map(|(key, value)| bare.publish(key, value));
                futures_util::future::try_join_all(all).await.map_err(failed)?;
                times.saturating_record(sent.elapsed().as_micros() as u64);
            }
            Ok::<_, Failure>(times)
        });
    }
    let mut times = histogram()?;
    while let Some(done) = tasks.join_next().await {
        times.add(done.map_err(failed)??).map_err(failed)?;
    }
    Ok(sample(times, batch, started))
}

fn publish_http(
    address: &str,
    events: &Events,
    (at_once, batch): (usize, usize),
    span: Duration,
) -> Result<Sample, Failure> {
    let started = Instant::now();
    let one = || {
        let (publisher, mut times) = (Publisher::new(address, ""), histogram()?);
        while started.elapsed() < span {
            let made: Vec<String> = (0..batch).map(|_| events.take().1).collect();
            let sent = Instant::now();
            publisher.publish(&made)?;
            times.saturating_record(sent.elapsed().as_micros() as u64);
        }
        Ok::<_, Failure>(times)
    };
    let all = thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(joined).collect::<Result<Vec<_>, _>>()
    })?;
    let mut times = histogram()?;
    for part in all {
        times.add(part).map_err(failed)?;
    }
    Ok(sample(times, batch, started))
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    thread.join().unwrap_or_else(|_| Err(failed("a client panicked")))
}

fn sample(times: Histogram<u64>, batch: usize, started: Instant) -> Sample {
    Sample {
        events: times.len() * batch as u64,
        seconds: started.elapsed().as_secs_f64(),
        times,
    }
}

fn row(
    way: &'static str,
    (at_once, batch): (usize, usize),
    samples: &[Sample],
    of_bare: Option<Spread>,
) -> Result<Row, Failure> {
    let mut times = histogram()?;
    for sample in samples {
        times.add(&sample.times).map_err(failed)?;
    }
    let rates = spread(samples.iter().map(Sample::rate)).ok_or_else(|| failed("no repetition"))?;
    Ok(Row {
        way,
        at_once,
        batch,
        events_per_second: rates,
        of_bare,
        time: summary(&times),
    })
}

/// An event that says when it was due, in microseconds.
fn event(run: &str, sequence: u64, due_us: u64) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{sequence}","source":"bench","type":"run.delta","subject":"run/{run}","sequence":{sequence},"data":{{"due_us":{due_us}}}}}"#
    )
}

fn event_to_reader(address: &str, span: Duration) -> Result<Histogram<u64>, Failure> {
    let each = (FOLLOWED_RATE * span.as_secs() / FOLLOWED).max(1);
    let names: Vec<String> = (0..FOLLOWED).map(|n| format!("bench_followed_{n}")).collect();
    let waiting = Publisher::new(address, "?wait=projected&timeout=30s");
    let first: Vec<String> = names.iter().map(|name| event(name, 1, 0)).collect();
    waiting.publish(&first)?;
    let (started, times) = (Instant::now(), Mutex::new(histogram()?));
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (n, name) in (0..).zip(&names) {
            let times = &times;
            threads.push(scope.spawn(move || {
                let mut left = each + 1;
                follow(address, name, |json| {
                    let now = started.elapsed().as_micros() as u64;
                    let due = json
                        .split_once("\"due_us\":")
                        .and_then(|(_, rest)| rest.split('}').next()?.parse().ok());
                    if let Some(due @ 1..) = due {
                        let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
                        times.saturating_record(now.saturating_sub(due));
                    }
                    left -= 1;
                    left == 0
                })
            }));
            threads.push(scope.spawn(move || {
                let publisher = Publisher::new(address, "");
                for i in 0..each {
                    let due = Duration::from_micros((i * FOLLOWED + n + 1) * 1_000_000 / FOLLOWED_RATE);
                    thread::sleep(due.saturating_sub(started.elapsed()));
                    publisher.publish(&[event(name, i + 2, due.as_micros() as u64)])?;
                }
                Ok(())
            }));
        }
        threads.into_iter().try_for_each(joined)
    })?;
    times.into_inner().map_err(failed)
}

fn tell(report: &Report, out: Out) {
    if out.json {
        return out.value(report);
    }
    out.line(format!("khala {} on {}", report.khala, report.machine));
    let part = |part: Option<f64>| part.map_or_else(String::new, |part| format!("{part:.2}"));
    let cells = |row: &Row| {
        let rates = [
            row.events_per_second.median,
            row.events_per_second.min,
            row.events_per_second.max,
        ];
        let parts = [
            row.of_bare.map(|of| of.median),
            row.of_bare.map(|of| of.min),
            row.of_bare.map(|of| of.max),
        ];
        let mut cells = vec![row.way.to_owned(), row.at_once.to_string(), row.batch.to_string()];
        cells.extend(rates.map(|rate| format!("{rate:.0}")));
        cells.extend(parts.map(part));
        cells.extend([row.time.p50_ms, row.time.p99_ms].map(|ms| format!("{ms:.2}")));
        cells
    };
    let heads = [
        "publish", "at once", "batch", "events/s", "min", "max", "of bare", "min", "max", "p50 ms", "p99 ms",
    ];
    out.table(&heads, &report.publish.iter().map(cells).collect::<Vec<_>>());
    let Latency {
        p50_ms, p99_ms, max_ms, ..
    } = report.event_to_reader;
    out.line(format!(
        "event to reader, {FOLLOWED} readers, {} events/s: p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, max {max_ms:.2} ms",
        report.event_to_reader_rate
    ));
    if let Some(bytes) = report.bytes_per_idle_reader {
        out.line(format!(
            "an idle reader: {bytes} bytes of memory ({} of them)",
            report.idle_readers
        ));
    }
}

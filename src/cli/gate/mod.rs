//! `khala gate`: the load and chaos report of a release gate, on the log and store of the settings or the embedded ones.
//! In: flags. Out: a report of four criteria, PASS or FAIL. Invariant: topic, namespace and group are its own and go
//! with it; documents are judged by the log, not by what the server says of itself.

pub(super) mod calls;
pub(super) mod events;
pub(super) mod place;
pub(super) mod report;
pub(super) mod sink;
pub(super) mod system;

mod bursts;
mod chaos;
mod load;
pub(super) mod monitoring;
mod shape;
mod valve;

use std::fmt::Display;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Context;
use super::exit::{Exit, Failure};
use super::out::Out;
use crate::config::read_span;

use self::place::Place;
use self::report::{Check, Report, Scenario};
use self::system::System;

/// Behind the command's help.
pub(super) const HELP: &str = "Examples:\n  khala gate\n  \
        khala gate --log kafka://localhost:9092 --store redis://localhost:6379 --report reports\n  \
        khala gate --rate 200 --for 5s --runs 500 --json\n\n\
        It makes a topic, a namespace and a group of its own and removes them. Exit code 3: FAIL.";

#[derive(clap::Args)]
pub(super) struct GateArgs {
    /// Events a second of the sustained load
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// How long the sustained load lasts
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = read_span)]
    pub lasts: Duration,
    /// Runs under way at once during the sustained load
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: u64,
    /// Write the report into this directory, as Markdown and JSON
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Limit: events that a paced reader may be behind
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub max_lag: u64,
    /// Limit: p99 of a publication, while the store is there and while it is away
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = read_span)]
    pub publish_p99: Duration,
    /// Limit: how far the sustained load may be behind, in time at its rate
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = read_span)]
    pub behind: Duration,
    /// Limit: how long it may take until all is applied
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = read_span)]
    pub settle: Duration,
}

impl GateArgs {
    fn terms(&self) -> Vec<(&'static str, String)> {
        let span = |time: Duration| match time.as_millis() {
            ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
            ms => format!("{ms} ms"),
        };
        vec![
            (
                "load",
                format!(
                    "{} events a second for {} s over {} runs",
                    self.rate,
                    self.lasts.as_secs(),
                    self.runs
                ),
            ),
            ("limit of lag, paced", format!("{} events", self.max_lag)),
            ("limit of publication p99", span(self.publish_p99)),
            ("limit of lag under load", format!("{} events", self.behind_events())),
            ("limit of time to apply all", span(self.settle)),
        ]
    }

    fn behind_events(&self) -> u64 {
        (self.rate as f64 * self.behind.as_secs_f64()) as u64
    }
}

pub(super) fn failed(error: impl Display) -> Failure {
    Failure::new(Exit::Failed, error)
}

pub(super) async fn run(args: GateArgs, context: &Context) -> Result<Exit, Failure> {
    let place = Place::new("gate", &context.settings);
    let mut report = Report::new("gate", &context.settings, &place.settings, args.terms());
    context.out.note(format!(
        "khala gate in topic {} and namespace {}, which go with it",
        place.settings.topic, place.settings.namespace
    ));
    let done = tokio::select! {
        done = all(&args, &place, context, &mut report) => done,
        _ = tokio::signal::ctrl_c() => Err(failed("interrupted")),
    };
    let removed = place.remove().await;
    done?;
    removed?;
    report.end(args.report.as_deref(), context.out)
}

/// Every scenario, whatever came of the ones before.
async fn all(args: &GateArgs, place: &Place, context: &Context, report: &mut Report) -> Result<(), Failure> {
    let system = System::start(place).await?;
    let before = system.calls.metrics().await?;
    let mut stage = Stage {
        system: &system,
        report,
        out: context.out,
    };
    failing_store(&mut stage, args).await;
    bursts(&mut stage, args).await;
    shapes(&mut stage).await;
    at_scale(&mut stage, args).await;
    let about = "What alerts and dashboards ask for is in /metrics, and what must have moved has.";
    stage
        .play(4, "monitoring", about, monitoring::check(&system, &before))
        .await;
    system.stop().await
}

struct Stage<'a> {
    system: &'a System,
    report: &'a mut Report,
    out: Out,
}

impl Stage<'_> {
    async fn play(
        &mut self,
        criterion: u8,
        name: &'static str,
        about: &'static str,
        work: impl Future<Output = Result<Vec<Check>, Failure>>,
    ) {
        let scenario = Scenario { criterion, name, about };
        let began = Instant::now();
        let found = work.await;
        self.system.sink.mend(); // a scenario that failed may have left it cut
        self.report.add(scenario, began, found, self.out);
    }
}

async fn failing_store(stage: &mut Stage<'_>, args: &GateArgs) {
    let system = stage.system;
    let about = "Publications one by one before the store is taken away, while it is, and after.";
    stage
        .play(1, "write path", about, chaos::write_path(system, args))
        .await;
    let about = "61 events of one run are published while every write to the store fails; then a replay.";
    stage.play(3, "chaos", about, chaos::chaos(system, args)).await;
}

async fn bursts(stage: &mut Stage<'_>, args: &GateArgs) {
    let system = stage.system;
    let about = "180 deltas and a terminal event; each is read back before the next is written.";
    stage
        .play(3, "run burst, paced", about, bursts::paced(system, args))
        .await;
    let about = "The same at once.";
    stage
        .play(3, "run burst, unpaced", about, bursts::unpaced(system, args))
        .await;
    let about = "A worker starts, beats 140 times, stops.";
    stage.play(3, "worker burst", about, bursts::worker(system, args)).await;
}

async fn shapes(stage: &mut Stage<'_>) {
    let system = stage.system;
    let about = "Eight readers follow one run whose producer is slow.";
    stage.play(3, "shape: readers", about, shape::readers(system)).await;
    let about = "Thirty producers write to one run at once.";
    stage.play(3, "shape: frames", about, shape::frames(system)).await;
    let about = "Ten runs, each cancelled by three at once.";
    stage.play(3, "shape: cancels", about, shape::cancels(system)).await;
    let about = "A run's executor is lost, another goes on; a reader resumes from its cursor.";
    stage
        .play(3, "shape: executor lost", about, shape::executor_lost(system))
        .await;
}

async fn at_scale(stage: &mut Stage<'_>, args: &GateArgs) {
    let system = stage.system;
    let about = "Many runs at once: all begun, events at a steady rate, all ended.";
    stage
        .play(3, "sustained load", about, load::sustained(system, args))
        .await;
    let about = "Everything is put back to the log's start and redone, then compared with the log.";
    stage
        .play(2, "replay converges", about, load::converges(system, args))
        .await;
}

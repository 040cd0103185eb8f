//! `khala drill`: one fault on purpose, on the log and store of the settings, and a report of what came of it.
//! In: the fault's name. Out: PASS or FAIL with evidence. Invariant: topic, namespace and group are its own and go with
//! it; it says what it will do before it does it.

mod faults;
mod member;
mod restore;
mod rollback;
mod traffic;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::Context;
use super::exit::{Exit, Failure};
use super::gate::failed;
use super::gate::place::Place;
use super::gate::report::{Check, Report, Scenario};
use crate::config::{LogTarget, StoreTarget, read_span};

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Fault {
    /// The store is taken away and given back
    SinkOutage,
    /// kill -9 of the projector, and a new one
    Kill,
    /// A projector is stopped, replaced, and wakes up again
    Zombie,
    /// The store is put back to an earlier moment (Redis; needs --i-know)
    SinkRollback,
    /// The store is lost, and the log has forgotten the beginning (Kafka and Redis; needs --i-know)
    Restore,
    /// A candidate with a defect is rolled out: the gates lead readers back (Kafka and Redis)
    Rollback,
    /// Everything is replayed from the log's start, under traffic
    Replay,
    /// A second projector joins and leaves
    Rebalance,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::SinkOutage => "sink-outage",
            Self::Kill => "kill",
            Self::Zombie => "zombie",
            Self::SinkRollback => "sink-rollback",
            Self::Restore => "restore",
            Self::Rollback => "rollback",
            Self::Replay => "replay",
            Self::Rebalance => "rebalance",
        }
    }

    /// What it will do, and what must come of it.
    fn about(self) -> &'static str {
        match self {
            Self::SinkOutage => {
                "Under traffic, every write to the store of this drill's own server fails for half of the time. \
                 Nothing is refused, no checkpoint moves, all is applied after."
            }
            Self::Kill => {
                "Under traffic, this drill's own projector is killed with SIGKILL and another is started. \
                 Nothing acknowledged is lost or counted twice."
            }
            Self::Zombie => {
                "Of two own projectors one is stopped with SIGSTOP until the other has its partitions, then wakes up. \
                 It harms nothing."
            }
            Self::SinkRollback => {
                "All keys of this drill's own namespace are put back to what they were earlier, under a live projector. \
                 It notices, and redoes what is missing."
            }
            Self::Restore => {
                "Under traffic, a snapshot is written; then this drill's own topic forgets what is in it, and all keys of \
                 its own namespace are deleted. They come back from the snapshot and the log."
            }
            Self::Rollback => {
                "Under traffic, readers of this drill's own namespace are led to a candidate whose settings change what \
                 documents say. A gate must break, and lead them back."
            }
            Self::Replay => {
                "Under traffic, all documents of this drill's own namespace go back to the log's start and are redone. \
                 They come out the same."
            }
            Self::Rebalance => {
                "Under traffic, a second own projector joins, takes over partitions, and leaves. \
                 Nothing is lost or counted twice."
            }
        }
    }
}

/// Behind the command's help.
pub(super) const HELP: &str = "Examples:\n  khala drill sink-outage\n  \
        khala drill kill --rate 500 --for 20s --report reports\n  \
        khala drill sink-rollback --i-know --log kafka://localhost:9092 --store redis://localhost:6379\n\n\
        It makes a topic, a namespace and a group of its own and removes them. zombie, rebalance and rollback need Kafka and\n\
        Redis, restore too, sink-rollback needs Redis. Exit code 3: FAIL.";

#[derive(clap::Args)]
pub(super) struct DrillArgs {
    /// What is broken on purpose
    pub name: Fault,
    /// Events a second meanwhile
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// How long the traffic lasts, about; half of it before the fault or under it
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = read_span)]
    pub lasts: Duration,
    /// Runs that the events belong to
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: u64,
    /// Write the report into this directory, as Markdown and JSON
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Limit: how long it may take until all is applied, or partitions have moved
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = read_span)]
    pub settle: Duration,
    /// Yes, overwrite keys in this Redis (those of the drill's own namespace)
    #[arg(long)]
    pub i_know: bool,
    /// What one process of a drill is told
    #[arg(long, hide = true)]
    pub member: Option<String>,
}

impl DrillArgs {
    /// Half of the traffic's time.
    async fn half(&self) {
        tokio::time::sleep(self.lasts / 2).await;
    }
}

pub(super) async fn run(args: DrillArgs, context: &Context) -> Result<Exit, Failure> {
    if let Some(task) = &args.member {
        return member::run(task, context).await;
    }
    let fault = args.name;
    let place = Place::new("drill", &context.settings);
    let needs_servers = matches!(fault, Fault::Zombie | Fault::Rebalance | Fault::Rollback);
    if needs_servers && place.is_embedded() {
        let message = format!("{}: an embedded directory has one process", fault.name());
        return Err(Failure::usage(message).hint("name servers: --log kafka://… --store redis://…"));
    }
    let overwrites = matches!(fault, Fault::SinkRollback | Fault::Restore);
    if overwrites && !matches!(context.settings.store, StoreTarget::Redis(_)) {
        let message = format!("{}: only a Redis can be put back", fault.name());
        return Err(Failure::usage(message).hint("--store redis://…"));
    }
    if fault == Fault::Restore && !matches!(context.settings.log, LogTarget::Kafka(_)) {
        let message = "restore: snapshots are in a topic of Kafka; the embedded log keeps all events";
        return Err(Failure::usage(message).hint("--log kafka://…"));
    }
    let out = context.out;
    let name = format!("drill {}", fault.name());
    out.note(format!("khala {name}: {}", fault.about()));
    out.note(format!(
        "It plays in topic {} and namespace {}, which go with it: {} events a second over {} runs.",
        place.settings.topic, place.settings.namespace, args.rate, args.runs
    ));
    if overwrites && !args.i_know {
        let message = format!("{} overwrites keys: say that you know it", fault.name());
        return Err(Failure::usage(message).hint("add --i-know"));
    }
    let terms = vec![
        (
            "traffic",
            format!("{} events a second over {} runs", args.rate, args.runs),
        ),
        ("limit of time to apply all", format!("{} ms", args.settle.as_millis())),
    ];
    let mut report = Report::new(&name, &context.settings, &place.settings, terms);
    let began = Instant::now();
    let done = tokio::select! {
        done = played(&args, &place) => done,
        _ = tokio::signal::ctrl_c() => Err(failed("interrupted")),
    };
    let removed = place.remove().await;
    let scenario = Scenario {
        criterion: 0,
        name: fault.name(),
        about: fault.about(),
    };
    // Log or store that cannot be reached are no finding.
    if let Err(failure) = &done
        && failure.exit == Exit::Unreachable
    {
        return Err(Failure::new(failure.exit, &failure.message));
    }
    report.add(scenario, began, done, out);
    removed?;
    report.end(args.report.as_deref(), out)
}

async fn played(args: &DrillArgs, place: &Place) -> Result<Vec<Check>, Failure> {
    match args.name {
        Fault::SinkOutage => faults::sink_outage(args, place).await,
        Fault::Kill => faults::kill(args, place).await,
        Fault::Zombie => faults::zombie(args, place).await,
        Fault::SinkRollback => faults::sink_rollback(args, place).await,
        Fault::Restore => restore::restore(args, place).await,
        Fault::Rollback => rollback::rollback(args, place).await,
        Fault::Replay => faults::replay(args, place).await,
        Fault::Rebalance => faults::rebalance(args, place).await,
    }
}

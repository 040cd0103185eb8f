//! The command: one file per subcommand. In: arguments. Out: data on stdout, all else on stderr, an exit code.

mod args;
mod audit;
mod bench;
mod completions;
mod config;
mod contract;
mod dead_letters;
mod demo;
mod documents;
mod door;
mod drill;
mod exit;
mod gate;
mod handoff;
mod key;
mod out;
mod publish;
mod rebuild;
mod remote;
mod replay;
mod rollout;
mod serve;
mod snapshot;
mod status;
mod tail;
mod top;
mod topics;

use std::process::ExitCode;
use std::sync::Arc;

use clap::FromArgMatches;

use self::args::{Command, ConfigCommand, TopicsCommand};
use self::dead_letters::DeadLettersCommand;
use self::exit::{Exit, Failure};
use self::out::Out;
use crate::access::instance;
use crate::config::{Loaded, load, variables};
use crate::telemetry::Export;

/// What every command has.
struct Context {
    loaded: Loaded,
    settings: Arc<crate::config::Settings>,
    out: Out,
    /// Where telemetry goes: nowhere, but for `serve` and `bench`.
    export: Export,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let matches = args::command().get_matches();
    let parsed = match args::Cli::from_arg_matches(&matches) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    let out = Out::new(parsed.json, parsed.command.only_reads());
    let result = run(parsed.command, &args::flags(&matches), out);
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            out.failure(&failure);
            failure.exit.into()
        }
    }
}

fn run(command: Command, flags: &crate::config::Flags, out: Out) -> Result<Exit, Failure> {
    if let Command::Completions { shell } = command {
        return completions::run(shell, out);
    }
    let loaded = load(flags, variables()).map_err(Failure::usage)?;
    let settings = Arc::new(loaded.settings.clone());
    let export = match command {
        Command::Serve | Command::Bench(_) => {
            Export::from_environment(&settings.namespace, &instance()).map_err(Failure::usage)?
        }
        _ => Export::off(),
    };
    // A server tells what it does; other commands print it, and log only what is wrong. What a gate breaks on purpose
    // is in its report.
    let level = match command {
        Command::Serve => "info",
        Command::Gate(_) | Command::Drill(_) => "error",
        _ => "warn",
    };
    crate::telemetry::logs::init(&export, level);
    let context = Context {
        loaded,
        settings,
        out,
        export,
    };
    let threads = std::thread::available_parallelism().map_or(4, usize::from).max(4);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads) // folding must not starve HTTP and timers on a small machine
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("no threads can be started: {error}")))?;
    let result = runtime.block_on(dispatch(command, &context));
    context.export.end();
    // A thread that still reads stdin must not hold the process up.
    runtime.shutdown_background();
    result
}

async fn dispatch(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Demo(args) => demo::run(args, context).await,
        Command::Serve => serve::run(context).await,
        Command::Publish { file } => publish::run(file.as_deref(), context).await,
        Command::Get { kind, id } => documents::get(kind, &id, context).await,
        Command::List(args) => documents::list(&args, context).await,
        Command::Tail { kind, id, after } => tail::run(kind, &id, after, context).await,
        Command::Top(args) => top::run(&args, context).await,
        Command::Status => status::status(context).await,
        Command::Checkpoints { partition, limit } => status::checkpoints(partition, limit, context).await,
        Command::Replay(args) => replay::run(args, context).await,
        Command::Rebuild(args) => rebuild::run(args, context).await,
        Command::Namespaces(command) => rebuild::namespaces(command, context).await,
        Command::Rollout(command) => rollout::run(command, context).await,
        Command::Audit(args) => audit::run(args, context).await,
        Command::Contract(command) => contract::run(command, context).await,
        Command::DeadLetters(DeadLettersCommand::List { reason, limit }) => {
            dead_letters::list(reason.as_deref(), limit, context).await
        }
        Command::DeadLetters(DeadLettersCommand::Show { partition, offset }) => {
            dead_letters::show(partition, offset, context).await
        }
        Command::DeadLetters(DeadLettersCommand::Redrive(args)) => dead_letters::redrive(args, context).await,
        Command::Snapshot { file } => snapshot::snapshot(file.as_deref(), context).await,
        Command::Restore { file } => snapshot::restore(file.as_deref(), context).await,
        Command::Resume { partition } => dead_letters::resume(partition, context).await,
        Command::Topics(TopicsCommand::Migrate { to }) => topics::migrate(&to, context).await,
        Command::Topics(TopicsCommand::Apply) => topics::apply(context).await,
        Command::Config(ConfigCommand::Check { connect }) => config::check(connect, context).await,
        Command::Key { kind, id } => key::run(kind, &id, context).await,
        Command::Drill(args) => drill::run(args, context).await,
        Command::Gate(args) => gate::run(args, context).await,
        Command::Handoff(args) => handoff::run(args, context).await,
        Command::Bench(args) => bench::run(args, context).await,
        Command::Completions { shell } => completions::run(shell, context.out),
    }
}

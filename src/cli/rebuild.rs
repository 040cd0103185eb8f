//! `khala rebuild` and `khala namespaces`.

use clap::Subcommand;

use super::Context;
use super::door::Door;
use super::exit::{Exit, Failure};
use super::out::Out;
use crate::access::{Access, NamespaceRow, RebuildProgress, RebuildReport, RebuildRequest};

/// Documents told by name; `--json` tells more.
const NAMED: usize = 20;

pub(super) const HELP: &str = "Examples:\n  khala rebuild --into khala-2\n  khala serve --namespace khala-2 --http 127.0.0.1:7601 &\n  \
    khala rebuild --into khala-2 --swap\n  khala namespaces drop khala\n\n\
    The old namespace goes on serving. Interrupted and asked again, it goes on where it was. Then both are compared.\n\
    --swap leads the readers of the old one over: if all is equal, and somebody projects the new one.\n\
    Exit 0: equal; 3: documents differ, or readers were not led over.";

#[derive(clap::Args)]
pub(super) struct RebuildArgs {
    /// The new namespace
    #[arg(long, value_name = "NS")]
    into: String,
    /// Lead the readers of the old namespace to the new one
    #[arg(long)]
    swap: bool,
    /// Although documents differ, as those of a new projection version do
    #[arg(long, requires = "swap")]
    accept_differences: bool,
}

#[derive(Subcommand)]
pub(super) enum NamespacesCommand {
    /// Which there are, who projects them, and where their readers are led
    #[command(after_help = "Example:\n  khala namespaces list --json")]
    List,
    /// Take one away, with all its documents
    #[command(after_help = "Example:\n  khala namespaces drop khala-1\n\n\
        Refused while somebody projects it, or readers are led to it.")]
    Drop {
        /// Its name
        name: String,
    },
    /// Lead the readers of the namespace back from where `rebuild --swap` led them
    #[command(after_help = "Example:\n  khala namespaces back --namespace khala")]
    Back,
}

fn direct(context: &Context) -> Result<Access, Failure> {
    match Door::open_existing(context)? {
        Door::Direct(access) => Ok(access),
        Door::Remote(_) => Err(Failure::usage("a running server owns the directory")
            .hint("stop it first; with Kafka and Redis it goes on serving meanwhile")),
    }
}

pub(super) async fn run(args: RebuildArgs, context: &Context) -> Result<Exit, Failure> {
    let request = RebuildRequest {
        into: args.into,
        swap: args.swap,
        accept_differences: args.accept_differences,
    };
    let access = direct(context)?;
    let out = context.out;
    let bar = out.progress(Some(0), "folding");
    let mut told = |progress: RebuildProgress| {
        bar.set_message(progress.phase.clone());
        bar.set_length(progress.of.max(progress.done));
        bar.set_position(progress.done);
        if out.json {
            out.value(&progress);
        }
    };
    let report = access.rebuild(&request, &mut told).await;
    bar.finish_and_clear();
    let report = report?;
    if out.json {
        out.value(&report);
    } else {
        tell(&report, out);
    }
    let is_done = report.parity.differing == 0 || report.swapped;
    Ok(if is_done && report.not_swapped.is_none() {
        Exit::Done
    } else {
        Exit::Drift
    })
}

fn tell(report: &RebuildReport, out: Out) {
    let cells = |row: &crate::access::RebuiltPartition| {
        let numbers = [u64::from(row.partition), row.from, row.until, row.restored];
        numbers.iter().map(u64::to_string).collect()
    };
    let rows: Vec<Vec<String>> = report.partitions.iter().map(cells).collect();
    out.table(&["partition", "from", "until", "restored"], &rows);
    let rate = report.records as f64 / report.seconds.max(0.001);
    out.note(format!(
        "{} records folded into {} in {:.1} s ({rate:.0} a second)",
        report.records, report.into, report.seconds
    ));
    let parity = &report.parity;
    out.line(format!(
        "\n{} documents compared: {} equal, {} differing ({} only in the old, {} only in the new), {} on the move",
        parity.documents, parity.equal, parity.differing, parity.only_old, parity.only_new, parity.moving
    ));
    if parity.differing > 0 {
        out.line(parity.changes.text());
        for row in parity.differ.iter().take(NAMED) {
            out.line(format!("  {}", row.document_id));
        }
        if parity.differing as usize > NAMED {
            out.line("  … --json tells more");
        }
    }
    match &report.not_swapped {
        Some(why) => out.note(format!("readers were not led over: {why}")),
        None if report.swapped => out.note(format!("readers get the documents of {} now", report.into)),
        None => {}
    }
}

pub(super) async fn namespaces(command: NamespacesCommand, context: &Context) -> Result<Exit, Failure> {
    let (access, out) = (direct(context)?, context.out);
    match command {
        NamespacesCommand::List => {
            let rows = access.namespaces().await?;
            if out.json {
                out.value(&rows);
                return Ok(Exit::Done);
            }
            let cells = |row: &NamespaceRow| {
                vec![
                    row.namespace.clone(),
                    row.partitions.to_string(),
                    row.offset.to_string(),
                    row.projected.to_string(),
                    row.route.clone().unwrap_or_default(),
                ]
            };
            let rows: Vec<_> = rows.iter().map(cells).collect();
            out.table(
                &["namespace", "partitions", "events", "projected", "readers led to"],
                &rows,
            );
        }
        NamespacesCommand::Drop { name } => {
            access.drop_namespace(&name).await?;
            out.note(format!("namespace {name} is gone"));
        }
        NamespacesCommand::Back => {
            let from = access.lead_back().await?;
            let own = &context.settings.namespace;
            out.note(format!(
                "readers of {own} get its own documents again, no longer those of {from}"
            ));
        }
    }
    Ok(Exit::Done)
}

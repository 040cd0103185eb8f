//! `khala replay`.

use indicatif::ProgressBar;

use super::Context;
use super::args::ReplayArgs;
use super::audit;
use super::door::Door;
use super::exit::{Exit, Failure};
use super::out::Out;
use crate::access::{EntityOrder, ReplayProgress, ReplayReport, ReplayRequest};
use crate::repair::{AuditProgress, Forecast, From};

pub(super) async fn run(args: ReplayArgs, context: &Context) -> Result<Exit, Failure> {
    if let (Some(kind), Some(id)) = (args.kind, args.id.as_deref()) {
        let entity = audit::entity(kind, id)?.subject().to_owned();
        let order = EntityOrder {
            entity,
            dry_run: args.dry_run,
        };
        return audit::replay_entity(&order, context).await;
    }
    let from = args.from.join(" ");
    from.parse::<From>()
        .map_err(|problem| Failure::usage(format!("--from {problem}")))?;
    let request = ReplayRequest {
        partition: args.partition,
        from,
        dry_run: args.dry_run,
    };
    let door = Door::open_existing(context)?;
    let out = context.out;
    if args.dry_run {
        return forecast(&door, &request, out).await;
    }
    let bar = out.progress(Some(0), "replaying");
    let mut told = |progress: ReplayProgress| {
        show(&bar, &progress);
        if out.json {
            out.value(&progress);
        }
    };
    let report = door.replay(&request, &mut told).await;
    bar.finish_and_clear();
    let report = report?;
    tell(&report, context);
    Ok(if report.proof.wrong.is_empty() {
        Exit::Done
    } else {
        Exit::Drift
    })
}

async fn forecast(door: &Door, request: &ReplayRequest, out: Out) -> Result<Exit, Failure> {
    let bar = out.progress(Some(audit::PARTS), "comparing");
    let watch = |progress: AuditProgress| audit::show(&bar, progress);
    let forecast = door.forecast(request, &watch).await;
    bar.finish_and_clear();
    let forecast = forecast?;
    if out.json {
        out.value(&forecast);
    } else {
        tell_forecast(&forecast, out);
    }
    Ok(Exit::Done)
}

/// Documents told by name; `--json` tells more.
const NAMED: usize = 20;

fn tell_forecast(forecast: &Forecast, out: Out) {
    let rows: Vec<Vec<String>> = forecast
        .partitions
        .iter()
        .map(|row| {
            let numbers = [
                u64::from(row.partition),
                row.from,
                row.until,
                row.records,
                row.documents,
                row.changed,
            ];
            numbers.iter().map(u64::to_string).collect()
        })
        .collect();
    out.table(&["partition", "from", "until", "to redo", "documents", "change"], &rows);
    out.line(format!("\n{}", forecast.changes.text()));
    named(forecast.changed.iter().map(audit::line), forecast.changed.len(), out);
    if forecast.left_count > 0 {
        out.line(format!(
            "{} left as they are, for their first events are gone from the log:",
            forecast.left_count
        ));
        named(
            forecast.left.iter().map(|name| format!("  {name}")),
            forecast.left_count as usize,
            out,
        );
    }
    if !forecast.not_reached.is_empty() {
        let count = forecast.not_reached.len();
        out.line(format!("{count} are wrong, and this replay begins behind them:"));
        named(forecast.not_reached.iter().map(audit::line), count, out);
        out.note("hint: `khala audit --repair` puts these right, or --from with an earlier mark");
    }
    out.note(format!(
        "{} records to redo, about {:.0} s; nothing was changed: without --dry-run it is done",
        forecast.records,
        forecast.expected_seconds.ceil()
    ));
}

fn named(lines: impl Iterator<Item = String>, count: usize, out: Out) {
    lines.take(NAMED).for_each(|line| out.line(line));
    if count > NAMED {
        out.line(format!("  and {} more; --json tells each", count - NAMED));
    }
}

fn show(bar: &ProgressBar, progress: &ReplayProgress) {
    let ReplayProgress { partition, phase, .. } = progress;
    bar.set_message(format!("partition {partition} {phase}"));
    bar.set_length(progress.until);
    bar.set_position(progress.offset);
}

fn tell(report: &ReplayReport, context: &Context) {
    let out = context.out;
    if out.json {
        return out.value(report);
    }
    let rows: Vec<Vec<String>> = report
        .partitions
        .iter()
        .map(|partition| {
            let numbers = [
                u64::from(partition.partition),
                partition.from,
                partition.until,
                partition.entities,
                partition.records,
                partition.left.len() as u64,
            ];
            numbers.iter().map(u64::to_string).collect()
        })
        .collect();
    let headings = ["partition", "from", "until", "put back", "redone", "left"];
    out.table(&headings, &rows);
    let rate = report.records as f64 / report.seconds.max(0.001);
    out.note(format!(
        "{} records redone in {:.1} s ({rate:.0} a second)",
        report.records, report.seconds
    ));
    let proof = &report.proof;
    out.note(format!(
        "proven: {} documents are what the log says, looked at again in {:.1} s",
        proof.proven, proof.seconds
    ));
    if !proof.wrong.is_empty() {
        out.line(format!("{} are not:", proof.wrong.len()));
        named(proof.wrong.iter().map(audit::line), proof.wrong.len(), out);
    }
    let left: Vec<&String> = report.partitions.iter().flat_map(|partition| &partition.left).collect();
    if !left.is_empty() {
        out.note("left as they were, for neither log nor snapshot has their beginning:");
        left.iter().for_each(|document| out.note(format!("  {document}")));
    }
}

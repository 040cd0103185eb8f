//! `khala replay`.

use indicatif::ProgressBar;

use super::Context;
use super::args::ReplayArgs;
use super::audit;
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::access::{EntityOrder, ReplayProgress, ReplayReport, ReplayRequest};
use crate::repair::From;

pub(super) async fn run(args: ReplayArgs, context: &Context) -> Result<Exit, Failure> {
    if let (Some(kind), Some(id)) = (args.kind, args.id.as_deref()) {
        let entity = audit::entity(kind, id)?.subject().to_owned();
        let order = EntityOrder {
            entity,
            dry_run: args.dry_run,
        };
        return audit::replay_entity(&order, context).await;
    }
    if args.dry_run {
        return Err(Failure::usage(
            "--dry-run is there for one entity only: khala replay run ID --dry-run",
        ));
    }
    let from = args.from.join(" ");
    from.parse::<From>()
        .map_err(|problem| Failure::usage(format!("--from {problem}")))?;
    let request = ReplayRequest {
        partition: args.partition,
        from,
    };
    let door = Door::open_existing(context)?;
    let out = context.out;
    let bar = out.progress(Some(0), "replaying");
    let mut told = |progress: ReplayProgress| {
        show(&bar, &progress);
        if out.json {
            out.value(&progress);
        }
    };
    let report = door.replay(&request, &mut told).await;
    bar.finish_and_clear();
    tell(&report?, context);
    Ok(Exit::Done)
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
    let left: Vec<&String> = report.partitions.iter().flat_map(|partition| &partition.left).collect();
    if !left.is_empty() {
        out.note("left as they were, for neither log nor snapshot has their beginning:");
        left.iter().for_each(|document| out.note(format!("  {document}")));
    }
}

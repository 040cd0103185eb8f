//! `khala audit`, and the replay of one entity.

use indicatif::ProgressBar;

use super::Context;
use super::args::{AuditArgs, EntityKind};
use super::door::Door;
use super::exit::{Exit, Failure};
use super::out::Out;
use crate::access::{AuditOrder, EntityOrder};
use crate::pure::entity::{Entity, Kind};
use crate::repair::{AuditProgress, AuditReport, DriftRow, EntityReplay, EntityResult};

/// Drifted documents printed; `--json` prints all.
const ROWS_MAX: usize = 200;
/// Parts of the progress bar.
const PARTS: u64 = 1000;

pub(super) async fn run(args: AuditArgs, context: &Context) -> Result<Exit, Failure> {
    let entity = match (args.kind, args.id.as_deref()) {
        (Some(kind), Some(id)) => Some(entity(kind, id)?.subject().to_owned()),
        _ => None,
    };
    let order = AuditOrder {
        partition: args.partition,
        entity,
        sample: args.sample,
        repair: args.repair,
        repair_max: args.repair_max,
    };
    let bar = context.out.progress(Some(PARTS), "audit");
    let watch = |progress: AuditProgress| show(&bar, progress);
    let report = Door::open_existing(context)?.audit(&order, &watch).await;
    bar.finish_and_clear();
    let report = report?;
    if context.out.json {
        context.out.value(&report);
    } else {
        print(context.out, &report);
    }
    Ok(if report.clean { Exit::Done } else { Exit::Drift })
}

fn show(bar: &ProgressBar, progress: AuditProgress) {
    bar.set_position((progress.done * PARTS as f64) as u64);
}

fn print(out: Out, report: &AuditReport) {
    let mut rows = report.drift.iter().take(ROWS_MAX).peekable();
    for partition in &report.partitions {
        let verified = if partition.verified { "   verified" } else { "" };
        out.line(format!(
            "partition {:<4} offsets {}..{}   {} documents   {} drifted{verified}",
            partition.partition, partition.from, partition.until, partition.documents, partition.drifted
        ));
        while let Some(row) = rows.next_if(|row| row.partition == partition.partition) {
            out.line(line(row));
        }
    }
    rows.for_each(|row| out.line(format!("partition {}{}", row.partition, line(row))));
    if report.drift.len() > ROWS_MAX || report.truncated {
        let more = if report.truncated { " and more" } else { "" };
        out.line(format!("{} in all{more}; --json tells each", report.drift.len()));
    }
    let unverifiable = match report.unverifiable {
        0 => String::new(),
        count => format!("   {count} whose first events are gone from the log"),
    };
    let gaps = match report.sequence_gaps {
        0 => String::new(),
        count => format!("   {count} with sequences that never came"),
    };
    out.line(format!(
        "\n{} documents, {} drifted{unverifiable}{gaps}   {} records in {:.1} s, {} MB",
        report.documents,
        report.drift.len(),
        report.records,
        report.seconds,
        report.memory_bytes >> 20
    ));
    match &report.repair {
        None if report.clean => {}
        None => out.note("hint: `khala audit --repair` folds them anew from the log"),
        Some(repair) => {
            if let Some(refused) = &repair.refused {
                return out.note(format!("khala: {refused}"));
            }
            out.line(format!(
                "repaired: {} rebuilt, {} removed",
                repair.rebuilt, repair.removed
            ));
            for row in &repair.left {
                out.line(format!("left{}", line(row)));
            }
        }
    }
}

fn line(row: &DriftRow) -> String {
    let offset = row
        .offset
        .map_or_else(String::new, |offset| format!("   offset {offset}"));
    let lost = if row.repairable || row.document_id.is_empty() {
        ""
    } else {
        "   cannot be rebuilt: its first events may be gone from the log"
    };
    format!(
        "  {}   {}{offset}   {}{lost}",
        row.document_id,
        row.reason.name(),
        row.detail
    )
}

pub(super) fn entity(kind: EntityKind, id: &str) -> Result<Entity, Failure> {
    let kind = Kind::from(kind);
    Entity::new(kind, id).ok_or_else(|| Failure::usage(format!("{id:?} is no id: 1–128 of A–Z a–z 0–9 . _ : -")))
}

/// `khala replay run|worker ID`.
pub(super) async fn replay_entity(order: &EntityOrder, context: &Context) -> Result<Exit, Failure> {
    let replay = Door::open_existing(context)?.replay_entity(order).await?;
    if context.out.json {
        context.out.value(&replay);
    } else {
        print_replay(context.out, &replay);
    }
    Ok(Exit::Done)
}

fn print_replay(out: Out, replay: &EntityReplay) {
    let would = if replay.dry_run { "would be " } else { "" };
    let what = match replay.result {
        EntityResult::Unchanged => "unchanged: it is what the log says".to_owned(),
        EntityResult::Rebuilt => format!("{would}rebuilt"),
        EntityResult::Removed => format!("{would}removed: the log has no event of it"),
    };
    let why = replay
        .reason
        .map_or_else(String::new, |reason| format!("   {}: {}", reason.name(), replay.detail));
    out.line(format!(
        "{}   partition {}   {what}{why}   {} events of {} records in {} ms",
        replay.document_id, replay.partition, replay.events, replay.records, replay.milliseconds
    ));
    for difference in &replay.differences {
        let path = if difference.path.is_empty() {
            "document"
        } else {
            &difference.path
        };
        out.line(format!("  {path}: {} → {}", difference.before, difference.after));
    }
}

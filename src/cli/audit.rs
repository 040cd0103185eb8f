//! `khala audit`, and the replay of one entity.

use std::fmt::Write as _;

use indicatif::ProgressBar;

use super::Context;
use super::args::{AuditArgs, EntityKind};
use super::door::Door;
use super::exit::{Exit, Failure};
use super::out::Out;
use crate::access::{AuditOrder, EntityOrder};
use crate::pure::drift::Difference;
use crate::pure::entity::{Entity, Kind};
use crate::repair::{AuditProgress, AuditReport, DriftRow, EntityReplay, EntityResult};

/// Drifted documents printed; `--json` prints all.
const ROWS_MAX: usize = 200;
/// Parts of the progress bar.
pub(super) const PARTS: u64 = 1000;

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
    match report.passed_over() {
        Some(words) if report.drift.is_empty() => Err(Failure::new(Exit::Failed, words)),
        _ if report.clean => Ok(Exit::Done),
        _ => Ok(Exit::Drift),
    }
}

pub(super) fn show(bar: &ProgressBar, progress: AuditProgress) {
    bar.set_position((progress.done * PARTS as f64) as u64);
}

fn print(out: Out, report: &AuditReport) {
    let mut rows = report.drift.iter().take(ROWS_MAX).peekable();
    for partition in &report.partitions {
        let verified = if partition.verified { "   verified" } else { "" };
        out.line(format!(
            "partition {:<4} offsets {}..{}   {}   {} drifted{verified}",
            partition.partition,
            partition.from,
            partition.until,
            documents(partition.documents),
            partition.drifted
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
    if report.changes.changed > 0 {
        let when = if report.repair.is_none() { "with --repair: " } else { "" };
        out.line(format!("\n{when}{}", report.changes.text()));
    }
    let unverifiable = match report.unverifiable {
        0 => String::new(),
        count => format!("   {count} whose first events are gone from the log"),
    };
    let expired = match report.expired {
        0 => String::new(),
        count => format!("   {count} expired"),
    };
    let gaps = match report.sequence_gaps {
        0 => String::new(),
        count => format!("   {count} with sequences that never came"),
    };
    out.line(format!(
        "\n{}, {} drifted{unverifiable}{expired}{gaps}   {} records in {:.1} s, {:.1} MB",
        documents(report.documents),
        report.drift.len(),
        report.records,
        report.seconds,
        report.memory_bytes as f64 / 1e6
    ));
    if let Some(words) = report.passed_over().filter(|_| !report.drift.is_empty()) {
        out.note(format!("khala: {words}"));
    }
    match &report.repair {
        None if report.drift.is_empty() => {}
        None => out.note("hint: `khala audit --repair` folds them anew from the log"),
        Some(_) if report.drift.is_empty() => out.line("nothing to repair"),
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

fn documents(count: u64) -> String {
    let noun = if count == 1 { "document" } else { "documents" };
    format!("{count} {noun}")
}

pub(super) fn line(row: &DriftRow) -> String {
    let offset = row
        .offset
        .map_or_else(String::new, |offset| format!("   offset {offset}"));
    let lost = if row.repairable || row.document_id.is_empty() {
        ""
    } else {
        "   cannot be rebuilt: its first events may be gone from the log"
    };
    let fields: String = told(&row.differences)
        .take(FIELDS_MAX)
        .fold(String::new(), |mut text, field| {
            let _ = write!(text, "   {field}");
            text
        });
    let more = match told(&row.differences).count().saturating_sub(FIELDS_MAX) {
        0 => String::new(),
        count => format!("   and {count} more"),
    };
    format!(
        "  {}   {}{offset}   {}{lost}{fields}{more}",
        row.document_id,
        row.reason.name(),
        row.detail
    )
}

/// Fields told of one document in its line.
const FIELDS_MAX: usize = 2;

/// Differences in words; a hash that follows from the rest says nothing of its own.
fn told(differences: &[Difference]) -> impl Iterator<Item = String> {
    let plain = differences
        .iter()
        .filter(|difference| difference.path != "summary_hash");
    plain.map(|Difference { path, before, after }| {
        let path = if path.is_empty() { "document" } else { path };
        format!("{path}: {before} → {after}")
    })
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
        EntityResult::Unchanged => format!(
            "unchanged: it is what the log says up to its last offset, {}",
            replay.offset.unwrap_or_default()
        ),
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
    told(&replay.differences).for_each(|field| out.line(format!("  {field}")));
}

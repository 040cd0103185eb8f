//! `khala status` and `khala checkpoints`.

use super::Context;
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::access::{AuditStatus, StatusReport};

pub(super) async fn status(context: &Context) -> Result<Exit, Failure> {
    let report = Door::open_existing(context)?.status().await?;
    let out = context.out;
    if out.json {
        out.value(&report);
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = report
        .partitions
        .iter()
        .map(|row| {
            vec![
                row.partition.to_string(),
                row.offset.to_string(),
                row.end.to_string(),
                row.lag_events.to_string(),
                format!("{:.1}", row.lag_seconds),
                row.state.clone(),
                row.reason.clone().unwrap_or_else(|| "-".to_owned()),
                row.owner.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    out.table(
        &["partition", "offset", "end", "lag", "lag s", "state", "reason", "owner"],
        &rows,
    );
    let totals = &report.totals;
    out.line(format!(
        "\nnamespace {}   topic {}   {} records: {} accepted, {} duplicates, {} dead letters   lag {}",
        report.namespace,
        report.topic,
        totals.records,
        totals.accepted,
        totals.duplicates,
        totals.dead_letters,
        totals.lag_events
    ));
    for row in &report.partitions {
        if let Some(detail) = &row.detail {
            out.line(format!("partition {}: {detail}", row.partition));
        }
        if row.parked > 0 {
            out.line(format!(
                "partition {}: {} entities wait for a repair (`khala audit --repair`): {}",
                row.partition,
                row.parked,
                row.parked_entities.join(" ")
            ));
        }
    }
    if let Some(line) = reach_line(&report) {
        out.line(line);
    }
    if let Some(audit) = &report.audit {
        out.line(audit_line(audit));
    }
    Ok(Exit::Done)
}

/// How far back the log alone reaches, in the partition where it reaches least.
fn reach_line(report: &StatusReport) -> Option<String> {
    let reaches = report.partitions.iter().filter_map(|row| row.horizon_seconds);
    let seconds = reaches.reduce(f64::min)?;
    let span = match seconds {
        days if days >= 2.0 * 86_400.0 => format!("{:.1} days", days / 86_400.0),
        hours if hours >= 2.0 * 3_600.0 => format!("{:.1} hours", hours / 3_600.0),
        seconds => format!("{seconds:.0} seconds"),
    };
    let beyond: u64 = report.partitions.iter().map(|row| row.beyond_log).sum();
    let rest = match beyond {
        0 => String::new(),
        count => format!("; {count} documents ended before that: only a snapshot can give them back"),
    };
    Some(format!("the log alone reaches back {span}{rest}"))
}

fn audit_line(audit: &AuditStatus) -> String {
    let now = audit
        .progress
        .map_or_else(String::new, |done| format!("   at work: {:.0} %", done * 100.0));
    match &audit.last_at {
        Some(at) => format!(
            "audit in the background: {} documents, {} drifted, ended {at}{now}",
            audit.documents, audit.drifted
        ),
        None => format!("audit in the background: none has ended yet{now}"),
    }
}

pub(super) async fn checkpoints(partition: Option<u32>, limit: usize, context: &Context) -> Result<Exit, Failure> {
    let rows = Door::open_existing(context)?.checkpoints(partition, limit).await?;
    let out = context.out;
    if out.json {
        rows.iter().for_each(|row| out.value(row));
        return Ok(Exit::Done);
    }
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.partition.to_string(),
                row.offset.to_string(),
                row.written_at.clone(),
                row.records.to_string(),
                yes_no(row.good),
                yes_no(row.verified),
                row.last_record.clone(),
            ]
        })
        .collect();
    out.table(
        &[
            "partition",
            "offset",
            "written",
            "records",
            "good",
            "verified",
            "last record",
        ],
        &cells,
    );
    Ok(Exit::Done)
}

//! What a replay would do, before it does it. In: from where to where, by partition. Out: which documents change in
//! which fields, what is left as it is, and how long it takes. It is an audit of the documents that the replay touches.
//! Invariant: nothing is written.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::super::ground::{Ground, Pace};
use super::super::report::DriftRow;
use super::super::rewind::SLICE_ENTITIES;
use super::super::site::RepairError;
use super::{Audit, AuditRequest, Watch};
use crate::pure::drift::Summary;
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::refold::Slice;

/// A part of a partition that is to be redone.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Which partition.
    pub partition: PartitionId,
    /// The mark.
    pub from: NextOffset,
    /// The checkpoint.
    pub until: NextOffset,
}

/// One partition's share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ForecastPartition {
    /// Which.
    pub partition: u32,
    /// The mark it would go back to.
    pub from: u64,
    /// Where it stands.
    pub until: u64,
    /// Records to be redone.
    pub records: u64,
    /// Documents put back and redone.
    pub documents: u64,
    /// Those that would be others after it.
    pub changed: u64,
}

/// What a replay would do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Forecast {
    /// Always true: nothing was changed.
    pub dry_run: bool,
    /// By number.
    pub partitions: Vec<ForecastPartition>,
    /// Records to be redone, over all.
    pub records: u64,
    /// Documents put back and redone, over all.
    pub documents: u64,
    /// What changes, field by field.
    pub changes: Summary,
    /// Documents that change.
    pub changed: Vec<DriftRow>,
    /// There are more than are listed.
    pub truncated: bool,
    /// Documents left as they are by name (the first 1,000): their first events are gone from the log.
    pub left: Vec<String>,
    /// How many there are.
    pub left_count: u64,
    /// Documents that are not what the log says, and that this replay does not put right: it begins behind them.
    pub not_reached: Vec<DriftRow>,
    /// How long it takes, as far as it can be told from how long this took.
    pub expected_seconds: f64,
    /// How long this took.
    pub seconds: f64,
}

/// Tells what a replay of these stretches would do.
///
/// # Errors
/// Log or store do not answer; a rewind is under way.
pub async fn forecast(
    ground: &Ground,
    stretches: &[Stretch],
    memory_bytes: usize,
    watch: Watch<'_>,
) -> Result<Forecast, RepairError> {
    let began = Instant::now();
    let request = AuditRequest {
        partitions: Some(stretches.iter().map(|stretch| stretch.partition).collect()),
        slices: vec![Slice::ALL],
        memory_bytes,
        pace: Pace::FULL,
    };
    let since = stretches.iter().map(|stretch| (stretch.partition, stretch.from));
    let mut audit = Audit::new(ground, &request, watch, since.collect());
    audit.run().await?;
    let expected_seconds = expected_seconds(&audit, stretches);
    let Audit { report, beyond, .. } = audit;
    let partition = |stretch: &Stretch| {
        let seen = report
            .partitions
            .iter()
            .find(|row| row.partition == stretch.partition.0);
        ForecastPartition {
            partition: stretch.partition.0,
            from: stretch.from.0,
            until: stretch.until.0,
            records: stretch.from.until(stretch.until),
            documents: seen.map_or(0, |row| row.documents),
            changed: seen.map_or(0, |row| row.drifted),
        }
    };
    let (changed, lost): (Vec<_>, Vec<_>) = report.drift.iter().cloned().partition(|row| row.repairable);
    let mut left = report.unverifiable_documents.clone();
    left.extend(lost.iter().map(|row| row.document_id.clone()));
    Ok(Forecast {
        dry_run: true,
        partitions: stretches.iter().map(partition).collect(),
        records: stretches.iter().map(|stretch| stretch.from.until(stretch.until)).sum(),
        documents: report.documents,
        left_count: report.unverifiable + lost.len() as u64,
        changed,
        left,
        changes: report.changes,
        truncated: report.truncated,
        not_reached: beyond,
        expected_seconds,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// An event that goes into its entity's stream, as measured with Redis on a small machine.
const STREAM_SECONDS: f64 = 4e-6;

/// A replay reads the log from the oldest entity on, once for every so many, and then what it redoes once more; and it
/// writes each document twice. Reading goes as fast as it went here, writing about as fast as reading documents did.
fn expected_seconds(audit: &Audit<'_>, stretches: &[Stretch]) -> f64 {
    let spent = &audit.work;
    let passed = |stretch: &Stretch| {
        let (begin, old) = spent.old.get(&stretch.partition).copied().unwrap_or((stretch.from, 0));
        let passes = old.div_ceil(SLICE_ENTITIES as u64);
        passes * begin.until(stretch.from) + stretch.from.until(stretch.until)
    };
    let records: u64 = stretches.iter().map(passed).sum();
    let redone: u64 = stretches.iter().map(|stretch| stretch.from.until(stretch.until)).sum();
    let streams = if audit.ground.events_kept > 0 {
        redone as f64 * STREAM_SECONDS
    } else {
        0.0
    };
    let each = |count: u64, time: std::time::Duration| time.as_secs_f64() / count.max(1) as f64;
    records as f64 * each(spent.records, spent.reading)
        + 2.0 * spent.documents as f64 * each(spent.documents, spent.listing)
        + streams
}

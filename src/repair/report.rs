//! What audits tell.

use serde::{Deserialize, Serialize};

use super::examine::Examined;
use super::verdict::{Rebuild, Verdict};
use crate::pure::drift::{Difference, Reason, Summary};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::PartitionId;

/// The most drifted documents that are told one by one.
pub const DRIFT_MAX: usize = 100_000;
/// One document that is not what the log says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriftRow {
    /// `run_summary:<id>` or `worker_summary:<id>`; empty where the partition as a whole is meant.
    pub document_id: String,
    /// Why.
    pub reason: Reason,
    /// The same in words.
    pub detail: String,
    /// Where it lives.
    pub partition: u32,
    /// Offset of its last event in the log, or the checkpoint's.
    pub offset: Option<u64>,
    /// Whether the log can give it back.
    pub repairable: bool,
    /// Whether its events wait for a repair.
    pub parked: bool,
    /// Fields in which it is not what the log says; of the first rows only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

impl DriftRow {
    /// Whose document it is.
    pub fn entity(&self) -> Option<Entity> {
        let (kind, id) = self.document_id.split_once(':')?;
        let kind = Kind::ALL.into_iter().find(|known| known.document() == kind)?;
        Entity::new(kind, id)
    }
}

/// One partition's share of an audit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartitionAudit {
    /// Which.
    pub partition: u32,
    /// The log's first offset.
    pub from: u64,
    /// The checkpoint when it began: everything below was checked.
    pub until: u64,
    /// Documents looked at.
    pub documents: u64,
    /// Those that are not what the log says.
    pub drifted: u64,
    /// Whether its checkpoint was marked as verified.
    pub verified: bool,
}

/// A partition that could not be compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkippedPartition {
    /// Which.
    pub partition: u32,
    /// Why, and what to do.
    pub why: String,
}

/// What an audit found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AuditReport {
    /// Documents looked at.
    pub documents: u64,
    /// Whether all of them are what the log says, none is missing, and each partition could be compared.
    pub clean: bool,
    /// Those that are not.
    pub drift: Vec<DriftRow>,
    /// There were more than are listed: the audit stopped looking.
    pub truncated: bool,
    /// Partitions that were passed over, for their documents are no state now: a rewind is under way.
    #[serde(default)]
    pub skipped: Vec<SkippedPartition>,
    /// What putting it right changes, field by field.
    pub changes: Summary,
    /// Documents whose first events are gone from the log.
    pub unverifiable: u64,
    /// The first of them by name.
    pub unverifiable_documents: Vec<String>,
    /// Documents that were taken away long after their end (`keep_terminal`): no drift.
    #[serde(default)]
    pub expired: u64,
    /// Documents with sequences that never came: not drift, the producers' loss.
    pub sequence_gaps: u64,
    /// What a repair came to; null if none was asked for.
    pub repair: Option<AuditRepair>,
    /// By partition.
    pub partitions: Vec<PartitionAudit>,
    /// Passes over the log: one, unless memory asked for more.
    pub slices: u64,
    /// Records read.
    pub records: u64,
    /// The most memory held for entities and documents, in bytes.
    pub memory_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

impl AuditReport {
    /// Whether nothing of what was asked for is known to be wrong, or is not known.
    pub fn is_clean(&self) -> bool {
        self.drift.is_empty() && self.skipped.is_empty()
    }

    /// What was passed over, in words; `None`: nothing.
    pub fn passed_over(&self) -> Option<String> {
        let each = self.skipped.iter();
        let each: Vec<String> = each
            .map(|it| format!("partition {}: {}", it.partition, it.why))
            .collect();
        (!each.is_empty()).then(|| format!("not compared: {}", each.join("; ")))
    }
}

/// What the repair of an audit's findings came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditRepair {
    /// Documents folded anew.
    pub rebuilt: u64,
    /// Documents that went, because the log has no event of them.
    pub removed: u64,
    /// Documents that were right when they were looked at again.
    pub clean: u64,
    /// What is still not as the log says.
    pub left: Vec<DriftRow>,
    /// Why nothing was repaired, and how to go on.
    pub refused: Option<String>,
}

/// How far an audit is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditProgress {
    /// Share of the subjects that are done, plus of the slice at work.
    pub done: f64,
    /// Documents looked at so far.
    pub documents: u64,
    /// Records read so far.
    pub records: u64,
    /// Drift found so far.
    pub drifted: u64,
}

/// The row of an entity that drifted.
pub fn drift_row(partition: PartitionId, examined: &Examined) -> Option<DriftRow> {
    let Verdict::Drift {
        reason,
        detail,
        rebuild,
    } = &examined.verdict
    else {
        return None;
    };
    Some(DriftRow {
        document_id: examined.entity.document_id(),
        reason: *reason,
        detail: detail.clone(),
        partition: partition.0,
        offset: examined.refolded.document.offset().map(|offset| offset.0),
        repairable: *rebuild == Rebuild::Possible,
        parked: examined.parked.is_some(),
        differences: Vec::new(),
    })
}

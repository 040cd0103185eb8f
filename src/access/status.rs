//! How things stand: each partition, its checkpoint against the log's end, why it is held.
//! A server tells of its own partitions what its drivers know; of others, and from outside, the same recovery table
//! is asked that a projector asks.

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::{Access, AccessError, AuditStatus, SnapshotStatus};
use crate::log::Bounds;
use crate::projector::{Hold, PartitionStatus};
use crate::pure::checkpoint::{Checkpoint, Mark};
use crate::pure::entity::Entity;
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::recovery::{self, Called, LastRecord, Step};
use crate::repair::{compare, last_record_of};
use crate::store::{self, Owner, StoreError};

/// One partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartitionRow {
    /// Its number.
    pub partition: u32,
    /// The next offset to apply.
    pub offset: u64,
    /// The log's end.
    pub end: u64,
    /// Offsets between them.
    pub lag_events: u64,
    /// Age of the oldest record not yet applied; 0 when caught up.
    pub lag_seconds: f64,
    /// `running`, `held`, `retrying`, `recovering`; `stopped` where nobody owns it.
    pub state: String,
    /// Why it is held, in one word.
    pub reason: Option<String>,
    /// Why it is held or retrying, in words.
    pub detail: Option<String>,
    /// The owner's token.
    pub owner: Option<String>,
    /// Entities whose events wait for a repair.
    pub parked: usize,
    /// Some of them by name: `run/<id>`, `worker/<id>`.
    #[serde(default)]
    pub parked_entities: Vec<String>,
    /// Documents whose last event is gone from the log: only a snapshot can give them back.
    #[serde(default)]
    pub beyond_log: u64,
    /// Age of the log's first record in seconds: how far back the log alone reaches. Null: it has all it ever had.
    #[serde(default)]
    pub horizon_seconds: Option<f64>,
}

/// Sums over all partitions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Records applied.
    pub records: u64,
    /// Events accepted.
    pub accepted: u64,
    /// Events seen before.
    pub duplicates: u64,
    /// Records that are no legal events.
    pub dead_letters: u64,
    /// Offsets not yet applied.
    pub lag_events: u64,
}

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusReport {
    /// The namespace.
    pub namespace: String,
    /// The events' topic.
    pub topic: String,
    /// By number.
    pub partitions: Vec<PartitionRow>,
    /// Sums.
    pub totals: Totals,
    /// How a server's background audit stands.
    #[serde(default)]
    pub audit: Option<AuditStatus>,
    /// How a server's snapshots stand; null: it writes none.
    #[serde(default)]
    pub snapshots: Option<SnapshotStatus>,
}

/// One mark of the history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckpointRow {
    /// The partition.
    pub partition: u32,
    /// The next offset to apply.
    pub offset: u64,
    /// `<offset>:<timestamp>:<crc32c>` of the last record applied; empty if none was.
    pub last_record: String,
    /// Records applied so far.
    pub records: u64,
    /// Events accepted so far.
    pub accepted: u64,
    /// Events seen before, so far.
    pub duplicates: u64,
    /// Dead letters so far.
    pub dead_letters: u64,
    /// Over all documents.
    pub digest: String,
    /// When it was written.
    pub written_at: String,
    /// Whether it lies inside the log and its last record is still the one it names.
    pub good: bool,
    /// Whether an audit found its documents equal to the log.
    pub verified: bool,
}

impl Access {
    /// How things stand now.
    ///
    /// # Errors
    /// Log or store do not answer.
    pub async fn status(&self, now_ms: i64) -> Result<StatusReport, AccessError> {
        let board = self
            .serving
            .as_ref()
            .map(|serving| serving.board.snapshot())
            .unwrap_or_default();
        let snapshots = self.snapshot_status(&board);
        let partitions = self.partitions().await?;
        let rows = partitions.into_iter().map(|partition| {
            let known = board.iter().find(|status| status.partition == partition);
            self.partition(partition, known, now_ms)
        });
        let mut totals = Totals::default();
        let mut partitions = Vec::new();
        for (row, checkpoint) in try_join_all(rows).await? {
            totals.lag_events += row.lag_events;
            if let Some(checkpoint) = checkpoint {
                totals.records += checkpoint.records;
                totals.accepted += checkpoint.accepted;
                totals.duplicates += checkpoint.duplicates;
                totals.dead_letters += checkpoint.dead_letters;
            }
            partitions.push(row);
        }
        let (namespace, topic) = (self.settings.namespace.clone(), self.settings.topic.clone());
        Ok(StatusReport {
            namespace,
            topic,
            partitions,
            totals,
            audit: self.serving.as_ref().map(|serving| serving.audit.snapshot()),
            snapshots,
        })
    }

    fn snapshot_status(&self, board: &[PartitionStatus]) -> Option<SnapshotStatus> {
        self.settings.snapshots_every()?;
        let ours: Vec<PartitionId> = board.iter().map(|status| status.partition).collect();
        Some(self.serving.as_ref()?.snapshots.stands(&ours))
    }

    pub(super) async fn partition(
        &self,
        partition: PartitionId,
        known: Option<&PartitionStatus>,
        now_ms: i64,
    ) -> Result<(PartitionRow, Option<Checkpoint>), AccessError> {
        let bounds = self.log.bounds(partition).await?;
        let mut corrupt = None;
        let checkpoint = match self.store.checkpoint(partition).await {
            Ok(checkpoint) => checkpoint,
            Err(error @ StoreError::Corrupt { .. }) => {
                corrupt = Some(error.to_string());
                None
            }
            // A server tells what it knows of its own partitions also while the store is away.
            Err(error) => match known {
                Some(_) => None,
                None => return Err(error.into()),
            },
        };
        let next = checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.next)
            .or(known.and_then(|known| known.offset));
        let next = next.unwrap_or(bounds.first);
        let mut row = PartitionRow {
            partition: partition.0,
            offset: next.0,
            end: bounds.end.0,
            lag_events: next.until(bounds.end),
            lag_seconds: self.lag_seconds(partition, next, bounds.end, now_ms).await?,
            state: "stopped".to_owned(),
            reason: None,
            detail: None,
            owner: None,
            parked: 0,
            parked_entities: Vec::new(),
            beyond_log: 0,
            horizon_seconds: None,
        };
        if bounds.first > NextOffset::START && checkpoint.is_some() {
            row.beyond_log = self
                .store
                .count_below(partition, bounds.first)
                .await
                .unwrap_or_default();
        }
        row.horizon_seconds = self.horizon_seconds(partition, bounds, now_ms).await?;
        if let Some(known) = known {
            row.state = known.state_name().to_owned();
            row.reason = known.reason().map(str::to_owned);
            row.detail = known.detail().map(str::to_owned);
            row.owner = Some(known.owner.clone());
            row.parked = known.parked;
            if known.parked > 0 {
                let parked = self.store.parked(partition).await.unwrap_or_default();
                row.parked_entities = names(&parked);
            }
            return Ok((row, checkpoint));
        }
        let looked = match corrupt {
            Some(corrupt) => Err(corrupt),
            None => self.look_from_outside(partition, checkpoint.clone(), &mut row).await?,
        };
        if let Err(corrupt) = looked {
            "held".clone_into(&mut row.state);
            row.reason = Some(Called::CheckpointCorrupt.name().to_owned());
            row.detail = Some(corrupt);
        }
        Ok((row, checkpoint))
    }

    /// Age of the record at the checkpoint; 0 if there is none.
    async fn lag_seconds(
        &self,
        partition: PartitionId,
        next: NextOffset,
        end: NextOffset,
        now_ms: i64,
    ) -> Result<f64, AccessError> {
        if next >= end {
            return Ok(0.0);
        }
        let record = self.log.record_at(partition, Offset(next.0)).await?;
        let age_ms = record.map_or(0, |record| now_ms.saturating_sub(record.timestamp_ms).max(0));
        Ok(age_ms as f64 / 1000.0)
    }

    /// How far back the log alone reaches.
    async fn horizon_seconds(
        &self,
        partition: PartitionId,
        bounds: Bounds,
        now_ms: i64,
    ) -> Result<Option<f64>, AccessError> {
        if bounds.first == NextOffset::START || bounds.first >= bounds.end {
            return Ok(None);
        }
        let first = self.log.record_at(partition, Offset(bounds.first.0)).await?;
        Ok(first.map(|record| now_ms.saturating_sub(record.timestamp_ms).max(0) as f64 / 1000.0))
    }

    /// What a projector would find; inside, what it could not read.
    async fn look_from_outside(
        &self,
        partition: PartitionId,
        checkpoint: Option<Checkpoint>,
        row: &mut PartitionRow,
    ) -> Result<Result<(), String>, AccessError> {
        let (owner, opened) = match self.open_from_outside(partition, checkpoint).await {
            Ok(found) => found,
            Err(error @ StoreError::Corrupt { .. }) => return Ok(Err(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        row.parked = opened.parked.len();
        row.parked_entities = names(&opened.parked);
        let survey = compare(&*self.log, partition, opened).await?;
        let (step, called) = recovery::decide(&survey);
        let held = matches!(step, Step::Hold);
        if owner.is_some() {
            row.state = String::from(if held { "held" } else { "running" });
        }
        if held {
            row.reason = Some(called.name().to_owned());
            row.detail = Some(recovery::explain(&survey, step, called));
        } else if let Some(owner) = &owner
            && let Some(hold) = Hold::told(&*self.store, partition, owner).await?
        {
            "held".clone_into(&mut row.state);
            row.reason = Some(hold.reason);
            row.detail = Some(hold.detail);
        }
        row.owner = owner.map(|owner| owner.0);
        Ok(Ok(()))
    }

    async fn open_from_outside(
        &self,
        partition: PartitionId,
        checkpoint: Option<Checkpoint>,
    ) -> Result<(Option<Owner>, store::Opened), StoreError> {
        let owner = self.store.owner(partition).await?;
        let first = match &checkpoint {
            None => self.store.checkpoint(PartitionId(0)).await?,
            known => known.clone(),
        };
        let opened = store::Opened {
            namespace_partitions: first.map(|checkpoint| checkpoint.partitions),
            parked: self.store.parked(partition).await?,
            marks: self.store.history(partition, 100).await?,
            checkpoint,
        };
        Ok((owner, opened))
    }

    /// Marks, by partition, the newest first.
    ///
    /// # Errors
    /// There is no such partition; log or store do not answer.
    pub async fn checkpoints(&self, only: Option<u32>, limit: usize) -> Result<Vec<CheckpointRow>, AccessError> {
        let partitions = self.partitions().await?;
        if let Some(wanted) = only.filter(|wanted| !partitions.contains(&PartitionId(*wanted))) {
            let last = partitions.len().saturating_sub(1);
            return Err(AccessError::BadRequest(format!(
                "there is no partition {wanted}; the last one is {last}"
            )));
        }
        let mut rows = Vec::new();
        for partition in partitions
            .into_iter()
            .filter(|partition| only.is_none_or(|only| only == partition.0))
        {
            let bounds = self.log.bounds(partition).await?;
            for Mark {
                checkpoint: mark,
                verified,
                ..
            } in self.store.history(partition, limit).await?
            {
                let inside = mark.next >= bounds.first && mark.next <= bounds.end;
                let found = last_record_of(&*self.log, partition, &mark, (bounds.first, bounds.end)).await?;
                rows.push(row(partition, &mark, inside && found == LastRecord::Matches, verified));
            }
        }
        Ok(rows)
    }
}

/// The most parked entities that are named.
const PARKED_MAX: usize = 100;

fn names(parked: &[(Entity, Offset)]) -> Vec<String> {
    let names = parked.iter().take(PARKED_MAX);
    names.map(|(entity, _)| entity.subject().to_owned()).collect()
}

fn row(partition: PartitionId, mark: &Checkpoint, good: bool, verified: bool) -> CheckpointRow {
    let [offset, last_record, digest, ..] = mark.fields();
    debug_assert_eq!(offset, mark.next.to_string());
    let written_at = mark.fields()[11].clone();
    CheckpointRow {
        partition: partition.0,
        offset: mark.next.0,
        last_record,
        records: mark.records,
        accepted: mark.accepted,
        duplicates: mark.duplicates,
        dead_letters: mark.dead_letters,
        digest,
        written_at,
        good,
        verified,
    }
}

//! Audits, their repairs, and the replay of one entity.
//! Invariant: a repair looks again before it writes, writes no more documents than its cap, and is proven after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Access, AccessError};
use crate::projector::now_ms;
use crate::pure::entity::Entity;
use crate::pure::place::PartitionId;
use crate::pure::refold::Slice;
use crate::pure::time::Time;
use crate::repair::{
    self, AuditProgress, AuditRepair, AuditReport, AuditRequest, Begin, DriftRow, EntityReplay, Ground, Healer,
    Intention, Pace, PartitionAudit, Repaired, Verdict,
};

/// What to audit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditOrder {
    /// Only this partition.
    pub partition: Option<u32>,
    /// Only this entity: `run/<id>` or `worker/<id>`.
    pub entity: Option<String>,
    /// Only about this share of the entities, 0 to 1, others each time.
    pub sample: Option<f64>,
    /// Put right what is found.
    pub repair: bool,
    /// The most documents that a repair may change: above it nothing is repaired. By default 100, or 1 % of the
    /// documents if that is more.
    pub repair_max: Option<u64>,
}

impl AuditOrder {
    /// Refuses what makes no sense, whatever log and store have.
    ///
    /// # Errors
    /// `BadRequest`: what is wrong.
    pub fn check(&self) -> Result<(), AccessError> {
        if self.sample.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            return Err(AccessError::BadRequest("sample: a share above 0, up to 1".to_owned()));
        }
        if self.entity.is_some() && (self.partition.is_some() || self.sample.is_some()) {
            let why = "entity: is audited alone, without partition or sample";
            return Err(AccessError::BadRequest(why.to_owned()));
        }
        self.entity
            .as_deref()
            .map_or(Ok(()), |subject| named(subject).map(drop))
    }
}

/// One entity to be replayed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntityOrder {
    /// `run/<id>` or `worker/<id>`.
    pub entity: String,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// The least cap of a repair.
const REPAIR_MAX: u64 = 100;
/// One document in so many may be repaired without asking.
const REPAIR_SHARE: u64 = 100;
/// Entities looked at again at once.
const CHUNK: usize = 1_000;

/// Is told how far an audit is.
pub type Watch<'a> = &'a (dyn Fn(AuditProgress) + Send + Sync);

impl Access {
    /// What repair stands on.
    pub fn ground(&self) -> Ground {
        Ground {
            log: Arc::clone(&self.log),
            store: Arc::clone(&self.store),
            partitioner: self.settings.partitioner,
            max_event_bytes: self.settings.max_event_bytes,
            redact: self.settings.redact,
            events_kept: self.settings.events_kept as usize,
        }
    }

    /// Audits, and repairs if that was ordered.
    ///
    /// # Errors
    /// `BadRequest`: the order makes no sense. `NotFound`: neither log nor store know the entity. Log or store do not
    /// answer; a rewind is under way in all that is to be audited.
    pub async fn audit(&self, order: &AuditOrder, watch: Watch<'_>) -> Result<AuditReport, AccessError> {
        order.check()?;
        self.ensure_there().await?;
        let mut report = match &order.entity {
            Some(subject) => self.audit_entity(subject).await?,
            None => self.audit_all(order, watch).await?,
        };
        if let Some(serving) = &self.serving {
            for row in &report.drift {
                serving.metrics.drift(row.reason.name());
            }
            let is_whole = order.entity.is_none() && order.partition.is_none() && order.sample.is_none();
            if is_whole && report.skipped.is_empty() {
                serving.metrics.audited(SystemTime::now());
            }
        }
        if order.repair {
            let repair = self.repair(&report, order.repair_max).await?;
            report.clean = repair.left.is_empty() && repair.refused.is_none() && report.skipped.is_empty();
            report.repair = Some(repair);
        }
        Ok(report)
    }

    /// Audits these partitions in the background.
    ///
    /// # Errors
    /// As [`Self::audit`].
    pub async fn audit_quietly(
        &self,
        partitions: BTreeSet<PartitionId>,
        watch: Watch<'_>,
    ) -> Result<AuditReport, AccessError> {
        let request = AuditRequest {
            partitions: Some(partitions),
            slices: vec![Slice::ALL],
            memory_bytes: self.settings.audit_memory,
            pace: Pace::share(f64::from(self.settings.audit_share) / 100.0),
        };
        let report = repair::audit(&self.ground(), &request, watch).await?;
        watch(AuditProgress {
            done: 1.0,
            documents: report.documents,
            records: report.records,
            drifted: report.drift.len() as u64,
        });
        if let Some(serving) = &self.serving {
            for row in &report.drift {
                serving.metrics.drift(row.reason.name());
            }
            if report.skipped.is_empty() {
                serving.metrics.audited(SystemTime::now());
            }
        }
        Ok(report)
    }

    async fn audit_all(&self, order: &AuditOrder, watch: Watch<'_>) -> Result<AuditReport, AccessError> {
        let partitions = match order.partition.map(PartitionId) {
            None => None,
            Some(wanted) if self.partitions().await?.contains(&wanted) => Some(BTreeSet::from([wanted])),
            Some(wanted) => {
                let why = format!("there is no partition {wanted} in topic {}", self.settings.topic);
                return Err(AccessError::BadRequest(why));
            }
        };
        let request = AuditRequest {
            partitions,
            slices: match order.sample {
                Some(share) => Slice::share(share, rand::random()),
                None => vec![Slice::ALL],
            },
            memory_bytes: self.settings.audit_memory,
            pace: Pace::FULL,
        };
        Ok(repair::audit(&self.ground(), &request, watch).await?)
    }

    async fn audit_entity(&self, subject: &str) -> Result<AuditReport, AccessError> {
        let began = Instant::now();
        let entity = named(subject)?;
        let partition = self.home(&entity).await?;
        let look = (Begin::AtLogStart, 0, Pace::FULL);
        let found = repair::examine(&self.ground(), partition, std::slice::from_ref(&entity), look).await?;
        let mut report = AuditReport {
            documents: 1,
            records: found.records,
            slices: 1,
            ..AuditReport::default()
        };
        for examined in &found.entities {
            match examined.verdict {
                Verdict::Unknown => return Err(self.no_such(&entity)),
                Verdict::Unverifiable => report.unverifiable += 1,
                Verdict::Clean | Verdict::Drift { .. } => {}
            }
            report.drift.extend(repair::drift_row(partition, examined));
            let until = examined.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.next.0);
            report.partitions.push(PartitionAudit {
                partition: partition.0,
                until,
                documents: 1,
                drifted: report.drift.len() as u64,
                ..PartitionAudit::default()
            });
        }
        report.clean = report.is_clean();
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Puts right what an audit found, if it is no more than the cap, and looks at it again.
    async fn repair(&self, report: &AuditReport, cap: Option<u64>) -> Result<AuditRepair, AccessError> {
        let mut repair = AuditRepair::default();
        let cap = cap.unwrap_or_else(|| REPAIR_MAX.max(report.documents / REPAIR_SHARE));
        let drifted = report.drift.iter().filter(|row| !row.document_id.is_empty()).count() as u64;
        if drifted > cap || report.truncated {
            repair.left.clone_from(&report.drift);
            repair.refused = Some(format!(
                "{drifted} documents drifted, more than the {cap} that are repaired without asking: nothing was \
                 changed; find out why, then go on with `khala audit --repair --repair-max {drifted}`"
            ));
            return Ok(repair);
        }
        let (ground, healer) = (self.ground(), healer());
        let mut by_partition: BTreeMap<u32, Vec<Entity>> = BTreeMap::new();
        for row in &report.drift {
            match row.entity().filter(|_| row.repairable) {
                Some(entity) => by_partition.entry(row.partition).or_default().push(entity),
                None => repair.left.push(row.clone()),
            }
        }
        for (partition, entities) in by_partition {
            let partition = PartitionId(partition);
            let healing = repair::heal(&ground, partition, &entities, &healer).await?;
            for (_, repaired) in &healing.entities {
                match repaired {
                    Repaired::Clean => repair.clean += 1,
                    Repaired::Rebuilt(_) => repair.rebuilt += 1,
                    Repaired::Removed => repair.removed += 1,
                    Repaired::BeginningLost(_) => {}
                }
            }
            repair.left.extend(still_wrong(&ground, partition, &entities).await?);
        }
        Ok(repair)
    }

    /// Folds one entity anew from its own events, and replaces its document if it differs.
    ///
    /// # Errors
    /// `NotFound`: neither log nor store know it. `Failed`: it cannot be rebuilt, and was left as it is.
    pub async fn replay_entity(&self, order: &EntityOrder) -> Result<EntityReplay, AccessError> {
        let entity = named(&order.entity)?;
        let partition = self.home(&entity).await?;
        let intention = if order.dry_run {
            Intention::Look
        } else {
            Intention::Repair
        };
        let replayed = repair::replay_entity(&self.ground(), partition, &entity, (intention, &healer())).await;
        let replayed = replayed.map_err(AccessError::from);
        let replayed = replayed.and_then(|replay| replay.ok_or_else(|| self.no_such(&entity)));
        if let (Some(serving), Intention::Repair) = (&self.serving, intention) {
            match &replayed {
                Ok(_) => serving.metrics.replayed("entity", "ok"),
                // Nothing is left unrepaired: an alert would call for nobody.
                Err(AccessError::BadRequest(_) | AccessError::NotFound(_)) => {}
                Err(_) => serving.metrics.replayed("entity", "error"),
            }
        }
        replayed
    }
}

/// Those that are not as the log says after their repair.
async fn still_wrong(
    ground: &Ground,
    partition: PartitionId,
    entities: &[Entity],
) -> Result<Vec<DriftRow>, AccessError> {
    let mut left = Vec::new();
    for chunk in entities.chunks(CHUNK) {
        let look = (Begin::AtLogStart, 0, Pace::FULL);
        let found = repair::examine(ground, partition, chunk, look).await?;
        let rows = found.entities.iter();
        left.extend(rows.filter_map(|examined| repair::drift_row(partition, examined)));
    }
    Ok(left)
}

fn named(subject: &str) -> Result<Entity, AccessError> {
    let bad = || AccessError::BadRequest(format!("entity {subject:?}: must be run/<id> or worker/<id>"));
    Entity::parse(subject).ok_or_else(bad)
}

/// Who heals now.
pub fn healer() -> Healer {
    Healer {
        operator: repair::operator(),
        now: Time::from_ms(now_ms()).unwrap_or(Time::EPOCH),
        pace: Pace::FULL,
    }
}

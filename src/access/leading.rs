//! Leading a rollout: looking at its gates, and doing what they say.
//! In: both namespaces, the log's ends, what the candidate's projectors tell. Out: a beat for all, and now and then a
//! step. Invariant: one process leads. Another one takes over when the beat has stood still by its own clock, so that
//! no two clocks are compared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::rollout::{HealthRow, Seen};
use super::{Access, AccessError};
use crate::projector::now_ms;
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, PartitionId};
use crate::repair::compare_entities;
use crate::rollout::{Beat, Decision, Reading, Rollout, RolloutPhase, Values};
use crate::store::{Note, Store};

/// A beat that stands still for so long is nobody's.
const LEASE: Duration = Duration::from_secs(3);
/// Looks whose lag and health count.
const LOOKS_KEPT: usize = 120;
/// A lag of fewer looks says nothing.
const LOOKS_MIN: usize = 4;
/// Changed entities compared at a look, of each kind and partition; the rest comes next.
const TOUCHED_MAX: usize = 1000;
/// What a projector told longer ago is not of now.
const HEALTH_MS: i64 = 60_000;
/// Differing documents that are named.
const NAMED: usize = 3;

/// What a look came to.
pub struct Heard {
    /// The rollout under way.
    pub rollout: Option<Rollout>,
    /// Its gates, where this process leads.
    pub gates: Option<Vec<Reading>>,
    /// The step that was taken.
    pub did: Option<&'static str>,
}

/// What a leading process remembers from look to look.
pub struct Leading {
    who: String,
    /// Somebody else's beat, and since when it has been that.
    stood: Option<(String, Instant)>,
    memory: Memory,
}

/// Of one rollout.
#[derive(Default)]
struct Memory {
    /// When the rollout and when its stage began: another one begins anew.
    of: (i64, i64),
    lags: VecDeque<f64>,
    health: VecDeque<BTreeMap<String, HealthRow>>,
    first: BTreeMap<String, HealthRow>,
    /// What the candidate's projectors told last, and since when they have told nothing else.
    heard: Option<(String, Instant)>,
    cursors: BTreeMap<(PartitionId, Kind), NextOffset>,
    again: BTreeMap<PartitionId, BTreeSet<Entity>>,
    /// Differed at one look; a document differs if it does at two.
    suspects: BTreeSet<String>,
    differing: BTreeSet<String>,
    compared: u64,
    random: u64,
}

impl Leading {
    /// Of a process by this name.
    #[must_use]
    pub fn new(who: &str) -> Self {
        Self {
            who: format!("leader/{who}"),
            stood: None,
            memory: Memory::default(),
        }
    }
}

impl Access {
    /// One look at the rollout: whoever may lead it looks at the gates, tells of them, and does what they say.
    ///
    /// # Errors
    /// Log or store do not answer; nothing was done.
    pub async fn lead_rollout(&self, leading: &mut Leading) -> Result<Heard, AccessError> {
        let mut heard = Heard {
            rollout: None,
            gates: None,
            did: None,
        };
        let Some(seen) = self.rollout_seen().await?.filter(|seen| seen.rollout.is_under_way()) else {
            leading.memory = Memory::default();
            return Ok(heard);
        };
        let lease = self.store.note(Note::RolloutLease).await?;
        let is_free = leading.may_lead(lease.as_deref());
        heard.rollout = Some(seen.rollout.clone());
        if !is_free {
            return Ok(heard);
        }
        leading.memory.begin(&seen.rollout, &self.route.reads);
        let candidate = self.store.in_namespace(&seen.rollout.candidate)?;
        let values = self.measure(&seen.rollout, &*candidate, &mut leading.memory).await?;
        let mut gates = seen.rollout.plan.gates.read(&values);
        if let Some(parity) = gates.first_mut().filter(|_| values.differing > 0) {
            let named: Vec<&str> = leading
                .memory
                .differing
                .iter()
                .take(NAMED)
                .map(String::as_str)
                .collect();
            parity.detail = format!("{}; {} …", parity.detail, named.join(", "));
        }
        let decision = seen.rollout.decide(&gates, values.compared, now_ms());
        let beat = Beat {
            who: leading.who.clone(),
            beat: lease
                .as_deref()
                .and_then(|text| serde_json::from_str::<Beat>(text).ok())
                .map_or(0, |beat| beat.beat + 1),
            at_ms: now_ms(),
            gates: gates.clone(),
            waits_for: match &decision {
                Decision::Stay(why) => why.clone(),
                _ => String::new(),
            },
        };
        let beat = serde_json::to_string(&beat).map_err(|error| AccessError::Failed(error.to_string()))?;
        let told = [(Note::RolloutLease, Some(beat.as_str()))];
        if self
            .store
            .swap_notes((Note::RolloutLease, lease.as_deref()), &told)
            .await?
        {
            heard.did = self.obey(&seen, &decision, (&leading.who, &gates)).await?;
            heard.gates = Some(gates);
        }
        Ok(heard)
    }

    async fn obey(
        &self,
        seen: &Seen,
        decision: &Decision,
        (who, gates): (&str, &[Reading]),
    ) -> Result<Option<&'static str>, AccessError> {
        let (rollout, now_ms) = (&seen.rollout, now_ms());
        let (next, did) = match decision {
            Decision::Stay(_) => return Ok(None),
            Decision::Promote(why) => (rollout.promoted(why, now_ms), "promote"),
            Decision::Finish(why) => (rollout.promoted(why, now_ms), "finish"),
            Decision::RollBack(gate) => (
                rollout.in_phase(RolloutPhase::RolledBack, &gate.words(), now_ms),
                "rollback",
            ),
        };
        let done = self
            .step(Some(&seen.text), Some(rollout), &next, (who, did, gates))
            .await?;
        Ok(done.then_some(did))
    }

    async fn measure(
        &self,
        rollout: &Rollout,
        candidate: &dyn Store,
        memory: &mut Memory,
    ) -> Result<Values, AccessError> {
        let partitions = self.partitions().await?;
        if let Some(lag) = self.lag(&partitions, candidate).await? {
            keep(&mut memory.lags, lag as f64);
        }
        let health = candidate
            .note(Note::Health)
            .await
            .unwrap_or_default()
            .unwrap_or_default();
        let silent = memory.hear(&health);
        let health: BTreeMap<String, HealthRow> = serde_json::from_str(&health).unwrap_or_default();
        for (instance, row) in &health {
            memory.first.entry(instance.clone()).or_insert(*row);
        }
        keep(&mut memory.health, health);
        for &partition in &partitions {
            self.compare(rollout, candidate, (partition, memory)).await?;
        }
        let reads = self.route.reads.tell();
        Ok(Values {
            differing: memory.differing.len() as u64,
            compared: memory.compared,
            drift: memory.drift(),
            write_failures: memory.write_failures(),
            read_errors: reads.map(|(failed, _)| failed),
            lag_p95_events: (memory.lags.len() >= LOOKS_MIN).then(|| p95(&memory.lags)),
            read_latency_p95_ms: reads.map(|(_, p95_ms)| p95_ms),
            silent_seconds: Some(silent.as_secs() as f64),
        })
    }

    /// Events that the candidate is behind; `None`: it can't be read, which counts as failed reads.
    async fn lag(&self, partitions: &[PartitionId], candidate: &dyn Store) -> Result<Option<u64>, AccessError> {
        let mut lag = Some(0);
        for &partition in partitions {
            let end = self.log.bounds(partition).await?.end;
            let began = Instant::now();
            let Ok(checkpoint) = candidate.checkpoint(partition).await else {
                self.failed(partition, began).await?;
                lag = None;
                continue;
            };
            let next = checkpoint.map_or(NextOffset::START, |checkpoint| checkpoint.next);
            lag = lag.map(|lag| lag + next.until(end));
        }
        Ok(lag)
    }

    /// Counts a read of the candidate that failed, unless the store fails for all.
    async fn failed(&self, partition: PartitionId, began: Instant) -> Result<(), AccessError> {
        let took = began.elapsed();
        self.store.checkpoint(partition).await?;
        self.route.reads.add(false, took);
        Ok(())
    }

    /// Compares what has changed since the last look, what was on the move or suspect then, and a sample.
    async fn compare(
        &self,
        rollout: &Rollout,
        candidate: &dyn Store,
        (partition, memory): (PartitionId, &mut Memory),
    ) -> Result<(), AccessError> {
        let end = self
            .store
            .checkpoint(partition)
            .await?
            .map_or(NextOffset::START, |at| at.next);
        let mut entities = memory.again.remove(&partition).unwrap_or_default();
        let sample = rollout.plan.gates.parity_sample as usize;
        for kind in Kind::ALL {
            let cursor = *memory.cursors.entry((partition, kind)).or_insert(end);
            let touched = self.store.indexed(partition, kind, cursor, TOUCHED_MAX).await?;
            if let Some((_, last)) = touched.last() {
                memory.cursors.insert((partition, kind), last.next());
            }
            entities.extend(touched.into_iter().map(|(entity, _)| entity));
            let from = NextOffset(memory.random() % (end.0 + 1));
            let share = sample.div_ceil(2);
            let mut found = self.store.indexed(partition, kind, from, share).await?;
            if found.len() < share {
                found.extend(
                    self.store
                        .indexed(partition, kind, NextOffset::START, share - found.len())
                        .await?,
                );
            }
            entities.extend(found.into_iter().map(|(entity, _)| entity));
        }
        let entities: Vec<Entity> = entities.into_iter().collect();
        let mut moving = BTreeSet::new();
        let began = Instant::now();
        let compared = compare_entities((&*self.store, candidate), partition, &entities, &mut moving).await;
        let Ok(parity) = compared else {
            memory.again.insert(partition, entities.into_iter().collect());
            return self.failed(partition, began).await;
        };
        self.route.reads.add(true, began.elapsed());
        memory.compared += parity.documents;
        let differ: BTreeSet<String> = parity.differ.into_iter().map(|row| row.document_id).collect();
        for entity in entities {
            let id = entity.document_id();
            if !differ.contains(&id) {
                if !moving.contains(&entity) {
                    memory.suspects.remove(&id);
                }
            } else if !memory.suspects.insert(id.clone()) {
                memory.differing.insert(id);
            } else {
                moving.insert(entity); // it is looked at again before it counts
            }
        }
        memory.again.insert(partition, moving);
        Ok(())
    }

    /// Tells how this process' projectors fare, while a rollout wants to know.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn tell_health(&self, instance: &str, row: HealthRow) -> Result<(), AccessError> {
        let Some(before) = self.store.note(Note::Health).await? else {
            return Ok(());
        };
        let mut rows: BTreeMap<String, HealthRow> = serde_json::from_str(&before).unwrap_or_default();
        rows.retain(|_, other| (row.at_ms - other.at_ms).abs() < HEALTH_MS);
        rows.insert(instance.to_owned(), row);
        let text = serde_json::to_string(&rows).map_err(|error| AccessError::Failed(error.to_string()))?;
        // Somebody else's row came between: ours comes next time.
        let told = [(Note::Health, Some(text.as_str()))];
        self.store.swap_notes((Note::Health, Some(&before)), &told).await?;
        Ok(())
    }
}

impl Leading {
    /// Whether the lease is ours, or nobody's.
    fn may_lead(&mut self, lease: Option<&str>) -> bool {
        let Some(text) = lease else { return true };
        if serde_json::from_str::<Beat>(text).is_ok_and(|beat| beat.who == self.who) {
            return true;
        }
        match &self.stood {
            Some((stood, since)) if stood == text => since.elapsed() >= LEASE,
            _ => {
                self.stood = Some((text.to_owned(), Instant::now()));
                false
            }
        }
    }
}

impl Memory {
    /// Another rollout begins with nothing, another stage with no document compared.
    fn begin(&mut self, rollout: &Rollout, reads: &super::routes::Reads) {
        if self.of.0 != rollout.started_ms {
            *self = Self {
                random: rollout.started_ms as u64,
                ..Self::default()
            };
            reads.forget();
        }
        if self.of != (rollout.started_ms, rollout.since_ms) {
            self.of = (rollout.started_ms, rollout.since_ms);
            self.compared = 0;
        }
    }

    fn random(&mut self) -> u64 {
        // Knuth's MMIX: which documents a sample takes needs no better one.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.random >> 16
    }

    /// How long the candidate's projectors have told nothing else than this.
    fn hear(&mut self, health: &str) -> Duration {
        if self.heard.as_ref().is_none_or(|(before, _)| before != health) {
            self.heard = Some((health.to_owned(), Instant::now()));
        }
        self.heard.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    fn drift(&self) -> Option<f64> {
        let now = self.health.back().filter(|rows| !rows.is_empty())?;
        let since = |(instance, row): (&String, &HealthRow)| {
            let before = self.first.get(instance).map_or(0, |first| first.drift);
            row.drift.saturating_sub(before)
        };
        Some(now.iter().map(since).sum::<u64>() as f64)
    }

    fn write_failures(&self) -> Option<f64> {
        let (then, now) = (self.health.front()?, self.health.back()?);
        let mut sums = (0, 0);
        for (instance, row) in now {
            let before = then.get(instance).copied().unwrap_or_default();
            sums.0 += row.failed.saturating_sub(before.failed);
            sums.1 += row.written.saturating_sub(before.written);
        }
        let all = sums.0 + sums.1;
        (all > 0).then(|| sums.0 as f64 / all as f64)
    }
}

fn keep<T>(kept: &mut VecDeque<T>, value: T) {
    kept.push_back(value);
    if kept.len() > LOOKS_KEPT {
        kept.pop_front();
    }
}

fn p95(values: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = (sorted.len() * 95).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

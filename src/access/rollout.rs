//! Rollouts: what an operator may tell, and what all of it comes to in the store.
//! In: an order. Out: how things stand. Invariant: state, route and record change in one step, made only if the state
//! is the one that was looked at; so a slow process never undoes what was decided meanwhile.

use serde::{Deserialize, Serialize};

use super::{Access, AccessError};
use crate::projector::now_ms;
use crate::pure::time::Time;
use crate::rollout::{Beat, CohortRoute, Place, Plan, Reading, Record, Rollout, RolloutPhase, Step};
use crate::store::Note;

/// What the leading process told longer ago says nothing of now.
const HEARD_MS: i64 = 10_000;

/// What to begin.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutStart {
    /// The namespace to lead readers to.
    pub candidate: String,
    /// The plan, as TOML.
    pub plan: String,
}

/// What to do with the rollout that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutOrder {
    /// The next stage, now.
    Promote,
    /// Readers back.
    Rollback,
    /// No promotion until told.
    Pause,
    /// Go on.
    Resume,
}

/// How a rollout stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutReport {
    /// Whose readers are led.
    pub namespace: String,
    /// The last one.
    pub rollout: Rollout,
    /// Where its stage leads readers; null: where they were before it.
    pub route: Option<CohortRoute>,
    /// The process that leads it, and the gates; null: none has been heard of in the last ten seconds.
    pub leader: Option<Beat>,
    /// All steps, the oldest first.
    pub record: Vec<Step>,
}

/// How one projector of the candidate fares, counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthRow {
    /// By its clock.
    pub at_ms: i64,
    /// Commits that went well.
    pub written: u64,
    /// Commits that failed.
    pub failed: u64,
    /// Times that store and log did not agree.
    pub drift: u64,
}

/// A rollout, and the text that it was read from.
pub(super) struct Seen {
    pub(super) rollout: Rollout,
    pub(super) text: String,
}

impl RolloutOrder {
    /// As the record spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

fn broken(error: &serde_json::Error) -> AccessError {
    AccessError::Failed(format!("the rollout in the store is not understood: {error}"))
}

impl Access {
    pub(super) async fn rollout_seen(&self) -> Result<Option<Seen>, AccessError> {
        let Some(text) = self.store.note(Note::Rollout).await? else {
            return Ok(None);
        };
        let rollout = serde_json::from_str(&text).map_err(|error| broken(&error))?;
        Ok(Some(Seen { rollout, text }))
    }

    /// How the last rollout stands.
    ///
    /// # Errors
    /// `NotFound`: there was none.
    pub async fn rollout(&self) -> Result<RolloutReport, AccessError> {
        let namespace = self.settings.namespace.clone();
        let none = || AccessError::NotFound(format!("there is no rollout of namespace {namespace}"));
        let seen = self.rollout_seen().await?.ok_or_else(none)?;
        let heard = |beat: &Beat| (now_ms() - beat.at_ms).abs() < HEARD_MS;
        Ok(RolloutReport {
            route: seen.rollout.route(),
            rollout: seen.rollout,
            leader: self.beat().await?.filter(heard),
            record: self.record().await?.0,
            namespace: self.settings.namespace.clone(),
        })
    }

    pub(super) async fn beat(&self) -> Result<Option<Beat>, AccessError> {
        let text = self.store.note(Note::RolloutLease).await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    async fn record(&self) -> Result<Record, AccessError> {
        let text = self.store.note(Note::RolloutRecord).await?;
        text.map_or(Ok(Record::default()), |text| serde_json::from_str(&text))
            .map_err(|error| broken(&error))
    }

    /// Nobody else leads readers while a rollout does.
    pub(super) async fn ensure_no_rollout(&self) -> Result<(), AccessError> {
        match self.rollout_seen().await? {
            Some(seen) if seen.rollout.is_under_way() => Err(AccessError::Refused(format!(
                "a rollout of {} is under way; nothing was changed; `khala rollout rollback` ends it",
                seen.rollout.candidate
            ))),
            _ => Ok(()),
        }
    }

    /// Begins a rollout: its first stage leads readers at once.
    ///
    /// # Errors
    /// `BadRequest`: the plan or the namespace is none. `Refused`: another one is under way, readers are led elsewhere,
    /// or nobody projects the candidate.
    pub async fn start_rollout(&self, start: &RolloutStart, who: &str) -> Result<RolloutReport, AccessError> {
        let plan = Plan::read("plan", &start.plan).map_err(AccessError::BadRequest)?;
        let (candidate, own) = (&start.candidate, &self.settings.namespace);
        crate::config::namespace(candidate).map_err(AccessError::BadRequest)?;
        if candidate == own {
            return Err(AccessError::BadRequest(format!(
                "namespace {own} is the one that serves; --candidate names another one"
            )));
        }
        self.ensure_no_rollout().await?;
        if let Some(text) = self.store.note(Note::Route).await? {
            return Err(AccessError::Refused(format!(
                "readers of {own} are led to {text} already; `khala namespaces back` leads them back first"
            )));
        }
        let other = self.store.in_namespace(candidate)?;
        for partition in self.partitions().await? {
            let owner = other.owner(partition).await?;
            if owner.is_none_or(|owner| owner.is_operator()) {
                return Err(AccessError::Refused(format!(
                    "nobody projects partition {partition} of namespace {candidate}: readers would get documents that \
                     stand still; start `khala serve --namespace {candidate}` first"
                )));
            }
        }
        let before = self.store.note(Note::Rollout).await?;
        other.set_note(Note::Health, Some("{}")).await?;
        let now_ms = now_ms();
        let rollout = Rollout {
            candidate: candidate.clone(),
            phase: RolloutPhase::Rolling,
            stage: 0,
            since_ms: now_ms,
            started_ms: now_ms,
            steps: 0,
            why: "started".to_owned(),
            plan,
        };
        let step = (who, "start", &[][..]);
        if !self.step(before.as_deref(), None, &rollout, step).await? {
            return Err(meanwhile());
        }
        self.rollout().await
    }

    /// Does with the rollout what an operator wants.
    ///
    /// # Errors
    /// `NotFound`: there is none under way. `Refused`: a gate is broken, or it is not known.
    pub async fn order_rollout(&self, order: RolloutOrder, who: &str) -> Result<RolloutReport, AccessError> {
        let none = || {
            AccessError::NotFound(format!(
                "no rollout of namespace {} is under way",
                self.settings.namespace
            ))
        };
        let under_way = self.rollout_seen().await?.filter(|seen| seen.rollout.is_under_way());
        let Seen { rollout, text } = under_way.ok_or_else(none)?;
        let heard = self
            .beat()
            .await?
            .filter(|beat| (now_ms() - beat.at_ms).abs() < HEARD_MS);
        let gates = heard.as_ref().map_or(&[][..], |beat| &beat.gates);
        let why = format!("{who} wanted it");
        let refused = |why: &str| Err(AccessError::Refused(format!("{why}; nothing was changed")));
        let next = match (order, rollout.phase) {
            (RolloutOrder::Promote, _) => {
                if heard.is_none() {
                    return refused("no process leads the rollout, so the gates are not known");
                }
                if let Some(gate) = gates.iter().find(|gate| gate.is_broken()) {
                    return refused(&gate.words());
                }
                rollout.promoted(&why, now_ms())
            }
            (RolloutOrder::Rollback, _) => rollout.in_phase(RolloutPhase::RolledBack, &why, now_ms()),
            (RolloutOrder::Pause, RolloutPhase::Rolling) => rollout.in_phase(RolloutPhase::Paused, &why, now_ms()),
            (RolloutOrder::Resume, RolloutPhase::Paused) => rollout.in_phase(RolloutPhase::Rolling, &why, now_ms()),
            (RolloutOrder::Pause, _) => return refused("it is paused already"),
            (RolloutOrder::Resume, _) => return refused("it is not paused"),
        };
        let step = (who, order.name(), gates);
        if !self.step(Some(&text), Some(&rollout), &next, step).await? {
            return Err(meanwhile());
        }
        self.rollout().await
    }

    /// One step: state, route and record at once, if the state is still the one that was seen.
    pub(super) async fn step(
        &self,
        seen: Option<&str>,
        from: Option<&Rollout>,
        to: &Rollout,
        (who, did, gates): (&str, &str, &[Reading]),
    ) -> Result<bool, AccessError> {
        let mut record = self.record().await?;
        let none = || Place {
            stage: "none".to_owned(),
            percent: 0,
        };
        record.add(Step {
            at: Time::from_ms(now_ms()).map(|time| time.to_string()).unwrap_or_default(),
            who: who.to_owned(),
            did: did.to_owned(),
            candidate: to.candidate.clone(),
            from: from.map_or_else(none, Rollout::place),
            to: to.place(),
            why: to.why.clone(),
            gates: gates.to_vec(),
        });
        let text = |value: serde_json::Result<String>| value.map_err(|error| AccessError::Failed(error.to_string()));
        let (state, record) = (text(serde_json::to_string(to))?, text(serde_json::to_string(&record))?);
        let route = to.route().map(|route| route.text());
        let mut notes = vec![
            (Note::Rollout, Some(state.as_str())),
            (Note::Route, route.as_deref()),
            (Note::RolloutRecord, Some(record.as_str())),
        ];
        if from.is_none() {
            notes.push((Note::RolloutLease, None)); // of the rollout before
        }
        let done = self.store.swap_notes((Note::Rollout, seen), &notes).await?;
        if done {
            let place = to.place();
            tracing::warn!(
                candidate = to.candidate,
                who,
                did,
                stage = place.stage,
                percent = place.percent,
                why = to.why,
                "rollout"
            );
            if !to.is_under_way() {
                // Its projectors need not tell of themselves any more; that they do for a while harms nobody.
                let other = self.store.in_namespace(&to.candidate)?;
                let _ = other.set_note(Note::Health, None).await;
            }
        }
        Ok(done)
    }
}

fn meanwhile() -> AccessError {
    AccessError::Refused("the rollout has changed meanwhile; nothing was changed; look again".to_owned())
}

//! The rollout that this process leads, and the sums that a candidate's projectors tell of themselves.
//! Invariant: who does not lead has no series of it but its steps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use super::Metrics;
use super::instruments::Labelled;

/// What is told of a rollout that is under way.
#[derive(Clone, Debug, Default)]
pub struct RolloutGauges {
    /// Share of the entities whose readers are led over.
    pub percent: u32,
    /// How long the stage lasts beyond its hold time.
    pub overdue_seconds: f64,
    /// Name, value, limit.
    pub gates: Vec<(String, Option<f64>, f64)>,
}

const STEPS: [&str; 6] = ["start", "promote", "finish", "rollback", "pause", "resume"];

type Now = Arc<Mutex<Option<RolloutGauges>>>;

pub(super) struct Rollouts {
    now: Now,
    steps: Labelled,
}

fn lock(now: &Now) -> MutexGuard<'_, Option<RolloutGauges>> {
    now.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rollouts {
    pub fn new(meter: &Meter) -> Self {
        let now = Now::default();
        Self::register(&now, meter);
        Self {
            now,
            steps: Labelled::new(meter, "khala.rollout.steps", "Steps of rollouts.", "step", &STEPS),
        }
    }

    fn register(now: &Now, meter: &Meter) {
        type Told = fn(&RolloutGauges, &dyn AsyncInstrument<f64>);
        let gauges: [(&str, &str, Told); 4] = [
            (
                "khala.rollout.percent",
                "Share of the entities whose readers are led to the candidate; only where the rollout is led.",
                |now, observer| observer.observe(f64::from(now.percent), &[]),
            ),
            (
                "khala.rollout.overdue_seconds",
                "How long a rollout's stage lasts beyond its hold time.",
                |now, observer| observer.observe(now.overdue_seconds, &[]),
            ),
            (
                "khala.rollout.gate_value",
                "What a rollout's gate was measured to be.",
                |now, observer| {
                    for (gate, value, _) in &now.gates {
                        if let Some(value) = value {
                            observer.observe(*value, &[KeyValue::new("gate", gate.clone())]);
                        }
                    }
                },
            ),
            (
                "khala.rollout.gate_limit",
                "Above it the gate is broken, and readers go back.",
                |now, observer| {
                    for (gate, _, limit) in &now.gates {
                        observer.observe(*limit, &[KeyValue::new("gate", gate.clone())]);
                    }
                },
            ),
        ];
        for (name, help, told) in gauges {
            let now = Arc::clone(now);
            let observe = move |observer: &dyn AsyncInstrument<f64>| {
                if let Some(now) = &*lock(&now) {
                    told(now, observer);
                }
            };
            let gauge = meter.f64_observable_gauge(name).with_description(help);
            gauge.with_callback(observe).build();
        }
    }
}

impl Metrics {
    /// The rollout that this process leads; `None`: none.
    pub fn rollout(&self, now: Option<RolloutGauges>) {
        *lock(&self.rollouts.now) = now;
    }

    /// A step of a rollout that this process took: `start`, `promote`, `finish`, `rollback`, `pause`, `resume`.
    pub fn rollout_step(&self, step: &str) {
        self.rollouts.steps.add(step, 1);
    }

    /// Commits that went well, that failed, and drift, since the process started.
    pub fn health(&self) -> (u64, u64, u64) {
        let text = self.render();
        let sum = |name: &str, label: &str| {
            let lines = text
                .lines()
                .filter(|line| line.starts_with(name) && line.contains(label));
            let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            values.sum::<f64>() as u64
        };
        (
            sum("khala_projection_writes_total{", "result=\"ok\""),
            sum("khala_projection_writes_total{", "result=\"error\""),
            sum("khala_projection_drift_total{", ""),
        )
    }
}

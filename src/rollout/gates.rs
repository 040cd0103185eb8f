//! The gates of a rollout: what was measured against its limit.

use serde::{Deserialize, Serialize};

/// All gates, by name, in the order in which they are looked at.
pub const GATES: [&str; 7] = [
    "parity",
    "drift",
    "write_failures",
    "read_errors",
    "lag_p95_events",
    "read_latency_p95_ms",
    "silent_seconds",
];
/// A rollout that was begun before there was this gate goes on with it.
const SILENT_SECONDS_MAX: f64 = 30.0;

/// How far each may go. More than that breaks the gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Documents that differ between the two namespaces where both have the same events.
    pub parity_differing_max: f64,
    /// So many documents of a stage must have been compared before it is left.
    pub parity_documents_min: u64,
    /// Documents compared at each look beside those that have changed.
    pub parity_sample: u64,
    /// Times that the candidate's store and log did not agree, since the rollout was led.
    pub drift_max: f64,
    /// Share of the candidate's commits that failed.
    pub write_failure_share_max: f64,
    /// Reads of the candidate that failed, of the last 512.
    pub read_errors_max: f64,
    /// Events that the candidate is behind the log's end, all partitions together.
    pub lag_p95_events_max: f64,
    /// Milliseconds until the candidate's store has answered.
    pub read_latency_p95_ms_max: f64,
    /// Seconds since the candidate's projectors told of themselves last.
    #[serde(default = "silent_seconds_max")]
    pub silent_seconds_max: f64,
}

fn silent_seconds_max() -> f64 {
    SILENT_SECONDS_MAX
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            parity_differing_max: 0.0,
            parity_documents_min: 20,
            parity_sample: 100,
            drift_max: 0.0,
            write_failure_share_max: 0.01,
            read_errors_max: 5.0,
            lag_p95_events_max: 10_000.0,
            read_latency_p95_ms_max: 250.0,
            silent_seconds_max: SILENT_SECONDS_MAX,
        }
    }
}

/// What was measured; `None`: nothing yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// Documents that differ.
    pub differing: u64,
    /// Documents compared in this stage.
    pub compared: u64,
    /// See [`Limits`].
    pub drift: Option<f64>,
    /// See [`Limits`].
    pub write_failures: Option<f64>,
    /// See [`Limits`].
    pub read_errors: Option<f64>,
    /// See [`Limits`].
    pub lag_p95_events: Option<f64>,
    /// See [`Limits`].
    pub read_latency_p95_ms: Option<f64>,
    /// See [`Limits`].
    pub silent_seconds: Option<f64>,
}

/// One gate: its value and limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// One of [`GATES`].
    pub gate: String,
    /// `None`: not measured yet, which neither breaks it nor holds a stage up.
    pub value: Option<f64>,
    /// Above it the gate is broken.
    pub limit: f64,
    /// In words: what was looked at, what was found.
    #[serde(default)]
    pub detail: String,
}

impl Reading {
    /// Whether it is over its limit.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.value.is_some_and(|value| value > self.limit)
    }

    /// `gate lag_p95_events is broken: 12000 over 10000`.
    #[must_use]
    pub fn words(&self) -> String {
        let value = self.value.map_or("nothing".to_owned(), |value| format!("{value}"));
        let detail = match self.detail.as_str() {
            "" => String::new(),
            detail => format!(" ({detail})"),
        };
        format!("gate {} is broken: {value} over {}{detail}", self.gate, self.limit)
    }
}

impl Limits {
    /// All gates, in the order of [`GATES`].
    #[must_use]
    pub fn read(&self, values: &Values) -> Vec<Reading> {
        let compared = (values.compared > 0).then_some(values.differing as f64);
        let measured = [
            (compared, self.parity_differing_max),
            (values.drift, self.drift_max),
            (values.write_failures, self.write_failure_share_max),
            (values.read_errors, self.read_errors_max),
            (values.lag_p95_events, self.lag_p95_events_max),
            (values.read_latency_p95_ms, self.read_latency_p95_ms_max),
            (values.silent_seconds, self.silent_seconds_max),
        ];
        let reading = |(gate, (value, limit)): (&str, (Option<f64>, f64))| Reading {
            gate: gate.to_owned(),
            value,
            limit,
            detail: match gate {
                "parity" => format!("{} documents compared in this stage", values.compared),
                _ => String::new(),
            },
        };
        GATES.into_iter().zip(measured).map(reading).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_over_its_limit_is_broken() {
        type Break = fn(&mut Values);
        let fine = Values {
            compared: 50,
            drift: Some(0.0),
            write_failures: Some(0.01),
            read_errors: Some(5.0),
            lag_p95_events: Some(10_000.0),
            read_latency_p95_ms: Some(250.0),
            silent_seconds: Some(30.0),
            ..Values::default()
        };
        let cases: [(&str, Break); 8] = [
            ("", |_| {}),
            ("parity", |values| values.differing = 1),
            ("drift", |values| values.drift = Some(1.0)),
            ("write_failures", |values| values.write_failures = Some(0.02)),
            ("read_errors", |values| values.read_errors = Some(6.0)),
            ("lag_p95_events", |values| values.lag_p95_events = Some(10_001.0)),
            ("read_latency_p95_ms", |values| values.read_latency_p95_ms = Some(251.0)),
            ("silent_seconds", |values| values.silent_seconds = Some(31.0)),
        ];
        for (broken, break_it) in cases {
            let mut values = fine.clone();
            break_it(&mut values);
            let readings = Limits::default().read(&values);
            let found: Vec<&str> = readings
                .iter()
                .filter(|one| one.is_broken())
                .map(|one| one.gate.as_str())
                .collect();
            assert_eq!(found.join(","), broken);
        }
        assert!(
            Limits::default()
                .read(&Values::default())
                .iter()
                .all(|one| !one.is_broken())
        );
    }
}

//! Events of gates and drills.

use std::time::Duration;

use serde_json::{Value, json};

/// One event of `run/<id>` or `worker/<id>`, with its producer's sequence.
pub(in crate::cli) fn event(subject: &str, source: &str, sequence: u64, kind: &str, data: &Value) -> Value {
    json!({"specversion": "1.0", "id": format!("{source}-{sequence}"), "source": source, "type": kind,
        "subject": subject, "sequence": sequence, "data": data})
}

pub(in crate::cli) fn delta(subject: &str, source: &str, sequence: u64) -> Value {
    event(
        subject,
        source,
        sequence,
        "run.delta",
        &json!({"delta": format!("token {sequence}")}),
    )
}

pub(in crate::cli) fn finished(subject: &str, source: &str, sequence: u64, status: &str) -> Value {
    event(subject, source, sequence, "run.finished", &json!({"status": status}))
}

/// `deltas` deltas and a terminal event.
pub(in crate::cli) fn burst(subject: &str, deltas: u64) -> Vec<Value> {
    let source = "gate/burst";
    let deltas_of = (1..=deltas).map(|sequence| delta(subject, source, sequence));
    deltas_of
        .chain([finished(subject, source, deltas + 1, "succeeded")])
        .collect()
}

/// A quantile of durations in milliseconds; 0 of none.
pub(in crate::cli) fn quantile_ms(times: &[Duration], quantile: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * quantile).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        let found = |times: &[Duration], quantile| quantile_ms(times, quantile).to_string();
        assert_eq!(found(&times, 0.5), "50");
        assert_eq!(found(&times, 0.99), "99");
        assert_eq!(found(&times[..1], 0.99), "100");
        assert_eq!(found(&[], 0.5), "0");
    }
}

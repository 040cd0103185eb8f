//! The last criterion: what the shipped alerts and dashboards ask for is there, and moves.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::super::exit::Failure;
use super::calls::Samples;
use super::report::Check;
use super::system::System;
use crate::config::LogTarget;

/// librdkafka tells of itself every ten seconds.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
pub(in crate::cli) const RULES: &str = include_str!("../../../config/prometheus/khala.rules.yml");
pub(in crate::cli) const DASHBOARDS: [&str; 6] = [
    include_str!("../../../config/grafana/dashboards/khala-overview.json"),
    include_str!("../../../config/grafana/dashboards/khala-partitions.json"),
    include_str!("../../../config/grafana/dashboards/khala-publish.json"),
    include_str!("../../../config/grafana/dashboards/khala-repair.json"),
    include_str!("../../../config/grafana/dashboards/khala-rollout.json"),
    include_str!("../../../config/grafana/dashboards/khala-store.json"),
];
/// Those of a release gate.
const ALERTS: [&str; 4] = [
    "OpenAgentsRuntimeKhalaProjectionLagP95High",
    "OpenAgentsRuntimeKhalaProjectionWriteFailureRatioHigh",
    "OpenAgentsRuntimeKhalaProjectionDriftIncidentsHigh",
    "OpenAgentsRuntimeKhalaProjectionReplayFailures",
];
/// Series that are not there while there is nothing to tell, and when that is.
const WITHOUT_SERIES: [(&str, &str); 9] = [
    ("khala_replay_horizon_seconds", "the log still has all that it ever had"),
    ("khala_audit_progress_ratio", "no background audit is under way"),
    ("khala_projection_held", "nothing is held"),
    ("khala_rollout_percent", "no rollout is under way"),
    ("khala_rollout_overdue_seconds", "no rollout is under way"),
    ("khala_rollout_gate_value", "no rollout is under way"),
    ("khala_rollout_gate_limit", "no rollout is under way"),
    ("khala_store_memory_used_bytes", "the store is embedded"),
    ("khala_store_memory_limit_bytes", "the store has no limit"),
];
/// What all that came before must have moved: name, label.
const MOVED: [(&str, &str); 10] = [
    ("khala_projection_lag_events_count", ""),
    ("khala_projection_latency_seconds_count", ""),
    ("khala_projection_writes_total", "result=\"ok\""),
    ("khala_projection_writes_total", "result=\"error\""),
    ("khala_projection_events_total", "result=\"accepted\""),
    ("khala_replay_total", "result=\"ok\""),
    ("khala_publish_total", "result=\"ok\""),
    ("khala_publish_duration_seconds_count", ""),
    ("khala_audit_last_success_timestamp_seconds", ""),
    ("messaging_client_consumed_messages_total", ""),
];

pub(super) async fn check(system: &System, before: &Samples) -> Result<Vec<Check>, Failure> {
    let asked = asked_for();
    let is_kafka = matches!(system.truth.settings.log, LogTarget::Kafka(_));
    let mut now = system.calls.metrics().await?;
    let waits_until = Instant::now() + TOLD_WITHIN;
    let (mut missing, mut without) = absent(&asked, &now, is_kafka);
    while !missing.is_empty() && Instant::now() < waits_until {
        tokio::time::sleep(Duration::from_millis(500)).await;
        now = system.calls.metrics().await?;
        (missing, without) = absent(&asked, &now, is_kafka);
    }
    let alerts = ALERTS
        .iter()
        .filter(|alert| RULES.contains(&format!("alert: {alert}\n")));
    let mut checks = vec![
        Check::equal("alerts of a release gate in the rules", alerts.count(), ALERTS.len()),
        Check::told("metrics that rules and dashboards ask for", asked.len()),
        Check::equal("of them not in /metrics", none_or(&missing), none_or(&[])),
    ];
    checks.extend(without);
    checks.extend(MOVED.iter().map(|(name, label)| {
        let moved = now.sum(name, label) > before.sum(name, label);
        let series = if label.is_empty() {
            (*name).to_owned()
        } else {
            format!("{name}{{{label}}}")
        };
        Check::is(format!("{series} moved"), moved)
    }));
    Ok(checks)
}

fn none_or(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// What is not there: without a reason, and with one.
fn absent<'a>(asked: &'a BTreeSet<String>, now: &Samples, is_kafka: bool) -> (Vec<&'a str>, Vec<Check>) {
    let rightly_without = |name: &str| {
        let known = WITHOUT_SERIES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, when)| *when);
        known.or_else(|| (!is_kafka && name.starts_with("khala_kafka_")).then_some("the log is embedded"))
    };
    let (mut missing, mut without) = (Vec::new(), Vec::new());
    for name in asked.iter().filter(|name| !now.has(name)) {
        match rightly_without(name) {
            Some(when) => without.push(Check::told(format!("without a series: {name}"), when)),
            None => missing.push(name.as_str()),
        }
    }
    (missing, without)
}

/// Names of series in rules and dashboards; recording rules, which Prometheus makes itself, are not among them.
fn asked_for() -> BTreeSet<String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let expressions = RULES.lines().map(|line| line.split('#').next().unwrap_or_default());
    let expressions = expressions.filter(|line| !line.contains("runbook_url"));
    let panels = DASHBOARDS.iter().flat_map(|dashboard| dashboard.lines());
    let lines = expressions.chain(panels.filter(|line| line.contains("\"expr\"")));
    let words = lines.flat_map(|line| line.split(move |letter| !is_name(letter)));
    let prefixes = ["khala_", "messaging_client_", "messaging_process_", "process_"];
    let series = words.filter(|word| !word.contains(':') && prefixes.iter().any(|prefix| word.starts_with(prefix)));
    series.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_out_of_rules_and_dashboards() {
        let asked = asked_for();
        for name in [
            "khala_projection_lag_events_bucket",
            "khala_publish_total",
            "process_open_fds",
            "khala_projection_held",
        ] {
            assert!(asked.contains(name), "{name} in {asked:?}");
        }
        assert!(asked.len() > 20, "{asked:?}");
    }

    #[test]
    fn each_exception_is_asked_for() {
        let asked = asked_for();
        for (name, _) in WITHOUT_SERIES {
            assert!(asked.contains(name), "{name}");
        }
    }
}

//! Alerts on real servers: each fault is made, and the alert goes from pending to firing and away again, as a real
//! Prometheus sees it, with the shipped rules. All faults at once, each in a namespace of its own, so that it takes
//! a minute or two and not an hour. Dashboards are asked their queries while everything is on fire.

mod dashboards;
mod faults;
mod otlp;
pub mod prometheus;
mod runbooks;

use std::collections::BTreeSet;
use std::time::Instant;

use self::faults::Faults;
use self::prometheus::{Alertmanager, Prometheus, RULES, read, shortened, tool};
use super::world::note;
use crate::support::wait::{eventually, seconds};

/// Alert, and the namespace in which its fault is made.
const EXPECTED: &[(&str, &str)] = &[
    ("OpenAgentsRuntimeKhalaProjectionLagP95High", "alert-slow"),
    ("OpenAgentsRuntimeKhalaProjectionWriteFailureRatioHigh", "alert-away"),
    ("OpenAgentsRuntimeKhalaProjectionDriftIncidentsHigh", "alert-drift"),
    ("OpenAgentsRuntimeKhalaProjectionReplayFailures", "alert-replay"),
    ("KhalaPartitionHeld", "alert-held"),
    ("KhalaLagSecondsHigh", "alert-away"),
    ("KhalaNoProgress", "alert-away"),
    ("KhalaDeadLetterShareHigh", "alert-letters"),
    ("KhalaReplayHorizonShort", "alert-held"),
    ("KhalaStoreMemoryHigh", "alert-drift"),
    ("KhalaPublishErrorsHigh", "alert-publish"),
    ("KhalaFreshnessBurnFast", "alert-slow"),
    ("KhalaFreshnessBurnSlow", "alert-slow"),
    ("KhalaDocumentHashMismatch", "alert-drift"),
    ("KhalaAuditTooOld", "alert-letters"),
];
/// These have no namespace: they are about processes, and come last.
const PROCESSES: [&str; 2] = ["KhalaProjectorDown", "KhalaProjectorAbsent"];
/// These need a candidate beside: tests/real/rollout.rs moves what they look at, and promtool fires them.
const ROLLOUTS: [&str; 2] = ["KhalaRolloutRolledBack", "KhalaRolloutStalled"];
/// Alerts that last as long as a window of hours, shortened to minutes: seen firing, not waited for.
const LONG: [&str; 3] = [
    "KhalaFreshnessBurnSlow",
    "KhalaDocumentHashMismatch",
    "KhalaReplayHorizonShort",
];
/// Alerts without `for`: they fire at once.
const AT_ONCE: [&str; 3] = [
    "OpenAgentsRuntimeKhalaProjectionDriftIncidentsHigh",
    "OpenAgentsRuntimeKhalaProjectionReplayFailures",
    "KhalaDocumentHashMismatch",
];

/// What may not be told where no fault is made. A machine that is busy enough is truly late: that is left out.
const CALM: &str = "ALERTS{namespace=\"alert-calm\", alertname!~\".*(Freshness|Lag|NoProgress).*\"}";

#[test]
fn rules_and_their_tests_please_promtool() {
    tool("promtool", &["check", "rules", "khala.rules.yml"]);
    tool("promtool", &["test", "rules", "khala.rules.test.yml"]);
    tool("promtool", &["check", "config", "--syntax-only", "prometheus.yml"]);
    tool("amtool", &["check-config", "alertmanager.yml"]);
    for severity in ["page", "ticket"] {
        let label = format!("severity={severity}");
        let routed = [
            "config",
            "routes",
            "test",
            "--config.file=alertmanager.yml",
            "--verify.receivers",
            severity,
            &label,
        ];
        tool("amtool", &routed);
    }
}

#[test]
fn windows_are_shortened_and_nothing_else() {
    let rules = "for: 10m\nexpr: rate(x{le=~\"1|1[.]0\"}[5m]) > 60 and y[1h] or z[3d]\n";
    let short = "for: 10s\nexpr: rate(x{le=~\"1|1[.]0\"}[5s]) > 60 and y[1m] or z[72m]\n";
    assert_eq!(shortened(rules), short);
}

/// Names of all alerts that are shipped.
fn shipped() -> BTreeSet<String> {
    let rules = read(RULES);
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

fn wait_firing(prometheus: &Prometheus, mut work: impl FnMut()) {
    eventually("every alert fires in its namespace", seconds(240), || {
        work();
        let alerts = prometheus.alerts();
        let fires = |name: &str, namespace: &str| {
            let mut all = alerts.iter();
            all.any(|(n, ns, state)| (n.as_str(), ns.as_str(), state.as_str()) == (name, namespace, "firing"))
                || prometheus.was(name, "firing")
        };
        let missing: Vec<_> = EXPECTED.iter().filter(|(name, ns)| !fires(name, ns)).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err((missing, alerts.clone()))
        }
    });
}

/// Alert and namespace, where it is routed to, and whether another one says it already.
const ROUTED: [(&str, &str, &str, bool); 4] = [
    (
        "OpenAgentsRuntimeKhalaProjectionWriteFailureRatioHigh",
        "alert-away",
        "page",
        false,
    ),
    ("KhalaLagSecondsHigh", "alert-away", "page", true),
    ("KhalaNoProgress", "alert-away", "page", true),
    ("KhalaDeadLetterShareHigh", "alert-letters", "ticket", false),
];

fn wait_routed(alertmanager: &Alertmanager, mut work: impl FnMut()) {
    eventually(
        "alerts come to their receivers, causes before effects",
        seconds(60),
        || {
            work();
            let alerts = alertmanager.alerts();
            let is_there = |(alert, namespace, receiver, is_inhibited): &&(&str, &str, &str, bool)| {
                alerts.iter().any(|one| {
                    (one.alert.as_str(), one.namespace.as_str(), one.is_inhibited)
                        == (*alert, *namespace, *is_inhibited)
                        && one.receivers == [*receiver]
                })
            };
            let missing: Vec<_> = ROUTED.iter().filter(|routed| !is_there(routed)).collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("{missing:?} of {alerts:?}"))
            }
        },
    );
}

fn wait_resolved(prometheus: &Prometheus, audit: impl Fn()) {
    eventually("every alert is over", seconds(240), || {
        let alerts = prometheus.alerts();
        let open = |(name, namespace): &&(&str, &str)| {
            !LONG.contains(name)
                && alerts
                    .iter()
                    .any(|(n, ns, _)| (n.as_str(), ns.as_str()) == (*name, *namespace))
        };
        let left: Vec<_> = EXPECTED.iter().filter(open).collect();
        if left.iter().any(|(name, _)| *name == "KhalaAuditTooOld") {
            audit();
        }
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn every_alert_is_seen_firing_on_real_servers_and_going_away() {
    let proven = EXPECTED.iter().map(|(name, _)| (*name).to_owned());
    let proven: BTreeSet<String> = proven
        .chain(PROCESSES.into_iter().chain(ROLLOUTS).map(str::to_owned))
        .collect();
    assert_eq!(proven, shipped(), "each alert is proven here");

    let started = Instant::now();
    let mut faults = Faults::begin();
    let alertmanager = Alertmanager::start();
    let prometheus = Prometheus::start(&faults.targets(), &alertmanager);
    let count = faults.targets().len() as f64;
    eventually("all are scraped", seconds(60), || {
        let up = prometheus.query("sum(up)").unwrap_or_default();
        if up.first().is_some_and(|(_, value)| *value >= count) {
            Ok(())
        } else {
            Err(up)
        }
    });
    faults.make();
    wait_firing(&prometheus, || faults.go_on());
    note(&format!(
        "{} alerts fired after {:?}",
        EXPECTED.len(),
        started.elapsed()
    ));
    wait_routed(&alertmanager, || faults.go_on());
    let panels = dashboards::ask_all(&prometheus);
    note(&format!("{panels} panels with live data"));
    faults.heal();
    wait_resolved(&prometheus, || faults.audit_letters());
    for (name, _) in EXPECTED {
        assert!(prometheus.was(name, "firing"), "{name} fired");
        assert!(
            AT_ONCE.contains(name) || prometheus.was(name, "pending"),
            "{name} was pending"
        );
    }
    let calm = prometheus.query(CALM).expect("a legal query");
    assert!(calm.is_empty(), "where nothing is wrong nothing is told: {calm:?}");

    eventually("what repeats itself is summed up in the log", seconds(60), || {
        let log = faults.calm_log();
        let is_told = log.contains("telemetry was not sent") && log.contains("last message repeated");
        if is_told { Ok(()) } else { Err(log) }
    });

    faults.freeze();
    eventually("absent and down fire", seconds(60), || {
        let alerts = prometheus.alerts();
        let fires = |name: &&str| alerts.iter().any(|(n, _, state)| n == name && state == "firing");
        let all_fire = PROCESSES.iter().all(fires);
        if all_fire { Ok(()) } else { Err(alerts) }
    });
    faults.thaw();
    eventually("absent and down are over", seconds(60), || {
        let alerts = prometheus.alerts();
        let open: Vec<_> = alerts
            .into_iter()
            .filter(|(n, _, _)| PROCESSES.contains(&n.as_str()))
            .collect();
        if open.is_empty() { Ok(()) } else { Err(open) }
    });
    note(&format!("all is over after {:?}", started.elapsed()));
}

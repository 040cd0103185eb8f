//! Whether somebody would be told, and finds what to do: alerts, their pages, dashboards. All that this version ships.

use std::path::Path;

use serde_json::Value;

use super::super::exit::Failure;
use super::super::gate::failed;
use super::super::gate::monitoring::{DASHBOARDS, RULES};
use super::super::gate::report::Check;
use super::web::Web;

/// Values of a key in the shipped rules, as `alert` or `runbook_url`.
fn of_rules(key: &str) -> Vec<&'static str> {
    let begin = format!("{key}: ");
    let values = RULES
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix(&begin));
    values.map(str::trim).collect()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn rows<'a>(answer: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    answer.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

pub(super) fn alerts(prometheus: &Web) -> Result<Vec<Check>, Failure> {
    let rules = prometheus.json("/api/v1/rules?type=alert").map_err(failed)?;
    let groups: Vec<&Value> = rows(&rules, "/data/groups").collect();
    let loaded: Vec<&Value> = groups.iter().flat_map(|group| rows(group, "/rules")).collect();
    let is_loaded = |alert: &str| loaded.iter().any(|rule| rule["name"] == alert);
    let ours = of_rules("alert");
    let missing = ours
        .iter()
        .filter(|alert| !is_loaded(alert))
        .map(|alert| (*alert).to_owned());
    let firing = loaded
        .iter()
        .filter(|rule| rule["state"] == "firing")
        .filter_map(|rule| rule["name"].as_str())
        .filter(|name| ours.contains(name));
    let targets = prometheus.json("/api/v1/targets?state=active").map_err(failed)?;
    let targets: Vec<&Value> = rows(&targets, "/data/activeTargets")
        .filter(|target| target["labels"]["job"] == "khala")
        .collect();
    let down = targets.iter().filter(|target| target["health"] != "up");
    let managers = prometheus.json("/api/v1/alertmanagers").map_err(failed)?;
    Ok(vec![
        Check::told("alerts that this version ships", ours.len()),
        Check::equal(
            "of them not loaded",
            listed(&missing.collect::<Vec<_>>()),
            "none".to_owned(),
        ),
        Check::equal(
            "of them firing now",
            listed(&firing.map(str::to_owned).collect::<Vec<_>>()),
            "none".to_owned(),
        ),
        Check::at_least("targets of the job khala", targets.len() as u64, 1),
        Check::equal("of them not up", down.count(), 0),
        Check::at_least(
            "Alertmanagers that are told",
            rows(&managers, "/data/activeAlertmanagers").count() as u64,
            1,
        ),
    ])
}

/// Each alert's page where its annotation says it is.
pub(super) fn pages() -> Vec<Check> {
    let urls = of_rules("runbook_url");
    let found = urls.iter().map(|url| (*url, Web::new(url, None).status("")));
    let wrong: Vec<String> = found
        .filter(|(_, status)| status != "200")
        .map(|(url, status)| format!("{url} ({status})"))
        .collect();
    vec![
        Check::told("pages", urls.len()),
        Check::equal("of them not to be reached", listed(&wrong), "none".to_owned()),
    ]
}

/// The same in a directory.
pub(super) fn pages_in(dir: &Path) -> Vec<Check> {
    let alerts = of_rules("alert");
    let missing = alerts.iter().map(|alert| format!("{alert}.md"));
    let missing: Vec<String> = missing.filter(|name| !dir.join(name).is_file()).collect();
    vec![
        Check::told("pages", alerts.len()),
        Check::equal(
            format!("of them not in {}", dir.display()),
            listed(&missing),
            "none".to_owned(),
        ),
    ]
}

pub(super) fn dashboards(grafana: &Web) -> Vec<Check> {
    let uid = |text: &str| {
        let dashboard: Option<Value> = serde_json::from_str(text).ok();
        dashboard.and_then(|dashboard| Some(dashboard["uid"].as_str()?.to_owned()))
    };
    let uids = DASHBOARDS.iter().filter_map(|text| uid(text));
    let checks = uids.map(|uid| {
        let status = grafana.status(&format!("/api/dashboards/uid/{uid}"));
        Check::equal(format!("dashboard {uid}"), status, "200".to_owned())
    });
    checks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alert_has_a_page_of_its_name() {
        let (alerts, urls) = (of_rules("alert"), of_rules("runbook_url"));
        assert!(alerts.len() >= 17, "{alerts:?}");
        for (alert, url) in alerts.iter().zip(&urls) {
            assert!(url.ends_with(&format!("/{alert}.md")), "{alert}: {url}");
        }
        assert_eq!(alerts.len(), urls.len());
    }
}

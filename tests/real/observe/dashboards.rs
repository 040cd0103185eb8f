//! The dashboards' queries, asked of a real Prometheus with data behind it.

use std::path::PathBuf;

use serde_json::Value;

use super::prometheus::{Prometheus, read};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/grafana/dashboards");

/// Asks every query of every panel; returns the number of panels. Fails on an error, an empty answer, or one without a number.
pub fn ask_all(prometheus: &Prometheus) -> usize {
    let mut broken = Vec::new();
    let mut panels = 0;
    for file in files() {
        let dashboard: Value = serde_json::from_str(&read(&file)).expect("JSON");
        let all = dashboard["panels"].as_array().expect("panels");
        for panel in all.iter().filter(|panel| panel["type"] != "row") {
            panels += 1;
            let title = panel["title"].as_str().unwrap_or_default();
            for target in panel["targets"].as_array().expect("targets") {
                let query = target["expr"].as_str().unwrap_or_default();
                // No rollout is under way here: its gauges have no series.
                let is_rollout = query.contains("(khala_rollout_") && !query.contains("_total");
                match prometheus.query(&filled(query)) {
                    Ok(samples) if is_rollout && samples.is_empty() => {}
                    Ok(samples) if samples.iter().all(|(_, value)| value.is_nan()) => {
                        broken.push(format!("{}: {title}: no data: {query}", file.display()));
                    }
                    Ok(_) => {}
                    Err(error) => broken.push(format!("{}: {title}: {error}", file.display())),
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    panels
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(FOLDER).expect("config/grafana/dashboards");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    assert!(files.len() > 3, "{files:?}");
    files
}

/// What Grafana fills in.
fn filled(query: &str) -> String {
    let query = query.replace("$namespace", "alert-.*").replace("$instance", ".*");
    query.replace("$__rate_interval", "10s").replace("$__range", "5m")
}

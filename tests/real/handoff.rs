//! `khala handoff` against a real server, a real Prometheus with the shipped rules, and real reports: it passes when all
//! holds, and names what does not.

use serde_json::Value;

use super::observe::prometheus::{Alertmanager, Prometheus};
use super::world::World;
use crate::support::khala::{Khala, run};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

const RUNBOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks");
const DASHBOARDS_AND_REPORTS: &str = "grafana,reports,tokens";

struct Asked {
    code: Option<i32>,
    report: Value,
    said: String,
}

impl Asked {
    fn decision(&self, scenario: &str) -> Option<&str> {
        let scenarios = self.report["scenarios"].as_array()?;
        scenarios.iter().find(|it| it["name"] == scenario)?["decision"].as_str()
    }
}

fn handoff(world: &World, server: &str, flags: &[&str]) -> Asked {
    let url = format!("http://{server}");
    let mut args = vec![
        "handoff",
        "--json",
        "--by",
        "ada",
        "--server",
        &url,
        "--runbooks",
        RUNBOOKS,
    ];
    args.extend(flags);
    let output = run(&world.cluster, &args, "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    Asked {
        code: output.status.code(),
        report: serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{said}")),
        said,
    }
}

#[test]
fn a_handoff_passes_when_all_holds_and_names_what_does_not() {
    let mut world = World::new("handoff", 2, 500, Keeps::AppendOnly);
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--audit-every", "1s"]);
    world.produce(500);
    let alertmanager = Alertmanager::start();
    let prometheus = Prometheus::start(&[khala.http()], &alertmanager);
    let reports = world.dir().join("reports").display().to_string();
    let flags = [
        "--prometheus",
        prometheus.url(),
        "--without",
        DASHBOARDS_AND_REPORTS,
        "--report",
        &reports,
    ];
    eventually("a handoff passes", seconds(90), || {
        let asked = handoff(&world, khala.http(), &flags);
        match asked.code {
            Some(0) => Ok(()),
            _ => Err(format!("{}\n{}", asked.said, asked.report)),
        }
    });
    let written = std::fs::read_dir(&reports).expect("the reports").count();
    assert!(written >= 2, "{written} files in {reports}");

    // What was not asked is no pass; a drill that never was is none either.
    let asked = handoff(&world, khala.http(), &["--reports", &reports]);
    assert_eq!(asked.code, Some(3), "{}", asked.said);
    for (scenario, decision) in [
        ("server", "PASS"),
        ("audit", "PASS"),
        ("horizon", "PASS"),
        ("snapshots", "PASS"),
        ("runbooks", "PASS"),
        ("tokens", "FAIL"),
        ("prometheus", "FAIL"),
        ("grafana", "FAIL"),
        ("reports", "FAIL"),
    ] {
        assert_eq!(asked.decision(scenario), Some(decision), "{scenario}: {}", asked.report);
    }

    // The limit is the reader's: a snapshot of seconds ago may be too old.
    eventually("a snapshot is too old", seconds(30), || {
        let asked = handoff(&world, khala.http(), &["--snapshot-age", "0s"]);
        match asked.decision("snapshots") {
            Some("FAIL") => Ok(()),
            _ => Err(asked.report),
        }
    });

    // A server that is gone.
    let http = khala.http().to_owned();
    assert_eq!(khala.term(), Some(0));
    let asked = handoff(&world, &http, &["--without", "grafana,reports,tokens,prometheus"]);
    assert_eq!(asked.code, Some(3), "{}", asked.said);
    assert_eq!(asked.decision("server"), Some("FAIL"));
    assert_eq!(asked.decision("runbooks"), Some("PASS"));
}

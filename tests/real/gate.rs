//! `khala gate` and `khala drill` on real servers and on the embedded default: they pass, they leave nothing, a broken
//! limit fails them, and what is dangerous is refused.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::bench::topics;
use super::world::World;
use crate::support::khala::{Cluster, run};
use crate::support::redis_server::Keeps;

/// Small, with limits that only a real fault breaks on a machine that does something else too.
const SMALL: [&str; 13] = [
    "gate",
    "--json",
    "--rate",
    "200",
    "--for",
    "2s",
    "--runs",
    "200",
    "--behind",
    "60s",
    "--publish-p99",
    "30s",
    "--report",
];
const SCENARIOS: [&str; 12] = [
    "write path",
    "chaos",
    "run burst, paced",
    "run burst, unpaced",
    "worker burst",
    "shape: readers",
    "shape: frames",
    "shape: cancels",
    "shape: executor lost",
    "sustained load",
    "replay converges",
    "monitoring",
];

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What was found where a scenario looked for `what`.
fn found<'a>(report: &'a Value, scenario: &str, what: &str) -> &'a str {
    let scenarios = report["scenarios"].as_array().expect("scenarios");
    let those = scenarios.iter().filter(|known| known["name"] == scenario);
    let mut checks = those.flat_map(|known| known["checks"].as_array().expect("checks"));
    let check = checks.find(|check| check["what"] == what);
    check
        .and_then(|check| check["found"].as_str())
        .unwrap_or_else(|| panic!("{scenario}: {what}: {report}"))
}

fn embedded(dir: &Path) -> Cluster {
    let place = format!("embedded:{}", dir.join("data").display());
    Cluster {
        log: place.clone(),
        store: place,
        topic: "khala.events".to_owned(),
        namespace: "khala".to_owned(),
    }
}

#[test]
fn a_gate_on_kafka_and_redis_passes_and_leaves_nothing() {
    let world = World::new("gate", 4, 100, Keeps::Dumps);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("reports");
    let output = run(
        &world.cluster,
        &[&SMALL[..], &[path.to_str().expect("UTF-8")]].concat(),
        "",
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    assert_eq!(report["decision"], "PASS", "{report}");
    let names: Vec<&Value> = report["scenarios"]
        .as_array()
        .expect("scenarios")
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, SCENARIOS);
    let lag: u64 = found(&report, "run burst, unpaced", "lag_events, the most seen")
        .parse()
        .expect("a number");
    assert!(
        (2..=181).contains(&lag),
        "a burst of 181 events at once is behind: {lag}"
    );
    let means = found(&report, "write path", "how the store is taken away");
    assert_eq!(means, "connections to Redis cut and refused");
    assert_eq!(
        found(&report, "chaos", "events persisted while every write failed"),
        "61"
    );
    assert_eq!(found(&report, "chaos", "checkpoints that moved meanwhile"), "0");
    assert_eq!(found(&report, "chaos", "latest_seq after the replay"), "61");
    assert_eq!(
        found(&report, "shape: readers", "readers that saw 1 to 6 and [DONE]"),
        "8"
    );
    assert_eq!(world.redis.ask::<i64>(&["DBSIZE"]), 0);
    let topic = report["topic"].as_str().expect("its name");
    let left: Vec<String> = topics(&world)
        .into_iter()
        .filter(|name| name.starts_with(topic))
        .collect();
    assert_eq!(left, [""; 0]);
    let written: Vec<_> = std::fs::read_dir(&path)
        .expect("reports")
        .map(|entry| entry.expect("a file").path())
        .collect();
    let page = written
        .iter()
        .find(|path| path.extension().is_some_and(|it| it == "md"))
        .expect("a page");
    let page = std::fs::read_to_string(page).expect("UTF-8");
    assert!(page.starts_with("# khala gate: PASS\n"), "{page}");
    assert_eq!(written.len(), 2, "{written:?}");
}

#[test]
fn a_gate_with_a_broken_limit_fails_and_says_which() {
    let dir = tempfile::tempdir().expect("a directory");
    let embedded = embedded(dir.path());
    let reports = dir.path().join("reports");
    let mut args = SMALL.to_vec();
    args.extend([reports.to_str().expect("UTF-8"), "--max-lag", "1"]);
    let limit = args
        .iter()
        .position(|arg| *arg == "30s")
        .expect("the limit of publications");
    args[limit] = "0s";
    let output = run(&embedded, &args, "");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    assert_eq!(report["decision"], "FAIL", "{report}");
    for scenario in report["scenarios"].as_array().expect("scenarios") {
        let is_limited = ["write path", "sustained load"].contains(&scenario["name"].as_str().unwrap_or_default());
        assert_eq!(
            scenario["decision"],
            if is_limited { "FAIL" } else { "PASS" },
            "{scenario}"
        );
    }
    assert!(
        stderr(&output).contains("publications during, p99"),
        "{}",
        stderr(&output)
    );
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .expect("readable")
        .map(|entry| entry.expect("a file").file_name())
        .collect();
    assert_eq!(left, ["reports"], "its directory went with it");
}

/// Runs a drill on `cluster` that must pass; its report.
fn drilled(cluster: &Cluster, fault: &str, more: &[&str]) -> Value {
    let args = [&["drill", fault, "--json", "--for", "2s", "--runs", "50"], more].concat();
    let output = run(cluster, &args, "");
    assert_eq!(output.status.code(), Some(0), "{fault}: {}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.starts_with(&format!("khala drill {fault}: ")),
        "it says what it will do: {said}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    assert_eq!(report["decision"], "PASS", "{report}");
    report
}

#[test]
fn drills_on_kafka_and_redis_pass_and_leave_nothing() {
    let world = World::new("drill", 4, 100, Keeps::Dumps);
    let killed = drilled(&world.cluster, "kill", &[]);
    assert_eq!(found(&killed, "kill", "runs with an event lost or counted twice"), "0");
    let rolled_back = drilled(&world.cluster, "sink-rollback", &["--i-know"]);
    assert_eq!(
        found(
            &rolled_back,
            "sink-rollback",
            "documents that are not what the log says"
        ),
        "0"
    );
    let restored = drilled(&world.cluster, "restore", &["--i-know"]);
    assert_ne!(found(&restored, "restore", "partitions restored from a snapshot"), "0");
    let rolled_back = drilled(&world.cluster, "rollback", &[]);
    assert_eq!(found(&rolled_back, "rollback", "it rolled back by itself"), "yes");
    let moved = drilled(&world.cluster, "rebalance", &[]);
    assert_eq!(found(&moved, "rebalance", "publications refused"), "0");
    assert_eq!(world.redis.ask::<i64>(&["DBSIZE"]), 0);
    let left: Vec<String> = topics(&world)
        .into_iter()
        .filter(|name| name.contains("drill-"))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn drills_on_the_embedded_default_pass_and_what_they_cannot_do_they_refuse() {
    let dir = tempfile::tempdir().expect("a directory");
    let embedded = embedded(dir.path());
    for fault in ["kill", "sink-outage", "replay"] {
        drilled(&embedded, fault, &[]);
    }
    let refused = [
        (&["drill", "zombie"][..], "has one process"),
        (&["drill", "rollback"], "has one process"),
        (&["drill", "sink-rollback", "--i-know"], "only a Redis"),
        (&["drill", "restore", "--i-know"], "only a Redis"),
        (
            &["drill", "sink-rollback", "--store", "redis://127.0.0.1:1"],
            "--i-know",
        ),
    ];
    for (args, why) in refused {
        let cluster = Cluster {
            store: args
                .last()
                .filter(|last| last.starts_with("redis"))
                .map_or(embedded.store.clone(), |it| (*it).to_owned()),
            ..embedded.clone()
        };
        let args: Vec<&str> = args
            .iter()
            .copied()
            .filter(|arg| *arg != "--store" && !arg.starts_with("redis:"))
            .collect();
        let output = run(&cluster, &args, "");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "{args:?}: {}", stderr(&output));
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("readable").count(),
        0,
        "nothing is left"
    );
}

//! What runbooks tell people to paste, pasted: into a shell beside a real Kafka, a real Redis and a serving khala.

use std::process::Command;

use super::prometheus::read;
use crate::support::redis_server::Keeps;
use crate::world::World;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks");
/// These name a partition, a letter or drift that is only there when the alert is, or another program's tools.
const NOT_HERE: [&str; 6] = [
    "docker ",
    "kafka-configs.sh ",
    "khala resume ",
    "khala rollout ",
    "khala dead-letters show ",
    "curl -s http://localhost:7600/metrics | grep '^khala_projection_drift_total'",
];
/// The run that they name.
const RUN: &str = "run_123";

/// Lines of `sh` blocks, with the runbook they are in.
fn pasted() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(FOLDER).expect("docs/runbooks") {
        let path = entry.expect("a readable folder").path();
        let (text, mut is_sh) = (read(&path), false);
        for line in text.lines().map(str::trim) {
            match line.strip_prefix("```") {
                Some(language) => is_sh = language == "sh",
                None if is_sh => lines.push((path.display().to_string(), line.to_owned())),
                None => {}
            }
        }
    }
    lines
}

#[test]
fn what_runbooks_tell_to_paste_works() {
    let mut world = World::new("runbooks", 2, 500, Keeps::AppendOnly);
    let khala = world.khala("khala");
    world.produce(400);
    for (sequence, kind, data) in [(1, "run.started", "{}"), (2, "run.finished", r#"{"status":"failed"}"#)] {
        khala.publish_http(&format!(
            r#"{{"specversion":"1.0","id":"{sequence}","source":"s","type":"{kind}","subject":"run/{RUN}","sequence":{sequence},"data":{data}}}"#
        ));
    }
    world.settle();
    for start in NOT_HERE {
        let is_there = pasted().iter().any(|(_, line)| line.starts_with(start));
        assert!(is_there, "no runbook has `{start}` any more");
    }
    let (mut seen, mut broken) = (0, Vec::new());
    let here = |line: &&(String, String)| !NOT_HERE.iter().any(|start| line.1.starts_with(start));
    for (runbook, line) in pasted().iter().filter(here) {
        seen += 1;
        let port = world.redis.url().rsplit(':').next().expect("a port").to_owned();
        let here = line
            .replace("redis-cli", &format!("redis-cli -p {port}"))
            .replace("localhost:7600", khala.http());
        let output = Command::new("timeout")
            .args(["60", "bash", "-o", "pipefail", "-c"])
            .arg(format!("khala() {{ \"$KHALA\" \"$@\"; }}\n{here}"))
            .env("KHALA", env!("CARGO_BIN_EXE_khala"))
            .env("KHALA_LOG", &world.cluster.log)
            .env("KHALA_STORE", &world.cluster.store)
            .env("KHALA_TOPIC", &world.cluster.topic)
            .env("KHALA_NAMESPACE", &world.cluster.namespace)
            .output()
            .expect("timeout and bash run");
        if !output.status.success() || output.stdout.is_empty() {
            let told = String::from_utf8_lossy(&output.stderr);
            broken.push(format!("{runbook}: `{line}`: {}: {told}", output.status));
        }
    }
    assert!(seen > 15, "only {seen} lines found");
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    assert_eq!(khala.term(), Some(0));
}

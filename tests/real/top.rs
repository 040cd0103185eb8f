//! `khala top`: what is busy, and what needs a look first.

use serde_json::Value;

use super::web::{ONE, event, post};
use super::world::World;
use crate::support::khala::run;
use crate::support::redis_server::Keeps;

#[test]
fn each_look_tells_partitions_and_rates() {
    let world = World::new("top", 3, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let body = event("run/a", 1, "run.started", "{}");
    assert_eq!(
        post(khala.http(), "/v1/events?wait=projected", &[ONE], body.as_bytes()).status,
        200
    );
    let output = run(
        &world.cluster,
        &["top", "--times", "2", "--every", "100ms", "--json"],
        "",
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let screens: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(screens.len(), 2, "{text}");
    for screen in screens {
        assert_eq!(screen["partitions"].as_array().map(Vec::len), Some(3), "{screen}");
        assert_eq!(
            (&screen["lag_events"], &screen["partitions"][0]["state"]),
            (&0.into(), &"running".into())
        );
    }
    let shown = run(&world.cluster, &["top", "--times", "1", "--every", "100ms"], "");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("hottest runs") && !shown.contains('\x1b'),
        "no terminal, no escapes: {shown}"
    );
    assert_eq!(khala.term(), Some(0));
}

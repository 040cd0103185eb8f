//! Documents by pages: each once, in order, and no page costs more than its own documents.

use std::collections::BTreeSet;

use serde_json::Value;

use super::web::{event, get};
use super::world::World;
use crate::reference::messy::Message;
use crate::support::redis_server::Keeps;

const RUNS: u64 = 6_000;
const PAGE: usize = 100;
/// Has no divisor in common with the number of runs.
const SHUFFLE: u64 = 3_989;
/// Of the status that is asked for.
const WANTED: u64 = RUNS - RUNS / 4;

/// Ids are in another order than offsets, and many runs are updated in one millisecond.
fn message(run: u64, sequence: u64, kind: &str, data: &str) -> Message {
    let subject = format!("run/r{:04}", run * SHUFFLE % RUNS);
    Message {
        partition: None,
        key: Some(subject.as_bytes().to_vec()),
        value: Some(event(&subject, sequence, kind, data).into_bytes()),
        headers: Vec::new(),
    }
}

fn id(run: u64) -> String {
    format!("run_summary:r{:04}", run * SHUFFLE % RUNS)
}

/// How often the index was asked.
fn looks(world: &World) -> u64 {
    let told: String = world.redis.ask(&["INFO", "commandstats"]);
    let lines = told
        .lines()
        .filter(|line| line.starts_with("cmdstat_zrevrangebyscore:"));
    let calls = lines.filter_map(|line| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok());
    calls.sum()
}

#[test]
fn pages_of_many_documents_have_each_once_and_look_at_none_again() {
    let world = World::new("listing", 2, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let ended = |run: u64| run.is_multiple_of(4);
    let events: Vec<Message> = (0..RUNS)
        .map(|run| {
            let (kind, data) = if ended(run) {
                ("run.finished", r#"{"status":"succeeded"}"#)
            } else {
                ("run.delta", "{}")
            };
            message(run, 1, kind, data)
        })
        .collect();
    world.send(&events);
    world.settle();
    // What is no id hides none behind it.
    let index = world.key(0, "index:run_summary");
    let _: u64 = world
        .redis
        .ask(&["ZADD", &index, "100", "no id", "1e9", "no id either"]);
    let before = looks(&world);
    let (mut seen, mut cursor, mut pages) = (Vec::<(String, String)>::new(), String::new(), 0);
    loop {
        let path = format!("/v1/runs?status=running&limit={PAGE}{cursor}");
        let page = get(khala.http(), &path, &[]).json();
        let documents = page["documents"].as_array().expect("documents");
        let text = |document: &Value, name: &str| document[name].as_str().expect("a text").to_owned();
        seen.extend(
            documents
                .iter()
                .map(|one| (text(one, "updated_at"), text(one, "document_id"))),
        );
        pages += 1;
        if pages == 3 {
            // One that was shown and one that was not are updated meanwhile: both are in front then.
            let last = seen.last().expect("one").1.clone();
            let shown = (0..RUNS).find(|run| last == id(*run)).expect("one of ours");
            world.send(&[message(shown, 2, "run.delta", "{}"), message(1, 2, "run.delta", "{}")]);
            world.settle();
        }
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", next.replace(':', "%3A").replace('|', "%7C")),
            None => break,
        }
    }
    let ids: BTreeSet<&String> = seen.iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), seen.len(), "none twice");
    assert_eq!(seen.len() as u64, WANTED - 1, "all but the one that went to the front");
    assert!(!ids.contains(&id(1)));
    assert!(seen.is_sorted_by(|a, b| a.0 >= b.0), "the most recently updated first");
    // Two partitions a page, and no more than twice what a page has of each.
    let (looks, pages) = (looks(&world) - before, pages as u64);
    assert!(looks <= 4 * pages, "{looks} looks into the index for {pages} pages");
    assert_eq!(khala.term(), Some(0));
}

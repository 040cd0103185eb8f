//! The operator's page in a real Chromium, on a server with a held partition, runs, workers and dead letters.

use std::process::Command;

use super::openapi::{must_pass, python};
use super::web::get;
use super::world::World;
use crate::reference::messy::Message;
use crate::support::khala::{Cluster, Khala};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

/// More than `--dead-letter-share-records`.
const FLOOD: usize = 300;

fn garbage(n: usize) -> Message {
    Message {
        partition: Some(1),
        key: Some(b"run/garbage".to_vec()),
        value: Some(format!("garbage {n}").into_bytes()),
        headers: Vec::new(),
    }
}

#[test]
fn an_operator_sees_what_is_wrong_and_puts_it_right() {
    let mut world = World::new("page", 4, 2_000, Keeps::AppendOnly);
    let tokens = world.dir().join("tokens");
    std::fs::write(&tokens, "read,publish,operate 0perate\n").expect("a file");
    let token_file = tokens.display().to_string();
    let flags = ["--token-file", &token_file, "--dead-letter-share-records", "100"];
    let khala = Khala::start(world.dir(), &world.cluster, "one", &flags);
    let page = get(khala.http(), "/", &[]);
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    world.produce(2_000);
    world.settle();
    world.send(&(0..FLOOD).map(garbage).collect::<Vec<_>>());
    eventually("the flood holds its partition", seconds(60), || {
        let answer = get(khala.http(), "/readyz", &[]);
        let is_held = answer.text.contains("dead_letter_share");
        if is_held { Ok(()) } else { Err(answer.text) }
    });

    // The candidate of a rollout; nothing holds it.
    let candidate = Cluster {
        namespace: "page-2".to_owned(),
        ..world.cluster.clone()
    };
    let other = Khala::start(
        world.dir(),
        &candidate,
        "two",
        &["--dead-letter-share-records", "1000000"],
    );

    let pictures = std::env::var("KHALA_PICTURES").unwrap_or_else(|_| world.dir().display().to_string());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/page.py");
    let url = format!("http://{}", khala.http());
    must_pass(Command::new(python("python")).args([script, &url, "0perate", &pictures, &khala.pid().to_string()]));
    assert_eq!(other.term(), Some(0));
}

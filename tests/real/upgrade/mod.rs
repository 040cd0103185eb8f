//! What an earlier version wrote, taken over by this one: documents, checkpoints and streams in Redis, snapshots in
//! Kafka, an embedded directory. No version was released yet: the earlier one is a commit of this history, whose data
//! `scripts/make-upgrade-fixture` made and `tests/real/upgrade/<commit>` keeps.

pub mod stored;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use self::stored::{keys, put_back, put_keys, read_lines, record, write_lines};
use super::compare::{Allow, assert_exact};
use super::topic;
use super::world::{World, note};
use crate::reference::messy::{Messy, Shape};
use crate::support::broker::Kafka;
use crate::support::guarded::{Guarded, free_port, temp_dir};
use crate::support::khala::{Cluster, Khala, run};
use crate::support::wait::{eventually, seconds};

/// The commit that wrote the data.
const COMMIT: &str = "a257e85";
const PARTITIONS: u32 = 2;
const EVENTS: usize = 240;
/// Each topic has an id of its own, which no data can bring along.
const TOPIC_ID: &str = "THE-TOPIC-S-ID";

fn folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/real/upgrade").join(COMMIT)
}

/// A broker of its own, which keeps events however old they are.
fn world() -> World {
    World::with_brokers(
        Kafka::start(),
        "upgrade",
        PARTITIONS,
        EVENTS,
        Kafka::create_lasting_topic,
    )
}

/// The id of the world's topic, as a checkpoint tells it.
fn topic_id(world: &World) -> String {
    let cluster = Cluster {
        namespace: "probe".to_owned(),
        ..world.cluster.clone()
    };
    let probe = Khala::start(world.dir(), &cluster, "probe", &["--snapshot-interval", "off"]);
    let id = eventually("a checkpoint", seconds(60), || {
        let id: Option<String> = world.redis.ask(&["HGET", "{probe:0}:checkpoint", "topic_id"]);
        id.ok_or("none")
    });
    assert_eq!(probe.term(), Some(0));
    id
}

/// A world with the records of the earlier version; what it had in Redis.
fn with_records(world: &World) -> Vec<Value> {
    let none = ("\n", "\n");
    let (config, topic) = (world.config(), &world.cluster.topic);
    put_back(&config, topic, &read_lines(&folder().join("events.ndjson"), none), true);
    let id = topic_id(world);
    let lines = |name: &str| read_lines(&folder().join(name), (TOPIC_ID, &id));
    assert!(run(&world.cluster, &["topics", "apply"], "").status.success());
    put_back(
        &config,
        &format!("{topic}.documents"),
        &lines("documents.ndjson"),
        false,
    );
    put_back(
        &config,
        &format!("{topic}.dead-letters"),
        &lines("dead-letters.ndjson"),
        false,
    );
    lines("redis.ndjson")
}

/// Keys and texts of the documents among these.
fn documents(keys: &[Value]) -> impl Iterator<Item = (&str, &str)> {
    let all = keys
        .iter()
        .filter_map(|one| Some((one["key"].as_str()?, one["value"].as_str()?)));
    all.filter(|(key, _)| key.contains("}:run_summary:") || key.contains("}:worker_summary:"))
}

fn audited(cluster: &Cluster) {
    let output = run(cluster, &["audit", "--json"], "");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (output.status.code(), &told["clean"]),
        (Some(0), &true.into()),
        "{told}"
    );
}

#[test]
fn documents_of_an_earlier_version_are_taken_over_as_they_are() {
    let mut world = world();
    let before = with_records(&world);
    put_keys(&world.redis, &before);
    let khala = world.khala("new");
    // A document that no new event touches stays as the earlier version wrote it, to the byte.
    world.settle();
    let (mut same, mut all) = (0, 0);
    for (key, text) in documents(&before) {
        let now: String = world.redis.ask(&["GET", key]);
        (same, all) = (same + usize::from(text == now), all + 1);
    }
    assert!(all > 10 && same == all, "{same} of {all} are as they were");
    assert!(
        khala.recoveries().iter().all(|called| called == "normal"),
        "{:?}",
        khala.recoveries()
    );
    world.produce(EVENTS);
    let twice = Allow::AFTER_A_FAULT; // the probe wrote each dead letter too
    assert_exact(&world, twice);
    audited(&world.cluster);
    for reason in [
        "sink_lost",
        "sink_rolled_back",
        "checkpoint_ahead",
        "projection_version_changed",
    ] {
        let drift = khala.metric("khala_projection_drift_total", &[("reason", reason)]);
        assert!(drift < 1.0, "{reason}: {drift}");
    }
    note(&format!("{all} documents of {COMMIT} taken over"));
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn snapshots_of_an_earlier_version_give_back_what_log_and_store_have_lost() {
    let world = world();
    let before = with_records(&world);
    let ends: Vec<u64> = topic::bounds(&world.config(), &world.cluster.topic)
        .into_iter()
        .map(|(_, end)| end)
        .collect();
    for (p, end) in ends.iter().enumerate() {
        world.kafka().delete_records(&world.cluster.topic, p as u32, *end);
    }
    topic::commit(&world.config(), &world.cluster.topic, &world.cluster.namespace, &ends);
    let khala = world.khala("new");
    khala.wait_recovery("sink_lost");
    world.settle();
    let without = |text: &str| {
        let mut document: Value = serde_json::from_str(text).expect("JSON");
        document.as_object_mut().expect("an object").remove("projected_at");
        document
    };
    let mut compared = 0;
    for (key, text) in documents(&before) {
        eventually(&format!("{key} is back"), seconds(60), || {
            let now: Option<String> = world.redis.ask(&["GET", key]);
            now.filter(|now| without(now) == without(text)).ok_or("not yet")
        });
        compared += 1;
    }
    assert!(compared > 10, "{compared} documents");
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn an_embedded_directory_of_an_earlier_version_goes_on() {
    let dir = temp_dir("upgrade");
    let archive = folder().join("embedded.tar.gz");
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(&archive)
        .arg("-C")
        .arg(dir.path())
        .status();
    assert!(unpacked.expect("tar runs").success());
    let at = format!("embedded:{}", dir.path().join("khala-data").display());
    let cluster = Cluster {
        log: at.clone(),
        store: at,
        topic: "upgrade.events".to_owned(),
        namespace: "upgrade".to_owned(),
    };
    let expected = read_lines(&folder().join("embedded.ndjson"), ("\n", "\n"));
    let khala = Khala::start(dir.path(), &cluster, "new", &[]);
    for one in &expected {
        let (status, text) = khala.get(one["path"].as_str().expect("a path")).expect("an answer");
        let mut now: Value = serde_json::from_str(&text).expect("JSON");
        now.as_object_mut().expect("an object").remove("heartbeat_state");
        assert_eq!(
            (status, &now),
            (200, &one["document"]),
            "as the earlier version wrote it"
        );
    }
    khala.publish_http(
        r#"{"specversion":"1.0","id":"new","source":"new","type":"run.delta","subject":"run/e0","sequence":"1"}"#,
    );
    let before = expected[0]["document"]["event_count"].as_u64().expect("a count");
    assert_eq!(expected[0]["path"], "/v1/runs/e0");
    eventually("the new event is in the document", seconds(60), || {
        let (_, text) = khala.get("/v1/runs/e0").expect("an answer");
        let now: Value = serde_json::from_str(&text).expect("JSON");
        if now["event_count"].as_u64() == Some(before + 1) {
            Ok(())
        } else {
            Err(now)
        }
    });
    audited(&cluster);
    assert_eq!(khala.term(), Some(0));
    audited(&cluster);
}

/// Starts `khala serve` of the earlier version.
fn old(dir: &Path, cluster: &Cluster, variables: &[(&str, &str)]) -> (Guarded, String) {
    let binary = std::env::var("KHALA_OLD").expect("KHALA_OLD: the earlier version's binary");
    let http = format!("127.0.0.1:{}", free_port());
    let mut args = vec!["serve".to_owned()];
    args.extend(cluster.flags());
    args.extend(["--http".to_owned(), http.clone()]);
    let variables: Vec<(String, String)> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let process = Guarded::start(&dir.join("old"), &binary, &args, &variables);
    eventually("the earlier version is ready", seconds(60), || {
        let answer = ureq::get(format!("http://{http}/readyz")).call();
        answer.map(drop).map_err(|error| error.to_string())
    });
    (process, http)
}

fn end(mut process: Guarded) {
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
#[ignore = "needs the earlier version's binary: scripts/make-upgrade-fixture --downgrade"]
fn the_earlier_version_works_beside_this_one_and_goes_on_where_it_was() {
    let mut world = world();
    let khala = world.khala("new");
    world.produce(EVENTS);
    world.settle();
    // Both in one group, as while processes are replaced one by one.
    let (process, _) = old(world.dir(), &world.cluster, &[]);
    let each_has_one = |owner: &str| owner.contains(&format!("-{}/", khala.pid()));
    eventually("each has a partition", seconds(60), || {
        let owners: Vec<String> = (0..PARTITIONS)
            .map(|p| {
                world
                    .redis
                    .ask::<Option<String>>(&["GET", &world.key(p, "owner")])
                    .unwrap_or_default()
            })
            .collect();
        let ours = owners.iter().filter(|owner| each_has_one(owner)).count();
        if ours == 1 && owners.iter().all(|owner| !owner.is_empty()) {
            Ok(())
        } else {
            Err(owners)
        }
    });
    world.produce(EVENTS);
    world.settle();
    assert_eq!(khala.term(), Some(0));
    world.produce(EVENTS);
    assert_exact(&world, Allow::default());
    end(process);
    audited(&world.cluster);
    let khala = world.khala("again");
    world.produce(EVENTS);
    assert_exact(&world, Allow::default());
    assert!(
        khala.recoveries().iter().all(|called| called == "normal"),
        "{:?}",
        khala.recoveries()
    );
    assert_eq!(khala.term(), Some(0));
}

/// Makes the data anew.
#[test]
#[ignore = "needs the earlier version's binary: scripts/make-upgrade-fixture"]
fn make() {
    std::fs::create_dir_all(folder()).expect("a directory");
    let world = world();
    let (process, _) = old(world.dir(), &world.cluster, &[("KHALA_SNAPSHOT_INTERVAL", "1s")]);
    world.send(&Messy::new(4242, Shape::of(EVENTS, PARTITIONS)).take(EVENTS));
    world.settle();
    let documents = format!("{}.documents", world.cluster.topic);
    eventually("a marker at the end in each partition", seconds(60), || {
        let at = world.offsets();
        let records = topic::read_back(&world.config(), &documents);
        let is_marked = |p: usize| {
            let begin = format!("\"checkpoint\":[\"{}\"", at[p]);
            let marker = records.iter().rfind(|rec| {
                rec.partition as usize == p && rec.key.as_deref().is_some_and(|key| key.starts_with(b"marker/"))
            });
            marker.is_some_and(|rec| String::from_utf8_lossy(rec.value.as_deref().unwrap_or_default()).contains(&begin))
        };
        if (0..at.len()).all(is_marked) { Ok(()) } else { Err(at) }
    });
    end(process);
    let id = world.checkpoint(0).remove("topic_id").expect("a topic id");
    let save = |name: &str, lines: Vec<Value>| {
        let text = serde_json::to_string(&lines).expect("JSON").replace(&id, TOPIC_ID);
        let lines: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        write_lines(&folder().join(name), &lines);
    };
    let config = world.config();
    for (name, topic) in [
        ("events.ndjson", world.cluster.topic.clone()),
        ("documents.ndjson", documents),
        ("dead-letters.ndjson", format!("{}.dead-letters", world.cluster.topic)),
    ] {
        save(name, topic::read_back(&config, &topic).iter().map(record).collect());
    }
    save("redis.ndjson", keys(&world.redis, "{upgrade"));
    make_embedded();
}

fn make_embedded() {
    let dir = temp_dir("upgrade");
    let at = format!("embedded:{}", dir.path().join("khala-data").display());
    let cluster = Cluster {
        log: at.clone(),
        store: at,
        topic: "upgrade.events".to_owned(),
        namespace: "upgrade".to_owned(),
    };
    let (process, http) = old(dir.path(), &cluster, &[]);
    let mut lines = Vec::new();
    for run in 0..6 {
        for sequence in 1..=5_u64 {
            let kind = if sequence == 1 { "run.started" } else { "run.delta" };
            let event = format!(
                r#"{{"specversion":"1.0","id":"{sequence}","source":"s","type":"{kind}","subject":"run/e{run}","sequence":{sequence}}}"#
            );
            let request = ureq::post(format!("http://{http}/v1/events?wait=projected&timeout=30s"));
            let request = request.header("content-type", "application/cloudevents+json");
            assert_eq!(request.send(&event).expect("an answer").status(), 200);
        }
        let path = format!("/v1/runs/e{run}");
        let mut answer = ureq::get(format!("http://{http}{path}")).call().expect("an answer");
        let document: Value = serde_json::from_str(&answer.body_mut().read_to_string().expect("text")).expect("JSON");
        lines.push(serde_json::json!({"path": path, "document": document}));
    }
    end(process);
    write_lines(&folder().join("embedded.ndjson"), &lines);
    let archive = folder().join("embedded.tar.gz");
    let packed = Command::new("tar")
        .arg("-czf")
        .arg(&archive)
        .arg("-C")
        .arg(dir.path())
        .arg("khala-data")
        .status();
    assert!(packed.expect("tar runs").success());
}

//! Everything once more into another namespace beside the one that serves; readers are led over and miss nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;

use super::world::World;
use crate::support::khala::{Cluster, Khala, run};
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

fn beside(world: &World, namespace: &str) -> Cluster {
    Cluster {
        namespace: namespace.to_owned(),
        ..world.cluster.clone()
    }
}

/// Exit code, the last line of JSON, and what stderr said.
fn khala(cluster: &Cluster, words: &[&str]) -> (Option<i32>, Value, String) {
    let output = run(cluster, words, "");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    (
        output.status.code(),
        serde_json::from_str(last).unwrap_or_default(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn rebuild(world: &World, more: &[&str]) -> (Option<i32>, Value, String) {
    let into = format!("{}-2", world.cluster.namespace);
    khala(
        &world.cluster,
        &[&["rebuild", "--into", &into, "--json"], more].concat(),
    )
}

/// All documents of a namespace, without what a redo may change.
pub(super) fn documents(world: &World, namespace: &str) -> BTreeMap<String, Value> {
    let tag = format!("{{{namespace}:");
    let keys: Vec<String> = world.redis.ask(&["KEYS", &format!("{tag}*}}:*_summary:*")]);
    let own = keys.into_iter().filter(|key| {
        let rest = key.split_once("}:").map_or("", |(_, rest)| rest);
        rest.starts_with("run_summary:") || rest.starts_with("worker_summary:")
    });
    own.filter_map(|key| {
        let text: Option<String> = world.redis.ask(&["GET", &key]);
        let mut document: Value = serde_json::from_str(&text?).expect("JSON");
        document.as_object_mut().expect("an object").remove("projected_at");
        Some((key.split_once('}').expect("a tag").1.to_owned(), document))
    })
    .collect()
}

/// Reads documents by HTTP as fast as it can: none that was ever seen may be missing, and none may go back.
fn read_on(khala: &Khala, done: &AtomicBool, reads: &AtomicU64) -> Result<(), String> {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    while !done.load(Ordering::SeqCst) {
        let (status, page) = khala.get("/v1/runs?limit=50")?;
        let page: Value = serde_json::from_str(&page).map_err(|error| error.to_string())?;
        for document in page["documents"].as_array().ok_or(format!("{status} {page}"))? {
            let id = document["run_id"].as_str().unwrap_or_default().to_owned();
            seen.entry(id).or_default();
        }
        for (id, before) in &mut seen {
            let (status, text) = khala.get(&format!("/v1/runs/{id}"))?;
            let document: Value = serde_json::from_str(&text).unwrap_or_default();
            let now = document["latest_seq"].as_u64().unwrap_or(0);
            if status != 200 || now < *before {
                return Err(format!("run {id}: {status}, seq {now} after {before}: {text}"));
            }
            *before = now;
            reads.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(())
}

/// Ends readers and traffic, also when the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until so many were counted.
fn grows(what: &str, count: &AtomicU64, wanted: u64) {
    eventually(what, seconds(60), || {
        let now = count.load(Ordering::SeqCst);
        if now >= wanted { Ok(()) } else { Err(now) }
    });
}

#[test]
fn a_rebuild_beside_live_traffic_and_a_swap_and_no_reader_misses_a_document() {
    let mut world = World::new("rebuild", 3, 40_000, Keeps::Dumps);
    let new = beside(&world, "rebuild-2");
    let old = world.khala("old");
    world.produce(4_000);
    world.settle();
    let (done, reads, sent) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let batches: Vec<_> = (0..120).map(|_| world.messages(200)).collect();
    let (world, old, done, sent) = (&world, &old, &done, &sent);
    let serving = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_on(old, done, &reads));
        let traffic = scope.spawn(move || {
            for batch in batches.iter().cycle() {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                world.send(batch);
                sent.fetch_add(batch.len() as u64, Ordering::SeqCst);
            }
        });
        let ending = Done(done);
        let before = sent.load(Ordering::SeqCst);
        let (code, report, words) = rebuild(world, &[]);
        assert_eq!(code, Some(0), "{report}{words}");
        assert!(report["records"].as_u64() >= Some(4_000), "{report}");
        assert_eq!(report["parity"]["differing"], 0, "{report}");
        assert!(report["parity"]["equal"].as_u64() > Some(100), "{report}");
        let (code, report, words) = rebuild(world, &["--swap"]);
        assert_eq!(code, Some(3), "nobody projects the new one: {report}{words}");
        assert!(report["not_swapped"].is_string(), "{report}");
        let serving = Khala::start(world.dir(), &new, "new", &[]);
        let (code, report, words) = rebuild(world, &["--swap"]);
        assert_eq!(code, Some(0), "{report}{words}");
        assert_eq!(report["swapped"], true, "{report}");
        let meanwhile = sent.load(Ordering::SeqCst);
        assert!(meanwhile > before, "no event came meanwhile: an empty pass");
        eventually("readers are led over", seconds(60), || {
            if old.stderr().contains("readers are led over") {
                Ok(())
            } else {
                Err(reads.load(Ordering::SeqCst))
            }
        });
        grows("reads behind the swap", &reads, reads.load(Ordering::SeqCst) + 500);
        grows("events behind the swap", sent, meanwhile + 1);
        drop(ending);
        traffic.join().expect("traffic");
        assert_eq!(reader.join().expect("the reader"), Ok(()));
        serving
    });
    world.settle();
    let one = documents(world, "rebuild");
    eventually("both namespaces have the same documents", seconds(60), || {
        let other = documents(world, "rebuild-2");
        if one == other {
            Ok(())
        } else {
            Err((one.len(), other.len()))
        }
    });
    dropped(world, &new, serving);
}

/// The old namespace stays until it is dropped, and nobody's is dropped by mistake.
fn dropped(world: &World, new: &Cluster, serving: Khala) {
    let drop = |name: &str| khala(&world.cluster, &["namespaces", "drop", name]);
    for (name, why) in [
        ("rebuild-2", "is projected now"),
        ("rebuild", "is projected now"),
        ("rebuild-3", "there is no namespace rebuild-3"),
        ("re build", "is not 1–64 of"),
    ] {
        let (code, _, words) = drop(name);
        assert_eq!(code, Some(2), "{words}");
        assert!(words.contains(why) && words.lines().count() == 1, "{words}");
    }
    let (_, rows, _) = khala(&world.cluster, &["namespaces", "list", "--json"]);
    let routes: Vec<_> = rows
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (&row["namespace"], &row["route"]))
        .collect();
    assert_eq!(
        routes,
        [
            (&"rebuild".into(), &"rebuild-2".into()),
            (&"rebuild-2".into(), &Value::Null)
        ],
        "{rows}"
    );
    let before = documents(world, "rebuild-2");
    assert_eq!(serving.term(), Some(0));
    let (code, _, words) = drop("rebuild-2");
    assert_eq!(
        (code, words.contains("readers of namespace rebuild")),
        (Some(2), true),
        "{words}"
    );
    assert_eq!(documents(world, "rebuild-2"), before, "nothing was changed");
    let (code, _, words) = khala(&world.cluster, &["namespaces", "back"]);
    assert_eq!(code, Some(0), "{words}");
    let (code, _, words) = khala(new, &["namespaces", "back"]);
    assert_eq!(code, Some(2), "{words}");
    let (code, _, words) = drop("rebuild-2");
    assert_eq!(code, Some(0), "{words}");
    let left: Vec<String> = world.redis.ask(&["KEYS", "{rebuild-2*"]);
    assert_eq!(left, [""; 0]);
    assert!(!documents(world, "rebuild").is_empty());
}

#[test]
fn what_differs_is_told_by_field_and_readers_are_led_over_only_if_that_is_accepted() {
    let mut world = World::new("parity", 2, 4_000, Keeps::Dumps);
    let old = world.khala("old");
    world.produce(2_000);
    world.settle();
    let (code, first, words) = rebuild(&world, &[]);
    assert_eq!(
        (code, &first["parity"]["differing"]),
        (Some(0), &0.into()),
        "{first}{words}"
    );
    let keys: Vec<String> = world.redis.ask(&["KEYS", "{parity:*}:run_summary:*"]);
    let [altered, gone] = [&keys[0], &keys[1]];
    let text: String = world.redis.ask(&["GET", altered]);
    let other = text.replacen("\"event_count\":", "\"event_count\":9", 1);
    let _: String = world.redis.ask(&["SET", altered, &other]);
    let _: i64 = world.redis.ask(&["DEL", gone]);
    let new = Khala::start(world.dir(), &beside(&world, "parity-2"), "new", &[]);
    let (code, report, words) = rebuild(&world, &["--swap"]);
    assert_eq!(code, Some(3), "{report}{words}");
    let parity = &report["parity"];
    assert_eq!(
        (&parity["differing"], &parity["only_new"]),
        (&2.into(), &1.into()),
        "{report}"
    );
    assert_eq!(report["swapped"], false, "{report}");
    let id = |key: &str| key.split_once("}:").expect("a tag").1.to_owned();
    let told = parity["differ"]
        .as_array()
        .expect("rows")
        .iter()
        .find(|row| row["document_id"] == id(altered).as_str());
    assert_eq!(
        told.expect("the altered one")["differences"][0]["path"],
        "event_count",
        "{report}"
    );
    let (code, report, words) = rebuild(&world, &["--swap", "--accept-differences"]);
    assert_eq!((code, &report["swapped"]), (Some(0), &true.into()), "{report}{words}");
    let path = format!("/v1/runs/{}", id(gone).split_once(':').expect("an id").1);
    eventually(
        "the old server's readers get the new one's documents",
        seconds(60),
        || match old.get(&path) {
            Ok((200, _)) => Ok(()),
            other => Err(other),
        },
    );
    for (from, into, why) in [
        ("parity", "parity", "is the one that serves"),
        ("parity", "no/name", "is not 1–64 of"),
        ("nowhere", "parity-3", "there is no namespace nowhere"),
    ] {
        let (code, _, words) = khala(&beside(&world, from), &["rebuild", "--into", into]);
        assert_eq!(code, Some(2), "{words}");
        assert!(words.contains(why) && words.lines().count() == 1, "{words}");
    }
    assert_eq!((old.term(), new.term()), (Some(0), Some(0)));
}

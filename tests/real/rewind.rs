//! Rewind and replay: documents go back to a mark and are redone, whatever is killed in the middle.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::compare::{Allow, assert_exact};
use super::world::World;
use crate::support::khala::run;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

fn last_line(output: &std::process::Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}{stderr}");
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_checkpoint_past_the_end_goes_back_to_the_newest_good_mark() {
    let mut world = World::new("ahead", 3, 10_000, Keeps::Dumps);
    let khala = world.khala("before");
    world.produce(3_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
    let end = world.offsets()[2];
    let ahead = format!("{}:1771000000000:0badcafe", end + 999);
    let fields = ["offset", &(end + 1000).to_string(), "last_record", &ahead];
    let key = world.key(2, "checkpoint");
    let _: i64 = world.redis.ask(&[&["HSET", key.as_str()], &fields[..]].concat());
    world.produce(500);
    let khala = world.khala("after");
    khala.wait_recovery("checkpoint_ahead");
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(
        khala.metric("khala_replay_total", &[("scope", "partition"), ("result", "ok")]) as u64,
        1
    );
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_log_that_was_cut_and_has_grown_again_is_folded_as_it_is_now() {
    let mut world = World::with_own_broker("cut", 3, 20_000);
    let khala = world.khala("one");
    world.produce(4_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
    world.own_broker().stop();
    world.own_broker().back_up();
    world.own_broker().start_again();
    let khala = world.khala("two");
    world.produce(4_000);
    assert_exact(&world, Allow::default());
    let ends = world.offsets();
    world.own_broker().stop();
    world.own_broker().restore();
    world.own_broker().start_again();
    world.produce(9_000); // past where the log ended before
    khala.wait_recovery("checkpoint_ahead");
    eventually("the log has grown past its old end", seconds(60), || {
        let now = world.offsets();
        if now.iter().zip(&ends).all(|(now, before)| now > before) {
            Ok(())
        } else {
            Err(now)
        }
    });
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_replay_redoes_everything_beside_a_live_projector_and_tells_of_it() {
    let mut world = World::new("replay", 3, 10_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(4_000);
    world.settle();
    let report = last_line(&run(&world.cluster, &["replay", "--from", "earliest", "--json"], ""));
    assert_eq!(report["records"], 4_000, "{report}");
    assert_exact(&world, Allow::default());
    assert_eq!(khala.recoveries().iter().filter(|name| *name == "replayed").count(), 3);
    let drift = khala.metric("khala_projection_drift_total", &[]);
    assert!(drift < 0.5, "a replay is no drift: {drift}");
    world.produce(1_000);
    let offset = world.offsets()[1];
    let from = (offset / 2).to_string();
    let one = ["replay", "--partition", "1", "--from", "offset", &from, "--json"];
    let report = last_line(&run(&world.cluster, &one, ""));
    assert_eq!(report["partitions"].as_array().map(Vec::len), Some(1), "{report}");
    assert!(report["partitions"][0]["from"].as_u64() <= Some(offset / 2), "{report}");
    assert_exact(&world, Allow::default());
    let replayed = |scope| khala.metric("khala_replay_total", &[("scope", scope), ("result", "ok")]) as u64;
    let counted = (replayed("partition"), replayed("namespace"));
    assert_eq!(counted, (4, 0), "partitions count where they are redone, whoever asked");
    assert_eq!(khala.term(), Some(0));

    world.produce(500);
    let report = last_line(&run(&world.cluster, &["replay", "--json"], ""));
    assert!(report["seconds"].as_f64() < Some(30.0), "{report}");
    let khala = world.khala("two");
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_replay_of_nonsense_is_refused_in_one_line_and_changes_nothing() {
    let mut world = World::new("replay-refused", 2, 4_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(1_000);
    assert_exact(&world, Allow::default());
    assert_eq!(khala.term(), Some(0));
    let before = [world.checkpoint(0), world.checkpoint(1)];
    let rows: &[(&[&str], &str)] = &[
        (&["--from", "offset", "999999"], "outside what can be replayed"),
        (&["--from", "time", "2999-01-01T00:00:00Z"], "in the future"),
        (&["--from", "verified"], "khala audit"),
        (&["--from", "yesterday"], "one of last-good"),
        (&["--partition", "7"], "there is no partition 7"),
        (&["--namespace", "nobody"], "nothing to replay"),
    ];
    let mut cluster = world.cluster.clone();
    for (flags, says) in rows {
        let mut args = vec!["replay"];
        if flags[0] == "--namespace" {
            cluster.namespace = flags[1].to_owned();
        } else {
            args.extend(*flags);
        }
        let output = run(&cluster, &args, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {stderr}");
        assert!(stderr.contains(says), "{flags:?}: {stderr}");
    }
    for words in [
        &["audit"][..],
        &["snapshot"],
        &["rebuild", "--into", "other"],
        &["namespaces", "drop", "nobody"],
    ] {
        let output = run(&cluster, words, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {stderr}");
        assert!(stderr.contains("there is no namespace nobody"), "{words:?}: {stderr}");
    }
    let key = world.key(0, "owner");
    let other = "operator/ada@night/2026-02-19T12:00:00.000Z/1";
    let _: () = world.redis.ask(&["SET", &key, other, "PX", "60000"]);
    let output = run(&world.cluster, &["replay"], "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("ada@night since 2026-02-19T12:00:00.000Z"), "{stderr}");
    assert_eq!([world.checkpoint(0), world.checkpoint(1)], before);
}

#[test]
fn a_replay_killed_at_any_point_is_finished_by_the_projector() {
    let mut world = World::new("replay-killed", 2, 30_000, Keeps::Dumps);
    let khala = world.khala("one");
    world.produce(6_000);
    world.settle();
    let mut under_way = 0;
    // How often a rewind is caught in the middle is the machine's affair: as many rounds as it takes.
    for round in 0..100_u64 {
        if round >= 12 && under_way > 0 {
            break;
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_khala"))
            .args(["replay", "--from", "earliest", "--owner-lease", "1s"])
            .args(world.cluster.flags())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("khala runs");
        // In the middle: an intent is there, and so many looks have passed since.
        let mut looks = 0;
        while looks <= round % 12 && child.try_wait().expect("our own child").is_none() {
            let rewinds = |p| {
                world
                    .checkpoint(p)
                    .get("intent")
                    .is_some_and(|intent| intent.starts_with("rewind "))
            };
            looks += u64::from((0..2).any(rewinds));
        }
        let _ = child.kill();
        let _ = child.wait();
        let intents: Vec<_> = (0..2)
            .filter_map(|p| world.checkpoint(p).get("intent").cloned())
            .collect();
        under_way += u64::from(intents.iter().any(|intent| intent.starts_with("rewind ")));
        world.produce(200);
        world.settle();
    }
    assert!(
        under_way > 0,
        "no kill came while a rewind was under way: an empty pass"
    );
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(khala.term(), Some(0));
}

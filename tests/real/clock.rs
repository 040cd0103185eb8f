//! Clocks that are wrong: a projector's and Redis's jump an hour on and an hour back while they serve, and producers'
//! clocks are years off. Time that passes is measured by clocks that do not jump; the wall's clock only dates things.

use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use super::compare::{Allow, assert_exact};
use super::topic;
use super::web::event;
use super::world::World;
use crate::support::clock::Clock;
use crate::support::khala::{Khala, run};
use crate::support::redis_server::{Keeps, Redis};
use crate::support::wait::{eventually, eventually_true, seconds};

const HOUR: i64 = 3600;
/// A clock is where it was put, within this.
const NEAR: i64 = 120;

/// A process by this clock.
fn serve(world: &World, clock: &Clock, name: &str) -> Khala {
    let variables = clock.variables();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    let khala = Khala::start_with(
        world.dir(),
        &world.cluster,
        name,
        &["--snapshot-interval", "1s"],
        &variables,
    );
    khala.wait_ready();
    khala
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs() as i64
}

/// Seconds since 1970 of RFC 3339 in UTC, as GNU date reads it.
fn read(time: &str) -> i64 {
    let output = std::process::Command::new("date")
        .args(["-u", "+%s", "-d", time])
        .output();
    let text = String::from_utf8(output.expect("date runs").stdout).expect("a number");
    text.trim().parse().unwrap_or_else(|_| panic!("no time: {time:?}"))
}

/// How far the clock of whoever wrote the newest checkpoints is ahead, by partition.
fn ahead(world: &World) -> Vec<i64> {
    let written = |p| world.checkpoint(p).get("written_at").map_or(0, |time| read(time));
    (0..world.partitions).map(|p| written(p) - now()).collect()
}

/// Produces until all checkpoints were written by a clock that is so far ahead.
fn until_dated(world: &mut World, by: i64) {
    eventually(&format!("checkpoints are dated {by:+} s"), seconds(60), || {
        world.produce(300);
        world.settle();
        let found = ahead(world);
        if found.iter().all(|ahead| (ahead - by).abs() < NEAR) {
            Ok(())
        } else {
            Err(found)
        }
    });
}

/// Snapshots are written on: the documents' topic grows behind what is produced now.
fn snapshots_go_on(world: &mut World) {
    let documents = format!("{}.documents", world.cluster.topic);
    let end = |world: &World| {
        topic::bounds(&world.config(), &documents)
            .iter()
            .map(|(_, end)| end)
            .sum::<u64>()
    };
    let before = end(world);
    world.produce(300);
    eventually_true("a snapshot is written", seconds(60), || end(world) > before);
}

/// What is caught up has no lag, whatever the clock says.
fn lags_are_zero(khala: &Khala) {
    eventually("no lag in seconds", seconds(60), || {
        let (_, status) = khala.get("/v1/status")?;
        let status: Value = serde_json::from_str(&status).map_err(|error| error.to_string())?;
        let rows = status["partitions"].as_array().cloned().unwrap_or_default();
        let metric = khala.metric("khala_projection_lag_seconds", &[]);
        let is_zero = rows.iter().all(|row| row["lag_seconds"] == 0.0) && metric == 0.0;
        if is_zero {
            Ok(())
        } else {
            Err(format!("{metric} {status}"))
        }
    });
}

#[test]
fn a_projectors_clock_that_jumps_an_hour_on_and_back_changes_nothing() {
    let mut world = World::new("clock", 3, 60_000, Keeps::AppendOnly);
    let clock = Clock::new(world.dir());
    let khala = serve(&world, &clock, "one");
    for jump in [0, HOUR, 0, -HOUR, 0] {
        clock.set(jump);
        until_dated(&mut world, jump);
        snapshots_go_on(&mut world);
        world.settle();
        lags_are_zero(&khala);
        khala.wait_ready();
    }
    assert_eq!(
        khala.recoveries().iter().filter(|name| *name != "first_start").count(),
        0
    );
    assert_eq!(khala.drifts(), 0);
    // Another one, by the true clock, takes over from one whose clock is an hour ahead.
    clock.set(HOUR);
    until_dated(&mut world, HOUR);
    khala.kill9();
    let other = world.khala("two");
    world.produce(1_000);
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(other.drifts(), 0);
    let checkpoints = run(&world.cluster, &["checkpoints", "--json"], "");
    assert_eq!(checkpoints.status.code(), Some(0));
    let replay = run(&world.cluster, &["replay", "--from", "last-good"], "");
    assert_eq!(
        replay.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&replay.stderr)
    );
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(other.term(), Some(0));
}

#[test]
fn redis_whose_clock_jumps_loses_leases_and_nothing_else() {
    let mut world = World::new("redis-clock", 3, 60_000, Keeps::AppendOnly);
    let clock = Clock::new(world.dir());
    world.redis = Redis::start_in(Keeps::AppendOnly, &[], &clock.variables());
    world.cluster.store = world.redis.url();
    let khala = world.khala("one");
    let redis_ahead = |world: &World| world.redis.ask::<(i64, i64)>(&["TIME"]).0 - now();
    for jump in [0, HOUR, 0, -HOUR, 0] {
        clock.set(jump);
        eventually_true("Redis has the new time", seconds(60), || {
            (redis_ahead(&world) - jump).abs() < NEAR
        });
        world.produce(2_000);
        world.settle();
        eventually("each partition has an owner", seconds(60), || {
            let owner = |p| world.redis.ask::<Option<String>>(&["GET", &world.key(p, "owner")]);
            let owners: Vec<_> = (0..world.partitions).map(owner).collect();
            if owners.iter().all(Option::is_some) {
                Ok(())
            } else {
                Err(owners)
            }
        });
        khala.wait_ready();
    }
    assert_eq!(khala.drifts(), 0);
    // Killed under an hour of lease: nobody waits for it.
    clock.set(HOUR);
    eventually_true("Redis has the new time", seconds(60), || {
        redis_ahead(&world) > HOUR - NEAR
    });
    world.produce(500);
    world.settle();
    clock.set(0);
    khala.kill9();
    let other = world.khala("two");
    world.produce(500);
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(other.term(), Some(0));
}

/// Records as of the log's beginning, of 1970, and as far ahead as a broker takes them (an hour by default).
#[test]
fn producers_whose_clocks_are_years_off_are_folded_as_they_say() {
    let mut world = World::new("producers-clock", 2, 10_000, Keeps::AppendOnly);
    let khala = Khala::start(world.dir(), &world.cluster, "one", &["--snapshot-interval", "1s"]);
    let producer: BaseProducer = world
        .config()
        .set("partitioner", "murmur2_random")
        .create()
        .expect("a configuration");
    let now_ms = now() * 1000;
    let times = [
        ("0001-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59Z", now_ms + 50 * 60_000),
        ("1969-12-31T23:59:59Z", 1),
    ];
    for (i, (time, timestamp_ms)) in times.iter().cycle().take(300).enumerate() {
        let subject = format!("run/skewed{}", i % 7);
        let kind = if i >= 293 { "run.finished" } else { "run.delta" };
        let data = if i >= 293 { "{\"status\":\"succeeded\"}" } else { "{}" };
        let text = event(&subject, i as u64 + 1, kind, data);
        let text = text.replacen('{', &format!("{{\"time\":\"{time}\","), 1);
        let record = BaseRecord::to(&world.cluster.topic)
            .key(&subject)
            .payload(&text)
            .timestamp(*timestamp_ms);
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("room in the queue");
    }
    producer.flush(seconds(60)).expect("the log takes them");
    world.produce(1_000);
    world.settle();
    snapshots_go_on(&mut world);
    world.settle();
    lags_are_zero(&khala);
    assert_exact(&world, Allow::default());
    let audit = run(&world.cluster, &["audit"], "");
    assert_eq!(
        audit.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&audit.stderr)
    );
    // The log forgets all before a record that is dated ahead: how far it reaches back is no time to come.
    for ahead in world
        .read_back()
        .iter()
        .filter(|rec| rec.timestamp_ms > now_ms + HOUR * 500)
        .rev()
    {
        if topic::bounds(&world.config(), &world.cluster.topic)[ahead.partition as usize].0 == 0 {
            world
                .kafka()
                .delete_records(&world.cluster.topic, ahead.partition, ahead.offset);
        }
    }
    let horizon = eventually("the horizon is told", seconds(60), || {
        let found = khala
            .metrics()
            .into_iter()
            .find(|sample| sample.name == "khala_replay_horizon_seconds");
        found.map(|sample| sample.value).ok_or("no series")
    });
    assert!(horizon.abs() < f64::EPSILON, "{horizon}");
    let negative = khala
        .metrics()
        .into_iter()
        .find(|sample| sample.name.ends_with("_seconds") && sample.value < 0.0);
    assert!(negative.is_none(), "{negative:?}");
    assert_eq!(khala.term(), Some(0));
}

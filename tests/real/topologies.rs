//! Redis as it is run: a cluster whose slots move, a primary that dies under a Sentinel, a user with few rights.

use std::fs;
use std::process::Command;

use super::compare::{Allow, assert_exact};
use super::world::World;
use crate::support::guarded::{Guarded, free_port, temp_dir};
use crate::support::khala::run;
use crate::support::redis_server::{Keeps, Redis};
use crate::support::wait::{eventually, eventually_true, seconds};

/// Runs `redis-cli --cluster …`.
fn cluster_command(args: &[&str]) {
    let output = Command::new("redis-cli")
        .arg("--cluster")
        .args(args)
        .arg("--cluster-yes")
        .output()
        .expect("redis-cli comes with Redis");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "redis-cli --cluster {args:?}: {said}");
}

/// Moves all slots of a node to another.
fn move_slots(entry: &str, from: &str, to: &str) {
    let whence = ["--cluster-from", from, "--cluster-to", to, "--cluster-slots", "16384"];
    cluster_command(&[&["reshard", entry], &whence[..]].concat());
}

fn node() -> Redis {
    let bus = free_port().to_string();
    Redis::start_as(Keeps::AppendOnly, &["--cluster-enabled", "yes", "--cluster-port", &bus])
}

#[test]
fn slots_of_a_cluster_move_while_events_flow() {
    let mut world = World::new("slots-move", 6, 40_000, Keeps::AppendOnly);
    let nodes = [node(), node(), node()];
    let addresses = nodes.each_ref().map(Redis::address);
    let [a, b, c] = addresses.each_ref().map(String::as_str);
    cluster_command(&["create", a, b, c]);
    for node in &nodes {
        eventually_true("the cluster is whole", seconds(60), || {
            let info: String = node.ask(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        });
    }
    world.cluster.store = format!("redis+cluster://{b},{c}");
    let khala = world.khala("one");
    world.produce(10_000);

    let [first, second, third] = nodes.each_ref().map(|node| node.ask::<String>(&["CLUSTER", "MYID"]));
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| {
            move_slots(a, &second, &first);
            move_slots(a, &third, &first);
        });
        while !moved.is_finished() {
            world.produce(100);
        }
        moved.join().expect("all slots are at the first node");
    });
    world.produce(2_000);
    let [all, ..] = nodes;
    world.redis = all;
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_replica_that_a_sentinel_promotes_goes_on_where_it_was() {
    let mut world = World::new("sentinel", 4, 40_000, Keeps::AppendOnly);
    let (host, port) = world
        .redis
        .address()
        .split_once(':')
        .map(|(h, p)| (h.to_owned(), p.to_owned()))
        .expect("host:port");
    let replica = Redis::start_as(Keeps::AppendOnly, &["--replicaof", &host, &port]);
    eventually_true("the replica follows", seconds(60), || {
        replica
            .ask::<String>(&["INFO", "replication"])
            .contains("master_link_status:up")
    });
    let dir = temp_dir("sentinel");
    let (sentinel, file) = (free_port(), dir.path().join("sentinel.conf"));
    let settings = format!(
        "port {sentinel}\nbind 127.0.0.1\nsentinel monitor khala {host} {port} 1\n\
         sentinel down-after-milliseconds khala 1000\nsentinel failover-timeout khala 10000\n"
    );
    fs::write(&file, settings).expect("a file in our directory");
    let args = [file.display().to_string(), "--sentinel".to_owned()];
    let _sentinel = Guarded::start(&dir.path().join("sentinel"), "redis-server", &args, &[]);
    eventually("the Sentinel knows the replica", seconds(60), || {
        let told = Command::new("redis-cli")
            .args(["-p", &sentinel.to_string(), "SENTINEL", "replicas", "khala"])
            .output()
            .expect("redis-cli comes with Redis");
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        if told.contains(&replica.address()) {
            Ok(())
        } else {
            Err(told)
        }
    });

    world.cluster.store = format!("redis+sentinel://127.0.0.1:{sentinel}/khala");
    let khala = world.khala("one");
    world.produce(10_000);
    world.wait_applied(1);
    world.redis.kill();
    world.produce(5_000);
    eventually_true("the replica is promoted", seconds(60), || {
        replica.ask::<String>(&["INFO", "replication"]).contains("role:master")
    });
    world.produce(5_000);
    world.redis = replica;
    assert_exact(&world, Allow::AFTER_A_FAULT);
    assert_eq!(khala.term(), Some(0));
}

/// The rights that docs/redis.md lists, as the words of the command.
pub fn documented_rights() -> Vec<String> {
    let text = include_str!("../../docs/redis.md");
    let line = text
        .lines()
        .find(|line| line.starts_with("ACL SETUSER khala"))
        .expect("the rights are documented");
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_documented_rights_are_enough_for_everything() {
    let mut world = World::new("khala", 4, 20_000, Keeps::AppendOnly);
    let rights = documented_rights();
    let _: String = world.redis.ask(&rights.iter().map(String::as_str).collect::<Vec<_>>());
    world.cluster.store = format!("redis://khala:secret@{}", world.redis.address());
    let khala = world.khala("one");
    world.produce(5_000);
    assert_exact(&world, Allow::default());
    let invented = world.key(0, "run_summary:invented");
    let _: String = world.redis.ask(&["SET", &invented, "{}"]);
    for (command, code) in [
        (&["audit", "--repair"][..], 0),
        (&["replay", "--from", "earliest"], 0),
        (&["status"], 0),
        (&["list", "runs"], 0),
        (&["config", "check", "--connect"], 0),
    ] {
        let output = run(&world.cluster, command, "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
        assert!(!said.contains("is not allowed"), "{command:?}: {said}");
    }
    assert_exact(&world, Allow::AFTER_A_FAULT);
    let refused: Vec<redis::Value> = world.redis.ask(&["ACL", "LOG"]);
    assert!(refused.is_empty(), "Redis refused: {refused:?}");
    assert_eq!(khala.term(), Some(0));
}

//! A store that is put back to a backup older than the log's first record: a snapshot that is further on takes its place.

use super::compare::{Allow, assert_exact};
use super::snapshots::{assert_same, documents, forget, serve, snapshot};
use super::world::World;
use crate::support::khala::run;
use crate::support::redis_server::Keeps;

/// The store goes back to a dump below the log's first record, then what a snapshot has is there, and what no log or
/// snapshot has is named.
fn put_back(name: &str, is_serving: bool) {
    let mut world = World::new(name, 3, 20_000, Keeps::Dumps);
    let khala = serve(&world, "one");
    world.produce(3_000);
    world.settle();
    let dump = world.redis.dump();
    world.produce(5_000);
    assert_exact(&world, Allow::default());
    snapshot(&world, &[]);
    let ends = world.offsets();
    world.produce(2_000); // the log has these, and snapshots some of them
    world.settle();
    let before = documents(&world);
    let mut put_back = || {
        forget(&world, &ends);
        world.redis.restore(&dump);
    };
    let khala = if is_serving {
        put_back();
        khala
    } else {
        assert_eq!(khala.term(), Some(0));
        put_back();
        serve(&world, "two")
    };
    khala.wait_recovery("sink_rolled_back");
    assert_same(&world, &before);
    let gaps = khala.metric("khala_projection_drift_total", &[("reason", "retention_gap")]);
    assert!(gaps < 1.0, "nothing is lost");
    let audit = run(&world.cluster, &["audit", "--json"], "");
    assert_eq!(
        audit.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&audit.stdout)
    );
    world.produce(1_000);
    world.settle();
    assert_eq!(khala.term(), Some(0));
}

#[test]
fn a_store_put_back_to_a_backup_older_than_the_log_gets_the_snapshot_while_serving() {
    put_back("backup-serving", true);
}

#[test]
fn a_store_put_back_to_a_backup_older_than_the_log_gets_the_snapshot_at_the_start() {
    put_back("backup-start", false);
}

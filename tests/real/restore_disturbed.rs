//! A document is lost or spoilt in Redis while a restore from snapshots writes: all begins again, and nothing is made
//! from what comes later.

use std::time::Duration;

use redis::{Commands, Connection};

use super::compare::{Allow, assert_exact};
use super::snapshots::{assert_same, documents, forget, snapshot};
use super::topic;
use super::world::{World, note};
use crate::support::khala::Khala;
use crate::support::proxy::Proxy;
use crate::support::redis_server::Keeps;
use crate::support::wait::{eventually, seconds};

/// Rounds in which a restore must have been hit.
const ROUNDS_MAX: usize = 5;

/// One step in Redis: in KEYS[1]'s partition a restore is under way that stands at ARGV[1], the marker, and has written
/// KEYS[2]. Then that goes, or becomes ARGV[2]. What is further on could be hit too late for the restore to see it.
const HIT: &str = r"
local now = redis.call('HMGET', KEYS[1], 'intent', 'offset')
local restores = now[1] and string.sub(now[1], 1, 7) == 'restore' and not string.find(now[1], 'clear-', 1, true)
if not restores or now[2] ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], ARGV[2]) end
return 1";

/// Documents that the marker has, and that events behind it change.
fn changed_since(world: &World, markers: &[u64]) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for document in documents(world).values() {
        let source = &document["runtime_source"];
        let Some(partition) = source["partition"].as_u64().map(|p| p as u32) else {
            continue; // a checkpoint
        };
        let marker = Some(markers[partition as usize]);
        if source["first_offset"].as_u64() < marker && source["offset"].as_u64() >= marker {
            found.push((partition, document["document_id"].as_str().expect("an id").to_owned()));
        }
    }
    found
}

struct Scene {
    world: World,
    khala: Khala,
    markers: Vec<u64>,
    proxy: Proxy,
    reason: &'static str,
}

impl Scene {
    /// The log has forgotten what the snapshot has, and the topic of snapshots has documents further on than its marker:
    /// a restore has a part of the log to apply.
    fn set(reason: &'static str, round: usize) -> Self {
        let name = format!("disturbed-{reason}-{round}");
        let mut world = World::new(&name, 2, 20_000, Keeps::Dumps);
        let proxy = Proxy::to(&world.redis.address());
        world.cluster.store = format!("redis://{}", proxy.address());
        let khala = Khala::start(world.dir(), &world.cluster, "one", &["--snapshot-interval", "1h"]);
        world.produce(4_000);
        world.settle();
        let (config, kept) = (world.config(), format!("{}.documents", world.cluster.topic));
        let markers = || {
            let records = topic::read_back(&config, &kept);
            let keys = records.iter().filter_map(|rec| rec.key.as_deref());
            keys.filter(|key| key.starts_with(b"marker/")).count()
        };
        eventually(
            "its first own markers are there, the next are due in an hour",
            seconds(60),
            || {
                let found = markers();
                if found >= 2 { Ok(()) } else { Err(found) }
            },
        );
        snapshot(&world, &[]);
        let at = || topic::bounds(&config, &kept).iter().map(|(_, end)| end).sum::<u64>();
        let (markers, at_markers) = (world.offsets(), at());
        world.produce(4_000);
        assert_exact(&world, Allow::default());
        eventually("finished runs are in the topic, without a marker", seconds(20), || {
            let now = at();
            if now > at_markers { Ok(()) } else { Err(now) }
        });
        forget(&world, &markers);
        Self {
            world,
            khala,
            markers,
            proxy,
            reason,
        }
    }

    fn hit(&self, redis: &mut Connection, (partition, document): &(u32, String), bytes: &[u8]) -> bool {
        let keys = ["checkpoint", document].map(|rest| self.world.key(*partition, rest));
        let at = self.markers[*partition as usize];
        let mut script = redis::cmd("EVAL");
        script.arg(HIT).arg(2).arg(&keys).arg(at).arg(bytes);
        script.query::<u32>(redis).expect("an answer") == 1
    }

    /// Documents counted as drift, for this reason and any of the three.
    fn drift(&self) -> (f64, f64) {
        let of = |reason| self.khala.metric("khala_projection_drift_total", &[("reason", reason)]);
        let any = ["missing_document", "document_corrupt", "summary_hash_mismatch"].map(of);
        (of(self.reason), any.iter().sum())
    }

    /// Flushes Redis, and hits the first document of these that a restore has written. Whether that was in time.
    fn flush_and_hit(&self, changed: &[(u32, String)], bytes: &[u8]) -> bool {
        self.proxy.delay(Duration::from_millis(30)); // what was written and what reads it are two ways apart
        let mut redis = self.world.redis.connect();
        let () = redis.flushall().expect("done");
        let hit = eventually("a restore is hit, or over", seconds(60), || {
            let hit = changed.iter().find(|document| self.hit(&mut redis, document, bytes));
            let offsets = self.world.offsets();
            let is_over = offsets.iter().zip(&self.markers).all(|(at, marker)| at > marker);
            if hit.is_some() || is_over {
                Ok(hit)
            } else {
                Err(offsets)
            }
        });
        self.proxy.delay(Duration::ZERO);
        note(&format!("hit: {hit:?}"));
        hit.is_some()
    }

    /// The warning that names the document.
    fn is_told(&self) -> bool {
        let lines = self.khala.stderr();
        let mut told = lines
            .lines()
            .filter(|line| line.contains("lost while it is restored: all begins again"));
        told.any(|line| line.contains(self.reason))
    }
}

/// Rounds until a restore has begun again; each ends with all documents as the fold has them.
fn disturb(bytes: &[u8], reason: &'static str) {
    for round in 0..ROUNDS_MAX {
        let scene = Scene::set(reason, round);
        let (before, changed) = (documents(&scene.world), changed_since(&scene.world, &scene.markers));
        assert!(changed.len() > 10, "too few that change: {changed:?}");
        let hit = scene.flush_and_hit(&changed, bytes);
        assert_same(&scene.world, &before);
        let told = scene.is_told();
        let once = f64::from(u8::from(told));
        assert_eq!(
            scene.drift(),
            (once, once),
            "what is told is counted once, and nothing else is"
        );
        assert_eq!(scene.khala.term(), Some(0));
        if hit && told {
            return;
        }
    }
    panic!("no restore was hit in time in {ROUNDS_MAX} rounds ({reason}): an empty pass");
}

#[test]
fn a_document_that_is_lost_while_it_is_restored_makes_the_restore_begin_again() {
    disturb(b"", "missing_document");
}

#[test]
fn a_document_that_is_spoilt_while_it_is_restored_makes_the_restore_begin_again() {
    disturb(b"\xff{spoilt", "document_corrupt");
}

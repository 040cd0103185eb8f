//! What goes on beside the projectors, as commands and servers do it: replays to a mark, audits, healing, snapshots,
//! expiry.

use std::collections::BTreeSet;

use khala::log::Log;
use khala::pure::checkpoint::Checkpoint;
use khala::pure::entity::Entity;
use khala::pure::refold::Slice;
use khala::pure::time::Time;
use khala::repair::snapshot::{Round, Snapshots};
use khala::repair::{
    AuditRequest, DriftRow, Expiry, Ground, Healer, InSnapshot, Keep, Pace, Site, audit, heal, rewind,
};
use khala::store::{Owner, Store};

use super::sea::PARTITION;

/// Documents of runs that ended stay so long.
const KEEP_MS: i64 = 5_000;

/// What came of it.
pub enum Operated {
    /// Log or store were away, or somebody else was faster.
    GaveUp,
    /// What had to be left as it was.
    Replayed(Vec<Entity>),
    /// What an audit says differs from the log.
    Audited(BTreeSet<Entity>),
    /// The writer goes on from here.
    Snapshot(Box<Snapshots>, &'static str),
    Expired(Expiry, u64),
}

/// Under its lease; an interrupted one is finished by whoever projects next.
pub async fn replay(site: Site, mark: Checkpoint) -> Operated {
    let log: &dyn Log = &*site.log;
    let _ = log.topic().await;
    let store: &dyn Store = &*site.store;
    let Ok(opened) = store.open(site.partition, &site.owner, site.lease).await else {
        return Operated::GaveUp;
    };
    let behind = opened.checkpoint.is_none_or(|now| now.next < mark.next);
    let done = if behind {
        None
    } else {
        rewind(&site, Some(&mark), &mut |_| {}).await.ok()
    };
    // The lease ends by itself where it cannot be given back.
    while store.release(site.partition, &site.owner).await.is_err() {}
    done.map_or(Operated::GaveUp, |rewound| Operated::Replayed(rewound.left))
}

/// Beside whoever projects; what is found is healed, or not.
pub async fn look_through(ground: Ground, healer: Healer, repairs: bool) -> Operated {
    let request = AuditRequest {
        partitions: None,
        slices: vec![Slice::ALL],
        memory_bytes: 1 << 20,
        pace: Pace::FULL,
    };
    let Ok(report) = audit(&ground, &request, &|_| {}).await else {
        return Operated::GaveUp;
    };
    let found: Vec<Entity> = report.drift.iter().filter_map(DriftRow::entity).collect();
    if repairs && !found.is_empty() && heal(&ground, PARTITION, &found, &healer).await.is_err() {
        while ground.store.release(PARTITION, &healer.operator).await.is_err() {}
        return Operated::GaveUp;
    }
    Operated::Audited(found.into_iter().collect())
}

pub fn healer(name: u64, now_ms: i64) -> Healer {
    Healer {
        operator: Owner(format!("operator/{name}")),
        now: Time::from_ms(now_ms).expect("in range"),
        pace: Pace::FULL,
    }
}

/// One round, or only what has ended.
pub async fn snapshot(mut snapshots: Box<Snapshots>, only_terminals: bool) -> Operated {
    if only_terminals {
        let came = snapshots.terminals().await.map_or("gave up", |_| "the ended written");
        return Operated::Snapshot(snapshots, came);
    }
    let came = match snapshots.round().await {
        Ok(Round::Written { .. }) => "written",
        Ok(_) => "nothing",
        Err(_) => "gave up",
    };
    Operated::Snapshot(snapshots, came)
}

/// One round; only what is in a snapshot goes.
pub async fn expire(ground: Ground, mut expiry: Expiry, healer: Healer) -> Operated {
    let keep = Keep {
        keep_ms: KEEP_MS,
        in_snapshot: InSnapshot::Must,
    };
    let round = expiry.round(&ground, PARTITION, keep, &healer).await;
    if round.is_err() {
        while ground.store.release(PARTITION, &healer.operator).await.is_err() {}
    }
    Operated::Expired(expiry, round.map_or(0, |expired| expired.documents))
}

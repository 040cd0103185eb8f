//! What an operator does, as the commands do it: replays to a mark, audits, heals.

use std::collections::BTreeSet;

use khala::log::Log;
use khala::pure::checkpoint::Checkpoint;
use khala::pure::entity::Entity;
use khala::pure::refold::Slice;
use khala::pure::time::Time;
use khala::repair::{AuditRequest, DriftRow, Ground, Healer, Pace, Site, audit, heal, rewind};
use khala::store::{Owner, Store};

use super::sea::PARTITION;

/// What came of it.
pub enum Operated {
    /// Log or store were away, or somebody else was faster.
    GaveUp,
    Replayed,
    /// What an audit says differs from the log.
    Audited(BTreeSet<Entity>),
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
    let done = !behind && rewind(&site, Some(&mark), &mut |_| {}).await.is_ok();
    // The lease ends by itself where it cannot be given back.
    while store.release(site.partition, &site.owner).await.is_err() {}
    if done { Operated::Replayed } else { Operated::GaveUp }
}

/// Beside whoever projects; what is found is healed, or not.
pub async fn look_through(ground: Ground, name: u64, repairs: bool) -> Operated {
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
    if repairs && !found.is_empty() {
        let healer = Healer {
            operator: Owner(format!("operator/{name}")),
            now: Time::from_ms(1_770_000_000_000).expect("in range"),
            pace: Pace::FULL,
        };
        if heal(&ground, PARTITION, &found, &healer).await.is_err() {
            while ground.store.release(PARTITION, &healer.operator).await.is_err() {}
            return Operated::GaveUp;
        }
    }
    Operated::Audited(found.into_iter().collect())
}

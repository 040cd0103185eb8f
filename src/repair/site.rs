//! One partition under repair: where it is, who repairs it, and what each failure means to the caller.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::reading::Steady;
use crate::log::{FetchLimits, Log, LogError, Role};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::entity::Entity;
use crate::pure::event::Rules;
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::record::RecordBatch;
use crate::pure::time::Time;
use crate::store::{Owner, Store, StoreError};

/// Bounds of one fetch while a repair reads.
pub(super) const FETCH: FetchLimits = FetchLimits {
    records: 20_000,
    bytes: 16 << 20,
    wait: Duration::from_secs(1),
};
/// Fetches without a record after which the log is given up: what is asked for lies below its end.
const QUIET_FETCHES_MAX: u32 = 15;

/// A partition, and who repairs it.
#[derive(Clone)]
pub struct Site {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Which partition.
    pub partition: PartitionId,
    /// Whose lease it is.
    pub owner: Owner,
    /// How long the lease lives without being renewed.
    pub lease: Duration,
    /// What a legal event is; the number of partitions is the topic's.
    pub rules: Rules,
}

impl Site {
    /// The checkpoint, if its documents are of the version that is made here: none are mixed with those of another.
    ///
    /// # Errors
    /// `Refused`: they are not.
    pub(super) fn ours(&self, found: Checkpoint) -> Result<Checkpoint, StoreError> {
        if found.is_ours() {
            return Ok(found);
        }
        Err(StoreError::Refused {
            partition: self.partition,
            found: Box::new(Some(found)),
        })
    }
}

/// Variants differ in what the caller does.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// As the store says; nothing half done stays unnoticed, for the intent is in the checkpoint.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// As the log says; likewise.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No mark of the history is in the log any more: a person must say which log counts.
    #[error("partition {partition}: {detail}")]
    NoMark {
        /// Which partition.
        partition: PartitionId,
        /// In words.
        detail: String,
    },
    /// A document that a restore wrote is lost or spoilt, again and again: what comes later must not be taken for it.
    #[error("partition {partition}: {entity} is lost from the store while it is restored ({reason})")]
    Lost {
        /// Which partition.
        partition: PartitionId,
        /// Whose document.
        entity: Entity,
        /// The kind of drift.
        reason: &'static str,
    },
    /// It cannot be done, or not now: why, and what helps. Nothing was changed.
    #[error("{0}")]
    Refused(String),
}

/// Keeps a lease alive while something long is done under it.
pub(super) struct Lease<'a> {
    site: &'a Site,
    renewed: Instant,
}

impl<'a> Lease<'a> {
    pub(super) fn new(site: &'a Site) -> Self {
        Self {
            site,
            renewed: Instant::now(),
        }
    }

    /// Renews when a third of the lease has passed.
    pub(super) async fn keep(&mut self) -> Result<(), RepairError> {
        let site = self.site;
        if self.renewed.elapsed() >= site.lease / 3 {
            site.store.renew(site.partition, &site.owner, site.lease).await?;
            self.renewed = Instant::now();
        }
        Ok(())
    }
}

/// Reads a partition's records of `[from, until)` in order, a batch at a time; returns how many there were.
///
/// # Errors
/// `Log`: the log does not answer, or `until` lies past its end.
pub(super) async fn read_through(
    site: &Site,
    (from, until): (NextOffset, NextOffset),
    lease: &mut Lease<'_>,
    mut take: impl FnMut(&RecordBatch),
) -> Result<u64, RepairError> {
    if from >= until {
        return Ok(0);
    }
    let mut reader = Steady::open(&*site.log, Role::Events, site.partition, from).await?;
    let (mut next, mut records, mut quiet) = (from, 0, 0);
    while next < until {
        lease.keep().await?;
        let batch = reader.fetch(FETCH).await?;
        let Some(read_to) = batch.next() else {
            quiet += 1;
            if quiet >= QUIET_FETCHES_MAX {
                let detail = format!("nothing comes at offset {next}, and {until} was asked for");
                let address = format!("partition {}", site.partition);
                return Err(LogError::Unreachable { address, detail }.into());
            }
            continue;
        };
        quiet = 0;
        records += batch.len() as u64;
        take(&batch);
        next = read_to;
    }
    Ok(records)
}

/// Now, by this machine's clock.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_ms(since.as_millis() as i64).unwrap_or(Time::EPOCH)
}

/// A new operator's lease: `operator/<user>@<host>/<since>/<random>`, so that the next one is told who and since when.
pub fn operator() -> Owner {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let host = std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    let word = |text: Option<String>| {
        let text = text.unwrap_or_default().trim().replace(['/', ' '], "-");
        if text.is_empty() { "unknown".to_owned() } else { text }
    };
    let (user, host, token) = (word(user.ok()), word(host.ok()), rand::random::<u64>());
    Owner(format!("operator/{user}@{host}/{}/{token:016x}", now()))
}

/// An operator's lease in words: who, and since when.
pub fn describe(owner: &str) -> String {
    let mut parts = owner.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some(who), Some(since)) if owner.starts_with("operator/") => format!("{who} since {since}"),
        _ => owner.to_owned(),
    }
}

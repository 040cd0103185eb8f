//! How many partitions the events' topic has, asked for once in a while: each reader needs to know, and documents are
//! to be had also while the log is away.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::log::{Log, LogError};
use crate::pure::place::PartitionId;
use crate::store::Store;

/// How long an answer counts. Partitions only ever become more, and then the projector holds.
const FRESH: Duration = Duration::from_secs(10);
/// How long the log may take when there is an older answer to fall back on.
const PATIENCE: Duration = Duration::from_millis(500);

/// The number, as last heard of.
#[derive(Default)]
pub struct PartitionCount {
    known: Mutex<Option<(u32, Instant)>>,
    /// With which each namespace was made.
    made_with: Mutex<HashMap<Option<String>, (u32, Instant)>>,
}

impl PartitionCount {
    /// The number of partitions.
    ///
    /// # Errors
    /// The log does not answer, and never did.
    pub async fn get(&self, log: &dyn Log) -> Result<u32, LogError> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match known {
            Some((count, asked)) if asked.elapsed() < FRESH => return Ok(count),
            Some((older, _)) => match tokio::time::timeout(PATIENCE, log.topic()).await {
                Ok(Ok(topic)) => topic.partitions,
                Ok(Err(_)) | Err(_) => older,
            },
            None => log.topic().await?.partitions,
        };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((count, Instant::now()));
        Ok(count)
    }

    /// The number by which a namespace's documents are placed: that of the topic when the namespace was made. Where no
    /// partition tells it, or the store does not answer, the one heard before, or the topic's.
    pub async fn made_with(&self, namespace: Option<&str>, store: &dyn Store, topic: u32) -> u32 {
        let namespace = namespace.map(str::to_owned);
        let all = || self.made_with.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all().get(&namespace).copied();
        if let Some((count, asked)) = known
            && asked.elapsed() < FRESH
        {
            return count;
        }
        let mut count = known.map_or(topic, |(count, _)| count);
        for partition in (0..topic).map(PartitionId) {
            match store.checkpoint(partition).await {
                Ok(None) => {}
                Ok(Some(checkpoint)) => {
                    count = checkpoint.partitions;
                    break;
                }
                Err(_) => break,
            }
        }
        all().insert(namespace, (count, Instant::now()));
        count
    }
}

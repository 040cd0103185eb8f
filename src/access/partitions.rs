//! How many partitions the events' topic has, asked for once in a while: each reader needs to know, and documents are
//! to be had also while the log is away.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::log::{Log, LogError};

/// How long an answer counts. Partitions only ever become more, and then the projector holds.
const FRESH: Duration = Duration::from_secs(10);
/// How long the log may take when there is an older answer to fall back on.
const PATIENCE: Duration = Duration::from_millis(500);

/// The number, as last heard of.
#[derive(Default)]
pub struct PartitionCount {
    known: Mutex<Option<(u32, Instant)>>,
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
}

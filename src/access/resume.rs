//! Lets a partition go on that is held for its dead letters.

use serde::{Deserialize, Serialize};

use super::{Access, AccessError};
use crate::pure::place::PartitionId;
use crate::store::Note;

/// Which partitions.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequest {
    /// `None`: all.
    pub partition: Option<u32>,
}

/// One partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LetThrough {
    /// Which.
    pub partition: u32,
    /// Batches that begin below this offset go on, however many dead letters they have.
    pub below: u64,
}

impl Access {
    /// Lets all that the log has now through. A held partition sees it within a few seconds.
    ///
    /// # Errors
    /// There is no such partition; log or store do not answer.
    pub async fn resume(&self, request: ResumeRequest) -> Result<Vec<LetThrough>, AccessError> {
        let partitions = self.partitions().await?;
        if let Some(wanted) = request
            .partition
            .filter(|wanted| !partitions.contains(&PartitionId(*wanted)))
        {
            let last = partitions.len().saturating_sub(1);
            return Err(AccessError::BadRequest(format!(
                "there is no partition {wanted}; the last one is {last}"
            )));
        }
        let mut told = Vec::new();
        let chosen = |partition: &PartitionId| request.partition.is_none_or(|wanted| wanted == partition.0);
        for partition in partitions.into_iter().filter(chosen) {
            let end = self.log.bounds(partition).await?.end;
            self.store
                .set_note(Note::Resume(partition), Some(&end.to_string()))
                .await?;
            told.push(LetThrough {
                partition: partition.0,
                below: end.0,
            });
        }
        Ok(told)
    }
}

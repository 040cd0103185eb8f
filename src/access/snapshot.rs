//! Snapshots on demand, into the topic or a file, and back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt, BufWriter};

use super::{Access, AccessError};
use crate::pure::intent::Intent;
use crate::pure::place::PartitionId;
use crate::repair::operator;
use crate::repair::snapshot::{Round, Snapshots, Source, restore, write_file};

/// What a snapshot of a partition has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// The partition.
    pub partition: u32,
    /// Documents written now.
    pub documents: u64,
    /// As of this offset; null: nothing had changed, or there is nothing.
    pub offset: Option<u64>,
}

/// What was restored of a partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoredRow {
    /// The partition.
    pub partition: u32,
    /// Documents.
    pub documents: u64,
    /// Records of the log applied to bring all of them to one place.
    pub records: u64,
    /// The redo goes on here; null: there is no snapshot of this partition.
    pub offset: Option<u64>,
    /// Entities whose documents are of an earlier place, or missing; their events wait for a repair.
    pub parked: Vec<String>,
}

impl Access {
    /// The writer of a partition's snapshots.
    pub fn snapshots(&self, partition: PartitionId) -> Snapshots {
        let (log, store) = (Arc::clone(&self.log), Arc::clone(&self.store));
        Snapshots::new(log, store, &self.settings.namespace, partition)
    }

    /// Writes what has changed since the last snapshot into the topic, now.
    ///
    /// # Errors
    /// Another namespace writes this topic's snapshots; log or store do not answer.
    pub async fn snapshot(&self) -> Result<Vec<SnapshotRow>, AccessError> {
        self.ensure_there().await?;
        let mut rows = Vec::new();
        for partition in self.partitions().await? {
            let (documents, offset) = match self.snapshots(partition).round().await? {
                Round::Written { documents, next } => (documents, Some(next.0)),
                Round::Nothing => (0, None),
                Round::Others(namespace) => {
                    return Err(AccessError::BadRequest(format!(
                        "namespace {namespace} writes the snapshots of topic {}; `khala snapshot --file F` makes one of \
                         this namespace",
                        self.settings.topic
                    )));
                }
            };
            rows.push(SnapshotRow {
                partition: partition.0,
                documents,
                offset,
            });
        }
        Ok(rows)
    }

    /// Writes all documents into a file; it is there whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written; log or store do not answer.
    pub async fn snapshot_file(&self, path: &Path) -> Result<Vec<SnapshotRow>, AccessError> {
        self.ensure_there().await?;
        let failed = |error: std::io::Error| AccessError::Failed(format!("{}: {error}", path.display()));
        let part = PathBuf::from(format!("{}.part", path.display()));
        let mut file = BufWriter::new(tokio::fs::File::create(&part).await.map_err(failed)?);
        let mut rows = Vec::new();
        for partition in self.partitions().await? {
            let namespace = &self.settings.namespace;
            let written = write_file(&*self.store, partition, namespace, (&part, &mut file)).await?;
            rows.push(SnapshotRow {
                partition: partition.0,
                documents: written.map_or(0, |(documents, _)| documents),
                offset: written.map(|(_, next)| next.0),
            });
        }
        file.flush().await.map_err(failed)?;
        file.get_ref().sync_all().await.map_err(failed)?;
        tokio::fs::rename(&part, path).await.map_err(failed)?;
        Ok(rows)
    }

    /// Restores all partitions of an empty namespace, or finishes what was begun.
    ///
    /// # Errors
    /// `BadRequest`: there are documents already, or another operator is at work; nothing was changed.
    pub async fn restore(&self, source: &Source) -> Result<Vec<RestoredRow>, AccessError> {
        if let Source::File(path) = source
            && let Err(error) = std::fs::File::open(path)
        {
            return Err(AccessError::BadRequest(format!("{}: {error}", path.display())));
        }
        let partitions = self.partitions().await?;
        for partition in &partitions {
            if let Some(checkpoint) = self.store.checkpoint(*partition).await?
                && !matches!(Intent::parse(&checkpoint.intent), Ok(Some(Intent::Restore { .. })))
            {
                return Err(AccessError::BadRequest(format!(
                    "partition {partition} has documents up to offset {}: a restore is for an empty namespace \
                     (`--namespace` names another one); nothing was changed",
                    checkpoint.next
                )));
            }
        }
        let owner = operator();
        let mut rows = Vec::new();
        for partition in partitions {
            let site = self.site(partition, owner.clone());
            self.store
                .open(partition, &owner, site.lease)
                .await
                .map_err(super::replay::busy)?;
            let restored = restore(&site, source, &mut |_| {}).await;
            self.store.release(partition, &owner).await?;
            let restored = restored?.done();
            rows.push(RestoredRow {
                partition: partition.0,
                documents: restored.as_ref().map_or(0, |restored| restored.documents),
                records: restored.as_ref().map_or(0, |restored| restored.records),
                offset: restored.as_ref().map(|restored| restored.next.0),
                parked: restored.map_or_else(Vec::new, |restored| {
                    let aside = restored.aside.iter();
                    aside.map(|entity| entity.subject().to_owned()).collect()
                }),
            });
        }
        Ok(rows)
    }
}

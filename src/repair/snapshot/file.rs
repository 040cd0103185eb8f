//! Writes a snapshot into a file, for `khala snapshot`. In: a partition's documents. Out: a line each, then a marker.

use std::path::Path;

use serde_json::value::RawValue;
use tokio::io::{AsyncWriteExt, BufWriter};

use super::super::site::RepairError;
use super::pass::CHUNK;
use super::source::{Line, file_error, hex};
use crate::pure::batch::Stored;
use crate::pure::checkpoint::Checkpoint;
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::snapshot::Marker;
use crate::store::Store;

/// Writes all documents of a partition into a file, then a marker; returns how many.
///
/// # Errors
/// The store does not answer, or the file cannot be written.
pub async fn write_file(
    store: &dyn Store,
    partition: PartitionId,
    namespace: &str,
    (path, file): (&Path, &mut BufWriter<tokio::fs::File>),
) -> Result<Option<(u64, NextOffset)>, RepairError> {
    let Some(checkpoint) = store.checkpoint(partition).await? else {
        return Ok(None);
    };
    let epoch = format!("{:016x}", rand::random::<u64>());
    let (mut documents, mut aside) = (0, store.parked(partition).await?);
    for kind in Kind::ALL {
        let mut at = NextOffset::START;
        loop {
            let page = store.indexed(partition, kind, at, CHUNK).await?;
            let Some((_, last)) = page.last() else { break };
            at = last.next();
            let entities: Vec<Entity> = page.iter().map(|(entity, _)| entity.clone()).collect();
            let peeked = store.peek(partition, &entities).await?;
            for ((entity, offset), (stored, _)) in page.into_iter().zip(peeked.entities) {
                if stored == Stored::Expired {
                    continue;
                }
                let Stored::Document { json, state } = stored else {
                    aside.push((entity, offset));
                    continue;
                };
                let raw = std::str::from_utf8(&json)
                    .ok()
                    .and_then(|text| serde_json::from_str(text).ok());
                let Some(raw) = raw else {
                    aside.push((entity, offset));
                    continue;
                };
                let line = Line {
                    partition: partition.0,
                    document: Some(raw),
                    state: state.as_deref().map(hex),
                    marker: None,
                    subject: entity.subject().to_owned(),
                    epoch: epoch.clone(),
                };
                write_line(&line, (path, file)).await?;
                documents += 1;
            }
        }
    }
    let next = checkpoint.next;
    let marker = Marker {
        namespace: namespace.to_owned(),
        epoch,
        checkpoint: Checkpoint {
            intent: String::new(),
            ..checkpoint
        },
        aside,
    };
    let json = marker.json();
    let raw: Option<&RawValue> = serde_json::from_slice(&json).ok();
    let line = Line {
        partition: partition.0,
        document: None,
        state: None,
        marker: raw,
        subject: String::new(),
        epoch: String::new(),
    };
    write_line(&line, (path, file)).await?;
    Ok(Some((documents, next)))
}

async fn write_line(
    line: &Line<'_>,
    (path, file): (&Path, &mut BufWriter<tokio::fs::File>),
) -> Result<(), RepairError> {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    file.write_all(&text).await.map_err(|error| file_error(path, &error))
}

//! The history of a partition's checkpoints: a stream of marks.

use super::connect::{CONTROL_LANE, Connections};
use super::keys::Keys;
use super::read::{ask, command, of_another_type};
use super::reply;
use crate::pure::checkpoint::{Checkpoint, FIELDS, Mark};
use crate::pure::place::PartitionId;
use crate::store::StoreError;

pub(super) async fn history(
    connections: &Connections,
    partition: PartitionId,
    keys: &Keys,
    limit: usize,
) -> Result<Vec<Mark>, StoreError> {
    let (key, limit) = (keys.checkpoints(), limit.to_string());
    let entries = command(&["XREVRANGE", &key, "+", "-", "COUNT", &limit]);
    Ok(reply::marks(&ask(connections, partition, &key, &entries).await?))
}

/// Appends a mark that an audit vouches for.
pub(super) async fn verify(
    connections: &Connections,
    partition: PartitionId,
    keys: &Keys,
    checkpoint: &Checkpoint,
    kept: usize,
) -> Result<(), StoreError> {
    let key = keys.checkpoints();
    let mut add = command(&["XADD", &key, "MAXLEN", "~", &kept.to_string(), "*"]);
    for (name, value) in FIELDS.iter().zip(checkpoint.fields()) {
        add.arg(name).arg(value);
    }
    add.arg(reply::VERIFIED).arg("1");
    let added = connections.query(CONTROL_LANE, &add).await;
    added.map(|_| ()).map_err(of_another_type(partition, &key))
}

/// Takes marks out.
pub(super) async fn forget(connections: &Connections, keys: &Keys, ids: &[String]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut delete = command(&["XDEL", &keys.checkpoints()]);
    delete.arg(ids);
    connections.query(CONTROL_LANE, &delete).await.map(|_| ())
}

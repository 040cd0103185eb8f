//! Which documents there are: by the index, and by the keys themselves.

use std::collections::BTreeSet;

use redis::Value;

use super::connect::{Connections, READ_LANE};
use super::read::{ask, command, scored};
use super::reply::{list, text};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::store::StoreError;

/// Keys looked at by one step of a scan.
const SCAN_COUNT: &str = "1000";

/// Entities by ascending last offset, from `from` on.
pub(super) async fn indexed(
    connections: &Connections,
    partition: PartitionId,
    index: &str,
    (kind, from): (Kind, NextOffset),
    limit: usize,
) -> Result<Vec<(Entity, Offset)>, StoreError> {
    let (from, limit) = (from.to_string(), limit.to_string());
    let range = command(&[
        "ZRANGEBYSCORE",
        index,
        &from,
        "+inf",
        "WITHSCORES",
        "LIMIT",
        "0",
        &limit,
    ]);
    let members = scored(&ask(connections, partition, index, &range).await?);
    let entity = |(id, offset): (String, Offset)| Some((Entity::new(kind, &id)?, offset));
    Ok(members.into_iter().filter_map(entity).collect())
}

/// Visits every document key of a namespace. In a cluster only the node that answers is walked; its index is not.
pub(super) async fn scan(
    connections: &Connections,
    namespace: &str,
    visit: &mut (dyn FnMut(PartitionId, Entity) + Send),
) -> Result<(), StoreError> {
    let pattern = format!("{{{}:*}}:*_summary:*", escaped(namespace));
    let mut each = |key: &Value| {
        if let Some((partition, entity)) = document(namespace, key) {
            visit(partition, entity);
        }
    };
    walk(connections, &pattern, &mut each).await
}

/// Namespaces that have a checkpoint, by name. In a cluster as [`scan`].
pub(super) async fn namespaces(connections: &Connections) -> Result<Vec<String>, StoreError> {
    let mut names = BTreeSet::new();
    let mut each = |key: &Value| names.extend(text(key).and_then(namespace_of));
    walk(connections, "{*:*}:checkpoint", &mut each).await?;
    Ok(names.into_iter().collect())
}

fn namespace_of(key: &str) -> Option<String> {
    let tag = key.strip_prefix('{')?.strip_suffix("}:checkpoint")?;
    let (namespace, partition) = tag.rsplit_once(':')?;
    partition.parse::<u32>().ok().map(|_| namespace.to_owned())
}

async fn walk(
    connections: &Connections,
    pattern: &str,
    each: &mut (dyn FnMut(&Value) + Send),
) -> Result<(), StoreError> {
    let mut cursor = "0".to_owned();
    loop {
        let step = command(&["SCAN", &cursor, "MATCH", pattern, "COUNT", SCAN_COUNT]);
        let answer = connections.query(READ_LANE, &step).await?;
        let [next, keys] = list(&answer) else { return Ok(()) };
        list(keys).iter().for_each(&mut *each);
        cursor = String::from(text(next).unwrap_or("0"));
        if cursor == "0" {
            return Ok(());
        }
    }
}

/// A namespace as a glob pattern that matches only itself.
fn escaped(namespace: &str) -> String {
    let special = |letter| matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^' | '-');
    let letters = namespace
        .chars()
        .flat_map(|letter| special(letter).then_some('\\').into_iter().chain([letter]));
    letters.collect()
}

/// Partition and entity of a document's key; `None` if it is another key.
fn document(namespace: &str, key: &Value) -> Option<(PartitionId, Entity)> {
    let rest = text(key)?
        .strip_prefix('{')?
        .strip_prefix(namespace)?
        .strip_prefix(':')?;
    let (partition, rest) = rest.split_once("}:")?;
    let (kind, id) = rest.split_once(':')?;
    let kind = Kind::ALL.into_iter().find(|known| known.document() == kind)?;
    Some((PartitionId(partition.parse().ok()?), Entity::new(kind, id)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documents_of_the_namespace_are_visited() {
        let read = |key: &str| document("a:b", &Value::BulkString(key.as_bytes().to_vec()));
        let run = Entity::parse("run/x:y").expect("legal");
        assert_eq!(read("{a:b:3}:run_summary:x:y"), Some((PartitionId(3), run)));
        for other in [
            "{a:b:3}:state:run_summary:x",
            "{a:3}:run_summary:x",
            "{a:b:x}:run_summary:x",
            "{a:b:3}:checkpoint",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(escaped("a*b"), "a\\*b");
        assert_eq!(namespace_of("{a:b:3}:checkpoint").as_deref(), Some("a:b"));
        assert_eq!(namespace_of("{a:b}:checkpoint"), None);
    }
}

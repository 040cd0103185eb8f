//! All that a namespace has, and which namespaces there are.

use super::keys::{CHECKPOINT, namespace_of, parts_of};
use super::writer::Request;
use super::{EmbeddedStore, SCAN_CHUNK};
use crate::pure::entity::Entity;
use crate::pure::place::PartitionId;
use crate::store::StoreError;

/// Keys taken away by one write.
const PURGE_CHUNK: usize = 5_000;

/// Keys to be taken away: of documents, index, events and `meta`.
pub(super) type Purge = [Vec<Vec<u8>>; 4];

impl EmbeddedStore {
    /// Visits every document of the namespace.
    pub(super) async fn visit(&self, visit: &mut (dyn FnMut(PartitionId, Entity) + Send)) -> Result<(), StoreError> {
        let mut after = Vec::new();
        loop {
            let (namespace, behind) = (self.namespace.clone(), std::mem::take(&mut after));
            let found = self
                .read(PartitionId(0), move |view| {
                    view.documents_of(&namespace, &behind, SCAN_CHUNK)
                })
                .await?;
            let Some((last, ..)) = found.last() else { return Ok(()) };
            after.clone_from(last);
            found
                .into_iter()
                .for_each(|(_, partition, entity)| visit(partition, entity));
        }
    }

    /// Namespaces with a checkpoint, by name.
    pub(super) async fn known(&self) -> Result<Vec<String>, StoreError> {
        let keys = self.read(PartitionId(0), |view| {
            view.keys_under([&[], &[], &[], &[CHECKPOINT]], usize::MAX)
        });
        let [.., meta] = keys.await?;
        let mut names: Vec<String> = meta.iter().filter_map(|key| namespace_of(key)).collect();
        names.dedup();
        Ok(names)
    }

    /// Takes everything away.
    pub(super) async fn purge(&self) -> Result<(), StoreError> {
        let beginnings = parts_of(&self.namespace);
        loop {
            let these = beginnings.clone();
            let keys = self.read(PartitionId(0), move |view| {
                let [own, meta @ ..] = these.each_ref().map(Vec::as_slice);
                view.keys_under([&[own], &[own], &[own], &meta], PURGE_CHUNK)
            });
            let mut keys = keys.await?;
            if keys.iter().all(Vec::is_empty) {
                return Ok(());
            }
            // Checkpoints go last: until then the namespace is known, and can be dropped again.
            let [documents @ .., meta] = &mut keys;
            if documents.iter().any(|keys| !keys.is_empty()) {
                meta.clear();
            }
            let target = self.target(PartitionId(0));
            self.ask(|reply| Request::Purge(target, Box::new(keys), reply)).await?;
        }
    }
}

pub(super) fn ensure_legal(namespace: &str) -> Result<(), StoreError> {
    if namespace.is_empty() || namespace.len() > 256 || namespace.contains('\0') {
        return Err(StoreError::Rejected(format!(
            "namespace {namespace:?}: must be 1 to 256 bytes without NUL"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{P0, batch, entity, listed, owned, put};
    use crate::store::{Batch, Note, Owner, Store};
    use std::time::Duration;

    #[tokio::test]
    async fn a_namespace_is_taken_away_whole_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = owned(dir.path()).await;
        let full = |to| Batch {
            parked: vec![(entity("run/p"), crate::pure::place::Offset(1))],
            ..batch(None, to, &[("run/a", 3), ("worker/w", 5)])
        };
        put(&store, &full(9)).await;
        let own = store.known().await.unwrap();
        let other = store.in_namespace("other").unwrap();
        let owner = Owner("projector/other".to_owned());
        other.open(P0, &owner, Duration::from_mins(1)).await.unwrap();
        other.commit(P0, &owner, &full(9)).await.unwrap();
        other.set_note(Note::Route, Some("elsewhere")).await.unwrap();
        assert_eq!(store.namespaces().await.unwrap().len(), 2);
        other.clear(1).await.unwrap();
        assert_eq!(store.namespaces().await.unwrap(), own);
        assert_eq!(other.checkpoint(P0).await.unwrap(), None);
        assert_eq!(other.note(Note::Route).await.unwrap(), None);
        assert_eq!(other.parked(P0).await.unwrap(), []);
        assert_eq!(other.history(P0, 10).await.unwrap(), []);
        other.scan(&mut |_, entity| panic!("{entity}")).await.unwrap();
        let events = other.events(P0, &entity("run/a"), 0, 9, Duration::ZERO).await;
        assert_eq!(events.unwrap(), []);
        assert_eq!(listed(&store, None, 10).await.len(), 1);
        assert_eq!(store.parked(P0).await.unwrap().len(), 1);
    }
}

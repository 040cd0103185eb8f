//! Documents taken away long after their end, in the writer's thread: so nothing is written in between.

use super::heal::ensure_no_rewind;
use super::keys;
use super::read::View;
use super::write::Write;
use super::writer::{Target, Writer};
use crate::store::{Expiring, Leaves, StoreError, expired_mark};

impl Writer {
    /// Adds to the write what takes those away that are still at their place; returns how many.
    pub(super) fn expire(
        &mut self,
        write: &mut Write,
        target: &Target,
        entities: &[Expiring],
    ) -> Result<u64, StoreError> {
        self.shared.disk.running()?;
        let view = View::new(self.shared.clone(), &target.namespace, target.partition);
        let found = ensure_no_rewind(&view, target)?.map(|found| found.projection_version);
        let (shared, place, mut done) = (&self.shared, &target.place, 0);
        let of_version = entities.iter().filter(|one| found == Some(one.version));
        for Expiring {
            entity, last, leaves, ..
        } in of_version
        {
            if view.last_offset(entity)? != Some(*last) {
                continue;
            }
            for key in view.event_keys_above(entity, 0)? {
                write.batch.remove(&shared.events, key);
            }
            let key = place.document(entity);
            match leaves {
                Leaves::Place => {
                    let value = keys::document(&key, b"", Some(expired_mark(*last).as_bytes()));
                    write.batch.insert(&shared.documents, key, value);
                }
                Leaves::Nothing => {
                    write.batch.remove(&shared.documents, key);
                    write.batch.remove(&shared.index, place.by_offset(entity, *last));
                    write.batch.remove(&shared.index, place.by_subject(entity));
                }
            }
            done += 1;
        }
        drop(view);
        write.places.insert(target.place.clone());
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{P0, at, batch, entity, owned, put, seqs};
    use super::*;
    use crate::pure::entity::Kind;
    use crate::pure::place::{NextOffset, Offset};
    use crate::store::{Batch, ListQuery, Store, Stored};

    fn expiring(subject: &str, last: u64, leaves: Leaves) -> Expiring {
        Expiring {
            entity: entity(subject),
            last: Offset(last),
            leaves,
            version: at(1).projection_version,
        }
    }

    #[tokio::test]
    async fn what_expired_is_no_loss_until_it_changes_or_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = owned(dir.path()).await;
        let load = async |next| {
            let expected = [Some(at(next).identity())];
            store.load(P0, &expected, &[entity("run/a")]).await.unwrap().remove(0)
        };
        put(&store, &batch(None, 9, &[("run/a", 3), ("run/b", 5)])).await;
        let moved_on = [expiring("run/a", 2, Leaves::Place)];
        assert_eq!(store.expire(P0, &moved_on).await.unwrap(), 0);
        let mut theirs = expiring("run/a", 3, Leaves::Place);
        theirs.version += 1;
        assert_eq!(store.expire(P0, &[theirs]).await.unwrap(), 0);
        let still = [expiring("run/a", 3, Leaves::Place)];
        assert_eq!(store.expire(P0, &still).await.unwrap(), 1);
        assert_eq!(load(9).await, Stored::Expired);
        assert_eq!(store.document(P0, &entity("run/a")).await.unwrap(), None);
        assert_eq!(seqs(&store, "run/a", 0).await, [0; 0]);
        assert_eq!(seqs(&store, "run/b", 0).await, [6]);
        let query = ListQuery {
            kind: Kind::Run,
            below: None,
            limit: 10,
        };
        let listed = store.list(P0, &query).await.unwrap();
        let places: Vec<_> = listed.iter().map(|(last, json)| (last.0, json.is_empty())).collect();
        assert_eq!(
            places,
            [(5, false), (3, true)],
            "its place stays, so that pages are whole"
        );
        put(&store, &batch(Some(9), 10, &[("run/a", 9)])).await;
        assert!(matches!(load(10).await, Stored::Document { .. }));
        let forgotten = [expiring("run/a", 9, Leaves::Nothing)];
        assert_eq!(store.expire(P0, &forgotten).await.unwrap(), 1);
        assert_eq!(load(10).await, Stored::Absent);
        let runs = store.indexed(P0, Kind::Run, NextOffset(0), 10).await.unwrap();
        assert_eq!(runs, [(entity("run/b"), Offset(5))]);
        let mut rewinding = at(10);
        rewinding.intent = "restore 00".to_owned();
        let begin = Batch::new(Some(at(10).identity()), rewinding);
        put(&store, &begin).await;
        let refused = store.expire(P0, &[expiring("run/b", 5, Leaves::Place)]).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    }
}

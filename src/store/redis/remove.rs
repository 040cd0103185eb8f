//! Takes a namespace away: what its indexes know, documents that no index knows, then the partitions' own keys.

use redis::Cmd;

use super::RedisStore;
use super::connect::READ_LANE;
use super::keys::Keys;
use super::read::scored;
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::PartitionId;
use crate::store::{Note, Store, StoreError};

/// What there is of an entity.
fn of(keys: &Keys, entity: &Entity) -> [String; 3] {
    [keys.document(entity), keys.state(entity), keys.events(entity)]
}

/// Entities at once.
const PAGE: usize = 1000;

impl RedisStore {
    /// Removes all keys of the namespace in its first `partitions` partitions.
    ///
    /// # Errors
    /// `Unreachable`: some may be left; doing it again is harmless.
    pub async fn remove(&self, partitions: u32) -> Result<(), StoreError> {
        for partition in (0..partitions).map(PartitionId) {
            for kind in Kind::ALL {
                while self.remove_page(partition, kind).await? {}
            }
        }
        let mut strays = Vec::new();
        self.scan(&mut |partition, entity| strays.push((partition, entity)))
            .await?;
        for (partition, entity) in strays {
            self.unlink(of(&self.keys(partition), &entity)).await?;
        }
        let namespace = &self.settings.namespace;
        for partition in (0..partitions).map(PartitionId) {
            let keys = self.keys(partition);
            let [resume, held] =
                [Note::Resume(partition), Note::Held(partition)].map(|note| Keys::note(namespace, note));
            let own = [
                keys.owner(),
                keys.checkpoints(),
                keys.parked(),
                resume,
                held,
                keys.checkpoint(),
            ];
            self.unlink(own).await?;
        }
        self.unlink(Note::OF_NAMESPACE.map(|note| Keys::note(namespace, note)))
            .await
    }

    /// Whether there was any.
    async fn remove_page(&self, partition: PartitionId, kind: Kind) -> Result<bool, StoreError> {
        let keys = self.keys(partition);
        let mut command = Cmd::new();
        command.arg("ZPOPMIN").arg(keys.index(kind)).arg(PAGE);
        let popped = self.connections.query(READ_LANE, &command).await?;
        let entities = scored(&popped).into_iter().filter_map(|(id, _)| Entity::new(kind, &id));
        let removed: Vec<String> = entities.flat_map(|entity| of(&keys, &entity)).collect();
        if removed.is_empty() {
            return Ok(false);
        }
        self.unlink(removed).await?;
        Ok(true)
    }

    async fn unlink(&self, keys: impl IntoIterator<Item = String>) -> Result<(), StoreError> {
        let mut command = Cmd::new();
        command.arg("UNLINK");
        for key in keys {
            command.arg(key);
        }
        self.connections.query(READ_LANE, &command).await.map(|_| ())
    }
}

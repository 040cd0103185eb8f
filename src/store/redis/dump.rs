//! A namespace's keys as they are, and back again. For namespaces made for a while: nobody may write meanwhile.

use redis::{Cmd, Value};

use super::RedisStore;
use super::connect::READ_LANE;
use super::read::scored;
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::PartitionId;
use crate::store::StoreError;

/// A key and its value, as `DUMP` gives it.
pub type Dumped = (String, Vec<u8>);

impl RedisStore {
    /// All keys of the first `partitions` partitions but the leases.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn dump(&self, partitions: u32) -> Result<Vec<Dumped>, StoreError> {
        let mut dumped = Vec::new();
        for partition in (0..partitions).map(PartitionId) {
            let keys = self.keys(partition);
            let mut names = vec![keys.checkpoint(), keys.checkpoints(), keys.parked()];
            for kind in Kind::ALL {
                names.push(keys.index(kind));
                let mut command = Cmd::new();
                command
                    .arg("ZRANGE")
                    .arg(keys.index(kind))
                    .arg(0)
                    .arg(-1)
                    .arg("WITHSCORES");
                let members = self.connections.query(READ_LANE, &command).await?;
                let entities = scored(&members)
                    .into_iter()
                    .filter_map(|(id, _)| Entity::new(kind, &id));
                names.extend(
                    entities.flat_map(|entity| [keys.document(&entity), keys.state(&entity), keys.events(&entity)]),
                );
            }
            for name in names {
                let mut command = Cmd::new();
                command.arg("DUMP").arg(&name);
                if let Value::BulkString(value) = self.connections.query(READ_LANE, &command).await? {
                    dumped.push((name, value));
                }
            }
        }
        Ok(dumped)
    }

    /// Takes all keys of the first `partitions` partitions away, and puts these there.
    ///
    /// # Errors
    /// `Unreachable`: some are back and others are not; doing it again is harmless.
    pub async fn put_back(&self, partitions: u32, dumped: &[Dumped]) -> Result<(), StoreError> {
        self.remove(partitions).await?;
        for (name, value) in dumped {
            let mut command = Cmd::new();
            command.arg("RESTORE").arg(name).arg(0).arg(&value[..]).arg("REPLACE");
            self.connections.query(READ_LANE, &command).await?;
        }
        Ok(())
    }
}

//! Documents taken away long after their end, as the keys and arguments of `expire.lua`.

use super::connect::READ_LANE;
use super::reply::{Reply, number};
use super::script::Call;
use super::{RedisStore, index_key};
use crate::pure::entity::Kind;
use crate::pure::place::PartitionId;
use crate::store::{Expiring, Leaves, StoreError, expired_mark};

pub(super) async fn expire(
    store: &RedisStore,
    partition: PartitionId,
    entities: &[Expiring],
) -> Result<u64, StoreError> {
    let keys = store.keys(partition);
    let mut call = Call::expire();
    for key in [keys.checkpoint(), keys.index(Kind::Run), keys.index(Kind::Worker)] {
        call.key(key);
    }
    for Expiring {
        entity,
        last,
        leaves,
        version,
    } in entities
    {
        call.key(keys.document(entity));
        call.key(keys.state(entity));
        call.key(keys.events(entity));
        call.argument(index_key(entity.kind(), 2));
        call.argument(entity.id());
        call.argument(last.to_string());
        call.argument(match leaves {
            Leaves::Place => expired_mark(*last),
            Leaves::Nothing => String::new(),
        });
        call.argument(version.to_string());
    }
    match store.call(READ_LANE, partition, call).await? {
        Reply::Ok(values) => Ok(values.first().and_then(number).unwrap_or(0).max(0) as u64),
        other @ Reply::List(_) => Err(other.unexpected(partition)),
    }
}

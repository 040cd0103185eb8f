//! A batch as the keys and arguments of `commit.lua`.

use hashbrown::HashMap;

use super::keys::Keys;
use super::reply::{self, Reply};
use super::script::Call;
use super::{RedisStore, index_key, lane, push_identity};
use crate::pure::checkpoint::FIELDS;
use crate::pure::entity::Kind;
use crate::pure::place::PartitionId;
use crate::store::{Batch, Owner, StoreError};

impl RedisStore {
    /// The bytes that a commit sends to Redis, in its protocol: the call of a script, keys and arguments as that script's
    /// head lists them.
    pub fn commit_bytes(&self, partition: PartitionId, owner: &Owner, batch: &Batch) -> Vec<u8> {
        let keys = self.keys(partition);
        self.commit_call(&keys, owner, batch).command().get_packed_command()
    }

    pub(super) async fn commit_by_script(
        &self,
        partition: PartitionId,
        owner: &Owner,
        batch: &Batch,
    ) -> Result<(), StoreError> {
        let keys = self.keys(partition);
        let call = self.commit_call(&keys, owner, batch);
        match self.call(lane(partition), partition, call).await? {
            Reply::Ok(values) => {
                let foreign = values.first().and_then(reply::number).unwrap_or(0);
                if foreign > 0 {
                    tracing::warn!(%partition, streams = foreign, "keys of another type were in the place of event streams; replaced");
                }
                Ok(())
            }
            other @ Reply::List(_) => Err(other.unexpected(partition)),
        }
    }

    pub(super) fn commit_call<'a>(&self, keys: &Keys, owner: &Owner, batch: &'a Batch) -> Call<'a> {
        let mut call = Call::commit();
        guarded_keys(keys).into_iter().for_each(|key| call.key(key));
        call.argument(owner.0.as_str());
        push_identity(&mut call, batch.expected.as_ref());
        call.argument(self.settings.events_kept.to_string());
        call.argument(self.settings.history_kept.to_string());
        call.argument(if batch.mark { "1" } else { "" });
        let streams = by_entity(batch, self.settings.events_kept as usize);
        let states = batch
            .documents
            .iter()
            .filter(|document| document.state.is_some())
            .count();
        for number in [batch.documents.len(), states, streams.len(), batch.parked.len()] {
            call.argument(number.to_string());
        }
        for number in [batch.cut.len(), batch.removed.len(), batch.unparked.len()] {
            call.argument(number.to_string());
        }
        for (name, value) in FIELDS.iter().zip(batch.checkpoint.fields()) {
            call.argument(*name);
            call.argument(value);
        }
        for document in &batch.documents {
            call.key(keys.document(&document.entity));
            call.argument(index_key(document.entity.kind(), 5));
            call.argument(document.entity.id());
            call.argument(document.offset.to_string());
            call.bytes(batch.text(&document.json));
        }
        for document in &batch.documents {
            if let Some(state) = &document.state {
                call.key(keys.state(&document.entity));
                call.bytes(batch.text(state));
            }
        }
        for Events { places, .. } in streams {
            call.key(keys.events(&batch.events[places[0]].entity));
            call.argument(places.len().to_string());
            for i in places {
                call.argument(batch.events[i].seq.to_string());
                call.bytes(batch.text(&batch.events[i].json));
            }
        }
        for (entity, offset) in &batch.parked {
            call.argument(entity.subject());
            call.argument(offset.to_string());
        }
        for (entity, seq) in &batch.cut {
            call.key(keys.events(entity));
            call.argument(seq.to_string());
        }
        for entity in &batch.removed {
            [keys.document(entity), keys.state(entity), keys.events(entity)]
                .into_iter()
                .for_each(|key| call.key(key));
            call.argument(index_key(entity.kind(), 5));
            call.argument(entity.id());
        }
        for entity in &batch.unparked {
            call.argument(entity.subject());
        }
        call
    }
}

/// The keys that `guard.lua` looks at, in its order.
pub(super) fn guarded_keys(keys: &Keys) -> [String; 6] {
    [
        keys.owner(),
        keys.checkpoint(),
        keys.checkpoints(),
        keys.parked(),
        keys.index(Kind::Run),
        keys.index(Kind::Worker),
    ]
}

/// Events of one entity, as places in a batch.
pub(super) struct Events {
    /// Of all that the batch has, also those that are left out.
    pub(super) first_seq: u64,
    pub(super) places: Vec<usize>,
}

/// Places of each entity's events, in order of `seq`: so they stand in a batch. Those before the last `kept` are left
/// out: the same script would trim them.
pub(super) fn by_entity(batch: &Batch, kept: usize) -> Vec<Events> {
    let mut streams: Vec<Events> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (place, event) in batch.events.iter().enumerate() {
        let stream = *known.entry(event.entity.subject()).or_insert(streams.len());
        match streams.get_mut(stream) {
            Some(events) => events.places.push(place),
            None => streams.push(Events {
                first_seq: event.seq,
                places: vec![place],
            }),
        }
    }
    for Events { places, .. } in &mut streams {
        places.drain(..places.len().saturating_sub(kept.max(1)));
    }
    streams
}

//! The call of `heal.lua`.

use super::keys::Keys;
use super::reply::{self, Reply};
use super::script::Call;
use super::{RedisStore, index_key, lane};
use crate::pure::batch::Stored;
use crate::pure::checkpoint::{FIELDS, Identity};
use crate::pure::entity::Kind;
use crate::pure::place::PartitionId;
use crate::store::{Heal, HealEntry, Healed, StoreError};

pub(super) async fn heal(store: &RedisStore, partition: PartitionId, heal: &Heal) -> Result<Vec<Healed>, StoreError> {
    let keys = store.keys(partition);
    let mut call = Call::heal();
    for key in [
        keys.owner(),
        keys.checkpoint(),
        keys.parked(),
        keys.index(Kind::Run),
        keys.index(Kind::Worker),
    ] {
        call.key(key);
    }
    call.argument(heal.owner.as_ref().map_or("", |owner| owner.0.as_str()));
    call.argument(heal.version.map_or_else(String::new, |version| version.to_string()));
    if let Some((expected, checkpoint)) = &heal.moves {
        call.argument("1");
        expected.fields().into_iter().for_each(|field| call.argument(field));
        for (name, value) in FIELDS.iter().zip(checkpoint.fields()) {
            call.argument(*name);
            call.argument(value);
        }
    } else {
        (0..1 + Identity::FIELDS.len() + 2 * FIELDS.len()).for_each(|_| call.argument(""));
    }
    call.argument(store.settings.events_kept.to_string());
    call.argument(heal.entries.len().to_string());
    heal.entries.iter().for_each(|entry| push(&mut call, &keys, entry));
    match store.call(lane(partition), partition, call).await? {
        Reply::Ok(values) if values.len() == heal.entries.len() => Ok(values.iter().map(healed).collect()),
        other => Err(other.unexpected(partition)),
    }
}

fn healed(value: &redis::Value) -> Healed {
    match reply::number(value) {
        Some(1) => Healed::Done,
        _ => Healed::Changed,
    }
}

fn push<'a>(call: &mut Call<'a>, keys: &Keys, entry: &'a HealEntry) {
    let entity = &entry.entity;
    for key in [keys.document(entity), keys.state(entity), keys.events(entity)] {
        call.key(key);
    }
    call.argument(index_key(entity.kind(), 4));
    call.argument(entity.id());
    let (seen, json, state) = match &entry.seen {
        Stored::Absent | Stored::Lost | Stored::Expired => ("absent", &[][..], None),
        Stored::Unreadable(_) => ("unreadable", &[][..], None),
        Stored::Document { json, state } => ("document", json.as_slice(), state.as_deref()),
    };
    call.argument(seen);
    call.bytes(json);
    push_optional(call, state);
    call.argument(entry.index.map_or_else(String::new, |offset| offset.to_string()));
    call.argument(if entry.unpark { entity.subject() } else { "" });
    let Some(healthy) = &entry.becomes else {
        (0..5).for_each(|_| call.argument(""));
        return call.argument("0");
    };
    call.argument("1");
    call.argument(healthy.offset.to_string());
    call.bytes(&healthy.json);
    push_optional(call, healthy.state.as_deref());
    call.argument(healthy.events.len().to_string());
    for (seq, json) in &healthy.events {
        call.argument(seq.to_string());
        call.bytes(json);
    }
}

fn push_optional<'a>(call: &mut Call<'a>, bytes: Option<&'a [u8]>) {
    call.argument(if bytes.is_some() { "1" } else { "" });
    call.bytes(bytes.unwrap_or_default());
}

//! Documents with the checkpoint they count under. In: entities, the checkpoints that are expected. Out: what is
//! there of each. Invariant: all of it is read in one step, by a transaction if they are many, by a script if few, or
//! if the transaction cannot tell what stands there.

use redis::{Cmd, Pipeline, Value, cmd};

use super::keys::Keys;
use super::script::Call;
use super::{RedisStore, index_key, lane, push_identity, reply};
use crate::pure::checkpoint::Identity;
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::PartitionId;
use crate::store::{StoreError, Stored};

/// As `Store::load`.
pub(super) async fn load(
    store: &RedisStore,
    partition: PartitionId,
    expected: &[Option<Identity>],
    entities: &[Entity],
) -> Result<Vec<Stored>, StoreError> {
    let keys = store.keys(partition);
    if entities.len() >= store.settings.large {
        let commands = commands(&keys, entities);
        let answers = store.connections.read_at_once(lane(partition), &commands).await?;
        if let Some(loaded) = answers.and_then(|answers| read(answers, expected, entities)) {
            return Ok(loaded);
        }
    }
    let mut call = Call::load();
    for key in [keys.checkpoint(), keys.index(Kind::Run), keys.index(Kind::Worker)] {
        call.key(key);
    }
    call.argument(expected.len().to_string());
    for identity in expected {
        push_identity(&mut call, identity.as_ref());
    }
    for entity in entities {
        call.key(keys.document(entity));
        call.key(keys.state(entity));
        call.argument(index_key(entity.kind(), 2));
        call.argument(entity.id());
    }
    let loaded = store.call(lane(partition), partition, call).await?;
    loaded.loaded(partition, entities.len())
}

fn commands(keys: &Keys, entities: &[Entity]) -> Pipeline {
    let mut commands = Pipeline::with_capacity(9);
    commands.cmd("MULTI");
    commands.cmd("EXISTS").arg(keys.checkpoint());
    let mut fields = cmd("HMGET");
    fields.arg(keys.checkpoint());
    Identity::FIELDS.iter().for_each(|field| {
        fields.arg(*field);
    });
    commands.add_command(fields);
    let (mut documents, mut states, mut there) = (cmd("MGET"), cmd("MGET"), cmd("EXISTS"));
    for entity in entities {
        let (document, state) = (keys.document(entity), keys.state(entity));
        there.arg(&document).arg(&state);
        documents.arg(document);
        states.arg(state);
    }
    commands.add_command(there).add_command(documents).add_command(states);
    for kind in Kind::ALL {
        if let Some(places) = places(keys, entities, kind) {
            commands.add_command(places);
        }
    }
    commands.cmd("EXEC");
    commands
}

fn places(keys: &Keys, entities: &[Entity], kind: Kind) -> Option<Cmd> {
    let mut ids = entities.iter().filter(|entity| entity.kind() == kind).peekable();
    ids.peek()?;
    let mut places = cmd("ZMSCORE");
    places.arg(keys.index(kind));
    ids.for_each(|entity| {
        places.arg(entity.id());
    });
    Some(places)
}

/// `None`: another checkpoint is there, or something that is no text: the script has words for it.
fn read(answers: Vec<Value>, expected: &[Option<Identity>], entities: &[Entity]) -> Option<Vec<Stored>> {
    let mut answers = answers.into_iter();
    let mut next = || answers.next()?.extract_error().ok();
    let has_checkpoint = reply::number(&next()?)? == 1;
    let fields = array(next()?)?;
    let is_there = |identity: &Option<Identity>| match identity {
        None => !has_checkpoint,
        Some(identity) => {
            let wanted = identity.fields();
            fields
                .iter()
                .zip(&wanted)
                .all(|(have, want)| reply::text(have) == Some(want.as_str()))
        }
    };
    if !expected.iter().any(is_there) {
        return None;
    }
    let keys = reply::number(&next()?)?;
    let (documents, states) = (array(next()?)?, array(next()?)?);
    let is_some = |value: &&Value| !matches!(value, Value::Nil);
    let texts = documents.iter().filter(is_some).count() + states.iter().filter(is_some).count();
    if texts as i64 != keys {
        return None;
    }
    let mut places = [Vec::new().into_iter(), Vec::new().into_iter()];
    for (kind, places) in Kind::ALL.into_iter().zip(&mut places) {
        if entities.iter().any(|entity| entity.kind() == kind) {
            *places = array(next()?)?.into_iter();
        }
    }
    let [runs, workers] = &mut places;
    let each = entities.iter().zip(documents.into_iter().zip(states));
    each.map(|(entity, (document, state))| {
        let place = match entity.kind() {
            Kind::Run => runs.next()?,
            Kind::Worker => workers.next()?,
        };
        Some(stored(document, state, &place))
    })
    .collect()
}

fn stored(document: Value, state: Value, place: &Value) -> Stored {
    let expired =
        |state: &Value, rest: &str| reply::text(state).and_then(|text| text.strip_prefix("expired ")) == Some(rest);
    let is_expired = reply::text(&state).is_some_and(|text| text.starts_with("expired "));
    match (document, reply::text(place)) {
        (Value::BulkString(json), _) => Stored::Document {
            json,
            state: reply::bytes(state).filter(|_| !is_expired),
        },
        (_, None) => Stored::Absent,
        (_, Some(place)) if expired(&state, place) => Stored::Expired,
        (_, Some(_)) => Stored::Lost,
    }
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

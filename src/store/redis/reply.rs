//! What scripts and commands answer, read into the store's words.

use redis::Value;

use super::keys::Keys;
use super::read::scored;
use crate::pure::checkpoint::{Checkpoint, Mark};
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{Offset, PartitionId};
use crate::store::{Ahead, Peeked, StoreError, Stored};

/// A script's answer, its refusals taken out.
pub(super) enum Reply {
    /// `{'ok', …}`.
    Ok(Vec<Value>),
    /// A list that begins with no word.
    List(Vec<Value>),
}

impl Reply {
    /// Reads an answer.
    ///
    /// # Errors
    /// `Refused`, `NotOwner`, `Corrupt`: the script said so, and has written nothing.
    pub(super) fn read(partition: PartitionId, value: Value) -> Result<Self, StoreError> {
        let Value::Array(mut values) = value else {
            return Err(corrupt(partition, "a script's answer", format!("{value:?}")));
        };
        let word = values.first().and_then(text).map(str::to_owned);
        match word.as_deref() {
            Some("ok") => Ok(Self::Ok(values.split_off(1))),
            Some("owner") => {
                let owner = values.get(1).and_then(text).unwrap_or_default().to_owned();
                Err(StoreError::NotOwner { partition, owner })
            }
            Some("refused") => {
                let found = checkpoint(partition, "checkpoint", &values[1..])?;
                Err(StoreError::Refused {
                    partition,
                    found: Box::new(found),
                })
            }
            Some("foreign") => {
                let word = |i: usize| values.get(i).and_then(text).unwrap_or_default();
                Err(corrupt(
                    partition,
                    word(1),
                    format!("must be a {}, and is of another type", word(2)),
                ))
            }
            _ => Ok(Self::List(values)),
        }
    }

    fn values(self) -> Vec<Value> {
        match self {
            Self::Ok(values) | Self::List(values) => values,
        }
    }

    pub(super) fn unexpected(self, partition: PartitionId) -> StoreError {
        corrupt(partition, "a script's answer", format!("{:?}", self.values()))
    }

    /// Checkpoint, parked entities and marks, newest first.
    #[expect(clippy::type_complexity, reason = "the three parts of one answer")]
    pub(super) fn opened(
        self,
        partition: PartitionId,
        keys: &Keys,
    ) -> Result<(Option<Checkpoint>, Vec<(Entity, Offset)>, Vec<Mark>), StoreError> {
        let values = self.values();
        let [fields, parked_fields, marks_list] = values.as_slice() else {
            return Err(corrupt(partition, "a script's answer", format!("{values:?}")));
        };
        let checkpoint = checkpoint(partition, &keys.checkpoint(), list(fields))?;
        Ok((checkpoint, parked(list(parked_fields)), marks(marks_list)))
    }

    pub(super) fn checkpoint(self, partition: PartitionId, keys: &Keys) -> Result<Option<Checkpoint>, StoreError> {
        let values = self.values();
        checkpoint(partition, &keys.checkpoint(), values.first().map_or(&[], list))
    }

    pub(super) fn peeked(self, partition: PartitionId, keys: &Keys) -> Result<Peeked, StoreError> {
        let mut values = self.values().into_iter();
        let fields = values.next().unwrap_or(Value::Nil);
        let entity = |value: Value| {
            let Value::Array(parts) = value else { return None };
            let [what, score, from] = <[Value; 3]>::try_from(parts).ok()?;
            let offset = text(&score).and_then(|score| score.parse::<f64>().ok());
            let from = text(&from).and_then(|from| from.parse().ok());
            let there = (stored(what)?, offset.map(|offset| Offset(offset as u64)));
            Some((there, from.map(Offset)))
        };
        let entities: Option<Vec<_>> = values.map(entity).collect();
        let entities = entities.ok_or_else(|| corrupt(partition, "a script's answer", "not of its form".to_owned()))?;
        let (entities, parked) = entities.into_iter().unzip();
        Ok(Peeked {
            checkpoint: checkpoint(partition, &keys.checkpoint(), list(&fields))?,
            entities,
            parked,
        })
    }

    /// The checkpoint, and entities of both kinds.
    pub(super) fn ahead(self, partition: PartitionId, keys: &Keys) -> Result<Ahead, StoreError> {
        let values = self.values();
        let [fields, runs, workers] = values.as_slice() else {
            return Err(corrupt(partition, "a script's answer", format!("{values:?}")));
        };
        let of = |kind, members: &Value| {
            let entity = move |(id, offset): (String, Offset)| Some((Entity::new(kind, &id)?, offset));
            scored(members).into_iter().filter_map(entity)
        };
        let entities = of(Kind::Run, runs).chain(of(Kind::Worker, workers)).collect();
        Ok((checkpoint(partition, &keys.checkpoint(), list(fields))?, entities))
    }

    pub(super) fn loaded(self, partition: PartitionId, expected: usize) -> Result<Vec<Stored>, StoreError> {
        let values = self.values();
        let stored: Option<Vec<_>> = values.into_iter().map(stored).collect();
        stored
            .filter(|stored| stored.len() == expected)
            .ok_or_else(|| corrupt(partition, "a script's answer", "not one part per entity".to_owned()))
    }
}

fn stored(value: Value) -> Option<Stored> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    match number(&parts.next()?)? {
        0 => Some(Stored::Absent),
        3 => Some(Stored::Expired),
        1 => {
            let json = bytes(parts.next()?)?;
            Some(Stored::Document {
                json,
                state: parts.next().and_then(bytes),
            })
        }
        _ => match text(&parts.next()?)? {
            "missing_document" => Some(Stored::Lost),
            _ => Some(Stored::Unreadable("its key holds another type")),
        },
    }
}

pub(super) fn corrupt(partition: PartitionId, what: &str, detail: String) -> StoreError {
    StoreError::Corrupt {
        partition,
        what: what.to_owned(),
        detail,
    }
}

/// A checkpoint from names and values, one after the other; `None` if there are none.
pub(super) fn checkpoint(
    partition: PartitionId,
    key: &str,
    fields: &[Value],
) -> Result<Option<Checkpoint>, StoreError> {
    if fields.is_empty() {
        return Ok(None);
    }
    let get = |name: &str| {
        fields
            .chunks_exact(2)
            .find(|pair| text(&pair[0]) == Some(name))
            .and_then(|pair| text(&pair[1]))
    };
    Checkpoint::from_fields(get)
        .map(Some)
        .map_err(|field| corrupt(partition, key, format!("field `{field}` is missing or not of its form")))
}

/// The field of a mark that an audit found equal to the log.
pub(super) const VERIFIED: &str = "verified";

/// Entries of the history; one that cannot be read is passed over: it is only a place to go back to.
pub(super) fn marks(value: &Value) -> Vec<Mark> {
    let entry = |entry: &Value| {
        let [id, fields] = list(entry) else { return None };
        let fields = list(fields);
        let verified = fields.chunks_exact(2).any(|pair| text(&pair[0]) == Some(VERIFIED));
        Some(Mark {
            id: text(id)?.to_owned(),
            checkpoint: checkpoint(PartitionId(0), "checkpoints", fields).ok().flatten()?,
            verified,
        })
    };
    list(value).iter().filter_map(entry).collect()
}

pub(super) fn parked(fields: &[Value]) -> Vec<(Entity, Offset)> {
    let pair = |pair: &[Value]| {
        let entity = Entity::parse(text(&pair[0])?)?;
        Some((entity, Offset(text(&pair[1])?.parse().ok()?)))
    };
    fields.chunks_exact(2).filter_map(pair).collect()
}

pub(super) fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        _ => &[],
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        other => text(other)?.parse().ok(),
    }
}

//! Reading beside the projector: documents, lists, streams, checkpoints; and whether the server can be trusted.

use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::RedisSettings;
use super::connect::{CONTROL_LANE, Connections, READ_LANE};
use super::keys::Keys;
use super::reply::{self, bytes, list as items, text};
use super::script::Call;
use crate::pure::checkpoint::Checkpoint;
use crate::pure::entity::{Entity, ID_BYTES_MAX};
use crate::pure::place::{Offset, PartitionId};
use crate::store::{ListQuery, Owner, StoreError, StreamEntry};
use crate::telemetry::StoreMemory;

/// How often a waiting reader looks for new events.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Redis of this version and later has the script flags that a commit relies on.
const VERSION_MIN: u32 = 7;

pub(super) fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    for word in words {
        command.arg(word);
    }
    command
}

/// A key of another type is no outage, but something that a person must look at.
pub(super) fn of_another_type(partition: PartitionId, key: &str) -> impl Fn(StoreError) -> StoreError {
    move |error| match error {
        StoreError::Unreachable { detail, .. } if detail.contains("WRONGTYPE") => {
            reply::corrupt(partition, key, "it is of another type than it must be".to_owned())
        }
        other => other,
    }
}

/// Asks for what a key holds.
pub(super) async fn ask(
    connections: &Connections,
    partition: PartitionId,
    key: &str,
    question: &Cmd,
) -> Result<Value, StoreError> {
    let answer = connections.query(READ_LANE, question).await;
    answer.map_err(of_another_type(partition, key))
}

pub(super) async fn checkpoint(
    connections: &Connections,
    partition: PartitionId,
    keys: &Keys,
) -> Result<Option<Checkpoint>, StoreError> {
    let key = keys.checkpoint();
    let fields = ask(connections, partition, &key, &command(&["HGETALL", &key])).await?;
    let flat: Vec<Value> = match fields {
        Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
        Value::Array(values) => values,
        _ => Vec::new(),
    };
    reply::checkpoint(partition, &key, &flat)
}

pub(super) async fn owner(
    connections: &Connections,
    partition: PartitionId,
    keys: &Keys,
) -> Result<Option<Owner>, StoreError> {
    let key = keys.owner();
    let value = ask(connections, partition, &key, &command(&["GET", &key])).await?;
    Ok(text(&value).map(|owner| Owner(owner.to_owned())))
}

pub(super) async fn parked(
    connections: &Connections,
    partition: PartitionId,
    keys: &Keys,
) -> Result<Vec<(Entity, Offset)>, StoreError> {
    let key = keys.parked();
    let value = ask(connections, partition, &key, &command(&["HGETALL", &key])).await?;
    Ok(reply::parked(items(&value)))
}

pub(super) async fn document(
    connections: &Connections,
    partition: PartitionId,
    keys: &Keys,
    entity: &Entity,
) -> Result<Option<Vec<u8>>, StoreError> {
    let key = keys.document(entity);
    match ask(connections, partition, &key, &command(&["GET", &key])).await? {
        Value::Nil => Ok(None),
        value => Ok(bytes(value)),
    }
}

pub(super) async fn list(
    connections: &Connections,
    partition: PartitionId,
    keys: &Keys,
    query: &ListQuery,
) -> Result<Vec<(Offset, Vec<u8>)>, StoreError> {
    if query.limit == 0 {
        return Ok(Vec::new());
    }
    let index = keys.index(query.kind);
    let below = query
        .below
        .map_or_else(|| "+inf".to_owned(), |below| format!("({below}"));
    let mut range = command(&["ZREVRANGEBYSCORE", &index, &below, "-inf", "WITHSCORES"]);
    range.arg("LIMIT").arg(0).arg(query.limit);
    let members = ask(connections, partition, &index, &range).await?;
    let (mut found, mut asked) = (Vec::new(), Vec::new());
    let mut get = command(&["MGET"]);
    for (id, offset) in scored(&members) {
        if let Some(entity) = Entity::new(query.kind, &id) {
            get.arg(keys.document(&entity));
            asked.push(found.len());
        }
        found.push((offset, Vec::new())); // what is no id counts too: a list that is short is at its end
    }
    if asked.is_empty() {
        return Ok(found);
    }
    let documents = connections.query(READ_LANE, &get).await?;
    let Value::Array(documents) = documents else {
        return Err(reply::corrupt(partition, "MGET", "no list".to_owned()));
    };
    for (place, json) in asked.into_iter().zip(documents) {
        found[place].1 = bytes(json).unwrap_or_default();
    }
    Ok(found)
}

/// Members and scores, in RESP2 (flat) or RESP3 (pairs).
pub(super) fn scored(value: &Value) -> Vec<(String, Offset)> {
    let read = |member: &Value, score: &Value| {
        let score = match score {
            Value::Double(score) => *score,
            other => text(other)?.parse::<f64>().ok()?,
        };
        let member = text(member).filter(|member| member.len() <= ID_BYTES_MAX)?;
        Some((member.to_owned(), Offset(score as u64)))
    };
    let values = items(value);
    if values.iter().all(|value| matches!(value, Value::Array(_))) {
        return values
            .iter()
            .filter_map(|pair| read(items(pair).first()?, items(pair).get(1)?))
            .collect();
    }
    values
        .chunks_exact(2)
        .filter_map(|pair| read(&pair[0], &pair[1]))
        .collect()
}

pub(super) async fn events(
    connections: &Connections,
    partition: PartitionId,
    stream: &str,
    (after, limit): (u64, usize),
    wait: Duration,
) -> Result<Vec<StreamEntry>, StoreError> {
    let (from, limit) = (format!("({after}-0"), limit.max(1).to_string());
    let range = command(&["XRANGE", stream, &from, "+", "COUNT", &limit]);
    let until = Instant::now() + wait;
    loop {
        let entries: Vec<_> = items(&ask(connections, partition, stream, &range).await?)
            .iter()
            .filter_map(entry)
            .collect();
        if !entries.is_empty() || Instant::now() >= until {
            return Ok(entries);
        }
        tokio::time::sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
    }
}

fn entry(value: &Value) -> Option<StreamEntry> {
    let [id, fields] = items(value) else { return None };
    let seq = text(id)?.strip_suffix("-0")?.parse().ok()?;
    let pair = items(fields)
        .chunks_exact(2)
        .find(|pair| text(&pair[0]) == Some("event"))?;
    Some(StreamEntry {
        seq,
        json: bytes(pair[1].clone())?,
    })
}

/// Whether the server can be trusted with documents. Returns warnings.
pub(super) async fn check(connections: &Connections, settings: &RedisSettings) -> Result<Vec<String>, StoreError> {
    let mut warnings = Vec::new();
    let address = &connections.address;
    check_version(connections, &mut warnings).await?;
    // A health check runs a script, not PING: an outage elsewhere stayed green on PING.
    let keys = Keys::new(&settings.namespace, PartitionId(0));
    let mut call = Call::release();
    call.key(keys.owner());
    call.argument("nobody");
    call.send(connections, CONTROL_LANE).await?;
    match setting(connections, "maxmemory-policy").await? {
        None => warnings.push(format!(
            "{address}: CONFIG GET is not allowed; make sure that maxmemory-policy is noeviction"
        )),
        Some(policy) if policy == "noeviction" => {}
        Some(policy) if settings.allow_eviction => {
            warnings.push(format!(
                "{address}: maxmemory-policy is {policy}: Redis may drop documents; audits find them missing"
            ));
        }
        Some(policy) => {
            return Err(StoreError::Rejected(format!(
                "the store at {address} has maxmemory-policy {policy}, and would drop documents when memory is short; \
                 run `redis-cli CONFIG SET maxmemory-policy noeviction` (and put it into redis.conf), or set `allow_eviction`"
            )));
        }
    }
    let (append, save) = (
        setting(connections, "appendonly").await?,
        setting(connections, "save").await?,
    );
    if append.as_deref() == Some("no") && save.as_deref() == Some("") {
        warnings.push(format!(
            "{address}: neither appendonly nor save is on: a restart loses all documents, and they are redone from the log"
        ));
    }
    Ok(warnings)
}

/// Of a cluster, the node that is fullest.
pub(super) async fn memory(connections: &Connections) -> Result<Option<StoreMemory>, StoreError> {
    let answer = connections.query(READ_LANE, &command(&["INFO", "memory"])).await?;
    let texts: Vec<&Value> = match &answer {
        Value::Map(nodes) => nodes.iter().map(|(_, text)| text).collect(),
        one => vec![one],
    };
    let nodes = texts.into_iter().filter_map(|info| memory_in(text(info)?));
    let share = |node: &StoreMemory| {
        node.limit_bytes
            .map_or(0, |limit| node.used_bytes.saturating_mul(1_000) / limit)
    };
    Ok(nodes.max_by_key(|node| (share(node), node.used_bytes)))
}

fn memory_in(info: &str) -> Option<StoreMemory> {
    let number = |name: &str| -> Option<u64> {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().parse().ok()
    };
    Some(StoreMemory {
        used_bytes: number("used_memory")?,
        limit_bytes: number("maxmemory").filter(|limit| *limit > 0),
    })
}

async fn check_version(connections: &Connections, warnings: &mut Vec<String>) -> Result<(), StoreError> {
    let address = &connections.address;
    let info = match connections.query(CONTROL_LANE, &command(&["INFO", "server"])).await {
        Ok(info) => info,
        Err(StoreError::Rejected(detail)) if !detail.contains("NOPERM") => return Err(StoreError::Rejected(detail)),
        Err(StoreError::Rejected(_)) => {
            warnings.push(format!(
                "{address}: INFO is not allowed; khala needs Redis {VERSION_MIN}.0 or later"
            ));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let all = match &info {
        Value::VerbatimString { text, .. } => text.as_str(),
        Value::Map(nodes) => nodes.first().and_then(|(_, info)| text(info)).unwrap_or_default(),
        other => text(other).unwrap_or_default(),
    };
    let version = all
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"))
        .unwrap_or_default();
    let major: u32 = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .unwrap_or(VERSION_MIN);
    if major < VERSION_MIN {
        return Err(StoreError::Rejected(format!(
            "the store at {address} is Redis {version}; khala needs {VERSION_MIN}.0 or later"
        )));
    }
    Ok(())
}

/// One setting; `None` if asking is not allowed.
async fn setting(connections: &Connections, name: &str) -> Result<Option<String>, StoreError> {
    let value = match connections
        .query(CONTROL_LANE, &command(&["CONFIG", "GET", name]))
        .await
    {
        Ok(value) => value,
        Err(StoreError::Rejected(_)) => return Ok(None),
        Err(StoreError::Unreachable { detail, .. }) if detail.contains("unknown") => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(match &value {
        Value::Map(pairs) => pairs.first().and_then(|(_, value)| text(value)).map(str::to_owned),
        other => items(other).get(1).and_then(text).map(str::to_owned),
    })
}

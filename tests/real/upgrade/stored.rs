//! What stands in Redis and Kafka, as lines of JSON and back: readable in a diff.

use std::path::Path;

use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use redis::streams::StreamRangeReply;
use serde_json::{Value, json};

use crate::reference::Rec;
use crate::support::redis_server::Redis;
use crate::support::wait::seconds;

/// A text, or the digits of what is none.
fn written(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({"hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()}),
    }
}

fn read(value: &Value) -> Option<Vec<u8>> {
    match value["hex"].as_str() {
        Some(hex) => (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok())
            .collect(),
        None => value.as_str().map(|text| text.as_bytes().to_vec()),
    }
}

/// A record of a topic.
pub fn record(rec: &Rec) -> Value {
    let optional = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or(Value::Null, written);
    let headers = rec.headers.iter().map(|(name, value)| json!([name, optional(value)]));
    json!({
        "partition": rec.partition,
        "offset": rec.offset,
        "timestamp": rec.timestamp_ms,
        "key": optional(&rec.key),
        "value": optional(&rec.value),
        "headers": headers.collect::<Vec<_>>(),
    })
}

/// Puts records back, each into its partition; with the timestamps that they had, or of now.
pub fn put_back(config: &ClientConfig, topic: &str, records: &[Value], with_timestamps: bool) {
    let mut config = config.clone();
    config
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "4000000");
    let producer: FutureProducer = config.create().expect("a legal configuration");
    for one in records {
        let mut headers = OwnedHeaders::new();
        for header in one["headers"].as_array().expect("headers") {
            let (key, value) = (header[0].as_str().expect("a name"), read(&header[1]));
            headers = headers.insert(Header {
                key,
                value: value.as_ref(),
            });
        }
        let (key, value) = (read(&one["key"]), read(&one["value"]));
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(headers);
        record.key = key.as_deref();
        record.payload = value.as_deref();
        record.partition = one["partition"].as_i64().map(|number| number as i32);
        record.timestamp = one["timestamp"].as_i64().filter(|_| with_timestamps);
        drop(producer.send_result(record).expect("room in the producer's queue"));
    }
    producer.flush(seconds(60)).expect("all is sent within a minute");
}

/// All keys that begin so, in order, but for leases.
pub fn keys(redis: &Redis, begin: &str) -> Vec<Value> {
    let mut names: Vec<String> = redis.ask(&["KEYS", &format!("{begin}*")]);
    names.retain(|name| !name.ends_with(":owner"));
    names.sort();
    names.iter().map(|name| key(redis, name)).collect()
}

fn key(redis: &Redis, name: &str) -> Value {
    let kind: String = redis.ask(&["TYPE", name]);
    let value = match kind.as_str() {
        "string" => written(&redis.ask::<Vec<u8>>(&["GET", name])),
        "hash" => json!(redis.ask::<std::collections::BTreeMap<String, String>>(&["HGETALL", name])),
        "zset" => json!(redis.ask::<Vec<(String, u64)>>(&["ZRANGE", name, "0", "-1", "WITHSCORES"])),
        "stream" => {
            let range: StreamRangeReply = redis.ask(&["XRANGE", name, "-", "+"]);
            let entry = |entry: redis::streams::StreamId| {
                let fields: std::collections::BTreeMap<String, String> = entry
                    .map
                    .into_iter()
                    .map(|(name, value)| (name, redis::from_redis_value(value).expect("a text")))
                    .collect();
                json!([entry.id, fields])
            };
            range.ids.into_iter().map(entry).collect()
        }
        other => panic!("{name} is a {other}"),
    };
    json!({"key": name, "type": kind, "value": value})
}

/// Puts keys back.
pub fn put_keys(redis: &Redis, keys: &[Value]) {
    let mut connection = redis.connect();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let bytes = |value: &Value| read(value).unwrap_or_else(|| value.to_string().into_bytes());
    let pairs = |fields: &Value| -> Vec<Vec<u8>> {
        let fields = fields.as_object().expect("fields");
        let pair = |(name, value): (&String, &Value)| [name.clone().into_bytes(), bytes(value)];
        fields.iter().flat_map(pair).collect()
    };
    for one in keys {
        let value = &one["value"];
        let (command, all): (&str, Vec<Vec<Vec<u8>>>) = match one["type"].as_str() {
            Some("string") => ("SET", vec![vec![bytes(value)]]),
            Some("hash") => ("HSET", vec![pairs(value)]),
            Some("zset") => {
                let member = |pair: &Value| vec![bytes(&pair[1]), bytes(&pair[0])];
                ("ZADD", list(value).iter().map(member).collect())
            }
            Some("stream") => {
                let entry = |entry: &Value| [vec![bytes(&entry[0])], pairs(&entry[1])].concat();
                ("XADD", list(value).iter().map(entry).collect())
            }
            other => panic!("{other:?}"),
        };
        for arguments in all {
            let mut call = redis::cmd(command);
            call.arg(one["key"].as_str()).arg(arguments);
            let _: redis::Value = call.query(&mut connection).expect("Redis takes it");
        }
    }
}

/// Lines of JSON.
pub fn text(lines: &[Value]) -> String {
    lines
        .iter()
        .map(|line| format!("{line}\n"))
        .collect::<Vec<_>>()
        .concat()
}

/// Writes lines of JSON.
pub fn write_lines(path: &Path, lines: &[Value]) {
    std::fs::write(path, text(lines)).expect("a file");
}

/// Reads them, with this text in place of another.
pub fn read_lines(path: &Path, (from, to): (&str, &str)) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = text.replace(from, to);
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

//! The consumer that one writes in an afternoon: poll, one pipeline a batch to Redis, commit. `naive` counts with HINCRBY;
//! `careful` has a script that leaves out a sequence that is not above the last one.

use std::error::Error;
use std::time::Duration;
use std::{env, thread};

use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::BorrowedMessage;
use serde_json::Value;

const BATCH_EVENTS_MAX: usize = 500;
const FOLD: &str = "
if tonumber(ARGV[1]) <= tonumber(redis.call('HGET', KEYS[1], 'latest_seq') or '0') then return 0 end
redis.call('HINCRBY', KEYS[1], 'event_count', 1)
redis.call('HSET', KEYS[1], 'latest_seq', ARGV[1])
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'status', ARGV[2]) end
return 1";

fn main() -> Result<(), Box<dyn Error>> {
    let is_careful = env::args().nth(1).is_some_and(|mode| mode == "careful");
    let mut redis = redis::Client::open(format!("redis://{}", env::var("PEER_REDIS")?))?.get_connection()?;
    let script: String = redis::cmd("SCRIPT").arg("LOAD").arg(FOLD).query(&mut redis)?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", env::var("PEER_BROKER")?)
        .set("group.id", env::var("PEER_GROUP")?)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .create()?;
    consumer.subscribe(&[&env::var("PEER_TOPIC")?])?;
    loop {
        let batch = poll(&consumer);
        if batch.is_empty() {
            continue;
        }
        let mut pipe = redis::pipe();
        for message in &batch {
            let event: Value = serde_json::from_slice(message.payload().unwrap_or_default())?;
            let key = message.key().unwrap_or_default();
            let sequence = event["sequence"].as_str().unwrap_or("0");
            if is_careful {
                let call = pipe.cmd("EVALSHA").arg(&script).arg(1).arg(key).arg(sequence);
                call.arg(status(&event)).ignore();
            } else {
                pipe.cmd("HINCRBY").arg(key).arg("event_count").arg(1).ignore();
                let call = pipe.cmd("HSET").arg(key).arg("latest_seq").arg(sequence);
                match status(&event) {
                    "" => call.ignore(),
                    status => call.arg("status").arg(status).ignore(),
                };
            }
        }
        // A store that is away, or was emptied of its scripts, must not kill the consumer in the middle of a comparison.
        while let Err(error) = pipe.query::<()>(&mut redis) {
            eprintln!("redis: {error}");
            let _: Result<String, _> = redis::cmd("SCRIPT").arg("LOAD").arg(FOLD).query(&mut redis);
            thread::sleep(Duration::from_millis(100));
        }
        consumer.commit_consumer_state(CommitMode::Async)?;
    }
}

fn poll(consumer: &BaseConsumer) -> Vec<BorrowedMessage<'_>> {
    let mut batch = Vec::with_capacity(BATCH_EVENTS_MAX);
    let mut wait = Duration::from_millis(100);
    while batch.len() < BATCH_EVENTS_MAX {
        match consumer.poll(wait) {
            Some(Ok(message)) => batch.push(message),
            Some(Err(error)) => eprintln!("kafka: {error}"),
            None => break,
        }
        wait = Duration::ZERO;
    }
    batch
}

/// What an event says about the run's status; nothing for most.
fn status(event: &Value) -> &str {
    match event["type"].as_str() {
        Some("run.created") => "queued",
        Some("run.started") => "running",
        Some("run.finished") => event["data"]["status"].as_str().unwrap_or(""),
        _ => "",
    }
}

//! librdkafka's properties: those that correctness rests on are ours, the others have defaults that a user may change.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::KafkaSettings;
use crate::log::LogError;

/// What correctness rests on: a user's value is refused.
const OURS: &[(&str, &str, Use)] = &[
    ("enable.auto.commit", "false", Use::Consumer),
    ("enable.auto.offset.store", "false", Use::Consumer),
    ("check.crcs", "true", Use::Consumer),
    ("isolation.level", "read_committed", Use::Consumer),
    ("enable.partition.eof", "true", Use::Consumer),
    ("enable.idempotence", "true", Use::Producer),
    ("acks", "all", Use::Producer),
];

/// Set from elsewhere: also refused.
const ELSEWHERE: &[(&str, &str)] = &[
    ("bootstrap.servers", "the setting `log`"),
    ("metadata.broker.list", "the setting `log`"),
    ("group.id", "the setting `namespace`"),
    ("auto.offset.reset", "the recovery table"),
    ("partitioner", "the setting `partitioner`"),
    ("request.required.acks", "khala: acks=all"),
];

/// Defaults for this use: small memory, short waits (FIELD.md's measurements).
const DEFAULTS: &[(&str, &str, Use)] = &[
    ("client.id", "khala", Use::Any),
    ("log.connection.close", "false", Use::Any),
    ("socket.keepalive.enable", "true", Use::Any),
    ("socket.nagle.disable", "true", Use::Any),
    ("topic.metadata.refresh.interval.ms", "5000", Use::Any),
    ("reconnect.backoff.max.ms", "2000", Use::Any),
    ("statistics.interval.ms", "10000", Use::Any),
    ("fetch.queue.backoff.ms", "2", Use::Consumer),
    ("fetch.wait.max.ms", "100", Use::Consumer),
    ("fetch.error.backoff.ms", "100", Use::Consumer),
    // More would only wait, at 700 bytes each for 300 of payload, and for each partition.
    ("queued.min.messages", "4000", Use::Consumer),
    ("queued.max.messages.kbytes", "8192", Use::Consumer),
    // Whoever waits for an acknowledgement pays for any linger at least a millisecond; under load batches fill
    // while five requests are under way.
    ("linger.ms", "0", Use::Producer),
    ("compression.type", "lz4", Use::Producer),
    ("message.timeout.ms", "30000", Use::Producer),
    ("queue.buffering.max.kbytes", "65536", Use::Producer),
    ("sticky.partitioning.linger.ms", "0", Use::Producer),
];

/// Other names that librdkafka has for defaults above. Two names of one property would be set in no certain order.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
];

/// For reading single records.
const LOOKING: &[(&str, &str)] = &[("fetch.wait.max.ms", "2"), ("queued.min.messages", "1")];

/// Properties that librdkafka refuses beside `group.protocol=consumer` (KIP-848).
const CLASSIC_ONLY: &[(&str, &str)] = &[
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "1000"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Any,
    Consumer,
    Producer,
}

/// What a client is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// Fetches.
    Fetch,
    /// Asks and compares.
    Ask,
    /// Reads single records: the next question must not wait for a fetch behind the last one's answer.
    Look,
    /// Is a member of the group.
    Member,
    /// Appends.
    Produce,
}

/// Refuses properties that are not the user's to set.
///
/// # Errors
/// `Refused`: what khala promises rests on one, or it is set from elsewhere.
pub fn check(properties: &BTreeMap<String, String>) -> Result<(), LogError> {
    for (name, value) in properties {
        if let Some((_, ours, _)) = OURS.iter().find(|(ours, _, _)| ours == name)
            && value != ours
        {
            let why = "what khala promises rests on it";
            return Err(LogError::Refused(format!(
                "[kafka] {name} = {value:?}: must be {ours:?}, {why}; remove it"
            )));
        }
        if let Some((_, place)) = ELSEWHERE.iter().find(|(theirs, _)| theirs == name) {
            return Err(LogError::Refused(format!(
                "[kafka] {name}: is set by {place}; remove it"
            )));
        }
    }
    Ok(())
}

/// The configuration of one client.
pub(super) fn config(settings: &KafkaSettings, client: Client) -> ClientConfig {
    let mut config = ClientConfig::new();
    let side = if client == Client::Produce {
        Use::Producer
    } else {
        Use::Consumer
    };
    for (name, value, side_of) in DEFAULTS {
        if *side_of == Use::Any || *side_of == side {
            config.set(*name, *value);
        }
    }
    let next_generation = settings
        .properties
        .get("group.protocol")
        .is_some_and(|protocol| protocol == "consumer");
    if side == Use::Consumer {
        config.set("group.id", &settings.group);
        config.set(
            "auto.offset.reset",
            if client == Client::Member { "latest" } else { "error" },
        );
        if !next_generation {
            CLASSIC_ONLY
                .iter()
                .for_each(|(name, value)| _ = config.set(*name, *value));
        }
    }
    for (name, value) in &settings.properties {
        let known = OTHER_NAMES.iter().find(|(other, _)| other == name);
        config.set(known.map_or(name.as_str(), |(_, ours)| *ours), value);
    }
    for (name, value, side_of) in OURS {
        if *side_of == side {
            config.set(*name, *value);
        }
    }
    if client == Client::Look {
        LOOKING.iter().for_each(|(name, value)| _ = config.set(*name, *value));
    }
    if side == Use::Producer {
        let largest = (2 * settings.max_event_bytes + super::HEADER_BYTES).max(1 << 20);
        config.set("message.max.bytes", largest.to_string());
    }
    if matches!(client, Client::Ask | Client::Look) {
        config.set("statistics.interval.ms", "0"); // what they do is seldom, and no part of the way of an event
    }
    config.set("bootstrap.servers", &settings.bootstrap);
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::place::Partitioner;

    fn refused(name: &str, value: &str) -> Option<String> {
        check(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn a_user_s_value_replaces_the_default_by_whatever_name() {
        for (other, ours) in OTHER_NAMES {
            let settings = KafkaSettings {
                bootstrap: "localhost:9092".to_owned(),
                topic: "t".to_owned(),
                group: "g".to_owned(),
                partitions: 1,
                replication_factor: None,
                partitioner: Partitioner::Murmur2,
                max_event_bytes: 1,
                properties: BTreeMap::from([((*other).to_owned(), "7".to_owned())]),
            };
            for client in [Client::Fetch, Client::Produce] {
                let config = config(&settings, client);
                assert_eq!((config.get(other), config.get(ours)), (None, Some("7")), "{other}");
            }
        }
    }

    #[test]
    fn what_promises_rest_on_is_not_the_user_s_to_set() {
        for (name, value) in [
            ("acks", "1"),
            ("auto.offset.reset", "latest"),
            ("isolation.level", "read_uncommitted"),
        ] {
            assert!(refused(name, value).is_some_and(|error| error.contains(name)), "{name}");
        }
        assert_eq!(refused("acks", "all"), None);
        assert_eq!(refused("session.timeout.ms", "6000"), None);
    }
}

//! Headers, also where a record has none and its value looks as if it had: read as they were written.

use rdkafka::config::ClientConfig;

use super::topic;
use super::world::World;
use crate::reference::messy::Message;
use crate::support::redis_server::Keeps;

type Headers = Vec<(String, Option<Vec<u8>>)>;

/// None, one, one without a value, empty ones, and more than a byte counts.
fn kinds() -> Vec<Headers> {
    let one = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
    vec![
        vec![],
        vec![one("a", Some(b"1"))],
        vec![one("null", None)],
        vec![one("", Some(b""))],
        (0..70).map(|n| one("many", Some(&[n]))).collect(),
    ]
}

/// Records that are no events: their dead letters tell what was read of them. Lengths at which their own size grows.
fn garbage() -> Vec<Message> {
    let mut messages = Vec::new();
    for bytes in [0, 1, 63, 64, 8_191, 8_192, 100_000] {
        for fill in [0_u8, 2, 0xff] {
            for key in [None, Some(vec![]), Some(vec![b'k'; 63]), Some(vec![b'k'; 64])] {
                for headers in kinds() {
                    messages.push(Message {
                        partition: Some(0),
                        key: key.clone(),
                        value: (fill != 2 || bytes > 0).then(|| vec![fill; bytes]),
                        headers,
                    });
                }
            }
        }
    }
    messages
}

#[test]
fn headers_are_read_as_they_were_written_and_where_there_are_none_none() {
    let world = World::new("headers", 1, 100, Keeps::Dumps);
    let khala = world.khala("one");
    let messages = garbage();
    for codec in ["none", "lz4", "zstd", "gzip", "snappy"] {
        let mut config: ClientConfig = world.config();
        topic::send(config.set("compression.type", codec), &world.cluster.topic, &messages);
    }
    let sent = world.read_back();
    world.settle();
    let letters = topic::read_back(&world.config(), &format!("{}.dead-letters", world.cluster.topic));
    assert_eq!(letters.len(), sent.len());
    for (letter, record) in letters.iter().zip(&sent) {
        let theirs: Headers = letter
            .headers
            .iter()
            .filter(|(name, _)| !name.starts_with("khala_"))
            .cloned()
            .collect();
        let bytes = [&record.key, &record.value].map(|part| part.as_ref().map(Vec::len));
        assert_eq!(
            theirs, record.headers,
            "at {}: key and value of {bytes:?} bytes",
            record.offset
        );
        assert_eq!((&letter.key, &letter.value), (&record.key, &record.value));
    }
    assert_eq!(khala.term(), Some(0));
}

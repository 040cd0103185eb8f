//! What is refused, with which words, and what is not although it looks strange.

use khala::config::LogTarget;

use crate::{Place, env_refusal, load_all};

/// What the loading of a file with these lines says.
fn refusal(toml: &str) -> String {
    let error = Place::with(toml).load(&[], &[]).expect_err(toml);
    // Without the directory, which is another in each run.
    error
        .rsplit_once("/khala.toml:")
        .map_or(error.clone(), |(_, rest)| rest.to_owned())
}

#[test]
fn what_is_unknown_is_refused_with_its_place_and_the_nearest_name() {
    let rows = [
        (
            "topic = \"t\"\nstroe = \"redis://h\"",
            "2: unknown key `stroe`; did you mean `store`?",
        ),
        ("[kafak]\nx = 1", "1: unknown key `kafak`; did you mean `kafka`?"),
        (
            "kafka = 1",
            "1: unknown key `kafka`; librdkafka's properties go under `[kafka]`",
        ),
        (
            "batch-bytes = 1",
            "1: unknown key `batch-bytes`; did you mean `batch_bytes`?",
        ),
        ("colour = 1", "1: unknown key `colour`; the nearest legal one is `log`"),
        (
            "[log]\nlevel = \"debug\"",
            "1: `log` takes a text, a number, or true or false",
        ),
        (
            "topic_file = \"x\"",
            "1: unknown key `topic_file`; did you mean `token_file`?",
        ),
    ];
    for (toml, said) in rows {
        assert_eq!(refusal(toml), said);
    }
    let rows = [
        (
            "KHALA_STROE",
            "environment KHALA_STROE: unknown variable; did you mean `KHALA_STORE`?",
        ),
        (
            "KHALA_HOME",
            "environment KHALA_HOME: unknown variable; the nearest legal one is `KHALA_HTTP`",
        ),
        (
            "KHALA_KAFKA_ACKS",
            "environment KHALA_KAFKA_ACKS: unknown variable; did you mean `KHALA_KAFKA__ACKS`, with two underscores?",
        ),
    ];
    for (variable, said) in rows {
        assert_eq!(env_refusal(variable, "x"), said);
    }
}

#[test]
fn a_bad_value_is_refused_with_its_place_and_what_is_legal() {
    let rows = [
        (
            "\nowner_lease = 10",
            "2: `owner_lease`: `10` is not a time span, as in `500ms`, `10s` or `2m`",
        ),
        (
            "owner_lease = \"500ms\"",
            "1: `owner_lease`: 500ms is not from 1s to 10m",
        ),
        (
            "batch_bytes = \"8mb\"",
            "1: `batch_bytes`: `8mb` is not a size, as in `8MiB`, `64KiB` or `1000`",
        ),
        (
            "max_event_bytes = \"101MiB\"",
            "1: `max_event_bytes`: 101MiB is not from 1KiB to 100MiB",
        ),
        (
            "partitioner = \"murmur3\"",
            "1: `partitioner`: `murmur3` is not one of murmur2, crc32",
        ),
        ("partitions = 0", "1: `partitions`: `0` is not a number from 1 to 10000"),
        (
            "allow_eviction = \"yes\"",
            "1: `allow_eviction`: `yes` is not one of true, false",
        ),
        (
            "namespace = \"a b\"",
            "1: `namespace`: `a b` is not 1–64 of A–Z a–z 0–9 . _ -",
        ),
        (
            "topic = 2026-01-01",
            "1: `topic` takes a text, a number, or true or false",
        ),
        (
            "http = \"7600\"",
            "1: `http`: `7600` is not `address:port`, as in `127.0.0.1:7600`",
        ),
        (
            "log = \"kafka://a\"",
            "1: `log`: `a` in the log's address is not `host:port`",
        ),
    ];
    for (toml, said) in rows {
        assert_eq!(refusal(toml), said);
    }
    let syntax = refusal("topic = \"a\"\nstore = redis://x:pa55@h");
    assert!(syntax.starts_with("2: ") && !syntax.contains("pa55"), "{syntax}");
}

#[test]
fn a_weaker_layer_is_checked_even_where_a_stronger_one_wins() {
    let place = Place::with("partitions = 0");
    assert!(place.load(&[], &[("partitions", "3")]).is_err());
}

#[test]
fn the_log_is_not_mistaken_for_the_log_level() {
    let said = env_refusal("KHALA_LOG", "debug");
    assert!(said.ends_with("the log level is KHALA_LOG_LEVEL"), "{said}");
    let said = env_refusal("KHALA_LOG_LEVEL", "embedded:khala-data");
    assert!(
        said.starts_with("environment KHALA_LOG_LEVEL: `embedded:khala-data` is not one of off, error"),
        "{said}"
    );
    assert_eq!(
        env_refusal("KHALA_LOG_FORMAT", "xml"),
        "environment KHALA_LOG_FORMAT: `xml` is not one of text, json"
    );
}

#[test]
fn limits_that_do_not_fit_each_other_are_refused_by_name() {
    let said = Place::with("max_event_bytes = \"10MiB\"").load(&[], &[]).unwrap_err();
    assert!(
        said.starts_with("settings: `batch_bytes` (8MiB, default) is less than `max_event_bytes` (10MiB, "),
        "{said}"
    );
    assert!(
        said.ends_with("raise `batch_bytes` or lower `max_event_bytes`"),
        "{said}"
    );
}

#[test]
fn off_loopback_needs_a_token_file() {
    let said = load_all(None, &[], &[("http", "0.0.0.0:7600")]).unwrap_err();
    assert!(
        said.starts_with("--http: `http` 0.0.0.0:7600 can be reached") && said.contains("--token-file"),
        "{said}"
    );
    assert!(load_all(None, &[], &[("http", "0.0.0.0:7600"), ("token_file", "tokens")]).is_ok());
    for http in ["127.0.0.1:0", "[::1]:7600", "localhost:7600"] {
        assert!(load_all(None, &[], &[("http", http)]).is_ok(), "{http}");
    }
}

#[test]
fn what_kubernetes_sets_for_a_service_called_khala_is_no_mistake() {
    let env = [
        ("KHALA_SERVICE_HOST", "10.0.0.1"),
        ("KHALA_SERVICE_PORT", "7600"),
        ("KHALA_SERVICE_PORT_HTTP", "7600"),
        ("KHALA_PORT", "tcp://10.0.0.1:7600"),
        ("KHALA_PORT_7600_TCP", "tcp://10.0.0.1:7600"),
        ("KHALA_PORT_7600_TCP_PROTO", "tcp"),
        ("KHALA_PORT_7600_TCP_ADDR", "10.0.0.1"),
        ("KHALA_PORT_7600_TCP_PORT", "7600"),
        ("KHALA_LOG", "kafka://kafka:9092"),
    ];
    assert_eq!(
        load_all(None, &env, &[]).unwrap().settings.log,
        LogTarget::Kafka("kafka:9092".into())
    );
}

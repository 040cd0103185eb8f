//! What a deployment mounts is legal: the manifests for Kubernetes, the systemd unit, the rights in Kafka.

use std::path::Path;
use std::process::Command;

use super::compare::{Allow, assert_exact};
use super::http_wire::certificate;
use super::openapi::{must_pass, python};
use super::topologies::documented_rights;
use super::world::World;
use crate::support::broker::Kafka;
use crate::support::guarded::{free_port, temp_dir};
use crate::support::khala::{Khala, bare_run};
use crate::support::redis_server::{Keeps, Redis};

fn file(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

#[test]
fn the_manifests_are_legal_and_their_settings_are_too() {
    let settings = must_pass(Command::new(python("python")).args([
        file("tests/scripts/manifests.py"),
        file("config/kubernetes/khala.yaml"),
        file("config/kubernetes/monitoring.yaml"),
    ]));
    let dir = temp_dir("manifests");
    for (name, text) in [
        ("tokens", "operate 0123456789abcdef0123456789abcdef"),
        ("store", "redis://khala:secret@redis:6379"),
        ("kafka-password", "secret"),
    ] {
        write(&dir.path().join(name), text);
    }
    let secrets = "/run/secrets/khala";
    assert!(settings.contains(secrets), "{settings}");
    let path = dir.path().join("khala.toml");
    write(&path, &settings.replace(secrets, &dir.path().display().to_string()));
    let password = dir.path().join("kafka-password").display().to_string();
    let args = ["config", "check", "--config", &path.display().to_string()].map(str::to_owned);
    let checked = bare_run(&args, &[("KHALA_KAFKA__SASL_PASSWORD_FILE".to_owned(), password)]);
    let said = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{said}");
    let shown = String::from_utf8_lossy(&checked.stdout);
    assert!(shown.contains("kafka://kafka:9092"), "{shown}");
    assert!(!shown.contains("secret@"), "a secret is shown: {shown}");
}

#[test]
fn the_systemd_unit_is_legal_and_gives_away_little() {
    let unit = std::fs::read_to_string(file("config/systemd/khala.service")).expect("the unit");
    let dir = temp_dir("unit");
    let path = dir.path().join("khala.service");
    // systemd looks whether the program is there.
    write(
        &path,
        &unit.replace("/usr/local/bin/khala", env!("CARGO_BIN_EXE_khala")),
    );
    let verified = Command::new("systemd-analyze").arg("verify").arg(&path).output();
    let verified = verified.expect("systemd-analyze runs (scripts/install-test-servers brings it)");
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(!said.contains("khala.service"), "{said}");
    // Tenths: what the file promises is less than 2.
    must_pass(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=19"])
            .arg(&path),
    );
}

/// Settings of a user that logs in, and whom it trusts.
fn as_user(name: &str, password: &str, certificate: &str) -> Vec<(String, String)> {
    [
        ("KHALA_KAFKA__SECURITY_PROTOCOL", "SASL_SSL"),
        ("KHALA_KAFKA__SASL_MECHANISM", "SCRAM-SHA-512"),
        ("KHALA_KAFKA__SASL_USERNAME", name),
        ("KHALA_KAFKA__SASL_PASSWORD", password),
        ("KHALA_KAFKA__SSL_CA_LOCATION", certificate),
        ("SSL_CERT_FILE", certificate),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A Redis that speaks TLS too, and its address there for a user with the documented rights.
fn guarded_redis(certificate: &str, key: &str) -> (Redis, String) {
    let port = free_port().to_string();
    let tls = [
        ["--tls-port", &port],
        ["--tls-cert-file", certificate],
        ["--tls-key-file", key],
        ["--tls-ca-cert-file", certificate],
        ["--tls-auth-clients", "no"],
    ];
    let redis = Redis::start_as(Keeps::AppendOnly, tls.as_flattened());
    let rights = documented_rights();
    let _: String = redis.ask(&rights.iter().map(String::as_str).collect::<Vec<_>>());
    (redis, format!("rediss://khala:secret@127.0.0.1:{port}"))
}

#[test]
fn with_tls_and_just_the_documented_rights_in_kafka_and_redis_it_does_all_it_does() {
    let dir = temp_dir("guarded");
    let (certificate_file, key_file) = certificate(dir.path());
    let (trusted, key) = (certificate_file.display().to_string(), key_file.display().to_string());
    let pem = dir.path().join("kafka.pem");
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file of ours");
    write(&pem, &(read(&key_file) + &read(&certificate_file)));
    let (kafka, guarded) = Kafka::start_guarded(&pem);
    let mut world = World::with_brokers(kafka, "khala", 3, 3_000, Kafka::create_topic);
    let (redis, store) = guarded_redis(&trusted, &key);
    world.redis = redis;
    let mut cluster = world.cluster.clone();
    (cluster.log, cluster.store) = (format!("kafka://{guarded}"), store);
    let asked = |command: &[&str], user: &str, password: &str| {
        let mut args: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        args.extend(cluster.flags());
        let output = bare_run(&args, &as_user(user, password, &trusted));
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = asked(&["config", "check", "--connect"], "khala", "wrong");
    assert_eq!(code, Some(5), "{said}");
    assert!(said.to_lowercase().contains("authentication"), "{said}");
    let (code, said) = asked(&["topics", "apply"], "other", "secret");
    assert_ne!(code, Some(0), "no rights: {said}");
    let given = must_pass(Command::new(python("python")).args([
        file("tests/scripts/acls.py"),
        world.kafka().address(),
        file("docs/deployment.md"),
    ]));
    assert_eq!(given.trim(), "5");
    let (code, said) = asked(&["topics", "apply"], "khala", "secret");
    assert_eq!(code, Some(0), "{said}");
    let user = as_user("khala", "secret", &trusted);
    let user: Vec<(&str, &str)> = user
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let khala = Khala::start_with(world.dir(), &cluster, "one", &[], &user);
    khala.wait_ready();
    world.produce(3_000);
    assert_exact(&world, Allow::default());
    for command in [
        &["status"][..],
        &["audit"],
        &["snapshot"],
        &["replay", "--from", "earliest"],
        &["dead-letters", "list"],
        &["checkpoints"],
    ] {
        let (code, said) = asked(command, "khala", "secret");
        assert_eq!(code, Some(0), "{command:?}: {said}");
        assert!(!said.to_lowercase().contains("authorization"), "{command:?}: {said}");
    }
    assert_exact(&world, Allow::AFTER_A_FAULT);
    // Their processes end while connections are being made: one in a hundred crashed there, under load.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..15 {
                    let (code, said) = asked(&["get", "run", "none"], "khala", "secret");
                    assert_eq!(code, Some(4), "{said}");
                }
            });
        }
    });
    let refused: Vec<redis::Value> = world.redis.ask(&["ACL", "LOG"]);
    assert!(refused.is_empty(), "Redis refused: {refused:?}");
    assert_eq!(khala.term(), Some(0));
}

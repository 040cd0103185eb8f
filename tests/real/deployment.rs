//! What a deployment mounts is legal: the manifests for Kubernetes, the systemd unit, the rights in Kafka.

use std::path::Path;
use std::process::Command;

use super::compare::{Allow, assert_exact};
use super::openapi::{must_pass, python};
use super::world::World;
use crate::support::broker::Kafka;
use crate::support::guarded::temp_dir;
use crate::support::khala::{Khala, bare_run};

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

/// Settings of a user that logs in.
fn as_user(name: &str, password: &str) -> Vec<(String, String)> {
    [
        ("KHALA_KAFKA__SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("KHALA_KAFKA__SASL_MECHANISM", "PLAIN"),
        ("KHALA_KAFKA__SASL_USERNAME", name),
        ("KHALA_KAFKA__SASL_PASSWORD", password),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

#[test]
fn the_documented_rights_in_kafka_are_enough_and_without_them_it_says_so() {
    let (kafka, guarded) = Kafka::start_guarded();
    let mut world = World::with_brokers(kafka, "khala", 3, 3_000, Kafka::create_topic);
    let mut cluster = world.cluster.clone();
    cluster.log = format!("kafka://{guarded}");
    let asked = |command: &[&str], user: &str, password: &str| {
        let mut args: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        args.extend(cluster.flags());
        let output = bare_run(&args, &as_user(user, password));
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
    let user = as_user("khala", "secret");
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
    assert_eq!(khala.term(), Some(0));
}

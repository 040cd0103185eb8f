//! Settings as people give them: which layer wins, what is refused and with which words, what is hidden.

mod refused;
mod secrets;

use std::path::{Path, PathBuf};
use std::time::Duration;

use khala::config::{Flags, KEYS, Loaded, Settings, load};

/// A directory with a settings file in it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn with(toml: &str) -> Self {
        let place = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        place.write("khala.toml", toml);
        place
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a writable directory");
        path
    }

    fn load(&self, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Loaded, String> {
        load_all(Some(&self.dir.path().join("khala.toml")), env, flags)
    }
}

fn load_all(file: Option<&Path>, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Loaded, String> {
    let flags = Flags {
        config: file.map(Path::to_path_buf),
        values: flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect(),
    };
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&flags, env).map_err(|error| error.to_string())
}

fn env_refusal(name: &str, value: &str) -> String {
    load_all(None, &[(name, value)], &[]).expect_err(name)
}

fn row(loaded: &Loaded, key: &str) -> (String, String) {
    let row = loaded
        .rows()
        .into_iter()
        .find(|row| row.key == key)
        .unwrap_or_else(|| panic!("no row {key}"));
    (row.value, row.origin)
}

#[test]
fn the_example_file_holds_every_key_with_its_default() {
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/khala.toml")).unwrap();
    assert!(
        load_all(Some(Path::new("config/khala.toml")), &[], &[]).is_ok(),
        "as it is"
    );

    // Prose has a blank behind its `#`, a setting has none.
    let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let (before_kafka, kafka) = example.split_once("#[kafka]").expect("a [kafka] table");
    let settings: Vec<&str> = before_kafka
        .lines()
        .filter(|line| is_setting(line))
        .map(|line| &line[1..])
        .collect();
    let place = Place::with(&settings.join("\n"));
    let loaded = place.load(&[], &[]).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    for key in KEYS {
        let (_, origin) = row(&loaded, key.name);
        assert!(
            origin.contains("khala.toml:"),
            "`{}` is not in the example: {origin}",
            key.name
        );
    }

    let secret = place.write("secret", "hush");
    let kafka: Vec<&str> = kafka
        .lines()
        .filter(|line| is_setting(line))
        .map(|line| &line[1..])
        .collect();
    let kafka = kafka
        .join("\n")
        .replace("/run/secrets/kafka-password", secret.to_str().unwrap());
    let loaded = Place::with(&format!("[kafka]\n{kafka}")).load(&[], &[]).unwrap();
    assert_eq!(loaded.settings.kafka["sasl.password"], "hush");
    assert_eq!(loaded.settings.kafka["session.timeout.ms"], "10000");
}

#[test]
fn every_default_reads_back_as_it_is_shown() {
    for row in load_all(None, &[], &[]).unwrap().rows() {
        let key = khala::config::key(&row.key).unwrap();
        assert_eq!(
            (row.value.as_str(), row.origin.as_str()),
            (key.default, "default"),
            "{}",
            row.key
        );
    }
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let place = Place::with("topic = \"file\"\nnamespace = \"file\"\nhistory_kept = 5\nowner_lease = \"20s\"\n");
    let env = [
        ("KHALA_TOPIC", "env"),
        ("KHALA_NAMESPACE", "env"),
        ("KHALA_BATCH_BYTES", "16MiB"),
        ("HOME", "/root"),
    ];
    let loaded = place.load(&env, &[("topic", "flag")]).unwrap();
    assert_eq!(row(&loaded, "topic"), ("flag".into(), "--topic".into()));
    assert_eq!(
        row(&loaded, "namespace"),
        ("env".into(), "environment KHALA_NAMESPACE".into())
    );
    assert!(row(&loaded, "history_kept").1.ends_with("khala.toml:3"));
    assert_eq!(row(&loaded, "backoff_max"), ("5s".into(), "default".into()));
    assert_eq!(loaded.settings.owner_lease, Duration::from_secs(20));
    assert_eq!(loaded.settings.batch_bytes, 16 << 20);
}

#[test]
fn the_environment_may_name_the_file_and_an_empty_variable_says_nothing() {
    let place = Place::with("topic = \"file\"");
    let path = place.dir.path().join("khala.toml");
    let env = [("KHALA_CONFIG", path.to_str().unwrap()), ("KHALA_TOPIC", "")];
    assert_eq!(load_all(None, &env, &[]).unwrap().settings.topic, "file");

    let missing = env_refusal("KHALA_CONFIG", "/nowhere/khala.toml");
    assert!(
        missing.starts_with("environment KHALA_CONFIG: cannot read /nowhere/khala.toml: "),
        "{missing}"
    );
}

#[test]
fn kafka_properties_go_by_their_own_names_in_every_layer() {
    let toml =
        "[kafka]\n\"client.id\" = \"file\"\nsession.timeout.ms = 6000\nenable.ssl.certificate.verification = true\n";
    let env = [
        ("KHALA_KAFKA__SESSION_TIMEOUT_MS", "7000"),
        ("KHALA_KAFKA__DEBUG", "all"),
    ];
    let loaded = Place::with(toml).load(&env, &[]).unwrap();
    let kafka: Vec<(&str, &str)> = loaded
        .settings
        .kafka
        .iter()
        .map(|(key, value)| (&**key, &**value))
        .collect();
    let expected = [
        ("client.id", "file"),
        ("debug", "all"),
        ("enable.ssl.certificate.verification", "true"),
        ("session.timeout.ms", "7000"),
    ];
    assert_eq!(kafka, expected);
    let origin = row(&loaded, "kafka.session.timeout.ms").1;
    assert_eq!(origin, "environment KHALA_KAFKA__SESSION_TIMEOUT_MS");
    let twice = Place::with("[kafka]\n\"sasl.password\" = \"a\"\nsasl.password_file = \"b\"")
        .load(&[], &[])
        .unwrap_err();
    assert!(
        twice.contains("khala.toml:3: `kafka.sasl.password` is given twice, also at "),
        "{twice}"
    );
}

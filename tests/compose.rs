//! docker-compose.yml and the Dockerfile against the settings, the crate and each other: no engine is needed to
//! see that a port, a name, a version or a mounted file does not fit.

use std::collections::BTreeMap;
use std::path::Path;

use khala::config::{Flags, LogTarget, Settings, StoreTarget, load};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(name: &str) -> String {
    let path = Path::new(ROOT).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The little of YAML that our file uses: maps by indentation, lists of `- item` or `[a, b]`, plain and quoted
/// scalars. Each value under its path, as `services/kafka/image`.
struct Yaml(BTreeMap<String, Vec<String>>);

impl Yaml {
    fn read(text: &str) -> Self {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut path: Vec<(usize, String)> = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        {
            let indent = line.len() - line.trim_start().len();
            let line = line.trim();
            path.retain(|(depth, _)| *depth < indent);
            let place =
                |path: &[(usize, String)]| path.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join("/");
            if let Some(item) = line.strip_prefix("- ") {
                values.entry(place(&path)).or_default().push(scalar(item));
                continue;
            }
            let (key, value) = line
                .split_once(':')
                .unwrap_or_else(|| panic!("not `key: value`: {line}"));
            path.push((indent, scalar(key)));
            let found = values.entry(place(&path)).or_default();
            match value.trim().strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
                Some(list) => found.extend(list.split("\", \"").map(|item| scalar(item.trim_matches('"')))),
                None if value.trim().is_empty() => {}
                None => found.push(scalar(value)),
            }
        }
        Self(values)
    }

    fn list(&self, path: &str) -> &[String] {
        self.0
            .get(path)
            .unwrap_or_else(|| panic!("docker-compose.yml has no {path}"))
    }

    fn one(&self, path: &str) -> &str {
        match self.list(path) {
            [one] => one,
            other => panic!("{path} is {other:?}"),
        }
    }

    /// Keys directly below `path`.
    fn keys(&self, path: &str) -> Vec<&str> {
        let below = self
            .0
            .keys()
            .filter_map(|key| key.strip_prefix(path)?.strip_prefix('/'));
        below.filter(|key| !key.contains('/')).collect()
    }
}

fn scalar(text: &str) -> String {
    text.trim().trim_matches('"').to_owned()
}

fn compose() -> Yaml {
    Yaml::read(&read("docker-compose.yml"))
}

/// Khala's settings as its container gets them, with the mounted file as it is here.
fn settings(yaml: &Yaml) -> Settings {
    let path = "services/khala/environment";
    let env = yaml
        .keys(path)
        .into_iter()
        .map(|name| (name.to_owned(), yaml.one(&format!("{path}/{name}")).to_owned()));
    let flags = Flags {
        config: Some(Path::new(ROOT).join("config/khala.toml")),
        values: Vec::new(),
    };
    load(&flags, env)
        .unwrap_or_else(|error| panic!("docker-compose.yml: {error}"))
        .settings
}

#[test]
fn khala_finds_kafka_and_redis_by_the_names_they_listen_on() {
    let yaml = compose();
    let settings = settings(&yaml);
    let always = yaml
        .keys("services")
        .into_iter()
        .filter(|service| !is_observer(&yaml, service));
    assert_eq!(always.collect::<Vec<_>>(), ["kafka", "khala", "redis"]);

    let LogTarget::Kafka(bootstrap) = &settings.log else {
        panic!("{:?}", settings.log)
    };
    let advertised = yaml.one("services/kafka/environment/KAFKA_ADVERTISED_LISTENERS");
    assert!(
        advertised.split(',').any(|one| one == format!("INSIDE://{bootstrap}")),
        "{advertised}: {bootstrap}"
    );
    assert!(
        advertised.split(',').any(|one| one == "OUTSIDE://localhost:9092"),
        "{advertised}"
    );
    assert_eq!(settings.store, StoreTarget::Redis("redis://redis:6379".into()));

    let listeners = yaml.one("services/kafka/environment/KAFKA_LISTENERS");
    let protocols = yaml.one("services/kafka/environment/KAFKA_LISTENER_SECURITY_PROTOCOL_MAP");
    for listener in listeners.split(',').chain(advertised.split(',')) {
        let (name, _) = listener.split_once("://").expect("NAME://address");
        assert!(
            protocols.contains(&format!("{name}:PLAINTEXT")),
            "{name} has no protocol in {protocols}"
        );
    }
}

#[test]
fn ports_are_the_documented_ones_and_open_to_this_machine_only() {
    let yaml = compose();
    let http = Settings::default().http.port();
    for (service, port) in [("kafka", 9092), ("redis", 6379), ("khala", http)] {
        let published = yaml.one(&format!("services/{service}/ports"));
        assert_eq!(published, format!("127.0.0.1:{port}:{port}"));
    }
    assert_eq!(settings(&yaml).http.port(), http);
    assert!(
        yaml.one("services/kafka/environment/KAFKA_LISTENERS")
            .contains("OUTSIDE://0.0.0.0:9092")
    );
    assert!(
        yaml.list("services/khala/healthcheck/test")
            .iter()
            .any(|word| word.contains(&format!("/{http} ")))
    );
    assert!(read("Dockerfile").contains(&format!("EXPOSE {http}\n")));
}

#[test]
fn mounted_files_are_there_and_volumes_declared() {
    let yaml = compose();
    for service in yaml.keys("services") {
        for volume in yaml.list(&format!("services/{service}/volumes")) {
            let source = volume.split(':').next().expect("a source");
            match source.strip_prefix("./") {
                Some(file) => assert!(Path::new(ROOT).join(file).exists(), "{service} mounts {file}"),
                None => assert!(yaml.keys("volumes").contains(&source), "{service}: no volume {source}"),
            }
        }
    }
    let data = yaml.one("services/kafka/environment/KAFKA_LOG_DIRS");
    assert_eq!(yaml.one("services/kafka/volumes"), format!("kafka-data:{data}"));
    let config = yaml.one("services/khala/environment/KHALA_CONFIG");
    assert_eq!(
        yaml.one("services/khala/volumes"),
        format!("./config/khala.toml:{config}:ro")
    );
}

/// Whether a service comes with `--profile observe` only.
fn is_observer(yaml: &Yaml, service: &str) -> bool {
    yaml.0.contains_key(&format!("services/{service}/profiles"))
}

#[test]
fn those_who_observe_find_each_other() {
    let yaml = compose();
    let observers: Vec<&str> = yaml
        .keys("services")
        .into_iter()
        .filter(|one| is_observer(&yaml, one))
        .collect();
    assert_eq!(observers, ["alertmanager", "collector", "grafana", "prometheus"]);
    for service in &observers {
        assert_eq!(yaml.list(&format!("services/{service}/profiles")), ["observe"]);
        for port in yaml.list(&format!("services/{service}/ports")) {
            assert!(port.starts_with("127.0.0.1:"), "{service} is open to others: {port}");
        }
        let image = yaml.one(&format!("services/{service}/image"));
        let (_, version) = image.rsplit_once(':').expect("a version");
        assert!(
            version.trim_start_matches('v').split('.').count() == 3,
            "{image} is not pinned"
        );
    }
    let prometheus = Yaml::read(&read("config/prometheus/prometheus.yml"));
    assert_eq!(prometheus.list("rule_files"), ["khala.rules.yml"]);
    let text = read("config/prometheus/prometheus.yml");
    let http = Settings::default().http.port();
    for words in [
        "job_name: khala\n",
        &format!("\"khala:{http}\""),
        "\"alertmanager:9093\"",
        "/run/secrets/metrics-token\n",
    ] {
        assert!(text.contains(words), "prometheus.yml has no {words}");
    }
    assert_eq!(yaml.one("services/prometheus/secrets"), "metrics-token");
    assert!(read("config/grafana/provisioning/datasources/prometheus.yml").contains("url: http://prometheus:9090\n"));
    let folder = "path: /var/lib/grafana/dashboards\n";
    assert!(read("config/grafana/provisioning/dashboards/khala.yml").contains(folder));
    let collector = Yaml::read(&read("config/otel/collector.yaml"));
    assert_eq!(collector.one("receivers/otlp/protocols/http/endpoint"), "0.0.0.0:4318");
    assert!(read("docker-compose.yml").contains("OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 "));
}

#[test]
fn tokens_come_from_a_secret_that_git_never_sees() {
    let yaml = compose();
    let tokens = settings(&yaml).token_file.expect("off loopback a token file is needed");
    let name = tokens.strip_prefix("/run/secrets").expect("a secret").to_str().unwrap();
    assert_eq!(yaml.one("services/khala/secrets"), name);
    for secret in [name, "metrics-token"] {
        let file = yaml.one(&format!("secrets/{secret}/file")).trim_start_matches('.');
        assert!(
            read(".gitignore").lines().any(|line| line == file),
            "{file} is not in .gitignore"
        );
    }
}

#[test]
fn each_service_tells_its_health_and_khala_waits_for_it() {
    let yaml = compose();
    let with_tools = yaml
        .keys("services")
        .into_iter()
        .filter(|service| *service != "collector");
    for service in with_tools {
        assert!(
            !yaml.list(&format!("services/{service}/healthcheck/test")).is_empty(),
            "{service}"
        );
    }
    for needed in ["kafka", "redis"] {
        let condition = yaml.one(&format!("services/khala/depends_on/{needed}/condition"));
        assert_eq!(condition, "service_healthy", "{needed}");
    }
}

#[test]
fn redis_keeps_what_it_is_given() {
    let command = compose().list("services/redis/command").join(" ");
    assert!(command.contains("--appendonly yes"), "{command}");
    assert!(command.contains("--maxmemory-policy noeviction"), "{command}");
    assert_eq!(compose().one("services/redis/volumes"), "redis-data:/data");
}

#[test]
fn versions_are_those_of_the_crate_and_of_the_tests() {
    let yaml = compose();
    let cargo: toml::Table = read("Cargo.toml").parse().unwrap();
    let package = |key: &str| cargo["package"][key].as_str().unwrap().to_owned();
    assert_eq!(
        yaml.one("services/khala/image"),
        format!("khala:{}", package("version"))
    );
    assert_eq!(yaml.one("services/kafka/image"), "apache/kafka:4.3.0");
    assert_eq!(yaml.one("services/redis/image"), "redis:7");

    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains(&format!("FROM rust:{}-bookworm AS builder", package("rust-version"))));
    assert!(dockerfile.contains(&format!("docker build --tag khala:{} .", package("version"))));
    assert!(dockerfile.contains("cargo build --release --locked --features tls"));
    assert!(cargo["features"].get("tls").is_some());
}

#[test]
fn the_image_is_made_of_files_that_reach_it_and_runs_without_rights() {
    let dockerfile = read("Dockerfile");
    let ignore = read(".dockerignore");
    let copied = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--"));
    for line in copied {
        let words: Vec<&str> = line.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(Path::new(ROOT).join(source).exists(), "{source}");
            assert!(
                ignore.lines().any(|line| line == format!("!{source}")),
                "{source} is ignored"
            );
        }
    }
    // A target whose file is missing stops cargo before it builds anything.
    let cargo: toml::Table = read("Cargo.toml").parse().unwrap();
    for kind in ["bin", "test", "bench", "example"] {
        let targets = cargo.get(kind).and_then(toml::Value::as_array).into_iter().flatten();
        for path in targets.filter_map(|target| target.get("path")?.as_str()) {
            let folder = path.split('/').next().unwrap();
            assert!(
                dockerfile.contains(&format!("COPY {folder} {folder}\n")),
                "{path} does not reach the image"
            );
        }
    }
    let user = dockerfile.lines().rfind(|line| line.starts_with("USER "));
    assert_eq!(user, Some("USER khala"));
}

//! A real Prometheus with the rules that are shipped, their windows shortened: a minute becomes a second.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::guarded::{Guarded, free_port, temp_dir};
use crate::support::wait::{eventually, seconds};

/// Where the rules and their tests are.
pub const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus/khala.rules.yml");

const ROUTES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus/alertmanager.yml");

/// Labels and value.
pub type Sample = (BTreeMap<String, String>, f64);

pub struct Prometheus {
    _process: Guarded,
    _dir: tempfile::TempDir,
    url: String,
}

impl Prometheus {
    /// Scrapes these addresses (`host:port`) every second, and evaluates the shortened rules as often.
    pub fn start(targets: &[&str], alertmanager: &Alertmanager) -> Self {
        let dir = temp_dir("prometheus");
        fs::write(dir.path().join("rules.yml"), shortened(&read(RULES))).expect("a file in our directory");
        let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let config = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\n\
             rule_files: [rules.yml]\nalerting:\n  alertmanagers:\n    - static_configs:\n      - targets: [\"{}\"]\n\
             scrape_configs:\n  - job_name: khala\n    static_configs:\n      - targets: [{}]\n",
            alertmanager.address,
            targets.join(", ")
        );
        fs::write(dir.path().join("prometheus.yml"), config).expect("a file in our directory");
        let port = free_port();
        let args = [
            format!("--config.file={}", dir.path().join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let process = Guarded::start(&dir.path().join("prometheus"), "prometheus", &args, &[]);
        let prometheus = Self {
            _process: process,
            _dir: dir,
            url: format!("http://127.0.0.1:{port}"),
        };
        eventually("Prometheus answers", seconds(60), || prometheus.get("/-/ready"));
        prometheus
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    fn get(&self, path: &str) -> Result<String, String> {
        let mut response = ureq::get(format!("{}{path}", self.url))
            .call()
            .map_err(|e| e.to_string())?;
        response.body_mut().read_to_string().map_err(|e| e.to_string())
    }

    /// The samples of an instant query: labels and value.
    pub fn query(&self, expression: &str) -> Result<Vec<Sample>, String> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let form = [("query", expression)];
        let mut response = agent
            .post(format!("{}/api/v1/query", self.url))
            .send_form(form)
            .map_err(|e| e.to_string())?;
        let answer: Value = response.body_mut().read_json().map_err(|e| e.to_string())?;
        if answer["status"] != "success" {
            return Err(format!("{expression}: {}", answer["error"]));
        }
        let sample = |sample: &Value| {
            let labels = sample["metric"].as_object()?.iter();
            let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
            let value = sample["value"][1].as_str()?.parse().ok()?;
            Some((labels.collect(), value))
        };
        let samples = answer["data"]["result"].as_array().ok_or("no vector")?;
        Ok(samples.iter().filter_map(sample).collect())
    }

    /// Alerts that are active now: name, namespace (empty if it has none), state.
    pub fn alerts(&self) -> Vec<(String, String, String)> {
        let text = self.get("/api/v1/alerts").expect("Prometheus answers");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let alerts = answer["data"]["alerts"].as_array().expect("alerts");
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        alerts
            .iter()
            .map(|alert| {
                let labels = &alert["labels"];
                (
                    word(&labels["alertname"]),
                    word(&labels["namespace"]),
                    word(&alert["state"]),
                )
            })
            .collect()
    }

    /// Whether the alert was ever in this state, by the series that Prometheus keeps of it.
    pub fn was(&self, alert: &str, state: &str) -> bool {
        let query = format!("count_over_time(ALERTS{{alertname=\"{alert}\", alertstate=\"{state}\"}}[1h])");
        !self.query(&query).expect("a legal query").is_empty()
    }
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A real Alertmanager with the routes that are shipped. Its receivers tell nobody.
pub struct Alertmanager {
    _process: Guarded,
    _dir: tempfile::TempDir,
    address: String,
}

/// An alert as Alertmanager has it.
#[derive(Debug)]
pub struct Routed {
    pub alert: String,
    pub namespace: String,
    pub receivers: Vec<String>,
    /// Another alert says it already.
    pub is_inhibited: bool,
}

impl Alertmanager {
    pub fn start() -> Self {
        let (dir, address) = (temp_dir("alertmanager"), format!("127.0.0.1:{}", free_port()));
        let args = [
            format!("--config.file={ROUTES}"),
            format!("--storage.path={}", dir.path().join("data").display()),
            format!("--web.listen-address={address}"),
            "--cluster.listen-address=".to_owned(),
        ];
        let files = dir.path().join("alertmanager");
        let process = Guarded::start(&files, "prometheus-alertmanager", &args, &[]);
        let alertmanager = Self {
            _process: process,
            _dir: dir,
            address,
        };
        eventually("Alertmanager answers", seconds(60), || alertmanager.get("/-/ready"));
        alertmanager
    }

    fn get(&self, path: &str) -> Result<String, String> {
        let mut response = ureq::get(format!("http://{}{path}", self.address))
            .call()
            .map_err(|e| e.to_string())?;
        response.body_mut().read_to_string().map_err(|e| e.to_string())
    }

    /// All that it has now.
    pub fn alerts(&self) -> Vec<Routed> {
        let text = self.get("/api/v2/alerts").expect("Alertmanager answers");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let routed = |alert: &Value| Routed {
            alert: word(&alert["labels"]["alertname"]),
            namespace: word(&alert["labels"]["namespace"]),
            receivers: alert["receivers"]
                .as_array()
                .expect("receivers")
                .iter()
                .map(|receiver| word(&receiver["name"]))
                .collect(),
            is_inhibited: alert["status"]["inhibitedBy"]
                .as_array()
                .is_some_and(|by| !by.is_empty()),
        };
        answer.as_array().expect("a list").iter().map(routed).collect()
    }
}

/// An age that nobody waits for, in seconds, and the one that is waited for here.
const TWO_DAYS: (&str, &str) = ("> 172800", "> 20");

/// Every window `[5m]` and every `for: 5m` sixty times as short. Thresholds stay, but for an age of two days.
pub fn shortened(rules: &str) -> String {
    let mut out = String::new();
    for line in rules.lines() {
        let line = match line.trim_start().strip_prefix("for: ") {
            Some(span) => line.replace(span, &sixtieth(span)),
            None => windows(line).replace(TWO_DAYS.0, TWO_DAYS.1),
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn windows(line: &str) -> String {
    let mut parts = line.split('[');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (span, rest) = part.split_once(']').expect("a window is closed");
        _ = write!(out, "[{}]{rest}", sixtieth(span));
    }
    out
}

fn sixtieth(span: &str) -> String {
    let (number, unit) = span.split_at(span.len() - 1);
    match (number.parse::<u64>(), unit) {
        (Ok(number), "m") => format!("{number}s"),
        (Ok(number), "h") => format!("{number}m"),
        (Ok(number), "d") => format!("{}m", number * 24),
        _ => span.to_owned(), // a character class of a regular expression, as in `le=~"1[.]0"`
    }
}

/// promtool or amtool on files that are shipped; a missing tool fails the test.
pub fn tool(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus"))
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; scripts/install-test-servers brings it"));
    let told = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&told)
    );
}

//! The binary under test: a serving process with its logs and metrics, and single commands.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::guarded::{Guarded, free_port};
use super::wait::{eventually, seconds};

/// Lines of a process' log that a failed test shows.
const SHOWN_MAX: usize = 80;

/// Where a khala works.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub log: String,
    pub store: String,
    pub topic: String,
    pub namespace: String,
}

impl Cluster {
    /// The flags that name it.
    pub fn flags(&self) -> Vec<String> {
        let pairs = [
            ("--log", &self.log),
            ("--store", &self.store),
            ("--topic", &self.topic),
            ("--namespace", &self.namespace),
        ];
        pairs
            .iter()
            .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).clone()])
            .collect()
    }
}

/// A serving process.
pub struct Khala {
    process: Guarded,
    http: String,
    name: String,
}

/// One sample of `/metrics`.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Khala {
    /// Starts `khala serve` and waits until it is ready. Extra args go to the command line.
    pub fn start(dir: &Path, cluster: &Cluster, name: &str, extra: &[&str]) -> Self {
        let khala = Self::start_unready(dir, cluster, name, extra);
        khala.wait_ready();
        khala
    }

    /// Starts it without waiting: it may have reason never to be ready.
    pub fn start_unready(dir: &Path, cluster: &Cluster, name: &str, extra: &[&str]) -> Self {
        Self::start_with(dir, cluster, name, extra, &[])
    }

    /// The same, with these variables.
    pub fn start_with(dir: &Path, cluster: &Cluster, name: &str, extra: &[&str], variables: &[(&str, &str)]) -> Self {
        let http = format!("127.0.0.1:{}", free_port());
        let mut args = vec!["serve".to_owned()];
        args.extend(cluster.flags());
        args.extend(["--http".to_owned(), http.clone()]);
        args.extend(extra.iter().map(|arg| (*arg).to_owned()));
        let mut envs = envs();
        envs.extend(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let process = Guarded::start(&dir.join(name), env!("CARGO_BIN_EXE_khala"), &args, &envs);
        Self {
            process,
            http,
            name: name.to_owned(),
        }
    }

    pub fn wait_ready(&self) {
        eventually(&format!("{} is ready", self.name), seconds(60), || {
            match self.get("/readyz") {
                Ok((200, _)) => Ok(()),
                other => Err((other, tail(&self.process.stderr(), 12))),
            }
        });
    }

    /// Status and body of a GET.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(seconds(30)))
            .build();
        let mut response = ureq::Agent::new_with_config(config)
            .get(format!("http://{}{path}", self.http))
            .call()
            .map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let body = response.body_mut().read_to_string().map_err(|e| e.to_string())?;
        Ok((status, body))
    }

    /// Where it serves HTTP: `host:port`.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// Publishes one event over HTTP.
    pub fn publish_http(&self, event: &str) {
        publish_to(&self.http, event).expect("202");
    }

    /// The body of the answer to a POST of JSON, whatever its status.
    pub fn post(&self, path: &str, json: &str) -> String {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent.post(format!("http://{}{path}", self.http));
        let answer = request.header("content-type", "application/json").send(json);
        let text = answer.and_then(|mut answer| answer.body_mut().read_to_string());
        text.unwrap_or_else(|error| error.to_string())
    }

    /// All samples of `/metrics`.
    pub fn metrics(&self) -> Vec<Sample> {
        let (status, body) = self.get("/metrics").unwrap_or_default();
        assert!(status == 200 || body.is_empty(), "/metrics: {status} {body}");
        body.lines().filter_map(sample).collect()
    }

    /// Sum of the samples of a name that have all these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &Sample| {
            labels
                .iter()
                .all(|(k, v)| sample.labels.get(*k).is_some_and(|l| l == v))
        };
        let samples = self.metrics();
        samples
            .iter()
            .filter(|s| s.name == name && has(s))
            .map(|s| s.value)
            .sum()
    }

    /// Drift counted, for whatever reason.
    pub fn drifts(&self) -> u64 {
        self.metric("khala_projection_drift_total", &[]) as u64
    }

    /// Values of the field `recovery` in the log, in order.
    pub fn recoveries(&self) -> Vec<String> {
        let logged = self.process.stderr();
        let lines = logged
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter_map(|line| {
                let found = line.get("recovery").or_else(|| line.get("fields")?.get("recovery"));
                Some(found?.as_str()?.to_owned())
            })
            .collect()
    }

    /// Waits until the log names a recovery.
    pub fn wait_recovery(&self, name: &str) {
        eventually(&format!("{} logs recovery {name}", self.name), seconds(60), || {
            let named = self.recoveries();
            if named.iter().any(|seen| seen == name) {
                return Ok(());
            }
            Err((named, tail(&self.process.stderr(), 12)))
        });
    }

    /// Waits until a partition is held for this reason, by the metric.
    pub fn wait_held(&self, reason: &str) {
        eventually(&format!("{} holds: {reason}", self.name), seconds(60), || {
            let held = self
                .metrics()
                .into_iter()
                .filter(|s| s.name == "khala_projection_held" && s.value > 0.0);
            let reasons: Vec<String> = held.filter_map(|s| s.labels.get("reason").cloned()).collect();
            if reasons.iter().any(|seen| seen == reason) {
                return Ok(());
            }
            Err((reasons, tail(&self.process.stderr(), 12)))
        });
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGHUP.
    pub fn hangup(&self) {
        self.process.signal("HUP");
    }

    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// SIGKILL.
    pub fn kill9(mut self) {
        self.process.signal("KILL");
        self.process.wait();
    }

    pub fn sigstop(&self) {
        self.process.signal("STOP");
    }

    pub fn sigcont(&self) {
        self.process.signal("CONT");
    }

    /// SIGTERM; the exit code.
    pub fn term(mut self) -> Option<i32> {
        self.process.signal("TERM");
        let ended = eventually(&format!("{} ends after SIGTERM", self.name), seconds(60), || {
            self.process.ended().ok_or_else(|| tail(&self.process.stderr(), 12))
        });
        if !ended.success() {
            self.tell();
        }
        ended.code()
    }

    #[expect(
        clippy::print_stdout,
        reason = "the test harness keeps it, and shows it when the test fails"
    )]
    fn tell(&self) {
        let said = tail(&self.process.stderr(), SHOWN_MAX);
        println!("{} said at last:\n{said}", self.name);
    }
}

impl Drop for Khala {
    /// A failed test shows what the process said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
    }
}

/// Publishes one event over HTTP to `host:port`.
pub fn publish_to(http: &str, event: &str) -> Result<(), ureq::Error> {
    let request = ureq::post(format!("http://{http}/v1/events"));
    let request = request.header("content-type", "application/cloudevents+json");
    request.send(event).map(drop)
}

/// The binary, without settings that the environment of the tests may have.
fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_khala"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KHALA_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command with just these arguments and variables to its end.
pub fn bare_run(args: &[String], variables: &[(String, String)]) -> Output {
    let mut command = binary();
    command.args(args).envs(variables.iter().cloned()).stdin(Stdio::null());
    command.output().expect("khala runs")
}

fn piped(cluster: &Cluster, args: &[&str]) -> Child {
    let mut command = binary();
    command.args(args).args(cluster.flags());
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("khala runs")
}

/// Runs one command to its end while nobody reads what it prints.
pub fn run_unread(cluster: &Cluster, args: &[&str]) -> Option<i32> {
    let mut child = piped(cluster, args);
    drop((child.stdout.take(), child.stderr.take()));
    child.wait().expect("our own child").code()
}

/// Runs one command to its end with this input.
pub fn run(cluster: &Cluster, args: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child = piped(cluster, args);
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // A command that refuses its input early closes the pipe: that is its right.
    let writer = std::thread::spawn(move || _ = stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("our own child");
    writer.join().expect("the writer does not panic");
    output
}

/// Quick to notice that another process is gone, so that tests are short.
fn envs() -> Vec<(String, String)> {
    [
        ("KHALA_LOG_FORMAT", "json"),
        ("KHALA_LOG_LEVEL", "info"),
        ("KHALA_OWNER_LEASE", "3s"),
        ("KHALA_KAFKA__SESSION_TIMEOUT_MS", "3000"),
        ("KHALA_KAFKA__HEARTBEAT_INTERVAL_MS", "500"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn tail(text: &str, lines_max: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}

/// `name{a="b",…} value`, as the Prometheus text format has it.
fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
        None => (series, ""),
    };
    let labels = labels.split("\",").filter_map(|pair| {
        let (name, value) = pair.split_once("=\"")?;
        Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Some(Sample {
        name: name.to_owned(),
        labels: labels.collect(),
        value: value.parse().ok()?,
    })
}

//! `khala serve` in a process of its own, and clients of its HTTP: publishers, readers that follow, readers that only wait.
//! Blocking, a thread each: what is measured is the server, not a runtime.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::exit::Failure;
use super::stages::failed;
use crate::config::{LogTarget, Settings, StoreTarget};

/// How long the server may take to be ready, and to answer.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A server of these settings; killed when dropped.
pub(super) struct Server {
    process: Child,
    pub address: String,
}

impl Server {
    pub(super) fn start(settings: &Settings) -> Result<Self, Failure> {
        let (LogTarget::Kafka(servers), StoreTarget::Redis(url)) = (&settings.log, &settings.store) else {
            return Err(failed(
                "--over-http needs Kafka and Redis: --log kafka://… --store redis://…",
            ));
        };
        if settings.token_file.is_some() {
            return Err(failed(
                "--over-http serves on loopback without tokens: leave token_file out",
            ));
        }
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(failed)?.to_string();
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null());
        for (name, value) in [
            ("KHALA_LOG", &format!("kafka://{servers}")),
            ("KHALA_STORE", url),
            ("KHALA_TOPIC", &settings.topic),
            ("KHALA_NAMESPACE", &settings.namespace),
            ("KHALA_HTTP", &address),
            ("KHALA_LOG_LEVEL", &"warn".to_owned()),
        ] {
            command.env(name, value);
        }
        let process = command.spawn().map_err(failed)?;
        let server = Self { process, address };
        server.wait_ready()?;
        Ok(server)
    }

    fn wait_ready(&self) -> Result<(), Failure> {
        let (agent, started) = (agent(), Instant::now());
        loop {
            match agent.get(format!("http://{}/readyz", self.address)).call() {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > PATIENCE => return Err(failed(format!("`khala serve`: {error}"))),
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Of the process, in bytes.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_connect(Some(PATIENCE))
        .build()
        .into()
}

/// One connection that publishes.
pub(super) struct Publisher {
    agent: ureq::Agent,
    url: String,
}

impl Publisher {
    pub(super) fn new(address: &str, query: &str) -> Self {
        let (agent, url) = (agent(), format!("http://{address}/v1/events{query}"));
        Self { agent, url }
    }

    /// Publishes a batch; back when the log has it.
    pub(super) fn publish(&self, events: &[String]) -> Result<(), Failure> {
        let body = format!("[{}]", events.join(","));
        let request = self.agent.post(&self.url);
        let request = request.header("content-type", "application/cloudevents-batch+json");
        let mut answer = request.send(body).map_err(failed)?;
        answer.body_mut().read_to_vec().map(|_| ()).map_err(failed)
    }
}

/// Follows a run, and calls `on` with the data of each event, until it says that it has enough.
pub(super) fn follow(address: &str, run: &str, mut on: impl FnMut(&str) -> bool) -> Result<(), Failure> {
    let answer = agent()
        .get(format!("http://{address}/v1/runs/{run}/events"))
        .call()
        .map_err(failed)?;
    let lines = BufReader::new(answer.into_body().into_reader()).lines();
    for line in lines {
        let line = line.map_err(failed)?;
        if line.strip_prefix("data: ").is_some_and(&mut on) {
            return Ok(());
        }
    }
    Err(failed("the stream ended"))
}

/// Readers of a run that has one event, each with that event read.
pub(super) fn idle(address: &str, run: &str, readers: usize) -> Result<Vec<TcpStream>, Failure> {
    let head = format!("GET /v1/runs/{run}/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut streams = Vec::with_capacity(readers);
    for _ in 0..readers {
        let mut stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.write_all(head.as_bytes()).map_err(failed)?;
        streams.push(stream);
    }
    for stream in &mut streams {
        let (mut text, mut buffer) = (String::new(), [0; 2048]);
        while !text.contains("data: ") {
            let read = stream.read(&mut buffer).map_err(failed)?;
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
            if read == 0 {
                return Err(failed(format!("an idle reader was let go: {text}")));
            }
        }
    }
    Ok(streams)
}

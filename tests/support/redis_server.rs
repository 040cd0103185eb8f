//! A Redis of its own for each test: stopped, killed, emptied, and put back to an older dump.

use std::fs;
use std::path::PathBuf;

use redis::{Connection, FromRedisValue};

use super::guarded::{Guarded, free_port, temp_dir};
use super::wait::{eventually, eventually_true, seconds};

/// How it keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// An append-only file: nothing that was answered is lost when the process ends.
    AppendOnly,
    /// Dumps alone, made when a test asks for one.
    Dumps,
}

/// One server.
pub struct Redis {
    port: u16,
    dir: tempfile::TempDir,
    keeps: Keeps,
    /// Further arguments of `redis-server`.
    extra: Vec<String>,
    variables: Vec<(String, String)>,
    process: Option<Guarded>,
}

impl Redis {
    pub fn start(keeps: Keeps) -> Self {
        Self::start_as(keeps, &[])
    }

    /// With further arguments: a cluster's node, a replica.
    pub fn start_as(keeps: Keeps, extra: &[&str]) -> Self {
        Self::start_in(keeps, extra, &[])
    }

    /// In an environment with these variables: another clock.
    pub fn start_in(keeps: Keeps, extra: &[&str], variables: &[(String, String)]) -> Self {
        let mut redis = Self {
            port: free_port(),
            dir: temp_dir("redis"),
            keeps,
            extra: extra.iter().map(|arg| (*arg).to_owned()).collect(),
            variables: variables.to_vec(),
            process: None,
        };
        redis.start_again();
        redis
    }

    /// Starts on the same port and directory; returns when it has loaded its data.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "Redis runs already");
        let appendonly = if self.keeps == Keeps::AppendOnly { "yes" } else { "no" };
        let (port, dir) = (self.port.to_string(), self.dir.path().display().to_string());
        let mut args = [
            "--port",
            &port,
            "--dir",
            &dir,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            appendonly,
        ]
        .map(str::to_owned)
        .to_vec();
        args.extend(self.extra.iter().cloned());
        let files = self.dir.path().join("redis");
        self.process = Some(Guarded::start(&files, "redis-server", &args, &self.variables));
        eventually("Redis answers", seconds(60), || {
            let mut connection = self.try_connect()?;
            redis::cmd("PING").query::<String>(&mut connection)
        });
    }

    /// SIGTERM: it writes what it keeps, and ends.
    pub fn stop(&mut self) {
        self.end("TERM");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    fn end(&mut self, signal: &str) {
        let mut process = self.process.take().expect("Redis runs");
        process.signal(signal);
        process.wait();
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    fn try_connect(&self) -> redis::RedisResult<Connection> {
        redis::Client::open(self.url())?.get_connection_with_timeout(seconds(2))
    }

    /// A connection of one's own.
    pub fn connect(&self) -> Connection {
        eventually("a connection to Redis", seconds(60), || self.try_connect())
    }

    /// One command, its parts separated as given.
    pub fn ask<T: FromRedisValue>(&self, parts: &[&str]) -> T {
        let mut command = redis::cmd(parts[0]);
        for part in &parts[1..] {
            command.arg(*part);
        }
        command
            .query(&mut self.connect())
            .unwrap_or_else(|e| panic!("{parts:?}: {e}"))
    }

    fn dump_file(&self) -> PathBuf {
        self.dir.path().join("dump.rdb")
    }

    /// Writes a dump and returns its bytes.
    pub fn dump(&self) -> Vec<u8> {
        let _: String = self.ask(&["SAVE"]);
        fs::read(self.dump_file()).expect("SAVE writes dump.rdb")
    }

    /// Ends without saving, and comes back with what was in the dump.
    pub fn restore(&mut self, dump: &[u8]) {
        assert_eq!(self.keeps, Keeps::Dumps, "an append-only file would win over the dump");
        _ = redis::cmd("SHUTDOWN").arg("NOSAVE").query::<()>(&mut self.connect());
        let mut process = self.process.take().expect("Redis runs");
        eventually_true("Redis has ended", seconds(60), || process.ended().is_some());
        fs::write(self.dump_file(), dump).expect("a file in our directory");
        self.start_again();
    }
}

//! The demo's projector: a process of its own, so that killing it is a real kill -9.
//! It takes records on stdin, one JSON array `[key, value]` a line, an empty line behind each chunk, and answers
//! `acked` when the log has the chunk for good. At the end of its input it projects what is left, and ends.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::exit::{Exit, Failure};
use super::super::out::Out;
use crate::access::{Access, Opened, open, projector_settings, topics};
use crate::config::Settings;
use crate::log::{NewRecord, Role};
use crate::projector::{self, StatusBoard};
use crate::telemetry::{Export, Metrics};

const PROJECTED_PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The parent's side.
pub(super) struct Projector {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Records that the checkpoints covered when it started.
    pub(super) applied_at_start: u64,
}

impl Projector {
    pub(super) async fn start(dir: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["demo", "--projector", "--dir"]).arg(dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        if std::env::var_os("KHALA_LOG_LEVEL").is_none() {
            command.env("KHALA_LOG_LEVEL", "error");
        }
        let mut child = command.spawn().map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("the projector has no pipes"));
        };
        let mut projector = Self {
            child,
            input,
            output: BufReader::new(output).lines(),
            applied_at_start: 0,
        };
        let first = projector.answer().await?;
        projector.applied_at_start = first.strip_prefix("applied ").and_then(|n| n.parse().ok()).unwrap_or(0);
        Ok(projector)
    }

    /// Hands a chunk over, without waiting for what comes of it.
    pub(super) async fn hand_over(&mut self, chunk: &[NewRecord]) -> Result<(), Failure> {
        let mut lines = String::new();
        for record in chunk {
            let text =
                |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            let line = serde_json::to_string(&(text(&record.key), text(&record.value))).map_err(failed)?;
            lines.push_str(&line);
            lines.push('\n');
        }
        lines.push('\n');
        self.input.write_all(lines.as_bytes()).await.map_err(failed)
    }

    /// Hands a chunk over, and waits until the log has it for good.
    pub(super) async fn send(&mut self, chunk: &[NewRecord]) -> Result<(), Failure> {
        self.hand_over(chunk).await?;
        match self.answer().await?.as_str() {
            "acked" => Ok(()),
            other => Err(failed(format!("the projector says {other:?}"))),
        }
    }

    /// kill -9.
    pub(super) async fn kill(mut self) -> Result<(), Failure> {
        self.child.kill().await.map_err(failed)
    }

    /// Lets it project what is left, and end.
    pub(super) async fn finish(self) -> Result<(), Failure> {
        let Self { mut child, input, .. } = self;
        drop(input);
        let status = child.wait().await.map_err(failed)?;
        if status.success() {
            Ok(())
        } else {
            Err(failed(format!("the projector ended with {status}")))
        }
    }

    async fn answer(&mut self) -> Result<String, Failure> {
        let line = self.output.next_line().await.map_err(failed)?;
        line.ok_or_else(|| failed("the projector ended too early"))
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("demo: {error}"))
}

/// The child's side.
pub(super) async fn run(settings: &Arc<Settings>) -> Result<Exit, Failure> {
    let out = Out::new(false, true);
    let access = match open(settings)? {
        Opened::Direct(access) => access,
        Opened::Running(server) => return Err(failed(format!("process {} owns the directory", server.pid))),
    };
    access.log.prepare().await.map_err(failed)?;
    out.line(format!("applied {}", applied(&access).await?));
    let stop = CancellationToken::new();
    let mut projecting = JoinSet::new();
    projecting.spawn(projector::run(
        Arc::clone(&access.log),
        Arc::clone(&access.store),
        projector_settings(settings, &format!("demo-{}", std::process::id())),
        Metrics::exported(&settings.namespace, &topics(settings), &Export::off())?,
        Arc::new(StatusBoard::default()),
        stop.clone(),
    ));
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let mut chunk = Vec::new();
    while let Some(line) = input.next_line().await.map_err(failed)? {
        if !line.is_empty() {
            let (key, value): (Option<String>, Option<String>) = serde_json::from_str(&line).map_err(failed)?;
            let bytes = |text: Option<String>| text.map(String::into_bytes);
            chunk.push(NewRecord {
                key: bytes(key),
                value: bytes(value),
                ..NewRecord::default()
            });
            continue;
        }
        for result in access.log.append(Role::Events, std::mem::take(&mut chunk)).await {
            result.map_err(failed)?;
        }
        out.line("acked");
    }
    wait_until_projected(&access).await?;
    stop.cancel();
    while let Some(ended) = projecting.join_next().await {
        ended.map_err(failed)?.map_err(failed)?;
    }
    Ok(Exit::Done)
}

async fn applied(access: &Access) -> Result<u64, Failure> {
    let mut records = 0;
    for partition in access.partitions().await? {
        let checkpoint = access.store.checkpoint(partition).await.map_err(failed)?;
        records += checkpoint.map_or(0, |checkpoint| checkpoint.records);
    }
    Ok(records)
}

async fn wait_until_projected(access: &Access) -> Result<(), Failure> {
    let until = tokio::time::Instant::now() + PROJECTED_PATIENCE;
    for partition in access.partitions().await? {
        loop {
            let end = access.log.bounds(partition).await.map_err(failed)?.end;
            let checkpoint = access.store.checkpoint(partition).await.map_err(failed)?;
            if end.0 == 0 || checkpoint.is_some_and(|checkpoint| checkpoint.next >= end) {
                break;
            }
            if tokio::time::Instant::now() >= until {
                return Err(failed(format!("partition {partition} was not projected in time")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

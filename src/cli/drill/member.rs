//! A `khala serve` in a process of its own, on a drill's place: so that a kill is a kill.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::super::Context;
use super::super::exit::{Exit, Failure};
use super::super::gate::calls::Calls;
use super::super::gate::failed;
use super::super::gate::place::Place;

/// How long a member may take to finish its batch and leave.
const LEAVE_PATIENCE: Duration = Duration::from_secs(30);
/// Quick to notice that another is gone, unless the settings say otherwise.
const HASTE: [(&str, &str); 3] = [
    ("KHALA_LOG_LEVEL", "error"),
    ("KHALA_OWNER_LEASE", "3s"),
    ("KHALA_KAFKA__SESSION_TIMEOUT_MS", "6000"),
];

/// What a member is told beside its flags.
#[derive(Serialize, Deserialize)]
struct Task {
    topic: String,
    namespace: String,
    dir: PathBuf,
    http: SocketAddr,
}

pub(super) struct Member {
    child: Child,
    address: SocketAddr,
    pub calls: Calls,
}

impl Member {
    /// Starts one on a free port, and waits until it serves.
    pub(super) async fn start(place: &Place) -> Result<Self, Failure> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        Self::start_at(free.map_err(failed)?, place).await
    }

    async fn start_at(address: SocketAddr, place: &Place) -> Result<Self, Failure> {
        let task = Task {
            topic: place.settings.topic.clone(),
            namespace: place.settings.namespace.clone(),
            dir: place.dir.clone(),
            http: address,
        };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(std::env::args_os().skip(1)).arg("--member");
        command.arg(serde_json::to_string(&task).map_err(failed)?);
        for (name, value) in HASTE.iter().filter(|(name, _)| std::env::var_os(name).is_none()) {
            command.env(name, value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let member = Self {
            child: command.spawn().map_err(failed)?,
            address,
            calls: Calls::to(address, &place.settings)?,
        };
        member.calls.ready().await?;
        Ok(member)
    }

    /// kill -9, and another one at the same address.
    pub(super) async fn kill_and_start(mut self, place: &Place) -> Result<Self, Failure> {
        self.child.kill().await.map_err(failed)?;
        Self::start_at(self.address, place).await
    }

    /// What its leases are called by: the end of `<instance>-<process>`.
    pub(super) fn owns(&self, owner: &str) -> bool {
        let process = self.child.id().unwrap_or_default();
        owner.contains(&format!("-{process}/"))
    }

    pub(super) fn pause(&self) -> Result<(), Failure> {
        self.signal(Signal::STOP)
    }

    pub(super) fn go_on(&self) -> Result<(), Failure> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM: it finishes its batch, and leaves.
    pub(super) async fn leave(mut self) -> Result<(), Failure> {
        self.signal(Signal::TERM)?;
        let left = tokio::time::timeout(LEAVE_PATIENCE, self.child.wait()).await;
        let status = left.map_err(|_| failed("a member does not leave"))?.map_err(failed)?;
        if status.success() {
            Ok(())
        } else {
            Err(failed(format!("a member ended with {status}")))
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let process = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        let process = process.ok_or_else(|| failed("a member has ended"))?;
        kill_process(process, signal).map_err(failed)
    }
}

/// The member's side: serves until it is told to leave.
pub(super) async fn run(task: &str, context: &Context) -> Result<Exit, Failure> {
    let task: Task = serde_json::from_str(task).map_err(|error| Failure::usage(format!("--member: {error}")))?;
    let place = Place::at(&context.settings, &task.topic, &task.namespace, &task.dir, task.http);
    super::super::serve::serve(&Arc::clone(&place.settings), &context.export).await
}

//! A child process that cannot outlive the test process: a shell beside it holds a pipe to us and
//! kills it by its id when the pipe closes, which also happens when we panic, abort or are killed.
//! A directory named in `REMOVE_AT_END` goes then too: a static is never dropped.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

const WATCH: &str = r#"
exec 3<&0
"$@" </dev/null >>"$0.out" 2>>"$0.err" 3<&- &
child=$!
{ read -r _ <&3; trap '' TERM; kill -KILL $child; } >/dev/null 2>&1 &
watch=$!
exec 3<&-
echo $child
exec >/dev/null 2>&1
wait $child
status=$?
kill $watch
if wait $watch; then [ -z "$REMOVE_AT_END" ] || rm -rf "$REMOVE_AT_END"; fi
exit $status
"#;

/// A running process and its shell.
#[derive(Debug)]
pub struct Guarded {
    shell: Child,
    pid: u32,
    files: PathBuf,
}

impl Guarded {
    /// Starts a command; its output is appended to `<files>.out` and `<files>.err`.
    pub fn start(files: &Path, program: &str, args: &[String], envs: &[(String, String)]) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(WATCH).arg(files).arg(program).args(args);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KHALA_") || name.starts_with("OTEL_")) {
            command.env_remove(name);
        }
        command.envs(envs.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().expect("sh runs");
        let mut line = String::new();
        let stdout = shell.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the shell prints the id");
        let pid = line
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("no process id from {program}: {line:?}"));
        Self {
            shell,
            pid,
            files: files.to_owned(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal by name: `KILL`, `TERM`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.pid.to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill -{name} {}: {status}", self.pid);
    }

    /// Waits for the end; 128 + n if a signal ended it.
    pub fn wait(&mut self) -> ExitStatus {
        // `Child::wait` closes stdin, which to the shell is our end.
        let held = self.shell.stdin.take();
        let status = self.shell.wait().expect("our own child");
        drop(held);
        status
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.shell.try_wait().expect("our own child")
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        let path = format!("{}.err", self.files.display());
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.shell.stdin.take()); // the shell kills the process
        _ = self.shell.wait();
    }
}

/// A port nobody listens on, and nobody else in this process gets. Outside the range from which
/// the system takes ports of outgoing connections: a client that tries again and again to reach a stopped server must
/// not end up connected to itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 1000) as u16 * 10;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Whether something listens on a port.
pub fn listens(port: u16) -> bool {
    std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A directory that goes with the last of those who hold it.
pub fn temp_dir(what: &str) -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix(&format!("khala-{what}-"))
        .tempdir()
        .expect("a directory for temporary files")
}

/// Empties a file that a process appends to.
pub fn truncate(path: &Path) {
    _ = File::create(path);
}

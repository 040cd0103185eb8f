//! Who owns a directory: `<dir>/<name>.lock`, held by flock, holds the owner's pid as text.
//! `<dir>/server.json` tells where the owner's HTTP is; it counts only while its pid holds the lock.
//! Invariant: a lock ends with its process, so kill -9 leaves nothing to clean up.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::DiskError;

/// [`in_use`] holds the lock shared for an instant: whoever opens tries again that often.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// A process that owns a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningServer {
    /// Its process id; 0 if it does not tell.
    pub pid: u32,
    /// Where its HTTP is, if it serves any.
    pub http: Option<SocketAddr>,
    /// Topic and namespace that it serves, if it tells.
    pub serves: Option<Serves>,
}

/// What a server serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serves {
    /// The events' topic.
    pub topic: String,
    /// The documents' namespace.
    pub namespace: String,
}

#[derive(Serialize, Deserialize)]
struct Announced {
    pid: u32,
    http: SocketAddr,
    #[serde(flatten)]
    serves: Option<Serves>,
}

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes `<dir>/<name>.lock` and writes this process's pid into it.
    pub(super) fn take(dir: &Path, name: &str) -> Result<Self, DiskError> {
        let path = dir.join(format!("{name}.lock"));
        let fail = |error: std::io::Error| DiskError::Failed(format!("{}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        for attempt in 1..=TRIES {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(fail(error)),
                Err(TryLockError::WouldBlock) if attempt == TRIES => {
                    return Err(DiskError::InUse {
                        place: path,
                        pid: pid_in(&mut file),
                    });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_TRIES),
            }
        }
        file.set_len(0).map_err(fail)?;
        writeln!(file, "{}", std::process::id()).map_err(fail)?;
        Ok(Self { _file: file })
    }
}

/// The process that owns the log or the store in `dir`; `None` if nobody does.
pub fn in_use(dir: &Path) -> Option<RunningServer> {
    let pid = ["log", "store"].iter().find_map(|name| holder(dir, name))?;
    let announced = std::fs::read(dir.join("server.json"))
        .ok()
        .and_then(|text| serde_json::from_slice::<Announced>(&text).ok())
        .filter(|announced| announced.pid == pid);
    Some(RunningServer {
        pid,
        http: announced.as_ref().map(|announced| announced.http),
        serves: announced.and_then(|announced| announced.serves),
    })
}

/// Tells other processes where this one's HTTP is. Only meaningful while it owns `dir`.
///
/// # Errors
/// The file cannot be written; an older one is still whole.
pub fn announce(dir: &Path, http: SocketAddr, serves: Serves) -> std::io::Result<()> {
    let announced = Announced {
        pid: std::process::id(),
        http,
        serves: Some(serves),
    };
    let (pid, text) = (announced.pid, serde_json::to_vec(&announced)?);
    let new = dir.join(format!("server.json.{pid}"));
    std::fs::write(&new, text)?;
    std::fs::rename(new, dir.join("server.json"))
}

fn holder(dir: &Path, name: &str) -> Option<u32> {
    let mut file = OpenOptions::new()
        .read(true)
        .open(dir.join(format!("{name}.lock")))
        .ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(pid_in(&mut file)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn pid_in(file: &mut File) -> u32 {
    let mut text = String::new();
    if file.take(32).read_to_string(&mut text).is_err() {
        return 0;
    }
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_and_told_the_pid() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path(), "log").unwrap();
        let error = DirLock::take(dir.path(), "log").unwrap_err();
        assert!(
            matches!(&error, DiskError::InUse { pid, .. } if *pid == std::process::id()),
            "{error}"
        );
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        DirLock::take(dir.path(), "log").unwrap();
    }

    #[test]
    fn a_directory_tells_its_server_only_while_it_is_owned() {
        let dir = tempfile::tempdir().unwrap();
        let http: SocketAddr = "127.0.0.1:7600".parse().unwrap();
        assert_eq!(in_use(dir.path()), None);
        let lock = DirLock::take(dir.path(), "store").unwrap();
        let pid = std::process::id();
        assert_eq!(
            in_use(dir.path()),
            Some(RunningServer {
                pid,
                http: None,
                serves: None
            })
        );
        let serves = Serves {
            topic: "t".to_owned(),
            namespace: "n".to_owned(),
        };
        announce(dir.path(), http, serves.clone()).unwrap();
        let running = RunningServer {
            pid,
            http: Some(http),
            serves: Some(serves),
        };
        assert_eq!(in_use(dir.path()), Some(running));
        drop(lock);
        assert_eq!(in_use(dir.path()), None);
    }

    #[test]
    fn an_address_that_another_process_left_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("server.json"), r#"{"pid":1,"http":"127.0.0.1:1"}"#).unwrap();
        let _lock = DirLock::take(dir.path(), "log").unwrap();
        assert_eq!(in_use(dir.path()).unwrap().http, None);
    }
}

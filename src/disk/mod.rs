//! A fjall database that one process owns and whose commits are on disk when they return: what the
//! embedded log and the embedded store stand on. Knows nothing of either.
//! In: batches of keys and values. Out: all or none, synced.
//! Invariant: after a failed write or sync nothing is acknowledged any more, until a restart reads
//! back what the disk really has. What was acknowledged and is gone is found at the next opening.
//! Source: Rebello et al., "Can Applications Recover from fsync Failures?" (ATC 2020).

mod full;
mod journal;
mod lock;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

pub use lock::{RunningServer, Serves, announce, in_use};

/// Where the number of the newest commit stands.
const COMMIT_KEY: &[u8; 16] = b"\0khala/commit-no";

/// The keyspace that every database has: small things of its owner, and the number of the newest commit.
pub const META: &str = "meta";

/// A keyspace by name, and how it is made.
pub type Room<'a> = (&'a str, fn() -> KeyspaceCreateOptions);

const MARK_SYNC_EVERY: Duration = Duration::from_secs(1);

/// Variants differ in what the caller does.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process owns the directory: use its HTTP API, or stop it.
    #[error("{place} is held by {}: one process owns the directory; use its HTTP API, or stop it", owner(*pid))]
    InUse {
        /// The lock file.
        place: PathBuf,
        /// Of the owner; 0 if it does not tell.
        pid: u32,
    },
    /// What was acknowledged is not there any more.
    #[error(
        "{place}: commit {acknowledged} was acknowledged, but only {found} can be read: the journal is damaged. \
         Restore a copy of the directory, or remove it whole to start empty{}",
        kept_in(kept.as_ref())
    )]
    Lost {
        /// The database's directory.
        place: PathBuf,
        /// Number of the newest commit that was acknowledged.
        acknowledged: u64,
        /// Number of the newest commit that is there.
        found: u64,
        /// Where the damaged journals were copied to before anything touched them; `None`: nothing did.
        kept: Option<PathBuf>,
    },
    /// A write had no room on the disk, or was over a quota or a limit: a person makes room.
    #[error("{0}")]
    Full(String),
    /// Reading or writing failed.
    #[error("{0}")]
    Failed(String),
}

fn owner(pid: u32) -> String {
    if pid == 0 {
        "another process".to_owned()
    } else {
        format!("process {pid}")
    }
}

fn kept_in(kept: Option<&PathBuf>) -> String {
    kept.map_or_else(String::new, |kept| {
        format!("; the journals as they were found are in {}", kept.display())
    })
}

/// An open database. Dropping it frees the directory.
pub struct Disk {
    database: Database,
    meta: Keyspace,
    place: PathBuf,
    commits: Mutex<Commits>,
    stopped: OnceLock<DiskError>,
    _lock: lock::DirLock,
}

/// How many commits there were, and the file that says how many were acknowledged.
struct Commits {
    last: u64,
    mark: File,
    mark_synced: Instant,
}

impl Disk {
    /// Opens or makes `<dir>/<name>/` with these keyspaces beside [`META`].
    ///
    /// # Errors
    /// `InUse` names the owner; `Lost`, `Failed` name the directory. Nothing was changed.
    pub fn open(dir: &Path, name: &str, keyspaces: &[Room]) -> Result<Self, DiskError> {
        std::fs::create_dir_all(dir).map_err(|error| DiskError::Failed(format!("{}: {error}", dir.display())))?;
        let lock = lock::DirLock::take(dir, name)?;
        let place = dir.join(name);
        let fail = |error: &dyn std::fmt::Display| DiskError::Failed(format!("{}: {error}", place.display()));
        let mark = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(format!("{name}.acknowledged")))
            .map_err(|error| fail(&error))?;
        let acknowledged = read_mark(&mark);
        let mut kept = None;
        if place.exists() {
            let found = journal::read(&place).map_err(|error| fail(&error))?;
            ensure_none_lost(&place, acknowledged, found.newest.unwrap_or(acknowledged), None)?;
            kept = keep(&found, dir, name).map_err(|error| fail(&error))?;
        } else {
            ensure_none_lost(&place, acknowledged, 0, None)?;
            make(dir, name, keyspaces).map_err(|error| fail(&error))?;
        }
        let database = Database::builder(&place).open().map_err(|error| fail(&error))?;
        let meta = database
            .keyspace(META, KeyspaceCreateOptions::default)
            .map_err(|error| fail(&error))?;
        let last = read_last(&meta).map_err(|error| fail(&error))?;
        ensure_none_lost(&place, acknowledged, last, kept.as_ref())?;
        if let Some(kept) = kept {
            std::fs::remove_dir_all(kept).map_err(|error| fail(&error))?;
        }
        Ok(Self {
            database,
            meta,
            place,
            commits: Mutex::new(Commits {
                last,
                mark,
                mark_synced: Instant::now(),
            }),
            stopped: OnceLock::new(),
            _lock: lock,
        })
    }

    /// The database's directory.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// A keyspace that opening has made.
    ///
    /// # Errors
    /// `Failed` names the directory.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace, DiskError> {
        self.database
            .keyspace(name, KeyspaceCreateOptions::default)
            .map_err(|error| self.failed(&error))
    }

    /// The keyspace [`META`].
    pub fn meta(&self) -> &Keyspace {
        &self.meta
    }

    /// The database, to read from.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// An empty batch.
    pub fn batch(&self) -> OwnedWriteBatch {
        self.database.batch()
    }

    /// Writes a batch: all or none, on disk when this returns. Blocks.
    ///
    /// # Errors
    /// Not known whether it was written; from now on every commit fails.
    pub fn commit(&self, mut batch: OwnedWriteBatch) -> Result<(), DiskError> {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        self.running()?;
        let number = commits.last + 1;
        batch.insert(
            &self.meta,
            COMMIT_KEY.as_slice(),
            seal(COMMIT_KEY, &number.to_le_bytes()),
        );
        batch
            .durability(Some(PersistMode::SyncData))
            .commit()
            .map_err(|error| self.stop(&error))?;
        commits.last = number;
        commits.acknowledge().map_err(|error| self.stop(&error))
    }

    /// Writes a batch that a power cut may undo, but no end of this process. Blocks.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn commit_unsynced(&self, batch: OwnedWriteBatch) -> Result<(), DiskError> {
        self.running()?;
        batch
            .durability(Some(PersistMode::Buffer))
            .commit()
            .map_err(|error| self.stop(&error))
    }

    /// Whether it still takes commits.
    ///
    /// # Errors
    /// Why it does not, and what helps.
    pub fn running(&self) -> Result<(), DiskError> {
        self.stopped.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    /// Ends all acknowledging, for good. Gives the error to return.
    pub fn stop(&self, why: &(dyn Error + 'static)) -> DiskError {
        let place = self.place.display();
        let error = match full::words(why, &self.place) {
            Some(words) => DiskError::Full(format!(
                "{place}: no room to write ({words}); nothing is acknowledged any more. Make room there and restart \
                 Khala; then send again what was refused"
            )),
            None => DiskError::Failed(format!(
                "{place}: writing failed ({why}); nothing is acknowledged any more. Check the disk, then restart Khala"
            )),
        };
        if self.stopped.set(error.clone()).is_ok() {
            tracing::error!(%place, %why, "writing failed; stopped until a restart");
        }
        error
    }

    /// A failed read, with its place.
    pub fn failed(&self, error: &dyn std::fmt::Display) -> DiskError {
        DiskError::Failed(format!("{}: {error}", self.place.display()))
    }
}

impl Commits {
    /// Notes the newest commit where a damaged journal cannot take it along. The page cache keeps it over
    /// a kill -9; synced only now and then, it may lag behind after a power cut, but is never ahead.
    fn acknowledge(&mut self) -> std::io::Result<()> {
        let text = seal(COMMIT_KEY, &self.last.to_le_bytes());
        self.mark.write_all_at(&text, 0)?;
        if self.mark_synced.elapsed() >= MARK_SYNC_EVERY {
            self.mark.sync_data()?;
            self.mark_synced = Instant::now();
        }
        Ok(())
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        if let Err(error) = self.mark.sync_data() {
            tracing::warn!(%error, "the number of the newest commit could not be synced");
        }
    }
}

fn ensure_none_lost(place: &Path, acknowledged: u64, found: u64, kept: Option<&PathBuf>) -> Result<(), DiskError> {
    if found < acknowledged {
        return Err(DiskError::Lost {
            place: place.to_owned(),
            acknowledged,
            found,
            kept: kept.cloned(),
        });
    }
    Ok(())
}

/// Copies journals that fjall is about to cut, where they alone cannot tell a torn write from damage: nothing
/// in them is whole. Copies of an earlier opening that found losses stay, and are not overwritten.
fn keep(found: &journal::Found, dir: &Path, name: &str) -> std::io::Result<Option<PathBuf>> {
    let kept = dir.join(format!("{name}.damaged"));
    if kept.exists() {
        return Ok(Some(kept));
    }
    if found.newest.is_some() || found.cut.is_empty() {
        return Ok(None);
    }
    let new = dir.join(format!("{name}.damaged.new"));
    std::fs::create_dir_all(&new)?;
    for journal in &found.cut {
        if let Some(file) = journal.file_name() {
            std::fs::copy(journal, new.join(file))?;
        }
    }
    std::fs::rename(new, &kept)?;
    Ok(Some(kept))
}

/// Makes the database beside its place and moves it there whole: a kill in between leaves nothing half made.
fn make(dir: &Path, name: &str, keyspaces: &[Room]) -> fjall::Result<()> {
    let new = dir.join(format!("{name}.new"));
    if new.exists() {
        std::fs::remove_dir_all(&new)?;
    }
    let database = Database::builder(&new).open()?;
    let meta: Room = (META, KeyspaceCreateOptions::default);
    for (keyspace, options) in keyspaces.iter().chain(&[meta]) {
        database.keyspace(keyspace, options)?;
    }
    database.persist(PersistMode::SyncAll)?;
    drop(database);
    std::fs::rename(&new, dir.join(name))?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

fn read_mark(mark: &File) -> u64 {
    let mut text = [0; 12];
    let whole = mark.read_exact_at(&mut text, 0).is_ok();
    let number = if whole { unseal(COMMIT_KEY, &text) } else { None };
    number
        .and_then(|number| number.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

fn read_last(meta: &Keyspace) -> fjall::Result<u64> {
    let Some(value) = meta.get(COMMIT_KEY)? else {
        return Ok(0);
    };
    let number = unseal(COMMIT_KEY, &value).and_then(|number| number.try_into().ok());
    Ok(number.map_or(0, u64::from_le_bytes))
}

/// A value with a checksum over key and value, so that a flipped bit, or a value under another key, is found.
pub fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(payload.len() + 4);
    value.extend_from_slice(&[0; 4]);
    value.extend_from_slice(payload);
    seal_in_place(key, &mut value);
    value
}

/// Seals a value whose first four bytes were left free.
pub fn seal_in_place(key: &[u8], value: &mut [u8]) {
    let (checksum, payload) = value.split_at_mut(4);
    checksum.copy_from_slice(&checksum_of(key, payload).to_le_bytes());
}

/// The payload of a sealed value; `None` if key and value do not belong together.
pub fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (checksum, payload) = value.split_at_checked(4)?;
    (checksum == checksum_of(key, payload).to_le_bytes()).then_some(payload)
}

fn checksum_of(key: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), payload)
}

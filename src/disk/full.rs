//! Whether a write failed for want of room: the one failure that a person mends without doubt in what was written.
//! In: the error, the place. Out: the system's words for it.

use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

/// What a table, written behind the commits, may take.
const TABLE_BYTES: u64 = 64 << 20;

/// The system's words, if `error` comes of a disk that is full, a quota, or a limit on the size of files.
pub(super) fn words(error: &(dyn Error + 'static), place: &Path) -> Option<String> {
    if let Some(error) = io_error(error) {
        return is_full(error).then(|| error.to_string());
    }
    // A table that could not be written stops the database and tells the next commit no reason: asked for its room,
    // the system does.
    let poisoned = matches!(error.downcast_ref(), Some(fjall::Error::Poisoned));
    let error = poisoned.then(|| ask_for_room(place).err())??;
    is_full(&error).then(|| format!("a table could not be written: {error}"))
}

fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

/// Takes a table's room beside `place`, and gives it back.
fn ask_for_room(place: &Path) -> io::Result<()> {
    let path = place.with_extension("room");
    let file = File::create(&path)?;
    std::fs::remove_file(&path)?;
    Ok(fallocate(&file, FallocateFlags::empty(), 0, TABLE_BYTES)?)
}

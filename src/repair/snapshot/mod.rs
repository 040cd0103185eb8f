//! Snapshots: documents beside the log, so that a lost store and a log that retention has cut are still no loss.
//! Written behind the commits, by whoever owns the partition; read when the store has nothing, or nothing that the log reaches.
//! Source: fuzzy checkpoints of ARIES: a marker says "as of here, and some are further on".

mod begun;
mod clear;
mod file;
mod level;
mod pass;
mod restore;
mod source;
mod tail;
mod write;

pub use self::begun::{Restored, Restoring, is_begun};
pub use self::file::write_file;
pub use self::restore::restore;
pub use self::source::{Source, lookup, written_up_to};
pub use self::write::{Round, Snapshots};

//! Repair: what is not as the log says is found, named and put right.
//! In: log and store. Out: documents that equal the log, or the names of those that cannot be rebuilt.
//! Invariant: every write is a compare-and-set; whatever is killed half-way is finished by whoever comes next.

mod choose;
mod plan;
mod rewind;
mod site;
mod survey;

pub use self::choose::{Choice, From};
pub use self::rewind::{Progress, rewind};
pub use self::site::{RepairError, Site, describe, operator};
pub use self::survey::{compare, last_record_of};

//! Repair: what is not as the log says is found, named and put right.
//! In: log and store. Out: documents that equal the log, or the names of those that cannot be rebuilt.
//! Invariant: every write is a compare-and-set; whatever is killed half-way is finished by whoever comes next.

mod audit;
mod choose;
mod entity;
mod examine;
mod expire;
mod ground;
mod heal;
mod listing;
mod marks;
mod parity;
mod plan;
mod reading;
mod report;
mod rewind;
mod site;
pub mod snapshot;
mod standing;
mod survey;
mod verdict;
mod vouch;
mod wishes;

pub use self::audit::{AuditRequest, Forecast, ForecastPartition, Stretch, audit, forecast};
pub use self::choose::{Choice, From};
pub use self::entity::{EntityReplay, EntityResult, Intention, replay_entity};
pub use self::examine::{Begin, Examined, examine};
pub use self::expire::{Expired, Expiry, InSnapshot, Keep};
pub use self::ground::{Ground, Pace};
pub use self::heal::{Healer, Healing, Repaired, heal};
pub use self::marks::forget_past;
pub use self::parity::{DIFFERING_MAX, DifferingRow, Parity, compare_entities, compare_namespaces};
pub use self::report::{AuditProgress, AuditRepair, AuditReport, DRIFT_MAX, DriftRow, PartitionAudit, drift_row};
pub use self::rewind::{Progress, rewind};
pub use self::site::{RepairError, Site, describe, operator};
pub use self::survey::{compare, last_record_of, of_another};
pub use self::verdict::{Rebuild, Verdict};

//! A rollout by cohorts: which entities' readers get the candidate's documents, in which stages, under which gates.
//! In: a plan, what was measured, the time. Out: a decision. Invariant: nothing here asks or tells anybody; an entity
//! that a stage leads over stays led over in all later ones.

mod gates;
mod plan;
mod route;
mod state;

pub use self::gates::{GATES, Limits, Reading, Values};
pub use self::plan::{Plan, Stage};
pub use self::route::CohortRoute;
pub use self::state::{Beat, Decision, Place, Record, Rollout, RolloutPhase, Step};

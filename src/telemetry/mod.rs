//! What Khala says of itself: [`Metrics`] for Prometheus, logs for stderr.
//! In: numbers and events from all rooms but `pure`. Out: text.
//! Invariant: labels come from closed sets; ids go to logs only.

pub mod logs;
mod metrics;

pub use metrics::{DRIFT_REASONS, KafkaStatistics, Metrics, StoreMemory};

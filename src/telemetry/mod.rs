//! What operators watch: instruments (INTERFACE.md §5) and logs. One definition each.

pub mod logs;
mod metrics;

pub use self::metrics::Metrics;

//! What Khala says of itself: [`Metrics`] for Prometheus, logs for stderr, spans; all three by OTLP where `OTEL_*` say so.
//! In: numbers and events from all rooms but `pure`. Out: text, OTLP.
//! Invariant: labels come from closed sets; ids go to logs and spans only.

pub mod logs;
pub mod messaging;
mod metrics;
mod otlp;
mod repeats;

pub use metrics::{DRIFT_REASONS, KafkaStatistics, Metrics, RolloutGauges, StoreMemory, Topics};
pub use otlp::Export;
pub use repeats::{AUDIT, sum_up};

//! Khala folds a log of agent runtime events into documents, exactly. The rooms, in reading order:
//!
//! - [`pure`]: events, acceptance, folds, checkpoints, recovery, the partition machine. No IO.
//! - [`log`] and [`store`]: the two seams, with Kafka, Redis and the embedded default behind them.
//! - [`projector`]: drives one partition machine per assigned partition.
//! - [`serve`], [`cli`]: what people and programs call.
//! - `disk`: what the embedded log and the embedded store stand on.
//! - [`telemetry`]: instruments and logs. [`config`]: settings, read once.

pub mod cli;
pub mod config;
mod disk;
pub mod log;
pub mod projector;
pub mod pure;
pub mod serve;
pub mod store;
pub mod telemetry;

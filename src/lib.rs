//! Khala folds a log of agent runtime events into documents, exactly. The rooms, in reading order:
//!
//! - [`pure`]: events, acceptance, folds, checkpoints, recovery, the partition machine. No IO.
//! - [`log`] and [`store`]: the two seams, with Kafka, Redis and the embedded default behind them.
//! - `disk`: the directory of the embedded default: lock, database, synced batches.
//! - [`repair`]: rewind, audit, snapshots.
//! - [`rollout`]: which readers get a candidate's documents, in stages, under gates. No IO.
//! - [`projector`]: drives one partition machine per assigned partition.
//! - [`access`]: what commands and HTTP do alike. [`serve`], [`cli`]: what people and programs call.
//! - [`client`]: for other Rust programs; it speaks HTTP and names nothing of the rest.
//! - [`telemetry`]: instruments and logs. [`config`]: settings, read once.

pub mod access;
pub mod cli;
pub mod client;
pub mod config;
mod disk;
pub mod log;
pub mod projector;
pub mod pure;
pub mod repair;
pub mod rollout;
pub mod serve;
pub mod store;
pub mod telemetry;

//! Decisions without IO, clock, randomness or async: a function of its inputs, and total.

pub mod accept;
pub mod batch;
pub mod cache;
pub mod canonical;
pub mod checkpoint;
pub mod contract;
pub mod document;
pub mod drift;
pub mod entity;
pub mod event;
pub mod history;
pub mod intent;
pub mod partition;
pub mod place;
pub mod record;
pub mod recovery;
pub mod redact;
pub mod refold;
pub mod run;
pub mod snapshot;
pub mod time;
pub mod worker;

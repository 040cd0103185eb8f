//! Black-box tests of the `khala` binary on a real Kafka and a real Redis (feature `real`).
//! Each ends alike: every document, count and dead letter equals the reference fold of what Kafka holds,
//! and the recovery was named in the log and the metrics. Servers: `scripts/install-test-servers`.

#[path = "../../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "what makes a batch of bytes is all that is taken")]
mod bodies;
#[path = "../reference/mod.rs"]
mod reference;
#[path = "../support/mod.rs"]
mod support;

mod audit;
mod bench;
mod broker_faults;
mod broker_network;
mod brokers;
mod client;
mod clock;
mod commands;
mod compare;
mod compare_places;
mod contract;
mod crashes;
mod deployment;
mod drift_random;
mod entities;
mod expiry;
mod forecast;
mod formats;
mod gate;
mod handoff;
mod headers;
mod held;
mod http;
mod http_auth;
mod http_limits;
mod http_wire;
mod identity;
mod listing;
mod metrics;
mod migrate;
mod observe;
mod openapi;
mod page;
mod pasted;
mod producers;
mod put_back;
mod rebuild;
mod redaction;
mod redrive;
mod restore_disturbed;
mod rewind;
mod rollout;
mod rollout_gates;
mod rollout_traffic;
mod script_corpus;
mod servers;
mod sink_faults;
mod sink_network;
mod slow_readers;
mod snapshots;
mod spoil;
mod streams;
mod top;
mod topic;
mod topologies;
mod transactions;
mod turns;
mod upgrade;
mod versions;
mod web;
mod world;

//! Servers and processes for tests: a Kafka broker, a Redis, khala itself.
//! Invariant: whatever is started here ends with the test process, however that ends.
#![allow(dead_code, reason = "each test binary that includes this uses a part of it")]

pub mod broker;
pub mod clock;
pub mod collector;
pub mod guarded;
pub mod khala;
pub mod proxy;
pub mod redis_server;
pub mod wait;

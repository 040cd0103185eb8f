//! The reference: a slow, obvious, second reading of INTERFACE.md §1 and §2, and an input that is as messy as legal.
//! In: records as any Kafka client reads them. Out: what every document, count and digest must be.
//! Invariant: names nothing of `khala`; what both say alike, two readers have understood alike.
//! Shared by the test binaries `reference`, `cross_fold` and `real` (each uses a part of it).
#![allow(dead_code, reason = "each test binary that includes this uses a part of it")]

pub mod accept;
pub mod decode;
pub mod fold;
pub mod json;
pub mod messy;
pub mod place;
pub mod time;

/// One record as it stands in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rec {
    pub partition: u32,
    pub offset: u64,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

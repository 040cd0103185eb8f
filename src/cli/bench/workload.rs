//! The events of a bench, made from a seed, and what their documents must say: counted here, not folded.
//! In: a seed, numbers of events and runs. Out: records in the order of their arrival, always the same for the same
//! seed. Invariant: a record's place in its partition is the number of records that went there before it.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::log::NewRecord;
use crate::pure::place::{PartitionId, Partitioner};
use crate::pure::time::Time;

/// One record of this many is sent once more.
const DUPLICATED_ONE_IN: u32 = 200;
/// A duplicate comes at most so many records after the first.
const DUPLICATE_AFTER_MAX: u64 = 500;
/// 2026-02-19T12:00:00Z.
const BEGAN_MS: i64 = 1_771_502_400_000;
/// Created, started, finished: a run has at least these.
const EVENTS_PER_RUN_MIN: u64 = 3;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Workload {
    pub seed: u64,
    /// Records without the duplicates, about.
    pub events: u64,
    pub runs: u64,
    /// Runs under way at once.
    pub at_once: u64,
    /// Bytes of an event's JSON at least.
    pub event_bytes: u64,
}

/// One record: the `index`-th event of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub run: u64,
    pub index: u64,
    pub is_duplicate: bool,
}

/// Where a run's first and last events must stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub partition: u32,
    pub first_offset: u64,
    pub offset: u64,
}

/// Of a whole workload.
pub(super) struct Expected {
    pub runs: Vec<Span>,
    pub accepted: u64,
    pub duplicates: u64,
}

impl Workload {
    pub(super) fn events_per_run(&self) -> u64 {
        (self.events / self.runs.max(1)).max(EVENTS_PER_RUN_MIN)
    }

    /// All records, in order.
    pub(super) fn sent(self) -> Arrivals {
        let at_once = self.at_once.clamp(1, self.runs);
        Arrivals {
            workload: self,
            rng: StdRng::seed_from_u64(self.seed),
            under_way: (0..at_once).map(|run| (run, 0)).collect(),
            next_run: at_once,
            place: 0,
            again: VecDeque::new(),
        }
    }

    pub(super) fn expected(self, partitioner: Partitioner, partitions: u32) -> Expected {
        let mut ends = vec![0_u64; partitions as usize];
        let mut expected = Expected {
            runs: vec![Span::default(); self.runs as usize],
            accepted: 0,
            duplicates: 0,
        };
        for sent in self.sent() {
            let PartitionId(partition) = partitioner.place(self.subject(sent.run).as_bytes(), partitions);
            let offset = ends[partition as usize];
            ends[partition as usize] += 1;
            if sent.is_duplicate {
                expected.duplicates += 1;
                continue;
            }
            expected.accepted += 1;
            let span = &mut expected.runs[sent.run as usize];
            if sent.index == 0 {
                (span.partition, span.first_offset) = (partition, offset);
            }
            span.offset = offset;
        }
        expected
    }

    pub(super) fn subject(&self, run: u64) -> String {
        format!("run/bench_{:04x}_{run:07}", self.seed & 0xffff)
    }

    pub(super) fn record(&self, sent: Sent) -> NewRecord {
        NewRecord {
            key: Some(self.subject(sent.run).into_bytes()),
            value: Some(self.value(sent.run, sent.index).into_bytes()),
            ..NewRecord::default()
        }
    }

    /// About 300 bytes, or as many as asked for, as hard to compress as ids and traces are.
    pub(super) fn value(&self, run: u64, index: u64) -> String {
        let value = self.padded(run, index, "");
        let missing = (self.event_bytes as usize).saturating_sub(value.len());
        if missing == 0 {
            return value;
        }
        let words = (0..).map(|word| format!("{:016x}", noise(self.seed ^ (run << 40) ^ (index << 20) ^ word)));
        let pad: String = words.take(missing.div_ceil(16)).collect();
        self.padded(run, index, &pad[..missing])
    }

    fn padded(&self, run: u64, index: u64, pad: &str) -> String {
        let (kind, mut data) = self.data(run, index);
        if !pad.is_empty() {
            let comma = if data == "{}" { "" } else { "," };
            data.insert_str(1, &format!("\"pad\":\"{pad}\"{comma}"));
        }
        let [id, trace, span] = [1, 2, 3].map(|salt| noise(self.seed ^ (run << 24) ^ (index << 4) ^ salt));
        let trace_end = noise(trace);
        format!(
            "{{\"specversion\":\"1.0\",\"id\":\"01K0XW3V9G{id:016X}\",\"source\":\"{}\",\"type\":\"{kind}\",\
             \"subject\":\"{}\",\"time\":\"{}\",\"sequence\":\"{}\",\
             \"traceparent\":\"00-{trace:016x}{trace_end:016x}-{span:016x}-01\",\"data\":{data}}}",
            source(run),
            self.subject(run),
            time(run, index),
            index + 1,
        )
    }

    fn data(&self, run: u64, index: u64) -> (&'static str, String) {
        let owner = run % 100;
        match index {
            0 => (
                "run.created",
                format!("{{\"thread_id\":\"thread_{owner}\",\"owner_user_id\":\"user_{owner}\"}}"),
            ),
            1 => ("run.started", "{}".to_owned()),
            _ if index + 1 == self.events_per_run() => (
                "run.finished",
                "{\"status\":\"succeeded\",\"reason_class\":\"done\",\"reason\":\"all steps done\"}".to_owned(),
            ),
            _ => {
                let noise = noise(run ^ index.rotate_left(32));
                (
                    "run.delta",
                    format!("{{\"delta\":\"token {noise:016x} of step {index}\"}}"),
                )
            }
        }
    }

    /// A run's document, without what only the log's clock and the projector know.
    pub(super) fn document(&self, run: u64, span: Span) -> Value {
        let (count, subject) = (self.events_per_run(), self.subject(run));
        let id = subject.trim_start_matches("run/");
        let owner = run % 100;
        json!({
            "document_id": format!("run_summary:{id}"), "kind": "run_summary", "run_id": id, "status": "succeeded",
            "thread_id": format!("thread_{owner}"), "owner_user_id": format!("user_{owner}"), "owner_guest_scope": null,
            "event_count": count, "latest_seq": count, "late_event_count": 0, "executor_lost_count": 0,
            "latest_event_type": "run.finished", "latest_event_at": time(run, count - 1),
            "started_at": time(run, 1), "terminal_at": time(run, count - 1),
            "terminal_reason_class": "done", "terminal_reason": "all steps done", "missing_events": 0,
            "runtime_source": {
                "entity": subject, "partition": span.partition, "first_offset": span.first_offset,
                "offset": span.offset, "seq": count,
                "sources": { source(run): { "max": count, "missing": [], "forgotten": 0 } },
            },
            "projection_version": 1,
        })
    }
}

fn source(run: u64) -> String {
    format!("executor/eu-1/{:04x}", run % 64)
}

fn time(run: u64, index: u64) -> String {
    let ms = BEGAN_MS + (run * 7 + index * 1000) as i64;
    Time::from_ms(ms).map_or_else(String::new, |time| time.to_string())
}

/// Bits that do not compress (the finalizer of `SplitMix64`, Steele et al. 2014).
fn noise(seed: u64) -> u64 {
    let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The records of a workload in the order of their arrival.
pub(super) struct Arrivals {
    workload: Workload,
    rng: StdRng,
    /// Runs under way with the index of their next event.
    under_way: Vec<(u64, u64)>,
    next_run: u64,
    place: u64,
    /// Records to be sent once more, when their place comes.
    again: VecDeque<(u64, Sent)>,
}

impl Iterator for Arrivals {
    type Item = Sent;

    fn next(&mut self) -> Option<Sent> {
        self.place += 1;
        let due = |(place, _): &(u64, Sent)| *place <= self.place || self.under_way.is_empty();
        if self.again.front().is_some_and(due) {
            return self.again.pop_front().map(|(_, sent)| sent);
        }
        if self.under_way.is_empty() {
            return None;
        }
        let lane = self.rng.random_range(0..self.under_way.len());
        let (run, index) = self.under_way[lane];
        self.under_way[lane].1 += 1;
        if index + 1 == self.workload.events_per_run() {
            if self.next_run < self.workload.runs {
                self.under_way[lane] = (self.next_run, 0);
                self.next_run += 1;
            } else {
                self.under_way.swap_remove(lane);
            }
        }
        let sent = Sent {
            run,
            index,
            is_duplicate: false,
        };
        if self.rng.random_range(0..DUPLICATED_ONE_IN) == 0 {
            let after = self.rng.random_range(1..=DUPLICATE_AFTER_MAX);
            let is_duplicate = true;
            self.again
                .push_back((self.place + after, Sent { is_duplicate, ..sent }));
        }
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKLOAD: Workload = Workload {
        seed: 7,
        events: 40_000,
        runs: 1000,
        at_once: 100,
        event_bytes: 0,
    };

    #[test]
    fn a_workload_is_the_same_for_the_same_seed_and_counts_what_it_sends() {
        let sent: Vec<Sent> = WORKLOAD.sent().collect();
        assert!(WORKLOAD.sent().eq(sent.iter().copied()));
        let expected = WORKLOAD.expected(Partitioner::Murmur2, 12);
        assert_eq!(expected.accepted, 40_000);
        assert_eq!(expected.accepted + expected.duplicates, sent.len() as u64);
        assert!((100..400).contains(&expected.duplicates), "{}", expected.duplicates);
        let ends = expected.runs.iter().map(|span| span.offset);
        assert!(ends.max().is_some_and(|end| end < sent.len() as u64));
    }

    #[test]
    fn each_run_is_sent_in_order_and_an_event_has_about_300_bytes() {
        let mut next = vec![0; 1000];
        for sent in WORKLOAD.sent() {
            let next = &mut next[sent.run as usize];
            assert_eq!(sent.is_duplicate, sent.index < *next, "{sent:?}");
            *next = (sent.index + 1).max(*next);
            let value = WORKLOAD.value(sent.run, sent.index);
            assert!((240..360).contains(&value.len()), "{}: {value}", value.len());
        }
        assert!(next.iter().all(|next| *next == 40));
    }

    #[test]
    fn an_event_is_as_large_as_asked_for_and_as_legal_as_before() {
        for (bytes, index) in [(1000, 0), (1000, 1), (100_000, 2), (5000, 39)] {
            let large = Workload {
                event_bytes: bytes,
                ..WORKLOAD
            };
            let value = large.value(3, index);
            assert!((bytes..bytes + 20).contains(&(value.len() as u64)), "{}", value.len());
            let event: Value = serde_json::from_str(&value).expect("JSON");
            let plain: Value = serde_json::from_str(&WORKLOAD.value(3, index)).expect("JSON");
            assert_eq!((&event["type"], &event["id"]), (&plain["type"], &plain["id"]));
        }
    }
}

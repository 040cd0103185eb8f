//! What a small fleet of agents writes in a few seconds, made from a seed: runs and workers, with all that goes
//! wrong on the way to a log. Out: records in the order of their arrival.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::log::NewRecord;

const RUNS: usize = 24;
const WORKERS: usize = 6;
/// How far a late event may come after its place.
const LATE_BY_MAX: usize = 40;

/// What was done to the events on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mishaps {
    /// Sent twice.
    pub duplicated: usize,
    /// Came after their successors.
    pub late: usize,
    /// Never came.
    pub lost: usize,
    /// No legal events.
    pub garbage: usize,
}

struct Fleet {
    rng: StdRng,
    name: String,
    start_ms: i64,
    sent: Vec<NewRecord>,
    ids: u64,
}

/// The records of one demo, in the order of their arrival, and what happened to them on the way.
pub fn records(seed: u64, start_ms: i64) -> (Vec<NewRecord>, Mishaps) {
    let mut fleet = Fleet {
        rng: StdRng::seed_from_u64(seed),
        name: format!("demo-{:04x}", seed & 0xffff),
        start_ms,
        sent: Vec::new(),
        ids: 0,
    };
    let mut lanes: Vec<Vec<NewRecord>> = (1..=RUNS).map(|i| fleet.run(i)).collect();
    lanes.extend((1..=WORKERS).map(|i| fleet.worker(i)));
    fleet.interleave(lanes);
    fleet.mishaps()
}

impl Fleet {
    /// One run's life: created, started, deltas and tool calls, perhaps a lost executor, an end.
    fn run(&mut self, i: usize) -> Vec<NewRecord> {
        let subject = format!("run/{}-run-{i:02}", self.name);
        let mut source = format!("executor/eu-1/{:02x}", i % 4);
        let mut lane = vec![
            self.event(
                &subject,
                "control",
                1,
                "run.created",
                &json!({"thread_id": format!("thread-{}", i % 7), "owner_user_id": "ada"}),
            ),
            self.event(&subject, &source, 1, "run.started", &json!({})),
        ];
        let mut sequence = 1;
        for step in 0..self.rng.random_range(40..140) {
            sequence += 1;
            if step == 30 && i % 8 == 3 {
                lane.push(self.event(&subject, "control", 2, "run.executor_lost", &json!({})));
                source = format!("executor/eu-2/{:02x}", i % 4);
                sequence = 1;
            }
            let (kind, data) = match self.rng.random_range(0..10) {
                0 => ("run.tool_call", json!({"tool": "search", "call": step})),
                1 => ("run.tool_result", json!({"call": step, "ok": true})),
                _ => ("run.delta", json!({"delta": format!("token {step}")})),
            };
            lane.push(self.event(&subject, &source, sequence, kind, &data));
        }
        let end = match i % 8 {
            5 => return lane, // still running
            6 => json!({"status": "failed", "reason_class": "tool_error", "reason": "search: 503"}),
            7 => json!({"status": "canceled"}),
            _ => json!({"status": "succeeded"}),
        };
        if i % 8 == 7 {
            lane.push(self.event(&subject, "control", 2, "run.cancel_requested", &json!({})));
        }
        lane.push(self.event(&subject, &source, sequence + 1, "run.finished", &end));
        if i % 8 == 1 {
            lane.push(self.event(
                &subject,
                &source,
                sequence + 2,
                "run.delta",
                &json!({"delta": "too late"}),
            ));
        }
        lane
    }

    /// One worker's life: started, heartbeats, an error, perhaps a restart.
    fn worker(&mut self, i: usize) -> Vec<NewRecord> {
        let subject = format!("worker/{}-worker-{i}", self.name);
        let source = format!("host/{i}");
        let started = json!({"workspace_ref": "main", "adapter": "shell", "metadata": {"cores": 2 * i}});
        let mut lane = vec![self.event(&subject, &source, 1, "worker.started", &started)];
        let beats = self.rng.random_range(30..60);
        for beat in 2..beats {
            let (kind, data) = match beat {
                20 => ("worker.error", json!({"fatal": false})),
                25 if i == 2 => ("worker.started", started.clone()),
                _ => ("worker.heartbeat", json!({})),
            };
            lane.push(self.event(&subject, &source, beat, kind, &data));
        }
        let end = if i == WORKERS {
            ("worker.error", json!({"fatal": true}))
        } else {
            ("worker.stopped", json!({}))
        };
        if i.is_multiple_of(2) {
            lane.push(self.event(&subject, &source, beats, end.0, &end.1));
        }
        lane
    }

    fn event(&mut self, subject: &str, source: &str, sequence: u64, kind: &str, data: &Value) -> NewRecord {
        self.ids += 1;
        let time = crate::pure::time::Time::from_ms(self.start_ms + self.ids as i64);
        let value = json!({
            "specversion": "1.0", "id": format!("{}-{:06}", self.name, self.ids), "source": source, "type": kind,
            "subject": subject, "time": time.map(|time| time.to_string()), "sequence": sequence.to_string(), "data": data,
        });
        NewRecord {
            key: Some(subject.as_bytes().to_vec()),
            value: Some(value.to_string().into_bytes()),
            ..NewRecord::default()
        }
    }

    fn interleave(&mut self, mut lanes: Vec<Vec<NewRecord>>) {
        for lane in &mut lanes {
            lane.reverse();
        }
        while !lanes.is_empty() {
            let i = self.rng.random_range(0..lanes.len());
            match lanes[i].pop() {
                Some(record) => self.sent.push(record),
                None => drop(lanes.swap_remove(i)),
            }
        }
    }

    /// Loses, delays and repeats some of the records, and throws garbage between them.
    fn mishaps(mut self) -> (Vec<NewRecord>, Mishaps) {
        let mut mishaps = Mishaps::default();
        let mut arriving: Vec<(usize, NewRecord)> = Vec::with_capacity(self.sent.len());
        for (place, record) in std::mem::take(&mut self.sent).into_iter().enumerate() {
            let later = place + self.rng.random_range(1..=LATE_BY_MAX);
            match self.rng.random_range(0..200) {
                0 | 1 => {
                    mishaps.lost += 1;
                    continue;
                }
                2..=8 => {
                    mishaps.late += 1;
                    arriving.push((later, record));
                }
                9..=16 => {
                    mishaps.duplicated += 1;
                    arriving.push((place, record.clone()));
                    arriving.push((later, record));
                }
                _ => arriving.push((place, record)),
            }
        }
        for garbage in self.garbage() {
            mishaps.garbage += 1;
            arriving.push((self.rng.random_range(0..arriving.len()), garbage));
        }
        arriving.sort_by_key(|(place, _)| *place);
        (arriving.into_iter().map(|(_, record)| record).collect(), mishaps)
    }

    /// Records that are no legal events, each in its own way.
    fn garbage(&mut self) -> Vec<NewRecord> {
        let subject = format!("run/{}-run-01", self.name);
        let good = self.event(&subject, "executor/eu-1/01", 9000, "run.delta", &json!({}));
        let broken = |from: &str, to: &str| {
            let text = String::from_utf8_lossy(good.value.as_deref().unwrap_or_default()).replace(from, to);
            NewRecord {
                value: Some(text.into_bytes()),
                ..good.clone()
            }
        };
        vec![
            NewRecord {
                value: None,
                ..good.clone()
            },
            NewRecord {
                value: Some(b"{\"delta\": \"cut o".to_vec()),
                ..good.clone()
            },
            NewRecord {
                value: Some(b"<html>502 Bad Gateway</html>".to_vec()),
                ..good.clone()
            },
            NewRecord {
                key: Some(b"run/somebody-else".to_vec()),
                ..good.clone()
            },
            broken("\"1.0\"", "\"0.3\""),
            broken("run.delta", "Run Delta"),
            broken("run.delta", "worker.heartbeat"),
            broken("\"9000\"", "\"nine\""),
            broken("\"data\":{}", "\"data\":[1,2]"),
            broken("run.delta", "run.finished"),
        ]
    }
}

#[cfg(test)]
mod tests {

    #[test]
    fn a_demo_is_the_same_for_the_same_seed_and_has_every_mishap() {
        let (records, mishaps) = super::records(7, 1_700_000_000_000);
        assert_eq!(super::records(7, 1_700_000_000_000).0, records);
        assert!(
            mishaps.duplicated > 10 && mishaps.late > 10 && mishaps.lost > 2 && mishaps.garbage == 10,
            "{mishaps:?}"
        );
        assert!((1_500..5_000).contains(&records.len()), "{}", records.len());
    }
}

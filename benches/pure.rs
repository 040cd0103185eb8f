//! How long the pure parts take, a piece at a time: nanoseconds, the median of many rounds and the fastest.
//! `cargo bench --bench pure`; a word behind `--` chooses: `cargo bench --bench pure -- decode`.
#![expect(clippy::print_stdout, reason = "its output is a table")]

use std::hint::black_box;
use std::time::Instant;

use khala::pure::document::Document;
use khala::pure::entity::Entity;
use khala::pure::event::{Event, Rules, decode, decode_clean};
use khala::pure::partition::{Action, Effect, Input, Outcome, Partition, Remembered, Setup, ShareLimit, Streams};
use khala::pure::place::{NextOffset, Offset, PartitionId, Partitioner};
use khala::pure::record::RecordBatch;
use khala::pure::recovery::{LastRecord, Survey};
use khala::pure::redact::Redact;
use khala::pure::time::Time;

const ROUNDS: usize = 31;
const RUNS: usize = 200;
const EVENTS_PER_RUN: usize = 40;
const EVENTS: usize = RUNS * EVENTS_PER_RUN;
const PARTITION: PartitionId = PartitionId(0);
const RULES: Rules = Rules {
    partitioner: Partitioner::Murmur2,
    partitions: 1,
    max_event_bytes: 1 << 20,
    redact: Redact::Secrets,
};

fn main() {
    let records = records_behind(0);
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    println!("{:<40}{:>10}{:>10}", "ns per piece", "median", "least");
    let bench = |name: &str, pieces: usize, mut round: Box<dyn FnMut() + '_>| {
        if wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str())) {
            let [median, least] = measure(pieces, &mut *round);
            println!("{name:<40}{median:>10.1}{least:>10.1}");
        }
    };
    bench("decode an event", EVENTS, Box::new(|| decode_all(&records)));
    bench(
        "identity of a record",
        EVENTS,
        Box::new(|| records.iter().for_each(|r| _ = black_box(r.identity()))),
    );
    let events: Vec<Event<'_>> = records
        .iter()
        .map(|r| decode(&r, PARTITION, &RULES).expect("legal"))
        .collect();
    bench(
        "accept and fold an event",
        EVENTS,
        Box::new(|| drop(black_box(fold(&events)))),
    );
    let documents = fold(&events);
    let mut out = Vec::new();
    bench(
        "render and hash a document",
        RUNS,
        Box::new(|| {
            out.clear();
            let now = Time::from_ms(1_771_502_400_000).expect("a time");
            documents
                .iter()
                .for_each(|document| _ = black_box(document.render(now, &mut out)));
        }),
    );
    for (name, streams) in [
        ("the machine, streams off", Streams::Off),
        ("the machine, streams on", Streams::Kept),
    ] {
        let mut machine = Machine::new(streams);
        bench(name, EVENTS, Box::new(move || machine.batch()));
    }
}

/// Median and least nanoseconds of a piece.
fn measure(pieces: usize, round: &mut dyn FnMut()) -> [f64; 2] {
    round();
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            round();
            started.elapsed().as_nanos() as f64 / pieces as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    [times[ROUNDS / 2], times[0]]
}

fn decode_all(records: &RecordBatch) {
    for record in records.iter() {
        let mut room = Vec::new();
        drop(black_box(decode_clean(&record, PARTITION, &RULES, &mut room)));
    }
}

/// Events of many runs, interleaved; their sequences begin behind `before`, their offsets as well.
fn records_behind(before: usize) -> RecordBatch {
    let mut batch = RecordBatch::with_capacity(EVENTS, EVENTS * 350);
    for i in 0..EVENTS {
        let (run, sequence) = (i % RUNS, before / RUNS + i / RUNS + 1);
        let subject = format!("run/bench_{run:07}");
        let kind = if sequence == 1 { "run.started" } else { "run.delta" };
        let value = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"01K0XW3V9GQ6TB1N{run:05}{sequence:05}\",\"source\":\"executor/eu-1/7f3a\",\
             \"type\":\"{kind}\",\"subject\":\"{subject}\",\"time\":\"2026-02-19T12:00:00.123Z\",\
             \"sequence\":\"{sequence}\",\"traceparent\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\",\
             \"data\":{{\"delta\":\"token {i:016x} of step\"}}}}"
        );
        let offset = Offset((before + i) as u64);
        batch.push(
            offset,
            1_771_502_400_000,
            Some(subject.as_bytes()),
            Some(value.as_bytes()),
        );
    }
    batch
}

fn fold(events: &[Event<'_>]) -> Vec<Document> {
    let entity = |event: &Event<'_>| Entity::parse(event.subject()).expect("legal");
    let mut documents: Vec<Document> = events[..RUNS]
        .iter()
        .map(|e| Document::new(entity(e), PARTITION))
        .collect();
    for (i, event) in events.iter().enumerate() {
        documents[i % RUNS].apply(event, Offset(i as u64), 1_771_502_400_000);
    }
    documents
}

/// A running partition whose every commit succeeds at once.
struct Machine {
    machine: Partition,
    /// One a round; making them is not measured.
    batches: std::vec::IntoIter<RecordBatch>,
}

impl Machine {
    fn new(streams: Streams) -> Self {
        let setup = Setup {
            partition: PARTITION,
            rules: RULES,
            streams,
            cache_bytes: 256 << 20,
            dead_letter_share: ShareLimit {
                permille_max: 1000,
                records_min: 1000,
            },
        };
        let mut machine = Partition::new(setup, Remembered::default());
        machine.on(Input::Assigned, 0);
        let survey = Survey {
            checkpoint: None,
            last_record: LastRecord::Gone,
            group: None,
            first: NextOffset::START,
            end: NextOffset::START,
            topic_id: String::new(),
            partitions: 1,
            namespace_partitions: None,
            good_mark: None,
            parked: Vec::new(),
            let_through: NextOffset::START,
            letters: LastRecord::Gone,
        };
        machine.on(Input::Done(Outcome::Surveyed(Box::new(survey))), 0);
        let batches: Vec<_> = (0..=ROUNDS).map(|round| records_behind(round * EVENTS)).collect();
        Self {
            machine,
            batches: batches.into_iter(),
        }
    }

    fn batch(&mut self) {
        let records = self.batches.next().expect("a batch for each round and the one before");
        let actions = self.machine.on(Input::Records(records), 1);
        let commits = |action: &Action| {
            matches!(
                action,
                Action::Do {
                    effect: Effect::Commit(_),
                    ..
                }
            )
        };
        assert!(actions.iter().any(commits), "a whole cache needs no load");
        black_box(self.machine.on(Input::Done(Outcome::Committed), 1));
    }
}

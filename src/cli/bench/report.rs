//! What a bench prints: medians with their spread, each stage's share of the drain within its repetition, what it
//! cost, and how it compares with an earlier run.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::exit::Failure;
use super::super::out::Out;
use super::BenchArgs;
use super::task::{Latency, Outcome, Stage};
use super::usage;
use crate::config::Settings;
use crate::projector::now_ms;
use crate::pure::time::Time;

const MILLION: f64 = 1_000_000.0;

/// The middle of several values, and the outermost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// One stage over all repetitions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub name: String,
    pub events: u64,
    pub events_per_second: Spread,
    /// Of the drain's events a second in the same repetition.
    pub of_drain: Option<Spread>,
    /// CPU seconds per million events.
    pub cpu_khala: Option<f64>,
    pub cpu_broker: Option<f64>,
    pub cpu_redis: Option<f64>,
    pub peak_bytes: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LatencyRow {
    pub rate: u64,
    pub acknowledged: Option<Latency>,
    pub visible: Option<Latency>,
    /// Of each percentile the least of all repetitions; above it is the median.
    pub visible_min: Option<Latency>,
    pub visible_max: Option<Latency>,
}

/// What `--json` prints and `--baseline` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Written {
    pub khala: String,
    pub at: String,
    pub machine: String,
    pub log: String,
    pub store: String,
    pub topic: String,
    pub compression: String,
    pub seed: u64,
    pub runs: u64,
    pub stages: Vec<Row>,
    pub latency: Option<LatencyRow>,
    pub documents: u64,
    pub wrong: u64,
}

pub(super) struct Report {
    written: Written,
    samples: Vec<(Stage, &'static str, Vec<Outcome>)>,
    rate: u64,
    latencies: Vec<Outcome>,
    examples: Vec<String>,
    pub wrong: u64,
}

impl Report {
    pub(super) fn new(args: &BenchArgs, settings: &Settings, topic: String) -> Self {
        let shown = |name: &str| crate::config::key(name).map_or_else(String::new, |key| key.show(settings));
        let compression = settings.kafka.get("compression.type").cloned();
        let written = Written {
            khala: env!("CARGO_PKG_VERSION").to_owned(),
            at: Time::from_ms(now_ms()).map_or_else(String::new, |now| now.to_string()),
            machine: usage::machine(),
            log: shown("log"),
            store: crate::config::hide_url(&shown("store")),
            topic,
            compression: args
                .compression
                .clone()
                .or(compression)
                .unwrap_or_else(|| "lz4".to_owned()),
            seed: args.seed,
            runs: args.runs,
            stages: Vec::new(),
            latency: None,
            documents: 0,
            wrong: 0,
        };
        Self {
            written,
            samples: Vec::new(),
            rate: args.rate,
            latencies: Vec::new(),
            examples: Vec::new(),
            wrong: 0,
        }
    }

    pub(super) fn add(&mut self, stage: Stage, place: &'static str, sample: Outcome) {
        let same = |(known, at, _): &&mut (Stage, &'static str, Vec<Outcome>)| (*known, *at) == (stage, place);
        match self.samples.iter_mut().find(same) {
            Some((.., samples)) => samples.push(sample),
            None => self.samples.push((stage, place, vec![sample])),
        }
    }

    pub(super) fn latency(&mut self, sample: Outcome) {
        self.latencies.push(sample);
    }

    pub(super) fn wrong(&mut self, outcome: &Outcome) {
        self.wrong += outcome.wrong;
        self.written.wrong += outcome.wrong;
        self.written.documents += outcome.documents;
        self.examples.extend(outcome.examples.iter().cloned());
    }

    pub(super) fn print(&mut self, baseline: Option<&Written>, out: Out) {
        let drains: Vec<f64> = self.rates(Stage::Drain, "").collect();
        let rows = self
            .samples
            .iter()
            .map(|(stage, place, samples)| row(*stage, place, samples, &drains));
        self.written.stages = rows.collect();
        self.written.latency = latency_row(self.rate, &self.latencies);
        if out.json {
            out.value(&self.written);
        } else {
            table(&self.written, baseline, out);
        }
        for example in &self.examples {
            out.note(format!("wrong: {example}"));
        }
        let (documents, wrong) = (self.written.documents, self.wrong);
        out.note(format!(
            "{documents} documents compared with what was sent: {wrong} wrong"
        ));
    }

    fn rates(&self, stage: Stage, place: &'static str) -> impl Iterator<Item = f64> {
        let samples = self
            .samples
            .iter()
            .filter(move |(known, at, _)| (*known, *at) == (stage, place));
        samples.flat_map(|(.., samples)| samples.iter().map(rate))
    }
}

/// Events a second.
pub(super) fn rate(outcome: &Outcome) -> f64 {
    outcome.events as f64 / outcome.seconds.max(1e-9)
}

/// Reads an earlier run.
pub(super) fn read(path: &Path) -> Result<Written, Failure> {
    let wrong = |error: String| Failure::usage(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| wrong(format!("no `khala bench --json`: {error}")))
}

pub(super) fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
    Some(Spread { median, min, max })
}

fn row(stage: Stage, place: &str, samples: &[Outcome], drains: &[f64]) -> Row {
    let rates: Vec<f64> = samples.iter().map(rate).collect();
    let per_million = |cpu: &dyn Fn(&Outcome) -> Option<f64>| {
        let per_million = |sample: &Outcome| Some(cpu(sample)? * MILLION / sample.events.max(1) as f64);
        spread(samples.iter().filter_map(per_million)).map(|spread| spread.median)
    };
    let is_measured_by_drain = place.is_empty() && stage != Stage::Publish;
    let of_drain = rates.iter().zip(drains).map(|(rate, drain)| rate / drain);
    Row {
        name: [place, stage.name()].join(" ").trim().to_owned(),
        events: samples.first().map_or(0, |sample| sample.events),
        events_per_second: spread(rates.iter().copied()).unwrap_or(Spread {
            median: 0.0,
            min: 0.0,
            max: 0.0,
        }),
        of_drain: spread(of_drain).filter(|_| is_measured_by_drain),
        cpu_khala: per_million(&|sample| sample.cpu.khala),
        cpu_broker: per_million(&|sample| sample.cpu.broker),
        cpu_redis: per_million(&|sample| sample.cpu.redis),
        peak_bytes: samples.iter().filter_map(|sample| sample.peak_bytes).max(),
    }
}

/// Each percentile by itself over all repetitions; `None` if latency was not measured.
fn latency_row(rate: u64, samples: &[Outcome]) -> Option<LatencyRow> {
    let acknowledged: Vec<Latency> = samples.iter().filter_map(|sample| sample.acknowledged).collect();
    let visible: Vec<Latency> = samples.iter().filter_map(|sample| sample.visible).collect();
    let row = LatencyRow {
        rate,
        acknowledged: each(&acknowledged, |spread| spread.median),
        visible: each(&visible, |spread| spread.median),
        visible_min: each(&visible, |spread| spread.min),
        visible_max: each(&visible, |spread| spread.max),
    };
    row.visible.is_some().then_some(row)
}

fn each(samples: &[Latency], of: impl Fn(Spread) -> f64) -> Option<Latency> {
    let over = |percentile: fn(&Latency) -> f64| spread(samples.iter().map(percentile)).map(&of);
    Some(Latency {
        p50_ms: over(|sample| sample.p50_ms)?,
        p90_ms: over(|sample| sample.p90_ms)?,
        p99_ms: over(|sample| sample.p99_ms)?,
        p999_ms: over(|sample| sample.p999_ms)?,
        max_ms: over(|sample| sample.max_ms)?,
        events: samples.iter().map(|sample| sample.events).sum(),
    })
}

fn table(written: &Written, baseline: Option<&Written>, out: Out) {
    let thousands = |rate: f64| format!("{:.0}", rate / 1000.0);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let mut headings = vec![
        "stage",
        "events",
        "k/s",
        "min",
        "max",
        "of drain",
        "min",
        "max",
        "CPU-s/M khala",
        "broker",
        "redis",
        "peak MB",
    ];
    if baseline.is_some() {
        headings.push("k/s before");
    }
    let cells = |row: &Row| {
        let (rate, part) = (row.events_per_second, row.of_drain);
        let mut cells = vec![
            row.name.clone(),
            row.events.to_string(),
            thousands(rate.median),
            thousands(rate.min),
            thousands(rate.max),
            number(part.map(|part| part.median)),
            number(part.map(|part| part.min)),
            number(part.map(|part| part.max)),
            number(row.cpu_khala),
            number(row.cpu_broker),
            number(row.cpu_redis),
            row.peak_bytes
                .map_or_else(|| "-".to_owned(), |bytes| (bytes >> 20).to_string()),
        ];
        if let Some(baseline) = baseline {
            let before = baseline.stages.iter().find(|before| before.name == row.name);
            cells.push(before.map_or_else(
                || "-".to_owned(),
                |before| {
                    let change = (rate.median / before.events_per_second.median - 1.0) * 100.0;
                    format!("{} ({change:+.0} %)", thousands(before.events_per_second.median))
                },
            ));
        }
        cells
    };
    out.line(format!(
        "khala {} on {}, {} into {}, {}",
        written.khala, written.machine, written.log, written.store, written.compression
    ));
    out.table(&headings, &written.stages.iter().map(cells).collect::<Vec<_>>());
    if let Some(latency) = &written.latency {
        latencies(latency, baseline.and_then(|baseline| baseline.latency.as_ref()), out);
    }
}

fn latencies(latency: &LatencyRow, before: Option<&LatencyRow>, out: Out) {
    out.line(format!(
        "milliseconds since an event was due, at {} events a second",
        latency.rate
    ));
    let lines = [
        ("acknowledged", latency.acknowledged),
        ("visible", latency.visible),
        ("  least", latency.visible_min),
        ("  most", latency.visible_max),
        ("visible before", before.and_then(|before| before.visible)),
    ];
    let cells = |(name, latency): (&str, Option<Latency>)| {
        let Latency {
            p50_ms,
            p90_ms,
            p99_ms,
            p999_ms,
            max_ms,
            ..
        } = latency?;
        let times = [p50_ms, p90_ms, p99_ms, p999_ms, max_ms].map(|ms| format!("{ms:.2}"));
        Some([name.to_owned()].into_iter().chain(times).collect::<Vec<_>>())
    };
    let rows: Vec<_> = lines.into_iter().filter_map(cells).collect();
    out.table(&["", "p50", "p90", "p99", "p99.9", "max"], &rows);
}

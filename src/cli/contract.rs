//! `khala contract`: are these events good ones? In: a file, or a live topic. Out: bad lines, and each producer's record.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Context;
use super::door::Door;
use super::exit::{Exit, Failure};
use crate::access::{Access, AccessError};
use crate::log::{FetchLimits, Role};
use crate::pure::contract::{Contract, Facts};
use crate::pure::event::{Rules, decode_clean, decode_structured};
use crate::pure::place::PartitionId;
use crate::pure::record::{Record, RecordBatch};
use crate::pure::redact::Part;

/// Bad lines that are told one by one.
const LINES_MAX: u64 = 1_000;
/// Batches on their way from the readers.
const BATCHES: usize = 8;
const CHUNK: FetchLimits = FetchLimits {
    records: 2_000,
    bytes: 4 << 20,
    wait: Duration::from_millis(500),
};

#[derive(Subcommand)]
pub(super) enum ContractCommand {
    /// Events from a file or stdin, one JSON object a line; exit 2 if one is illegal
    #[command(
        after_help = "Examples:\n  khala contract check events.ndjson\n  my-runtime --dry-run | khala contract check -"
    )]
    Check {
        /// The file; `-` or none is stdin
        file: Option<PathBuf>,
    },
    /// The topic: wrong keys and partitions, gaps, duplicates, sizes, clocks, by producer; exit 3 if any breaks it
    #[command(
        after_help = "Examples:\n  khala contract watch\n  khala contract watch --seconds 60 --json\n  khala contract watch --earliest"
    )]
    Watch {
        /// End after so many; without it at Ctrl-C
        #[arg(long, value_name = "N")]
        seconds: Option<u64>,
        /// What the log has by now, instead of what comes from now on
        #[arg(long)]
        earliest: bool,
    },
}

pub(super) async fn run(command: ContractCommand, context: &Context) -> Result<Exit, Failure> {
    match command {
        ContractCommand::Check { file } => check(file.as_deref(), context),
        ContractCommand::Watch { seconds, earliest } => {
            let span = if earliest { Span::UpToNow } else { Span::FromNow };
            watch(seconds, span, context).await
        }
    }
}

/// Which records are watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Span {
    UpToNow,
    FromNow,
}

/// Checks the events of a file or of stdin, one JSON object a line.
fn check(file: Option<&Path>, context: &Context) -> Result<Exit, Failure> {
    let input: Box<dyn Read> = match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            Box::new(std::fs::File::open(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?)
        }
        None => Box::new(std::io::stdin()),
    };
    let settings = &context.settings;
    let mut contract = Contract::from_the_start();
    let (mut good, mut bad) = (0_u64, Vec::new());
    let mut refused = 0_u64;
    for (i, line) in BufReader::new(input).split(b'\n').enumerate() {
        let line = line.map_err(|error| Failure::usage(format!("line {}: {error}", i + 1)))?;
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match decode_structured(text, settings.max_event_bytes) {
            Ok(event) => {
                good += 1;
                let redacted = settings.redact.json(text, Part::Event);
                let facts = Facts {
                    bytes: text.len(),
                    secrets: redacted.map_or(0, |redacted| redacted.count),
                    logged_ms: None,
                };
                contract.take(&event, facts);
            }
            Err(rejection) => {
                refused += 1;
                let (reason, detail) = (rejection.reason.name(), rejection.detail);
                contract.refuse(&source_of(text), reason, &detail);
                if refused <= LINES_MAX {
                    context.out.note(format!("line {}: {reason}: {detail}", i + 1));
                    bad.push(json!({"line": i + 1, "reason": reason, "detail": detail}));
                }
            }
        }
    }
    if context.out.json {
        let producers = contract.producers();
        context
            .out
            .value(&json!({"good": good, "bad": refused, "lines": bad, "producers": producers}));
    } else {
        tell(&contract, context);
        context.out.note(format!("{good} good events, {refused} bad lines"));
    }
    Ok(if refused == 0 { Exit::Done } else { Exit::Usage })
}

/// Reads the topic as it grows, and tells after `seconds`, or when interrupted, what each producer breaks.
async fn watch(seconds: Option<u64>, span: Span, context: &Context) -> Result<Exit, Failure> {
    let Door::Direct(access) = Door::open_existing(context)? else {
        let words = "a server holds the embedded log; watch a Kafka topic, or stop the server";
        return Err(Failure::usage(words));
    };
    let partitions = access.partitions().await?;
    let rules = Rules {
        partitioner: access.settings.partitioner,
        partitions: partitions.len() as u32,
        max_event_bytes: access.settings.max_event_bytes,
        redact: access.settings.redact,
    };
    let (sender, mut batches) = mpsc::channel(BATCHES);
    let mut readers = JoinSet::new();
    for partition in partitions {
        readers.spawn(read(access.clone(), partition, span, sender.clone()));
    }
    drop(sender);
    let mut contract = match span {
        Span::UpToNow => Contract::from_the_start(),
        Span::FromNow => Contract::default(),
    };
    context.out.note("watching; Ctrl-C tells what was seen");
    let end = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = tokio::signal::ctrl_c() => break,
            Some(ended) = readers.join_next() => ended.map_err(anyhow::Error::from)??,
            read = batches.recv() => match read {
                Some((partition, batch)) => take(&mut contract, partition, &batch, &rules),
                None => break,
            },
        }
    }
    if context.out.json {
        context.out.value(&json!({"producers": contract.producers()}));
    } else {
        tell(&contract, context);
    }
    let is_clean = contract.producers().iter().all(|producer| producer.is_clean());
    Ok(if is_clean { Exit::Done } else { Exit::Drift })
}

async fn read(
    access: Access,
    partition: PartitionId,
    span: Span,
    batches: mpsc::Sender<(PartitionId, RecordBatch)>,
) -> Result<(), AccessError> {
    let bounds = access.log.bounds(partition).await?;
    let mut next = match span {
        Span::UpToNow => bounds.first,
        Span::FromNow => bounds.end,
    };
    let mut reader = access.log.reader(Role::Events, partition, next).await?;
    while span == Span::FromNow || next < bounds.end {
        let batch = reader.fetch(CHUNK).await?;
        next = batch.next().unwrap_or(next);
        if batches.send((partition, batch)).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn take(contract: &mut Contract, partition: PartitionId, batch: &RecordBatch, rules: &Rules) {
    for record in batch.iter() {
        let mut room = Vec::new();
        match decode_clean(&record, partition, rules, &mut room) {
            Ok((event, _, secrets)) => {
                let facts = Facts {
                    bytes: record.value.map_or(0, <[u8]>::len),
                    secrets,
                    logged_ms: Some(record.timestamp_ms).filter(|ms| *ms >= 0),
                };
                contract.take(&event, facts);
            }
            Err(rejection) => contract.refuse(&said_source(&record), rejection.reason.name(), &rejection.detail),
        }
    }
}

/// Who an illegal event says it is from, or where its key points.
fn said_source(record: &Record<'_>) -> String {
    let header = record.headers().find(|(name, _)| *name == b"ce_source");
    let named = header.and_then(|(_, value)| Some(String::from_utf8_lossy(value?).into_owned()));
    let said = named.unwrap_or_else(|| source_of(record.value.unwrap_or_default()));
    if !said.is_empty() {
        return said;
    }
    let key = String::from_utf8_lossy(record.key.unwrap_or_default());
    format!("unknown, key {key:.64}")
}

fn source_of(json: &[u8]) -> String {
    let event: Value = serde_json::from_slice(json).unwrap_or_default();
    event["source"].as_str().unwrap_or_default().chars().take(256).collect()
}

fn tell(contract: &Contract, context: &Context) {
    let headings = [
        "source",
        "events",
        "bad",
        "missing",
        "twice",
        "unnumbered",
        "secrets",
        "largest",
        "clock off",
    ];
    let rows: Vec<Vec<String>> = contract
        .producers()
        .into_iter()
        .map(|one| {
            let bad: Vec<String> = one
                .bad
                .iter()
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect();
            let name = if one.source.is_empty() { "(none)" } else { &one.source };
            let mut row = vec![name.to_owned(), one.events.to_string(), bad.join(", ")];
            let numbers = [one.missing, one.duplicates, one.unnumbered, one.secrets, one.bytes_max];
            row.extend(numbers.iter().map(u64::to_string));
            row.push(format!("{:.1} s", one.skew_ms as f64 / 1000.0));
            row
        })
        .collect();
    context.out.table(&headings, &rows);
    for one in contract.producers() {
        if let Some(detail) = &one.last_detail {
            context.out.note(format!(
                "{}: {detail}",
                if one.source.is_empty() { "(none)" } else { &one.source }
            ));
        }
    }
}

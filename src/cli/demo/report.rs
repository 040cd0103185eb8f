//! What the demo shows at its end: runs, dead letters, what was taken and refused, and the line that counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::exit::{Exit, Failure};
use super::super::out::Out;
use super::Story;
use crate::access::{Access, AccessError, ListRequest};
use crate::log::{FetchLimits, Role};
use crate::projector::now_ms;
use crate::pure::document::Document;
use crate::pure::entity::{Entity, Kind};
use crate::pure::event::{Rules, decode_clean};
use crate::pure::place::PartitionId;
use crate::pure::time::Time;

const CHUNK: FetchLimits = FetchLimits {
    records: 5000,
    bytes: 8 << 20,
    wait: Duration::from_secs(5),
};

/// How many documents are what a fold of the log says.
struct Proof {
    equal: usize,
    differing: Vec<String>,
}

pub(super) async fn print(access: &Access, story: &Story, dir: &Path, out: Out) -> Result<Exit, Failure> {
    let runs = documents(access, Kind::Run).await?;
    let workers = documents(access, Kind::Worker).await?;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for letter in access.dead_letters(None, usize::MAX >> 1).await? {
        *reasons.entry(letter.reason).or_default() += 1;
    }
    let totals = access.status(now_ms()).await?.totals;
    let proof = prove(access).await?;
    let clean = proof.differing.is_empty() && story.audit.clean;
    if out.json {
        out.value(&json!({
            "seed": story.seed, "directory": dir, "sent": story.sent, "sent_again": story.sent_again,
            "killed_after": story.killed_after, "records": totals.records, "accepted": totals.accepted,
            "duplicates": totals.duplicates, "dead_letters": reasons, "runs": runs.len(), "workers": workers.len(),
            "replayed": story.replay.records, "audit": story.audit,
            "equal": proof.equal, "differing": proof.differing,
        }));
        return Ok(if clean { Exit::Done } else { Exit::Failed });
    }
    print_runs(&runs, out);
    out.line("");
    let letters: Vec<_> = reasons
        .iter()
        .map(|(reason, count)| vec![reason.clone(), count.to_string()])
        .collect();
    out.table(&["dead letters", "count"], &letters);
    let mishaps = &story.mishaps;
    out.line(format!(
        "\nsent      {} events of {} runs and {} workers, {} more after the crash: {} twice, {} late, {} lost on the way, {} garbage",
        story.sent,
        runs.len(),
        workers.len(),
        story.sent_again,
        mishaps.duplicated,
        mishaps.late,
        mishaps.lost,
        mishaps.garbage
    ));
    out.line(format!(
        "projected {} records: {} accepted, {} duplicates, {} dead letters, in {:.1} s",
        totals.records,
        totals.accepted,
        totals.duplicates,
        totals.dead_letters,
        story.took.as_secs_f64()
    ));
    out.line(format!(
        "crash     kill -9 after {} events; back in {} ms at {} records applied",
        story.killed_after,
        story.recovery.as_millis(),
        story.applied_at_restart
    ));
    print_repair(story, out);
    proof
        .differing
        .iter()
        .for_each(|id| out.line(format!("differs   {id}")));
    out.line(format!("\n{} documents equal to a fold of the log", proof.equal));
    print_next(runs.first(), dir, out);
    Ok(if clean { Exit::Done } else { Exit::Failed })
}

async fn documents(access: &Access, kind: Kind) -> Result<Vec<Value>, AccessError> {
    let request = ListRequest {
        kind,
        status: None,
        since: None,
        limit: 1000,
        cursor: None,
        scope: Vec::new(),
    };
    Ok(access.list(&request, now_ms()).await?.documents)
}

fn print_runs(runs: &[Value], out: Out) {
    let number = |run: &Value, name: &str| run[name].to_string();
    let mut rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            let text = |name: &str| run[name].as_str().unwrap_or("-").to_owned();
            vec![
                text("run_id"),
                text("status"),
                number(run, "event_count"),
                number(run, "missing_events"),
                number(run, "late_event_count"),
                text("latest_event_type"),
            ]
        })
        .collect();
    rows.sort();
    out.table(&["run", "status", "events", "missing", "late", "last event"], &rows);
}

fn print_repair(story: &Story, out: Out) {
    let (replay, audit) = (&story.replay, &story.audit);
    out.line(format!(
        "replay    {} records of {} partitions redone from the start in {:.1} s",
        replay.records,
        replay.partitions.len(),
        replay.seconds
    ));
    out.line(format!(
        "audit     {} documents against the log in {:.1} s: {} drifted",
        audit.documents,
        audit.seconds,
        audit.drift.len()
    ));
}

fn print_next(run: Option<&Value>, dir: &Path, out: Out) {
    let program = std::env::args().next().unwrap_or_else(|| "khala".to_owned());
    let id = run.and_then(|run| run["run_id"].as_str()).unwrap_or("ID");
    let place = match dir.to_str() {
        Some("khala-data") => String::new(),
        _ => format!(" --log embedded:{0} --store embedded:{0}", dir.display()),
    };
    out.line(format!("\nIt is all in {}. To go on:", dir.display()));
    out.line(format!("  {program} get run {id}{place}"));
    out.line(format!("  {program} tail run {id}{place}"));
    out.line(format!("  {program} serve{place}"));
}

/// Folds the whole log, apart from the projector's way, and compares with what is stored, byte for byte.
async fn prove(access: &Access) -> Result<Proof, Failure> {
    let topic = access.log.topic().await.map_err(AccessError::from)?;
    let rules = Rules {
        partitioner: access.settings.partitioner,
        partitions: topic.partitions,
        max_event_bytes: access.settings.max_event_bytes,
        redact: access.settings.redact,
    };
    let mut proof = Proof {
        equal: 0,
        differing: Vec::new(),
    };
    for partition in access.partitions().await? {
        for (entity, document) in fold(access, partition, &rules).await? {
            let stored = access
                .store
                .document(partition, &entity)
                .await
                .map_err(AccessError::from)?;
            if stored.is_some_and(|stored| is_equal(&document, &stored)) {
                proof.equal += 1;
            } else {
                proof.differing.push(entity.document_id());
            }
        }
    }
    Ok(proof)
}

fn is_equal(document: &Document, stored: &[u8]) -> bool {
    let value: Value = serde_json::from_slice(stored).unwrap_or_default();
    let Some(projected_at) = value["projected_at"].as_str().and_then(Time::parse) else {
        return false;
    };
    let mut rendered = Vec::new();
    document.render(projected_at, &mut rendered);
    rendered == stored
}

async fn fold(
    access: &Access,
    partition: PartitionId,
    rules: &Rules,
) -> Result<BTreeMap<Entity, Document>, AccessError> {
    let mut documents: BTreeMap<Entity, Document> = BTreeMap::new();
    let bounds = access.log.bounds(partition).await?;
    let mut next = bounds.first;
    if next >= bounds.end {
        return Ok(documents);
    }
    let mut reader = access.log.reader(Role::Events, partition, next).await?;
    while next < bounds.end {
        let records = reader.fetch(CHUNK).await?;
        for record in records.iter() {
            let mut room = Vec::new();
            let Ok((event, record, _)) = decode_clean(&record, partition, rules, &mut room) else {
                continue;
            };
            let Some(entity) = Entity::parse(event.subject()) else {
                continue;
            };
            let document = documents
                .entry(entity.clone())
                .or_insert_with(|| Document::new(entity, partition));
            document.apply(&event, record.offset, record.timestamp_ms);
        }
        match records.next() {
            Some(at) => next = at,
            None => {
                return Err(AccessError::Unreachable(format!(
                    "partition {partition} ends at {next}"
                )));
            }
        }
    }
    documents.retain(|_, document| !document.is_empty());
    Ok(documents)
}

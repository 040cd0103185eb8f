//! Whether all documents are right: against what was sent, by counting and not by Khala's fold.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::super::exit::Failure;
use super::stages::failed;
use super::task::Outcome;
use super::workload::{Expected, Workload};
use crate::access::Access;
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::PartitionId;
use crate::store::ListQuery;

/// Documents read at once.
const PAGE: usize = 1000;
/// One stream of this many runs is compared, event by event.
const STREAM_ONE_IN: usize = 500;
const EXAMPLES_MAX: usize = 5;

/// Compares all documents, counts, and some streams; what is wrong goes into `outcome`.
pub(super) async fn documents(access: &Access, workload: &Workload, outcome: &mut Outcome) -> Result<(), Failure> {
    let partitions = access.partitions().await?;
    let expected = workload.expected(access.settings.partitioner, partitions.len() as u32);
    let mut found = vec![false; expected.runs.len()];
    let (mut accepted, mut duplicates) = (0, 0);
    for partition in partitions {
        if let Some(checkpoint) = access.store.checkpoint(partition).await.map_err(failed)? {
            accepted += checkpoint.accepted;
            duplicates += checkpoint.duplicates;
        }
        partition_documents(access, partition, workload, &expected, &mut found, outcome).await?;
    }
    for (run, _) in found.iter().enumerate().filter(|(_, found)| !**found) {
        wrong(outcome, format!("{}: no document", workload.subject(run as u64)));
    }
    if (accepted, duplicates) != (expected.accepted, expected.duplicates) {
        let must = format!("{} and {}", expected.accepted, expected.duplicates);
        wrong(
            outcome,
            format!("{accepted} events accepted and {duplicates} duplicates, must be {must}"),
        );
    }
    if access.settings.events_kept > workload.events_per_run() {
        streams(access, workload, &expected, outcome).await?;
    }
    Ok(())
}

async fn partition_documents(
    access: &Access,
    partition: PartitionId,
    workload: &Workload,
    expected: &Expected,
    found: &mut [bool],
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let mut below = None;
    loop {
        let query = ListQuery {
            kind: Kind::Run,
            below,
            limit: PAGE,
        };
        let listed = access.store.list(partition, &query).await.map_err(failed)?;
        for (_, json) in &listed {
            outcome.documents += 1;
            if let Err(what) = document(json, workload, expected, found) {
                wrong(outcome, what);
            }
        }
        below = listed.last().map(|(last, _)| *last);
        if listed.len() < PAGE {
            break;
        }
    }
    Ok(())
}

fn document(json: &[u8], workload: &Workload, expected: &Expected, found: &mut [bool]) -> Result<(), String> {
    let mut value: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let name = value["document_id"].as_str().unwrap_or_default().to_owned();
    let run = name.rsplit('_').next().and_then(|run| run.parse::<u64>().ok());
    let run = run
        .filter(|run| (*run as usize) < found.len())
        .ok_or_else(|| format!("{name}: of no run"))?;
    let hash = value["summary_hash"].as_str().unwrap_or_default().to_owned();
    let members = value.as_object_mut().ok_or_else(|| format!("{name}: no object"))?;
    members.remove("summary_hash");
    members.remove("projected_at");
    // All of a bench's texts are ASCII and its numbers small: sorted keys without white space are canonical.
    let text = serde_json::to_vec(members).map_err(|error| error.to_string())?;
    let digits = Sha256::digest(&text)
        .iter()
        .fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"));
    if hash != digits {
        return Err(format!("{name}: summary_hash {hash}, must be {digits}"));
    }
    members.remove("updated_at");
    let must = workload.document(run, expected.runs[run as usize]);
    if value != must {
        return Err(format!("{name}: is {value}, must be {must}"));
    }
    if std::mem::replace(&mut found[run as usize], true) {
        return Err(format!("{name}: is there twice"));
    }
    Ok(())
}

async fn streams(
    access: &Access,
    workload: &Workload,
    expected: &Expected,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    for (run, span) in expected.runs.iter().enumerate().step_by(STREAM_ONE_IN) {
        let subject = workload.subject(run as u64);
        let Some(entity) = Entity::parse(&subject) else {
            continue;
        };
        let limit = workload.events_per_run() as usize + 1;
        let wait = std::time::Duration::ZERO;
        let events = access
            .store
            .events(PartitionId(span.partition), &entity, 0, limit, wait);
        let events = events.await.map_err(failed)?;
        let must =
            (0..workload.events_per_run()).map(|index| (index + 1, workload.value(run as u64, index).into_bytes()));
        if !events.into_iter().map(|event| (event.seq, event.json)).eq(must) {
            wrong(outcome, format!("{subject}: its stream is not what was sent"));
        }
    }
    Ok(())
}

fn wrong(outcome: &mut Outcome, what: String) {
    outcome.wrong += 1;
    if outcome.examples.len() < EXAMPLES_MAX {
        outcome.examples.push(what);
    }
}

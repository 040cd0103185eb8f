//! Does what a partition machine asks of log and store. In: an effect. Out: what came of it, in the machine's words.
//! Invariant: an effect may be done twice, or dropped half-way, and nothing is lost or doubled by it.

use std::sync::Arc;
use std::time::Duration;

use crate::log::{Log, LogError, NewRecord, Role};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::partition::{DeadLetter, Effect, Failure, Outcome};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::record::RecordBatch;
use crate::pure::recovery::{LastRecord, Survey};
use crate::store::{Opened, Owner, Store, StoreError};

/// The most marks compared with the log when the newest does not hold.
const MARKS_COMPARED_MAX: usize = 1000;

/// Whose effects, and where they go.
#[derive(Clone)]
pub struct Doer {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The events' topic, as dead letters name it.
    pub topic: Arc<str>,
    /// Which partition.
    pub partition: PartitionId,
    /// Who we are.
    pub owner: Owner,
    /// How long the lease lives without being renewed.
    pub lease: Duration,
}

impl Doer {
    /// Does one effect.
    pub async fn perform(self, effect: Effect) -> Outcome {
        let result = match &effect {
            Effect::Survey { .. } => self.survey().await.map(|survey| Outcome::Surveyed(Box::new(survey))),
            Effect::Load { expected, entities } => {
                let loaded = self.store.load(self.partition, expected, entities).await;
                loaded.map(Outcome::Loaded).map_err(failure)
            }
            Effect::AppendDeadLetters { records, letters } => Ok(self.append(records, letters).await),
            Effect::Commit(batch) => {
                let committed = self.store.commit(self.partition, &self.owner, batch).await;
                committed.map(|()| Outcome::Committed).map_err(failure)
            }
            Effect::Renew => {
                let renewed = self.store.renew(self.partition, &self.owner, self.lease).await;
                renewed.map(Outcome::Renewed).map_err(failure)
            }
        };
        result.unwrap_or_else(|failure| Outcome::Failed(effect, failure))
    }

    async fn survey(&self) -> Result<Survey, Failure> {
        let opened = self
            .store
            .open(self.partition, &self.owner, self.lease)
            .await
            .map_err(failure)?;
        compare(&*self.log, self.partition, opened)
            .await
            .map_err(|e| Failure::Away(e.to_string()))
    }

    async fn append(&self, records: &RecordBatch, letters: &[DeadLetter]) -> Outcome {
        let new = letters.iter().map(|letter| self.dead_letter(records, letter)).collect();
        let results = self.log.append(Role::DeadLetters, new).await;
        let mut detail = String::new();
        let mut failed = Vec::new();
        for (letter, result) in letters.iter().zip(results) {
            if let Err(error) = result {
                detail = error.to_string();
                failed.push(letter.clone());
            }
        }
        Outcome::Appended { failed, detail }
    }

    /// The original record, with where it came from and why it is here.
    fn dead_letter(&self, records: &RecordBatch, letter: &DeadLetter) -> NewRecord {
        let record = records.get(letter.index);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut headers: Vec<_> = record
            .headers()
            .map(|(name, value)| (text(name), value.map(<[u8]>::to_vec)))
            .collect();
        let ours = [
            ("khala_reason", letter.reason.name().to_owned()),
            ("khala_topic", self.topic.to_string()),
            ("khala_partition", self.partition.to_string()),
            ("khala_offset", record.offset.to_string()),
            ("khala_detail", letter.detail.clone()),
        ];
        headers.extend(ours.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))));
        NewRecord {
            partition: Some(self.partition),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers,
        }
    }
}

/// What the log says of what the store has: all that the recovery table asks for.
///
/// # Errors
/// The log does not answer.
pub async fn compare(log: &dyn Log, partition: PartitionId, opened: Opened) -> Result<Survey, LogError> {
    let topic = log.topic().await?;
    let bounds = log.bounds(partition).await?;
    let group = log.group_offset(partition).await?;
    let last_record = match &opened.checkpoint {
        Some(checkpoint) => last_record_of(log, partition, checkpoint, (bounds.first, bounds.end)).await?,
        None => LastRecord::Gone,
    };
    let ahead = opened
        .checkpoint
        .as_ref()
        .is_some_and(|checkpoint| checkpoint.next > bounds.end);
    let mut good_mark = None;
    if ahead || last_record == LastRecord::Differs {
        for mark in opened
            .marks
            .iter()
            .map(|mark| &mark.checkpoint)
            .filter(|mark| mark.next <= bounds.end)
            .take(MARKS_COMPARED_MAX)
        {
            if last_record_of(log, partition, mark, (bounds.first, bounds.end)).await? == LastRecord::Matches {
                good_mark = Some(Box::new(mark.clone()));
                break;
            }
        }
    }
    Ok(Survey {
        last_record,
        group,
        first: bounds.first,
        end: bounds.end,
        topic_id: topic.id,
        partitions: topic.partitions,
        namespace_partitions: opened.namespace_partitions,
        good_mark,
        parked: opened.parked,
        checkpoint: opened.checkpoint,
    })
}

/// Whether the last record that a mark names is still that very record, in a log of these bounds.
///
/// # Errors
/// The log does not answer.
pub async fn last_record_of(
    log: &dyn Log,
    partition: PartitionId,
    mark: &Checkpoint,
    (first, end): (NextOffset, NextOffset),
) -> Result<LastRecord, LogError> {
    let Some(named) = mark.last_record else {
        return Ok(LastRecord::Gone);
    };
    if first.is_past(named.offset) || !end.is_past(named.offset) {
        return Ok(LastRecord::Gone);
    }
    let in_log = log.record_at(partition, named.offset).await?;
    Ok(LastRecord::compare(Some(named), in_log))
}

fn failure(error: StoreError) -> Failure {
    match error {
        StoreError::Refused { found, .. } => Failure::Refused(found),
        StoreError::NotOwner { owner, .. } => Failure::NotOwner(owner),
        StoreError::Corrupt { .. } => Failure::Corrupt(error.to_string()),
        StoreError::Unreachable { .. } | StoreError::Rejected(_) => Failure::Away(error.to_string()),
    }
}

//! Does what a partition machine asks of log and store. In: an effect. Out: what came of it, in the machine's words.
//! Invariant: an effect may be done twice, or dropped half-way, and nothing is lost or doubled by it.

use std::sync::Arc;
use std::time::Duration;

use crate::log::{Log, LogError, NewRecord, Role};
use crate::pure::checkpoint::Checkpoint;
use crate::pure::event::Rules;
use crate::pure::partition::{DeadLetter, Effect, Failure, Outcome, Rewound};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::record::{RecordBatch, RecordIdentity};
use crate::pure::recovery::{self, Called, LastRecord, Survey};
use crate::repair::snapshot::{Restoring, Source, restore};
use crate::repair::{RepairError, Site, compare, forget_past, rewind};
use crate::store::{Note, Owner, Store, StoreError};

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
    /// What a legal event is.
    pub rules: Rules,
}

impl Doer {
    /// Does one effect.
    pub async fn perform(self, effect: Effect) -> Outcome {
        let result = match &effect {
            Effect::Survey { letters_end, .. } => self
                .survey(*letters_end)
                .await
                .map(|survey| Outcome::Surveyed(Box::new(survey))),
            Effect::Load { expected, entities } => {
                let loaded = self.store.load(self.partition, expected, entities).await;
                loaded.map(Outcome::Loaded).map_err(failure)
            }
            Effect::AppendDeadLetters {
                records,
                letters,
                known,
            } => Ok(self.append_unknown(records, letters, *known).await),
            Effect::Commit(batch) => {
                let committed = self.store.commit(self.partition, &self.owner, batch).await;
                committed.map(|()| Outcome::Committed).map_err(failure)
            }
            Effect::Restore => self.restore().await,
            Effect::Rewind { to } => self.rewind(to.as_deref()).await.map(Outcome::Rewound),
            Effect::Renew => {
                let renewed = self.store.renew(self.partition, &self.owner, self.lease).await;
                renewed.map(Outcome::Renewed).map_err(failure)
            }
        };
        result.unwrap_or_else(|failure| Outcome::Failed(effect, failure))
    }

    async fn survey(&self, letters_end: Option<RecordIdentity>) -> Result<Survey, Failure> {
        let opened = self
            .store
            .open(self.partition, &self.owner, self.lease)
            .await
            .map_err(failure)?;
        let told = self.store.note(Note::Resume(self.partition)).await.map_err(failure)?;
        let survey = compare(&*self.log, self.partition, opened).await;
        let mut survey = survey.map_err(|error| Failure::Away(error.to_string()))?;
        if let Some(named) = letters_end {
            let letters = self.letters(&survey, named).await;
            survey.letters = letters.map_err(|error| Failure::Away(error.to_string()))?;
        }
        if let (Some(now), (_, Called::RetentionGap)) = (&survey.checkpoint, recovery::decide(&survey)) {
            // A rewind went back below them, and what they count cannot be redone.
            let forgotten = forget_past(&*self.store, self.partition, now.next).await;
            forgotten.map_err(failure)?;
        }
        let offset = told.and_then(|text| text.parse().ok());
        survey.let_through = offset.map_or(NextOffset::START, NextOffset);
        Ok(survey)
    }

    /// Whether the log still has the record up to which dead letters were appended, where the checkpoint does not tell.
    async fn letters(&self, survey: &Survey, named: RecordIdentity) -> Result<LastRecord, LogError> {
        let passed = survey
            .checkpoint
            .as_ref()
            .is_some_and(|now| now.next.is_past(named.offset));
        if passed || survey.first.is_past(named.offset) {
            return Ok(LastRecord::Gone);
        }
        if !survey.end.is_past(named.offset) {
            return Ok(LastRecord::Differs);
        }
        let in_log = self.log.record_at(self.partition, named.offset).await?;
        Ok(LastRecord::compare(Some(named), in_log))
    }

    fn site(&self) -> Site {
        Site {
            log: Arc::clone(&self.log),
            store: Arc::clone(&self.store),
            partition: self.partition,
            owner: self.owner.clone(),
            lease: self.lease,
            rules: self.rules,
        }
    }

    async fn rewind(&self, to: Option<&Checkpoint>) -> Result<Rewound, Failure> {
        rewind(&self.site(), to, &mut |_| {}).await.map_err(repair_failure)
    }

    async fn restore(&self) -> Result<Outcome, Failure> {
        match restore(&self.site(), &Source::Topic, &mut |_| {}).await {
            Ok(Restoring::Done(restored)) => Ok(Outcome::Restored(Rewound::from(restored))),
            Ok(Restoring::Nothing(past)) => Ok(Outcome::NoSnapshot(past)),
            // A topic that cannot be read for good is no snapshot: what the log has is redone.
            Err(RepairError::Log(LogError::Refused(words))) => {
                tracing::warn!(partition = %self.partition, words, "no snapshot can be read");
                let there = self.store.checkpoint(self.partition).await.map_err(failure)?;
                Ok(Outcome::NoSnapshot(there.map(|there| there.next).unwrap_or_default()))
            }
            Err(error) => Err(repair_failure(error)),
        }
    }

    /// Appends them but for those that are known to be there, if the log still is the one that they are of.
    async fn append_unknown(
        &self,
        records: &RecordBatch,
        letters: &[DeadLetter],
        known: Option<(NextOffset, RecordIdentity)>,
    ) -> Outcome {
        let Some((below, named)) = known else {
            return self.append(records, letters).await;
        };
        let in_log = match self.log.record_at(self.partition, named.offset).await {
            Ok(in_log) => in_log,
            Err(error) => {
                let (failed, detail) = (letters.to_vec(), error.to_string());
                return Outcome::Appended { failed, detail };
            }
        };
        let is_known = |letter: &&DeadLetter| in_log == Some(named) && below.is_past(records.get(letter.index).offset);
        let unknown: Vec<DeadLetter> = letters.iter().filter(|letter| !is_known(letter)).cloned().collect();
        self.append(records, &unknown).await
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
            timestamp_ms: None,
        }
    }
}

fn repair_failure(error: RepairError) -> Failure {
    match error {
        RepairError::Store(error) => failure(error),
        RepairError::Log(_) | RepairError::Lost { .. } => Failure::Away(error.to_string()),
        RepairError::NoMark { .. } | RepairError::Refused(_) => Failure::Hopeless(error.to_string()),
    }
}

fn failure(error: StoreError) -> Failure {
    match error {
        StoreError::Refused { found, .. } => Failure::Refused(found),
        StoreError::NotOwner { owner, .. } => Failure::NotOwner(owner),
        StoreError::Corrupt { .. } => Failure::Corrupt(error.to_string()),
        StoreError::Unreachable { .. } | StoreError::Full(_) | StoreError::Rejected(_) => {
            Failure::Away(error.to_string())
        }
    }
}

//! Redrive of dead letters: after a fix, chosen letters go back to the events' topic, each at most once.
//! In: which letters. Out: what became of each. Invariant: a letter is published only behind a claim of ours that the
//! log has (see `claims`), and only if it is a legal event where its key belongs.

mod claims;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(super) use self::claims::tells_of_redrive;
use self::claims::{Claimed, Claims, Entry};
pub use self::words::{Chosen, Effort, Fate, RedriveReport, RedriveRequest, RedrivenLetter};
use super::{Access, AccessError};
use crate::log::{FetchLimits, NewRecord, Role};
use crate::pure::event::{Rules, decode};
use crate::pure::place::{NextOffset, Offset, PartitionId};
use crate::pure::record::{Record, RecordBatch};

/// Tells where a redriven event's first record came from: `<topic>/<partition>/<offset>`.
const FROM: &str = "khala_redriven_from";
/// Letters published behind one claim.
const FETCH: FetchLimits = FetchLimits {
    records: 500,
    bytes: 4 << 20,
    wait: Duration::from_secs(2),
};
/// So many fetches without a record are an end.
const QUIET_MAX: u32 = 3;
/// Letters of one run; the rest is left for the next.
pub const LETTERS_MAX: usize = 10_000;

/// A chosen letter on its way.
struct Candidate {
    offset: u64,
    source: String,
    to: PartitionId,
    record: NewRecord,
}

/// One partition of letters being redriven.
struct Redrive<'a> {
    access: &'a Access,
    partition: PartitionId,
    effort: Effort,
    rules: Rules,
    claims: Claims,
    /// Up to where the claims were read.
    seen: NextOffset,
    token: String,
}

impl Access {
    /// Puts chosen letters back into the events' topic.
    ///
    /// # Errors
    /// `NotFound`: one that was named is not there; nothing was done. The log does not answer: what was done so far
    /// is remembered, so that the same may be asked again.
    pub async fn redrive(&self, request: &RedriveRequest) -> Result<RedriveReport, AccessError> {
        if let Chosen::These(letters) = &request.chosen {
            for (partition, offset) in letters {
                self.dead_letter(*partition, *offset).await?;
            }
        }
        let topic = self.log.topic().await?;
        let mut report = RedriveReport::default();
        for partition in self.partitions().await? {
            if report.letters.len() >= LETTERS_MAX {
                report.more = true;
                break;
            }
            let named: Option<BTreeSet<u64>> = match &request.chosen {
                Chosen::These(letters) => Some(
                    letters
                        .iter()
                        .filter(|(of, _)| *of == partition.0)
                        .map(|(_, offset)| *offset)
                        .collect(),
                ),
                _ => None,
            };
            if named.as_ref().is_some_and(BTreeSet::is_empty) {
                continue;
            }
            let mut redrive = Redrive {
                access: self,
                partition,
                effort: request.effort,
                rules: Rules {
                    partitioner: self.settings.partitioner,
                    partitions: topic.partitions,
                    max_event_bytes: self.settings.max_event_bytes,
                    redact: self.settings.redact,
                },
                claims: Claims::default(),
                seen: NextOffset::START,
                token: format!("{:016x}", rand::random::<u64>()),
            };
            let reason = match &request.chosen {
                Chosen::OfReason(reason) => Some(reason.as_str()),
                _ => None,
            };
            redrive.run(named.as_ref(), reason, &mut report).await?;
        }
        Ok(report)
    }
}

impl Redrive<'_> {
    async fn run(
        &mut self,
        named: Option<&BTreeSet<u64>>,
        reason: Option<&str>,
        report: &mut RedriveReport,
    ) -> Result<(), AccessError> {
        let bounds = self.access.log.bounds_of(Role::DeadLetters, self.partition).await?;
        self.seen = bounds.first;
        self.read_claims(bounds.end).await?;
        let mut from = match named.and_then(BTreeSet::first) {
            Some(first) => NextOffset(*first).max(bounds.first),
            None => bounds.first,
        };
        let mut reader = self.access.log.reader(Role::DeadLetters, self.partition, from).await?;
        let mut quiet = 0;
        while from < bounds.end && report.letters.len() < LETTERS_MAX && quiet < QUIET_MAX {
            let records = reader.fetch(FETCH).await?;
            quiet = if records.next().is_none() { quiet + 1 } else { 0 };
            from = records.next().unwrap_or(from);
            let fits = |record: &Record<'_>| {
                bounds.end.is_past(record.offset)
                    && !tells_of_redrive(record)
                    && named.is_none_or(|named| named.contains(&record.offset.0))
                    && reason.is_none_or(|reason| header(record, "khala_reason").as_deref() == Some(reason))
            };
            let letters = records
                .iter()
                .filter(fits)
                .map(|record| self.candidate(&record))
                .collect();
            drop(records);
            self.redrive(letters, report).await?;
        }
        report.more |= from < bounds.end && named.is_none();
        Ok(())
    }

    /// Takes note of the claims up to `end`.
    async fn read_claims(&mut self, end: NextOffset) -> Result<(), AccessError> {
        let (from, claims) = (self.seen, &mut self.claims);
        self.access
            .read_records(Role::DeadLetters, self.partition, (from, end), |record| {
                claims.take(record);
            })
            .await?;
        self.seen = self.seen.max(end);
        Ok(())
    }

    /// The original record as it would be published, or why it would be dead again.
    fn candidate(&self, record: &Record<'_>) -> Result<Candidate, RedrivenLetter> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let to = self
            .rules
            .partitioner
            .place(record.key.unwrap_or_default(), self.rules.partitions);
        let mut original = RecordBatch::default();
        original.push(Offset(0), record.timestamp_ms, record.key, record.value);
        let mut headers = Vec::new();
        for (name, value) in record.headers().filter(|(name, _)| !name.starts_with(b"khala_")) {
            original.push_header(name, value);
            headers.push((text(name), value.map(<[u8]>::to_vec)));
        }
        if let Err(rejection) = decode(&original.get(0), to, &self.rules) {
            let detail = format!("{}: {}", rejection.reason.name(), rejection.detail);
            return Err(self.letter(record.offset.0, Fate::StillDead, Some(detail)));
        }
        let part = |name: &str| header(record, name);
        let source = match (part("khala_topic"), part("khala_partition"), part("khala_offset")) {
            (Some(topic), Some(partition), Some(offset)) => format!("{topic}/{partition}/{offset}"),
            _ => format!("dead-letters/{}/{}", self.partition, record.offset),
        };
        headers.push((FROM.to_owned(), Some(source.clone().into_bytes())));
        Ok(Candidate {
            offset: record.offset.0,
            source,
            to,
            record: NewRecord {
                partition: Some(to),
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers,
                timestamp_ms: None,
            },
        })
    }

    fn letter(&self, offset: u64, outcome: Fate, detail: Option<String>) -> RedrivenLetter {
        RedrivenLetter {
            partition: self.partition.0,
            offset,
            outcome,
            to: None,
            detail,
        }
    }

    async fn redrive(
        &mut self,
        letters: Vec<Result<Candidate, RedrivenLetter>>,
        report: &mut RedriveReport,
    ) -> Result<(), AccessError> {
        let mut free = Vec::new();
        let mut taken = BTreeSet::new();
        let in_log = self.published(&letters).await?;
        for letter in letters {
            let candidate = match letter {
                Ok(candidate) => candidate,
                Err(dead) => {
                    report.add(dead);
                    continue;
                }
            };
            let before = match self.claims.holder(&candidate.source) {
                None => taken.contains(&candidate.source),
                Some(holder) if holder.done => true,
                Some(_) if in_log.contains_key(&candidate.source) => true,
                Some(_) if self.effort == Effort::RedriveInterrupted => taken.contains(&candidate.source),
                Some(_) => {
                    let detail =
                        "its redrive did not come to its end, and it is not in the log; `--interrupted` redrives it";
                    report.add(self.letter(candidate.offset, Fate::Interrupted, Some(detail.to_owned())));
                    continue;
                }
            };
            if before {
                let mut letter = self.letter(candidate.offset, Fate::AlreadyRedriven, None);
                letter.to = in_log.get(&candidate.source).copied();
                report.add(letter);
            } else if self.effort == Effort::DryRun {
                taken.insert(candidate.source);
                report.add(self.letter(candidate.offset, Fate::WouldRedrive, None));
            } else {
                taken.insert(candidate.source.clone());
                free.push(candidate);
            }
        }
        if free.is_empty() {
            return Ok(());
        }
        let ours = self.claim(free, report).await?;
        self.publish(ours, report).await
    }

    /// Which letters with an open claim are in the events' topic, and where.
    async fn published(
        &self,
        letters: &[Result<Candidate, RedrivenLetter>],
    ) -> Result<BTreeMap<String, (u32, u64)>, AccessError> {
        let mut open: BTreeMap<PartitionId, NextOffset> = BTreeMap::new();
        for candidate in letters.iter().flatten() {
            if let Some(holder) = self.claims.holder(&candidate.source).filter(|holder| !holder.done) {
                let from = open.entry(holder.to).or_insert(holder.from);
                *from = (*from).min(holder.from);
            }
        }
        let mut found = BTreeMap::new();
        for (partition, from) in open {
            let bounds = self.access.log.bounds(partition).await?;
            let range = (from.max(bounds.first), bounds.end);
            self.access
                .read_records(Role::Events, partition, range, |record| {
                    if let Some(source) = header(record, FROM) {
                        found.insert(source, (partition.0, record.offset.0));
                    }
                })
                .await?;
        }
        Ok(found)
    }

    /// Claims letters; those that somebody else claimed meanwhile are theirs.
    async fn claim(&mut self, free: Vec<Candidate>, report: &mut RedriveReport) -> Result<Vec<Candidate>, AccessError> {
        let mut ends: BTreeMap<PartitionId, u64> = BTreeMap::new();
        for candidate in &free {
            if let std::collections::btree_map::Entry::Vacant(end) = ends.entry(candidate.to) {
                end.insert(self.access.log.bounds(candidate.to).await?.end.0);
            }
        }
        let letters = free.iter().map(|candidate| Claimed {
            source: candidate.source.clone(),
            before: self.claims.holder(&candidate.source).map_or(0, |holder| holder.claims),
            to: candidate.to.0,
            from: ends.get(&candidate.to).copied().unwrap_or(0),
        });
        let claim = Entry::Claim {
            token: self.token.clone(),
            letters: letters.collect(),
        };
        let offset = self.append(&claim).await?;
        self.read_claims(offset.next()).await?;
        let mut ours = Vec::new();
        for candidate in free {
            let holder = self.claims.holder(&candidate.source);
            if holder.is_some_and(|holder| holder.token == self.token && !holder.done) {
                ours.push(candidate);
            } else {
                let detail = "another redrive has it".to_owned();
                report.add(self.letter(candidate.offset, Fate::AlreadyRedriven, Some(detail)));
            }
        }
        Ok(ours)
    }

    /// Publishes what is ours, and says so.
    async fn publish(&mut self, ours: Vec<Candidate>, report: &mut RedriveReport) -> Result<(), AccessError> {
        let records = ours.iter().map(|candidate| candidate.record.clone()).collect();
        let results = self.access.log.append(Role::Events, records).await;
        let mut sources = Vec::new();
        for (candidate, result) in ours.into_iter().zip(results) {
            match result {
                Ok((partition, offset)) => {
                    let mut letter = self.letter(candidate.offset, Fate::Redriven, None);
                    letter.to = Some((partition.0, offset.0));
                    report.add(letter);
                    sources.push(candidate.source);
                }
                Err(error) => report.add(self.letter(candidate.offset, Fate::Failed, Some(error.to_string()))),
            }
        }
        if sources.is_empty() {
            return Ok(());
        }
        let done = Entry::Done {
            token: self.token.clone(),
            sources,
        };
        let offset = self.append(&done).await?;
        self.read_claims(offset.next()).await
    }

    async fn append(&self, entry: &Entry) -> Result<Offset, AccessError> {
        let record = entry.record(self.partition);
        match self.access.log.append(Role::DeadLetters, vec![record]).await.pop() {
            Some(Ok((_, offset))) => Ok(offset),
            Some(Err(error)) => Err(error.into()),
            None => Err(AccessError::Failed("the log answered nothing".to_owned())),
        }
    }
}

/// The last header of that name, as text.
fn header(record: &Record<'_>, wanted: &str) -> Option<String> {
    let last = record.headers().filter(|(name, _)| *name == wanted.as_bytes()).last();
    last.and_then(|(_, value)| value)
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

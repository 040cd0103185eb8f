//! The log as Khala sees it.

use async_trait::async_trait;
use khala::log::{Bounds, FetchLimits, GroupOffset, Log, LogError, Membership, NewRecord, Reader, Role, Topic};
use khala::pure::place::{NextOffset, Offset, PartitionId};
use khala::pure::record::{RecordBatch, RecordIdentity};

use super::plan::Call;
use super::sea::{PARTITION, Sea, State, log_away};
use super::version::Version;
use super::weak::Weak;
use crate::reference::Rec;

pub struct SimLog(pub Sea);

struct SimReader {
    sea: Sea,
    role: Role,
    cuts: u64,
    next: u64,
}

pub fn copy(record: &Rec, into: &mut RecordBatch) {
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    into.push(Offset(record.offset), record.timestamp_ms, key, value);
    for (name, value) in &record.headers {
        into.push_header(name.as_bytes(), value.as_deref());
    }
}

impl State {
    fn bounds(&self, role: Role) -> Bounds {
        let end = |records: &[Rec]| records.last().map_or(0, |record| record.offset + 1);
        let (first, end) = match role {
            Role::Events if self.weak == Weak::GapUnnamed => (0, self.end()),
            Role::Events => (self.first, self.end()),
            Role::Documents => (
                self.documents.first().map_or(0, |first| first.offset),
                end(&self.documents),
            ),
            Role::DeadLetters => (0, 0),
        };
        Bounds {
            first: NextOffset(first),
            end: NextOffset(end),
        }
    }

    fn append_document(&mut self, record: NewRecord, version: Version) -> Offset {
        let offset = self.bounds(Role::Documents).end.0;
        let is_marker = record.key.as_ref().is_some_and(|key| key.starts_with(b"marker/"));
        if self.weak == Weak::MarkerEarly && !is_marker && self.half() {
            return Offset(offset);
        }
        let record = Rec {
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        self.documents.push(version.seen(record));
        Offset(offset)
    }

    fn append_letter(&mut self, record: NewRecord) {
        if self.weak == Weak::LettersLost && self.half() {
            return;
        }
        let header = record.headers.iter().find(|(name, _)| name == "khala_offset");
        let text = header.and_then(|(_, value)| String::from_utf8(value.clone()?).ok());
        let offset = text.and_then(|text| text.parse().ok()).expect("an offset");
        self.letters.insert((offset, record.value));
    }
}

#[async_trait]
impl Log for SimLog {
    async fn prepare(&self) -> Result<Vec<String>, LogError> {
        Ok(Vec::new())
    }

    async fn topic(&self) -> Result<Topic, LogError> {
        self.0.ask().await?;
        Ok(Topic {
            name: "events".to_owned(),
            partitions: 1,
            id: self.0.lock().topic_id.clone(),
        })
    }

    async fn bounds(&self, _partition: PartitionId) -> Result<Bounds, LogError> {
        self.0.ask().await?;
        Ok(self.0.lock().bounds(Role::Events))
    }

    async fn record_at(&self, _partition: PartitionId, offset: Offset) -> Result<Option<RecordIdentity>, LogError> {
        self.0.ask().await?;
        let state = self.0.lock();
        if state.weak == Weak::NoLastRecord {
            return Ok(None); // as if compaction had taken it: nothing to compare
        }
        let record = state.readable().iter().find(|record| record.offset == offset.0);
        Ok(record.map(|record| {
            let mut batch = RecordBatch::default();
            copy(record, &mut batch);
            batch.get(0).identity()
        }))
    }

    async fn reader(&self, role: Role, _: PartitionId, from: NextOffset) -> Result<Box<dyn Reader>, LogError> {
        self.0.ask().await?;
        let (sea, cuts) = (self.0.clone(), self.0.lock().cuts);
        Ok(Box::new(SimReader {
            sea,
            role,
            cuts,
            next: from.0,
        }))
    }

    /// Some may not be there and some may, of those that are not acknowledged.
    async fn append(&self, role: Role, records: Vec<NewRecord>) -> Vec<Result<(PartitionId, Offset), LogError>> {
        let mut results = Vec::with_capacity(records.len());
        _ = self.0.ask().await;
        for record in records {
            let mut state = self.0.lock();
            let fails = state.hit(Call::LogAway);
            let is_there = !fails || record.key.as_ref().is_some_and(|key| key.len().is_multiple_of(2));
            let at = match role {
                _ if !is_there => Offset(0),
                Role::Documents => state.append_document(record, self.0.version),
                Role::DeadLetters | Role::Events => {
                    state.append_letter(record);
                    Offset(0)
                }
            };
            results.push(if fails { Err(log_away()) } else { Ok((PARTITION, at)) });
        }
        results
    }

    async fn join(&self) -> Result<Box<dyn Membership>, LogError> {
        Err(LogError::Refused("the world assigns".to_owned()))
    }

    async fn group_offset(&self, _partition: PartitionId) -> Result<Option<NextOffset>, LogError> {
        self.0.ask().await?;
        Ok(self.0.lock().group.map(NextOffset))
    }

    async fn commit_group(&self, offsets: Vec<GroupOffset>) -> Result<(), LogError> {
        self.0.lock().group = offsets.last().map(|offset| offset.next.0);
        Ok(())
    }

    async fn bounds_of(&self, role: Role, _partition: PartitionId) -> Result<Bounds, LogError> {
        self.0.ask().await?;
        Ok(self.0.lock().bounds(role))
    }
}

#[async_trait]
impl Reader for SimReader {
    async fn fetch(&mut self, _limits: FetchLimits) -> Result<RecordBatch, LogError> {
        self.sea.ask().await?;
        let mut state = self.sea.lock();
        let bounds = state.bounds(self.role);
        let is_events = self.role == Role::Events;
        let unseen = is_events && state.weak != Weak::NoEpoch && state.cuts != self.cuts;
        if unseen || self.next > bounds.end.0 || (is_events && self.next < bounds.first.0) {
            return Err(LogError::Moved {
                partition: PARTITION,
                at: NextOffset(self.next),
                detail: "another leader epoch, or out of range".to_owned(),
            });
        }
        let most = 1 + state.schedule.below(6) as usize;
        let mut batch = RecordBatch::default();
        let records = if is_events { state.readable() } else { &state.documents };
        let from = records.partition_point(|record| record.offset < self.next);
        for record in records[from..].iter().take(most) {
            if is_events || self.sea.version == Version::One {
                copy(record, &mut batch);
            } else {
                copy(&self.sea.version.seen(record.clone()), &mut batch);
            }
        }
        self.next = batch.next().map_or(self.next, |next| next.0);
        Ok(batch)
    }
}

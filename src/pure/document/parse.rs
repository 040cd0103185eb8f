//! A document read back from the store. In: the JSON text and the state beside it. Out: the fold to go on with.
//! Invariant: what is read renders to the very hash that it carries; anything else is unreadable.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::render::STATE_VERSION;
use super::{Body, Document, Span};
use crate::pure::accept::{Accepted, RANGES_MAX, RECENT_MAX, SOURCES_MAX, Source};
use crate::pure::canonical::{canonical, compare_keys};
use crate::pure::checkpoint::PROJECTION_VERSION;
use crate::pure::entity::{Entity, Kind};
use crate::pure::place::{Offset, PartitionId};
use crate::pure::run::{Run, RunStatus};
use crate::pure::time::Time;
use crate::pure::worker::{Worker, WorkerStatus};

/// Why a stored document cannot be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no document of this entity.
    #[error("not a document of this entity: {0}")]
    Malformed(String),
    /// Its hash is not that of its content.
    #[error("the content's hash is not the summary_hash it carries")]
    Altered,
    /// The state beside it does not belong to it.
    #[error("the state beside the document is {0}")]
    State(&'static str),
}

impl Unreadable {
    /// INTERFACE.md §5's word for it.
    pub fn drift(&self) -> &'static str {
        match self {
            Self::Altered => "summary_hash_mismatch",
            Self::Malformed(_) | Self::State(_) => "document_corrupt",
        }
    }
}

#[derive(Deserialize)]
struct Stored<'a> {
    document_id: String,
    latest_event_type: Option<String>,
    latest_event_at: Option<String>,
    updated_at: Option<String>,
    projection_version: u32,
    runtime_source: RuntimeSource,
    projected_at: String,
    status: String,
    started_at: Option<String>,
    thread_id: Option<Box<str>>,
    owner_user_id: Option<Box<str>>,
    owner_guest_scope: Option<Box<str>>,
    #[serde(default)]
    late_event_count: u64,
    #[serde(default)]
    executor_lost_count: u64,
    terminal_at: Option<String>,
    terminal_reason_class: Option<Box<str>>,
    terminal_reason: Option<Box<str>>,
    workspace_ref: Option<Box<str>>,
    adapter: Option<Box<str>>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    stopped_at: Option<String>,
    last_heartbeat_at: Option<String>,
    #[serde(default)]
    error_count: u64,
    #[serde(default)]
    restart_count: u64,
}

#[derive(Deserialize)]
struct RuntimeSource {
    partition: u32,
    offset: u64,
    first_offset: u64,
    seq: u64,
    sources: BTreeMap<String, StoredSource>,
}

#[derive(Deserialize)]
struct StoredSource {
    max: u64,
    missing: Vec<(u64, u64)>,
    forgotten: u64,
}

impl Document {
    /// Reads what `render` and `write_state` wrote; returns the first 16 bytes of its hash with it.
    ///
    /// # Errors
    /// Not readable, altered, or not this entity's.
    pub fn parse(
        entity: &Entity,
        partition: PartitionId,
        json: &[u8],
        state: Option<&[u8]>,
    ) -> Result<(Self, u128), Unreadable> {
        let stored: Stored<'_> =
            serde_json::from_slice(json).map_err(|error| Unreadable::Malformed(error.to_string()))?;
        let projected_at = time(Some(&stored.projected_at))?.ok_or(Unreadable::Altered)?;
        let document = stored.into_document(entity, partition, state)?;
        let mut again = Vec::with_capacity(json.len());
        let hash = document.render(projected_at, &mut again);
        // Byte for byte: also a change that the fold would not have read is a change.
        if again == json {
            Ok((document, hash))
        } else {
            Err(Unreadable::Altered)
        }
    }
}

impl Stored<'_> {
    fn into_document(
        self,
        entity: &Entity,
        partition: PartitionId,
        state: Option<&[u8]>,
    ) -> Result<Document, Unreadable> {
        let malformed = |what: &str| Unreadable::Malformed(what.to_owned());
        let place = &self.runtime_source;
        if self.document_id != entity.document_id() || place.partition != partition.0 {
            return Err(malformed("document_id or partition are another's"));
        }
        if self.projection_version != PROJECTION_VERSION {
            return Err(malformed("it is of another projection version"));
        }
        if place.seq == 0 || place.first_offset > place.offset {
            return Err(malformed("its offsets make no sense"));
        }
        let span = Span {
            first_offset: Offset(place.first_offset),
            offset: Offset(place.offset),
            seq: place.seq,
        };
        let (latest_event_at, updated_at) = (
            time(self.latest_event_at.as_deref())?,
            time(self.updated_at.as_deref())?,
        );
        let accepted = self.accepted(state)?;
        let latest_event_type = self.latest_event_type.clone().unwrap_or_default();
        let body = match entity.kind() {
            Kind::Run => Body::Run(self.into_run()?),
            Kind::Worker => Body::Worker(self.into_worker()?),
        };
        Ok(Document {
            entity: entity.clone(),
            partition,
            span: Some(span),
            accepted,
            latest_event_type,
            latest_event_at,
            updated_at,
            body,
        })
    }

    fn accepted(&self, state: Option<&[u8]>) -> Result<Accepted, Unreadable> {
        let mut sorted = Vec::with_capacity(self.runtime_source.sources.len());
        for (name, source) in &self.runtime_source.sources {
            let ascending = source.missing.windows(2).all(|pair| pair[0].1 < pair[1].0);
            let ranges = source
                .missing
                .iter()
                .all(|(first, last)| first <= last && *last < source.max);
            if !ascending || !ranges || source.missing.len() > RANGES_MAX {
                return Err(Unreadable::Malformed(format!(
                    "source {name:?} has impossible missing ranges"
                )));
            }
            sorted.push(Source {
                name: Box::from(name.as_str()),
                max: source.max,
                missing: source.missing.clone(),
                forgotten: source.forgotten,
            });
        }
        if sorted.len() > SOURCES_MAX {
            return Err(Unreadable::Malformed("it has too many sources".to_owned()));
        }
        sorted.sort_by(|a, b| compare_keys(&a.name, &b.name));
        // With one source at most nothing was let go: if all accepted are counted by sequence, there is no more
        // to know, and what stands beside the document is a leftover.
        let counted = |source: &Source| source.max.saturating_sub(source.missing_events() + source.forgotten);
        if sorted.len() < 2 && sorted.iter().map(counted).sum::<u64>() == self.runtime_source.seq {
            return Ok(Accepted::restored(sorted, VecDeque::new()));
        }
        let state = state.ok_or(Unreadable::State("missing"))?;
        let (order, recent) =
            read_state(state, self.runtime_source.offset).ok_or(Unreadable::State("not the document's"))?;
        let mut seen = vec![false; sorted.len()];
        let permutes = order.iter().all(|&i| {
            seen.get_mut(usize::from(i))
                .is_some_and(|seen| !std::mem::replace(seen, true))
        });
        if order.len() != sorted.len() || !permutes {
            return Err(Unreadable::State("not the document's"));
        }
        let sources = order.iter().map(|&i| sorted[usize::from(i)].clone()).collect();
        Ok(Accepted::restored(sources, recent))
    }

    fn into_run(self) -> Result<Run, Unreadable> {
        let status = RunStatus::ALL.into_iter().find(|status| status.name() == self.status);
        Ok(Run {
            status: status.ok_or_else(|| Unreadable::Malformed(format!("status {:?}", self.status)))?,
            thread_id: self.thread_id,
            owner_user_id: self.owner_user_id,
            owner_guest_scope: self.owner_guest_scope,
            late_event_count: self.late_event_count,
            executor_lost_count: self.executor_lost_count,
            started_at: time(self.started_at.as_deref())?,
            terminal_at: time(self.terminal_at.as_deref())?,
            terminal_reason_class: self.terminal_reason_class,
            terminal_reason: self.terminal_reason,
        })
    }

    fn into_worker(self) -> Result<Worker, Unreadable> {
        let status = WorkerStatus::ALL
            .into_iter()
            .find(|status| status.name() == self.status);
        let metadata = match self.metadata.map(RawValue::get) {
            None | Some("null") => None,
            Some(json) => Some(canonical(json.as_bytes()).ok_or_else(|| Unreadable::Malformed("metadata".to_owned()))?),
        };
        Ok(Worker {
            status: status.ok_or_else(|| Unreadable::Malformed(format!("status {:?}", self.status)))?,
            workspace_ref: self.workspace_ref,
            adapter: self.adapter,
            metadata: metadata.map(String::into_boxed_str),
            started_at: time(self.started_at.as_deref())?,
            stopped_at: time(self.stopped_at.as_deref())?,
            last_heartbeat_at: time(self.last_heartbeat_at.as_deref())?,
            error_count: self.error_count,
            restart_count: self.restart_count,
        })
    }
}

fn time(text: Option<&str>) -> Result<Option<Time>, Unreadable> {
    let Some(text) = text else { return Ok(None) };
    Time::parse(text)
        .map(Some)
        .ok_or_else(|| Unreadable::Malformed(format!("time {text:?}")))
}

/// The order of sources and the recent hashes; `None` if it is not the state of a document at `offset`.
fn read_state(state: &[u8], offset: u64) -> Option<(Vec<u8>, VecDeque<u128>)> {
    let (&version, rest) = state.split_first()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (&sources, rest) = rest.split_first()?;
    let (order, rest) = rest.split_at_checked(usize::from(sources))?;
    let (&recent, rest) = rest.split_first()?;
    let (hashes, rest) = rest.as_chunks::<16>();
    let right = version == STATE_VERSION && u64::from_be_bytes(*at) == offset && rest.is_empty();
    let bounded = hashes.len() == usize::from(recent) && hashes.len() <= RECENT_MAX;
    (right && bounded).then(|| {
        (
            order.to_vec(),
            hashes.iter().map(|hash| u128::from_be_bytes(*hash)).collect(),
        )
    })
}

//! One entity's document: the fold of its accepted events up to its offset.
//! In: events in log order. Out: canonical JSON with its hash, and the state that is not in the document.
//! Invariant: rendered, parsed and rendered again, it is the same bytes; a duplicate changes none.

mod parse;
mod render;
#[cfg(test)]
mod tests;

use super::accept::{Accepted, Seen, Source};
use super::entity::{Entity, Kind};
use super::event::Event;
use super::place::{Offset, PartitionId};
use super::run::Run;
use super::time::Time;
use super::worker::Worker;

pub use self::parse::Unreadable;

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is the entity's `seq`-th.
    Accepted {
        /// 1, 2, 3 … per entity.
        seq: u64,
    },
    /// It was seen before, and changed nothing.
    Duplicate,
}

/// Where an entity's accepted events stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first_offset: Offset,
    offset: Offset,
    seq: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Run(Run),
    Worker(Worker),
}

/// One entity, folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    entity: Entity,
    partition: PartitionId,
    span: Option<Span>,
    accepted: Accepted,
    latest_event_type: String,
    latest_event_at: Option<Time>,
    updated_at: Option<Time>,
    body: Body,
}

impl Document {
    /// An entity of which nothing is known.
    pub fn new(entity: Entity, partition: PartitionId) -> Self {
        let body = match entity.kind() {
            Kind::Run => Body::Run(Run::default()),
            Kind::Worker => Body::Worker(Worker::default()),
        };
        Self {
            entity,
            partition,
            span: None,
            accepted: Accepted::default(),
            latest_event_type: String::new(),
            latest_event_at: None,
            updated_at: None,
            body,
        }
    }

    /// Whose it is.
    pub fn entity(&self) -> &Entity {
        &self.entity
    }

    /// Whether no event was accepted yet.
    pub fn is_empty(&self) -> bool {
        self.span.is_none()
    }

    /// Offset of the last accepted event.
    pub fn offset(&self) -> Option<Offset> {
        self.span.map(|span| span.offset)
    }

    /// Offset of the first accepted event.
    pub fn first_offset(&self) -> Option<Offset> {
        self.span.map(|span| span.first_offset)
    }

    /// Number of accepted events.
    pub fn seq(&self) -> u64 {
        self.span.map_or(0, |span| span.seq)
    }

    /// Sequences now known to be missing, over all sources.
    pub fn missing_events(&self) -> u64 {
        self.accepted.missing_events()
    }

    /// Whether each source's first event is here: no sequence from its 1 on is missing or forgotten, and every
    /// event has one. Then nothing of the entity's beginning was lost that anything here could tell of.
    pub fn has_beginning(&self) -> bool {
        let whole = |source: &Source| source.forgotten == 0 && source.missing.first().is_none_or(|range| range.0 > 1);
        self.accepted.recent().is_empty() && self.accepted.sources().iter().all(whole)
    }

    /// The log's timestamp of the last accepted event.
    pub fn updated_at(&self) -> Option<Time> {
        self.updated_at
    }

    /// Whether the entity's life has ended, as far as anybody knows.
    pub fn is_terminal(&self) -> bool {
        match &self.body {
            Body::Run(run) => {
                run.terminal_at.is_some() || matches!(run.status.name(), "succeeded" | "failed" | "canceled")
            }
            Body::Worker(worker) => worker.status.name() == "stopped",
        }
    }

    /// The status' word.
    pub fn status(&self) -> &'static str {
        match &self.body {
            Body::Run(run) => run.status.name(),
            Body::Worker(worker) => worker.status.name(),
        }
    }

    /// Whether the event at `offset`, and those before it, are folded in already.
    pub fn includes(&self, offset: Offset) -> bool {
        self.span.is_some_and(|span| offset <= span.offset)
    }

    /// Folds an event in; `offset` and `record_ms` (milliseconds since 1970, the log's clock) are its record's.
    pub fn apply(&mut self, event: &Event<'_>, offset: Offset, record_ms: i64) -> Applied {
        if self.includes(offset) {
            return Applied::Duplicate; // of a redo: it is folded in already
        }
        if self.accepted.take(event.source(), event.sequence(), event.id()) == Seen::Before {
            return Applied::Duplicate;
        }
        let seq = self.seq() + 1;
        let first_offset = self.first_offset().unwrap_or(offset);
        self.span = Some(Span {
            first_offset,
            offset,
            seq,
        });
        // -1: the log has no timestamp.
        let record_time = Time::from_ms(record_ms).filter(|time| time.ms() != -1);
        let at = event.time().or(record_time);
        self.latest_event_type.clear();
        self.latest_event_type.push_str(event.type_name());
        self.latest_event_at = at;
        self.updated_at = record_time;
        match &mut self.body {
            Body::Run(run) => run.apply(event.what(), at),
            Body::Worker(worker) => worker.apply(event.what(), at),
        }
        Applied::Accepted { seq }
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let body = match &self.body {
            Body::Run(run) => {
                text(&run.thread_id)
                    + text(&run.owner_user_id)
                    + text(&run.owner_guest_scope)
                    + text(&run.terminal_reason)
                    + text(&run.terminal_reason_class)
            }
            Body::Worker(worker) => text(&worker.workspace_ref) + text(&worker.adapter) + text(&worker.metadata),
        };
        let entity = self.entity.subject().len() + 2 * size_of::<usize>();
        size_of::<Self>() + entity + self.latest_event_type.capacity() + self.accepted.bytes() + body
    }
}

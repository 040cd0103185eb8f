//! Where a partition reads. In: the place that the machine names. Out: the records from there on, a batch at a time.
//! Invariant: no record is skipped: after trouble nothing is read until the machine names a place again.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::Semaphore;

use super::driver::Shared;
use super::effects::Doer;
use super::turns::Turns;
use crate::log::{FetchLimits, LogError, Reader, Role};
use crate::pure::place::NextOffset;
use crate::pure::record::RecordBatch;

/// Bounds of a batch.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Of what is there.
    pub plain: FetchLimits,
    /// Of what is gathered in a turn.
    pub turn: FetchLimits,
}

/// A partition's place in the log, and the reader that is there, if one was made already.
pub(super) struct Reading {
    place: Option<NextOffset>,
    reader: Option<Box<dyn Reader>>,
    turns: Option<Turns>,
}

impl Reading {
    pub(super) fn new(turns: Option<Arc<Semaphore>>) -> Self {
        Self {
            place: None,
            reader: None,
            turns: turns.map(Turns::new),
        }
    }

    /// From here on.
    pub(super) fn begin(&mut self, from: NextOffset) {
        self.reader = None;
        self.place = Some(from);
    }

    /// Nothing more, until it begins again.
    pub(super) fn stop(&mut self) {
        (self.place, self.reader) = (None, None);
        if let Some(turns) = &mut self.turns {
            turns.leave();
        }
    }

    /// So many batches are in hand now, and get on.
    pub(super) fn in_hand(&mut self, batches: usize) {
        if let Some(turns) = &mut self.turns {
            turns.keep(batches);
        }
    }

    pub(super) fn has_place(&self) -> bool {
        self.place.is_some()
    }

    /// The partition's end as the last fetch told it.
    pub(super) fn end(&self) -> Option<NextOffset> {
        self.reader.as_ref().and_then(|reader| reader.end())
    }

    /// The next records, and when they were asked for. Dropping the future loses nothing.
    pub(super) async fn fetch(&mut self, doer: &Doer, shared: &Shared) -> Result<(SystemTime, RecordBatch), LogError> {
        let asked = SystemTime::now();
        let Some(from) = self.place else {
            return Ok((asked, RecordBatch::default()));
        };
        let reader = match &mut self.reader {
            Some(reader) => reader,
            slot => slot.insert(doer.log.reader(Role::Events, doer.partition, from).await?),
        };
        let behind = reader.end().map_or(0, |end| from.until(end));
        let limits = shared.limits;
        let turns = self.turns.as_mut().filter(|_| behind >= limits.turn.records as u64);
        let is_large = turns.is_some();
        if let Some(turns) = turns {
            turns.wait().await;
        }
        let started = Instant::now();
        let fetched = if is_large {
            reader.fetch_much(limits.turn).await
        } else {
            reader.fetch(limits.plain).await
        };
        let waited_in_vain = fetched.as_ref().is_ok_and(RecordBatch::is_empty);
        if !waited_in_vain {
            let seconds = started.elapsed().as_secs_f64();
            shared.metrics.operation("poll", seconds, &fetched);
        }
        let records = fetched?;
        self.place = records.next().or(self.place);
        match &mut self.turns {
            Some(turns) if is_large && records.next().is_some() => turns.begin(),
            Some(turns) => turns.leave(),
            None => {}
        }
        Ok((asked, records))
    }
}

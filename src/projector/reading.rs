//! Where a partition reads. In: the place that the machine names. Out: the records from there on, a batch at a time.
//! Invariant: no record is skipped: after trouble nothing is read until the machine names a place again.

use std::time::{Instant, SystemTime};

use super::driver::Shared;
use super::effects::Doer;
use crate::log::{LogError, Reader, Role};
use crate::pure::place::NextOffset;
use crate::pure::record::RecordBatch;

/// A partition's place in the log, and the reader that is there, if one was made already.
#[derive(Default)]
pub(super) struct Reading {
    place: Option<NextOffset>,
    reader: Option<Box<dyn Reader>>,
}

impl Reading {
    /// From here on.
    pub(super) fn begin(&mut self, from: NextOffset) {
        self.reader = None;
        self.place = Some(from);
    }

    /// Nothing more, until it begins again.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
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
        let started = Instant::now();
        let fetched = reader.fetch(shared.limits).await;
        let waited_in_vain = fetched.as_ref().is_ok_and(RecordBatch::is_empty);
        if !waited_in_vain {
            let seconds = started.elapsed().as_secs_f64();
            shared.metrics.operation("poll", seconds, &fetched);
        }
        let records = fetched?;
        self.place = records.next().or(self.place);
        Ok((asked, records))
    }
}

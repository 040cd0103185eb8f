//! One partition's batches, from the log to the store. In: records, commits, what became visible. Out: spans, if there
//! is a tracer, and how long each batch took. Invariant: bounded.

use std::collections::VecDeque;
use std::time::{Instant, SystemTime};

use opentelemetry::ContextGuard;
use opentelemetry::trace::FutureExt;

use super::effects::Doer;
use crate::pure::partition::{Effect, Failure, Outcome};
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::record::RecordBatch;
use crate::telemetry::Metrics;
use crate::telemetry::messaging::{Call, Event, Messaging, Work, producer_context};

/// Batches on their way; the machine has fewer in hand.
const WORKS_MAX: usize = 16;

/// Batches on their way, oldest first.
#[derive(Default)]
pub(super) struct Works(VecDeque<Batch>);

struct Batch {
    /// Where it ends.
    next: NextOffset,
    came: Instant,
    /// Its span.
    work: Option<Work>,
}

impl Works {
    /// Records came.
    pub(super) fn begin(
        &mut self,
        spans: &Messaging,
        partition: PartitionId,
        records: &RecordBatch,
        asked: SystemTime,
    ) {
        let Some(next) = records.next().filter(|_| !records.is_empty()) else {
            return;
        };
        let event = |i| {
            let record = records.get(i);
            Event {
                key: record.key,
                offset: record.offset.0,
                context: producer_context(record.headers(), record.value),
            }
        };
        let work = spans.received(partition.0, asked, records.len(), event);
        if self.0.len() >= WORKS_MAX {
            self.0.pop_front(); // dropped, its span ends here
        }
        let came = Instant::now();
        self.0.push_back(Batch { next, came, work });
    }

    /// What is logged until the guard goes belongs to the oldest batch.
    pub(super) fn attach(&self) -> Option<ContextGuard> {
        Some(self.oldest()?.context().clone().attach())
    }

    /// The oldest batch is about to be committed.
    pub(super) fn commit(&self, spans: &Messaging, documents: usize) -> Option<Call> {
        spans.store_call(self.oldest()?.context(), documents)
    }

    fn oldest(&self) -> Option<&Work> {
        self.0.front()?.work.as_ref()
    }

    /// All below `next` is visible.
    pub(super) fn visible(&mut self, next: NextOffset, metrics: &Metrics) {
        while let Some(batch) = self.0.pop_front_if(|batch| batch.next <= next) {
            metrics.processed(batch.came.elapsed().as_secs_f64());
            if let Some(work) = batch.work {
                work.done();
            }
        }
    }

    /// What was on its way is read again.
    pub(super) fn give_up(&mut self, why: &str) {
        for work in self.0.drain(..).filter_map(|batch| batch.work) {
            work.given_up(why);
        }
    }
}

/// Does an effect, inside its call's span if it has one.
pub(super) async fn perform(doer: Doer, effect: Effect, call: Option<Call>) -> Outcome {
    let Some(call) = call else {
        return doer.perform(effect).await;
    };
    let outcome = doer.perform(effect).with_context(call.context().clone()).await;
    let error = match &outcome {
        Outcome::Failed(_, Failure::Away(words) | Failure::Corrupt(words) | Failure::Hopeless(words)) => {
            Some(words.as_str())
        }
        Outcome::Failed(..) => Some("refused: the store has another checkpoint or owner"),
        _ => None,
    };
    call.end(error);
    outcome
}

//! A partition that reads, folds and commits: at most one commit on its way, one batch folded behind it.
//! Invariant: `position` is the checkpoint after all that was folded; `stored` the one the store has.

use std::sync::Arc;

use super::folding::{Folded, Folding, Stage};
use super::share::Count;
use super::{Action, DeadLetter, Effect, Kept, Partition, Phase, Visible};
use crate::pure::batch::{Batch, Stored};
use crate::pure::cache::Turn;
use crate::pure::checkpoint::{Checkpoint, Identity};
use crate::pure::place::NextOffset;
use crate::pure::record::RecordBatch;
use crate::pure::recovery::{Called, LastRecord, Step};

/// Marks go into the history at most this often.
const MARK_EVERY_MS: i64 = 1000;

pub(super) struct Running {
    /// What the store has; `None`: nothing yet.
    pub(super) stored: Option<Checkpoint>,
    /// After everything folded so far.
    pub(super) position: Checkpoint,
    /// Whether `position` was ever the identity of a batch: if not, the store has none or `stored`.
    in_flight: Option<Flight>,
    pub(super) folding: Option<Folding>,
    pub(super) turn: Turn,
    last_mark_ms: Option<i64>,
    renewing: Option<Renewal>,
    /// Counts commits that were sent or settled: a checkpoint read before one of them tells nothing.
    changes: u64,
    attempts: Attempts,
    /// What was read ends with the last record applied, which was compared.
    at_last: bool,
    /// Why reading stopped, until all that was read is committed.
    reading_stopped: Option<String>,
    /// A recovery that waits until it is known which dead letters the log has: attempt, and why.
    recovery: Option<(u32, String)>,
    now_ms: i64,
    dead: Count,
}

struct Flight {
    batch: Arc<Batch>,
    folded: Folded,
}

struct Renewal {
    changes: u64,
}

#[derive(Default)]
struct Attempts {
    load: u32,
    append: u32,
    commit: u32,
}

impl Running {
    pub(super) fn new(stored: Option<Checkpoint>, fresh: Checkpoint, start: NextOffset, now_ms: i64) -> Self {
        let mut position = stored.clone().unwrap_or(fresh);
        position.next = start;
        Self {
            stored,
            position,
            in_flight: None,
            folding: None,
            turn: 1,
            last_mark_ms: None,
            renewing: None,
            changes: 0,
            attempts: Attempts::default(),
            at_last: false,
            reading_stopped: None,
            recovery: None,
            now_ms,
            dead: Count::default(),
        }
    }

    /// After a rewind or a gap: takes note in the store that it is behind us, also where no record follows.
    pub(super) fn pick_up(&mut self, actions: &mut Vec<Action>) {
        let moved = self
            .stored
            .as_ref()
            .is_some_and(|stored| stored.next != self.position.next);
        if self.position.intent.is_empty() && !moved {
            return;
        }
        self.position.intent.clear();
        let expected = self.stored.as_ref().map(Checkpoint::identity);
        let batch = Arc::new(Batch::new(expected, self.position.clone()));
        let folded = Folded {
            batch: None,
            timestamps_ms: Vec::new(),
            terminals: 0,
        };
        self.in_flight = Some(Flight {
            batch: Arc::clone(&batch),
            folded,
        });
        self.changes += 1;
        actions.push(Action::Do {
            effect: Effect::Commit(batch),
            attempt: 0,
            because: String::new(),
        });
    }

    pub(super) fn wants_records(&self) -> bool {
        self.folding.is_none() && self.reading_stopped.is_none()
    }

    pub(super) fn in_hand(&self) -> usize {
        usize::from(self.folding.is_some()) + usize::from(self.in_flight.is_some())
    }

    pub(super) fn stop_reading(&mut self, why: String) -> bool {
        self.reading_stopped = Some(why);
        self.at_last
    }

    pub(super) fn take_stop_if_idle(&mut self) -> Option<String> {
        self.reading_stopped
            .take_if(|_| self.folding.is_none() && self.in_flight.is_none())
    }

    /// Whether dead letters are on their way: dropped now, they would be appended again.
    pub(super) fn is_appending(&self) -> bool {
        self.folding
            .as_ref()
            .is_some_and(|folding| matches!(folding.stage, Stage::Appending))
    }

    pub(super) fn recover_later(&mut self, attempt: u32, because: String) {
        self.recovery = Some((attempt, because));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.folding.is_none() && self.in_flight.is_none()
    }

    pub(super) fn next_in_store(&self) -> NextOffset {
        self.stored.as_ref().map_or(NextOffset::START, |stored| stored.next)
    }

    pub(super) fn oldest_ms(&self) -> Option<i64> {
        let in_flight = self.in_flight.as_ref().and_then(|flight| flight.folded.first_ms());
        in_flight.or_else(|| self.folding.as_ref().and_then(Folding::first_ms))
    }

    /// What the cache is good for: nothing if something folded is not in the store.
    pub(super) fn kept(&self) -> Kept {
        if self.is_idle() {
            Kept::Under(self.stored.as_ref().map(Checkpoint::identity))
        } else {
            Kept::Nothing
        }
    }

    pub(super) fn may_renew(&mut self) -> bool {
        let may = self.renewing.is_none();
        if may {
            self.renewing = Some(Renewal { changes: self.changes });
        }
        may
    }

    /// How often this effect failed so far, this time included; 0 for one that is not asked again.
    pub(super) fn next_attempt(&mut self, effect: &Effect) -> u32 {
        let attempts = match effect {
            Effect::Load { .. } => &mut self.attempts.load,
            Effect::AppendDeadLetters { .. } => &mut self.attempts.append,
            Effect::Commit(_) => &mut self.attempts.commit,
            Effect::Renew | Effect::Survey { .. } | Effect::Rewind { .. } | Effect::Restore => {
                self.renewing = None;
                return 0;
            }
        };
        *attempts += 1;
        *attempts
    }

    /// What the store's checkpoint may be while a commit is on its way.
    fn expected(&self) -> Vec<Option<Identity>> {
        let mut expected = vec![self.stored.as_ref().map(Checkpoint::identity)];
        if let Some(flight) = &self.in_flight {
            expected.push(Some(flight.batch.checkpoint.identity()));
        }
        expected
    }

    /// What the next batch is compared with.
    fn expected_after_flight(&self) -> Option<Identity> {
        let flying = self.in_flight.as_ref().map(|flight| &flight.batch.checkpoint);
        flying.or(self.stored.as_ref()).map(Checkpoint::identity)
    }

    /// Sends the batch that is ready, if none is on its way.
    fn send_ready(&mut self, actions: &mut Vec<Action>) {
        if self.in_flight.is_some() {
            return;
        }
        let Some(Folding {
            stage: Stage::Ready, ..
        }) = &self.folding
        else {
            return;
        };
        let Some(Folding {
            folded: Some(mut folded),
            ..
        }) = self.folding.take()
        else {
            return;
        };
        let Some(mut batch) = folded.batch.take() else { return };
        batch.expected = self.expected_after_flight();
        let due = self
            .last_mark_ms
            .is_none_or(|last| self.now_ms.saturating_sub(last) >= MARK_EVERY_MS);
        batch.mark = due;
        if due {
            self.last_mark_ms = Some(self.now_ms);
        }
        let batch = Arc::new(batch);
        self.in_flight = Some(Flight {
            batch: Arc::clone(&batch),
            folded,
        });
        self.changes += 1;
        self.attempts.commit = 0;
        actions.push(Action::Do {
            effect: Effect::Commit(batch),
            attempt: 0,
            because: String::new(),
        });
    }
}

impl Partition {
    pub(super) fn records(&mut self, mut records: RecordBatch, now_ms: i64, actions: &mut Vec<Action>) {
        let stopping = self.stopping;
        let Phase::Running(running) = &mut self.phase else {
            return;
        };
        if running.folding.is_some() || stopping {
            return; // not asked for; they will be read again after a recovery, never skipped
        }
        let last = LastRecord::among(running.position.last_record, &records);
        if last == LastRecord::Differs {
            self.remembered.differed = running.position.last_record;
            running.stop_reading("another record stands in the last one's place".to_owned());
            return;
        }
        running.now_ms = now_ms;
        records.skip_below(running.position.next);
        if records.next().is_none_or(|next| next <= running.position.next) {
            running.at_last |= last == LastRecord::Matches;
            return;
        }
        self.remembered.recall_letters_of(&records, running.position.next);
        running.at_last = false;
        self.reader_stops = 0;
        running.turn += 1;
        let turn = running.turn;
        let folding = Folding::begin(records, &mut self.cache, &self.parked, turn);
        let entities = folding.missing();
        running.folding = Some(folding);
        if entities.is_empty() {
            return self.fold(now_ms, actions);
        }
        running.attempts.load = 0;
        let effect = Effect::Load {
            expected: running.expected(),
            entities,
        };
        actions.push(Action::Do {
            effect,
            attempt: 0,
            because: String::new(),
        });
    }

    pub(super) fn loaded(&mut self, stored: Vec<Stored>, now_ms: i64, actions: &mut Vec<Action>) {
        let Phase::Running(running) = &mut self.phase else {
            return;
        };
        let Some(folding) = &mut running.folding else { return };
        if !matches!(folding.stage, Stage::Loading) {
            return;
        }
        folding.take_loaded(stored, &mut self.cache, actions);
        self.fold(now_ms, actions);
    }

    fn fold(&mut self, now_ms: i64, actions: &mut Vec<Action>) {
        let Phase::Running(running) = &mut self.phase else {
            return;
        };
        let Some(folding) = &mut running.folding else { return };
        let letters = folding.fold(
            &self.setup,
            &mut self.cache,
            &mut self.parked,
            &mut running.position,
            now_ms,
        );
        let records = folding.records();
        let count = running
            .dead
            .add(self.setup.dead_letter_share, records.len() as u64, letters.len() as u64);
        if let Some((dead, of)) = count
            && !self.let_through.is_past(records.get(0).offset)
        {
            let reason = letters.last().map_or("", |letter| letter.reason.name());
            let detail = format!(
                "{dead} of {of} records before offset {} are no legal events (the last one: {reason}); mend the \
                 producer; `khala resume --partition {}` lets all that the log has now through",
                running.position.next, self.setup.partition
            );
            return self.hold(Called::DeadLetterShare, Step::Hold, detail, actions);
        }
        let Some(effect) = self.remembered.append(records, letters) else {
            folding.stage = Stage::Ready;
            return running.send_ready(actions);
        };
        folding.stage = Stage::Appending;
        running.attempts.append = 0;
        actions.push(Action::Do {
            effect,
            attempt: 0,
            because: String::new(),
        });
    }

    pub(super) fn appended(&mut self, failed: Vec<DeadLetter>, detail: String, actions: &mut Vec<Action>) {
        let Phase::Running(running) = &mut self.phase else {
            return;
        };
        let Some(folding) = &mut running.folding else { return };
        if !matches!(folding.stage, Stage::Appending) {
            return;
        }
        if let Some(effect) = self.remembered.append(folding.records(), failed) {
            return self.again(effect, detail, actions);
        }
        folding.stage = Stage::Ready;
        self.remembered.appended(&running.position);
        match running.recovery.take() {
            Some((attempt, because)) => self.recover(attempt, because, actions),
            None => running.send_ready(actions),
        }
    }

    pub(super) fn committed(&mut self, actions: &mut Vec<Action>) {
        self.trouble = None;
        self.no_snapshot_past = None;
        let Phase::Running(running) = &mut self.phase else {
            return;
        };
        let Some(Flight { batch, folded }) = running.in_flight.take() else {
            return;
        };
        let before = running.stored.replace(batch.checkpoint.clone());
        running.changes += 1;
        let checkpoint = batch.checkpoint.clone();
        self.remembered.committed = self.remembered.committed.max(Some(checkpoint.next));
        let counts = before.map_or([0; 3], |before| {
            [before.accepted, before.duplicates, before.dead_letters]
        });
        actions.push(Action::Visible(Visible {
            accepted: checkpoint.accepted.saturating_sub(counts[0]),
            duplicates: checkpoint.duplicates.saturating_sub(counts[1]),
            dead_letters: checkpoint.dead_letters.saturating_sub(counts[2]),
            terminals: folded.terminals,
            timestamps_ms: folded.timestamps_ms,
            checkpoint,
        }));
        // A batch folded and not yet on its way has touched slots of the turn in hand.
        self.cache.shrink(self.setup.cache_bytes, running.turn);
        running.send_ready(actions);
    }

    pub(super) fn renewed(&mut self, checkpoint: Option<&Checkpoint>, actions: &mut Vec<Action>) {
        let Phase::Running(running) = &mut self.phase else {
            return;
        };
        let Some(renewal) = running.renewing.take() else { return };
        let settled = renewal.changes == running.changes && running.in_flight.is_none();
        if settled && checkpoint.map(Checkpoint::identity) != running.stored.as_ref().map(Checkpoint::identity) {
            self.recover(0, "the store's checkpoint changed".to_owned(), actions);
        }
    }
}

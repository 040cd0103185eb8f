//! The fold of one run. In: what an accepted event means, and when. Out: the run's fields of its document.
//! Invariant: the first terminal event wins; nothing after it changes status or a terminal field.

use super::event::{Outcome, What};
use super::time::Time;

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunStatus {
    /// Known, not started.
    #[default]
    Created,
    /// Started.
    Running,
    /// Somebody asked for its end.
    Canceling,
    /// Terminal.
    Succeeded,
    /// Terminal.
    Failed,
    /// Terminal.
    Canceled,
}

impl RunStatus {
    /// All, in the order of a run's life.
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::Running,
        Self::Canceling,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
    ];

    /// The word in the document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Canceling => "canceling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether it is the end.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

/// A run's own fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Where it stands.
    pub status: RunStatus,
    /// The first non-null one.
    pub thread_id: Option<Box<str>>,
    /// The first non-null one.
    pub owner_user_id: Option<Box<str>>,
    /// The first non-null one.
    pub owner_guest_scope: Option<Box<str>>,
    /// Accepted after the terminal one.
    pub late_event_count: u64,
    /// How often its executor was lost.
    pub executor_lost_count: u64,
    /// Of the first `run.started`.
    pub started_at: Option<Time>,
    /// Of the terminal event.
    pub terminal_at: Option<Time>,
    /// Of the terminal event.
    pub terminal_reason_class: Option<Box<str>>,
    /// Of the terminal event.
    pub terminal_reason: Option<Box<str>>,
}

impl Run {
    /// Takes an accepted event that happened at `at`.
    pub fn apply(&mut self, what: &What<'_>, at: Option<Time>) {
        let late = self.status.is_terminal();
        self.late_event_count += u64::from(late);
        match what {
            What::RunBegan {
                started,
                thread_id,
                owner_user_id,
                owner_guest_scope,
            } => {
                first(&mut self.thread_id, thread_id.as_deref());
                first(&mut self.owner_user_id, owner_user_id.as_deref());
                first(&mut self.owner_guest_scope, owner_guest_scope.as_deref());
                if *started {
                    self.started_at = self.started_at.or(at);
                    self.wake();
                }
            }
            What::RunCancelRequested if !late => self.status = RunStatus::Canceling,
            What::RunExecutorLost => self.executor_lost_count += 1,
            What::RunFinished {
                outcome,
                reason_class,
                reason,
            } if !late => {
                self.status = match outcome {
                    Outcome::Succeeded => RunStatus::Succeeded,
                    Outcome::Failed => RunStatus::Failed,
                    Outcome::Canceled => RunStatus::Canceled,
                };
                self.terminal_at = at;
                self.terminal_reason_class = reason_class.as_deref().map(Box::from);
                self.terminal_reason = reason.as_deref().map(Box::from);
            }
            What::RunCancelRequested | What::RunFinished { .. } => {}
            _ => self.wake(),
        }
    }

    fn wake(&mut self) {
        if self.status == RunStatus::Created {
            self.status = RunStatus::Running;
        }
    }
}

/// Keeps the first non-null value.
fn first(field: &mut Option<Box<str>>, value: Option<&str>) {
    if field.is_none() {
        *field = value.map(Box::from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: &[What<'static>]) -> Run {
        let mut run = Run::default();
        for (i, what) in events.iter().enumerate() {
            run.apply(what, Time::from_ms(i as i64));
        }
        run
    }

    fn began(started: bool, thread_id: Option<&'static str>) -> What<'static> {
        What::RunBegan {
            started,
            thread_id: thread_id.map(Into::into),
            owner_user_id: None,
            owner_guest_scope: None,
        }
    }

    fn finished(outcome: Outcome) -> What<'static> {
        What::RunFinished {
            outcome,
            reason_class: None,
            reason: Some("why".into()),
        }
    }

    #[test]
    #[rustfmt::skip] // a table is read by column
    fn the_status_follows_the_table() {
        use RunStatus::*;
        let rows = [
            (vec![began(false, None)],                                                     Created),
            (vec![began(false, None), What::RunExecutorLost],                              Created),
            (vec![began(true, None)],                                                      Running),
            (vec![What::Other],                                                            Running),
            (vec![What::RunCancelRequested, What::Other, began(true, None)],               Canceling),
            (vec![finished(Outcome::Failed), finished(Outcome::Succeeded), What::Other],   Failed),
            (vec![finished(Outcome::Canceled), What::RunCancelRequested],                  Canceled),
            (vec![What::RunCancelRequested, finished(Outcome::Succeeded)],                 Succeeded),
        ];
        for (events, status) in rows {
            assert_eq!(run(&events).status, status, "{events:?}");
        }
    }

    #[test]
    fn late_events_are_counted_and_change_no_terminal_field() {
        let run = run(&[
            finished(Outcome::Failed),
            What::RunExecutorLost,
            finished(Outcome::Succeeded),
        ]);
        assert_eq!((run.late_event_count, run.executor_lost_count), (2, 1));
        assert_eq!(run.terminal_at, Time::from_ms(0));
    }

    #[test]
    fn the_first_non_null_value_and_the_first_start_win() {
        let run = run(&[began(false, None), began(true, Some("a")), began(true, Some("b"))]);
        assert_eq!(
            (run.thread_id.as_deref(), run.started_at),
            (Some("a"), Time::from_ms(1))
        );
    }
}

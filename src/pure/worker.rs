//! The fold of one worker. In: what an accepted event means, and when. Out: the worker's fields of its document.
//! A field that a `worker.started` leaves out or null keeps what an earlier one said.

use super::event::What;
use super::time::Time;

/// Where a worker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkerStatus {
    /// At work, as far as known.
    #[default]
    Running,
    /// Ended as it should.
    Stopped,
    /// Ended by a fatal error.
    Failed,
}

impl WorkerStatus {
    /// All, in the order of a worker's life.
    pub const ALL: [Self; 3] = [Self::Running, Self::Stopped, Self::Failed];

    /// The word in the document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// A worker's own fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// Where it stands.
    pub status: WorkerStatus,
    /// The latest non-null one.
    pub workspace_ref: Option<Box<str>>,
    /// The latest non-null one.
    pub adapter: Option<Box<str>>,
    /// The latest non-null one, as canonical JSON.
    pub metadata: Option<Box<str>>,
    /// Of the latest `worker.started`.
    pub started_at: Option<Time>,
    /// Of the `worker.stopped` that stopped it.
    pub stopped_at: Option<Time>,
    /// Of the latest heartbeat.
    pub last_heartbeat_at: Option<Time>,
    /// Errors, fatal or not.
    pub error_count: u64,
    /// `worker.started` after the first.
    pub restart_count: u64,
}

impl Worker {
    /// Takes an accepted event that happened at `at`.
    pub fn apply(&mut self, what: &What<'_>, at: Option<Time>) {
        match what {
            What::WorkerStarted {
                workspace_ref,
                adapter,
                metadata,
            } => {
                self.restart_count += u64::from(self.started_at.is_some());
                latest(&mut self.workspace_ref, workspace_ref.as_deref());
                latest(&mut self.adapter, adapter.as_deref());
                latest(&mut self.metadata, metadata.as_deref());
                self.status = WorkerStatus::Running;
                self.started_at = at;
                self.stopped_at = None;
            }
            What::WorkerHeartbeat => self.last_heartbeat_at = at,
            What::WorkerError { fatal } => {
                self.error_count += 1;
                if *fatal {
                    self.status = WorkerStatus::Failed;
                }
            }
            What::WorkerStopped if self.status != WorkerStatus::Failed => {
                self.status = WorkerStatus::Stopped;
                self.stopped_at = at;
            }
            _ => {}
        }
    }
}

fn latest(field: &mut Option<Box<str>>, value: Option<&str>) {
    if let Some(value) = value {
        *field = Some(Box::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(adapter: Option<&'static str>) -> What<'static> {
        What::WorkerStarted {
            workspace_ref: None,
            adapter: adapter.map(Into::into),
            metadata: None,
        }
    }

    fn worker(events: &[What<'static>]) -> Worker {
        let mut worker = Worker::default();
        for (i, what) in events.iter().enumerate() {
            worker.apply(what, Time::from_ms(i as i64));
        }
        worker
    }

    #[test]
    fn a_restart_is_counted_from_the_second_start_on() {
        let worker = worker(&[started(Some("a")), What::WorkerStopped, started(None)]);
        assert_eq!((worker.restart_count, worker.status), (1, WorkerStatus::Running));
        assert_eq!((worker.started_at, worker.stopped_at), (Time::from_ms(2), None));
        assert_eq!(worker.adapter.as_deref(), Some("a"));
    }

    #[test]
    fn a_failed_worker_does_not_stop_and_may_start_again() {
        let fatal = What::WorkerError { fatal: true };
        let failed = worker(&[What::WorkerHeartbeat, fatal.clone(), What::WorkerStopped]);
        assert_eq!(
            (failed.status, failed.stopped_at, failed.error_count),
            (WorkerStatus::Failed, None, 1)
        );
        assert_eq!(worker(&[fatal, started(None)]).status, WorkerStatus::Running);
    }

    #[test]
    fn a_stopped_worker_stays_stopped_when_a_heartbeat_is_late() {
        let worker = worker(&[started(None), What::WorkerStopped, What::WorkerHeartbeat]);
        assert_eq!(
            (worker.status, worker.last_heartbeat_at),
            (WorkerStatus::Stopped, Time::from_ms(2))
        );
    }
}

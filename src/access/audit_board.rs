//! How a server's background audit stands, for its status.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::projector::now_ms;
use crate::pure::time::Time;
use crate::repair::AuditReport;

/// How the background audit stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// Share that is done of the one at work; null between two.
    pub progress: Option<f64>,
    /// When the last one ended.
    pub last_at: Option<String>,
    /// Documents it looked at.
    pub documents: u64,
    /// Those that were not what the log says.
    pub drifted: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Where the background audit says how it stands.
#[derive(Debug, Default)]
pub struct AuditBoard(Mutex<AuditStatus>);

impl AuditBoard {
    /// How it stands.
    pub fn snapshot(&self) -> AuditStatus {
        self.lock().clone()
    }

    /// One begins.
    pub fn begin(&self) {
        self.progress(0.0);
    }

    /// So much is done.
    pub fn progress(&self, done: f64) {
        self.lock().progress = Some(done);
    }

    /// It ended; without a report it was given up.
    pub fn end(&self, report: Option<&AuditReport>) {
        let mut status = self.lock();
        status.progress = None;
        if let Some(report) = report {
            *status = AuditStatus {
                progress: None,
                last_at: Time::from_ms(now_ms()).map(|time| time.to_string()),
                documents: report.documents,
                drifted: report.drift.len() as u64,
                seconds: report.seconds,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, AuditStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

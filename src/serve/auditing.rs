//! The background audit: the partitions that this process has, again and again, at a share of one core.
//! In: the board of partitions. Out: log lines, metrics, `audit` in the status. Nothing is repaired unasked.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::{info, warn};

use crate::access::{Access, AccessError, Serving};
use crate::repair::{AuditProgress, AuditReport};

/// The first one begins this long after the start at the latest: a process that restarts daily audits too.
const FIRST_MAX: Duration = Duration::from_mins(10);
/// A failed one is tried again after this.
const PAUSE: Duration = Duration::from_mins(1);
/// Drifted documents named in the log, each time.
const NAMED: usize = 20;

/// Audits until it is dropped.
pub(super) async fn audit_again_and_again(access: Access, serving: Serving) {
    let Some(every) = access.settings.audit_every else {
        return;
    };
    let mut wait = every.min(FIRST_MAX);
    loop {
        tokio::time::sleep(wait).await;
        let partitions: BTreeSet<_> = serving
            .board
            .snapshot()
            .into_iter()
            .map(|status| status.partition)
            .collect();
        if partitions.is_empty() {
            continue;
        }
        let watch = |progress: AuditProgress| {
            serving.audit.progress(progress.done);
            serving.metrics.audit_progress(progress.done);
        };
        serving.audit.begin();
        let audited = access.audit_quietly(partitions, &watch).await;
        serving.audit.end(audited.as_ref().ok());
        wait = if audited.is_ok() { every } else { every.min(PAUSE) };
        tell(&audited);
    }
}

fn tell(audited: &Result<AuditReport, AccessError>) {
    let report = match audited {
        Ok(report) => report,
        Err(error) => return warn!(%error, "the background audit was given up"),
    };
    let (documents, drifted, seconds) = (report.documents, report.drift.len(), report.seconds);
    if let Some(words) = report.passed_over() {
        warn!("the background audit passed something over: {words}");
    }
    if report.clean {
        return info!(documents, seconds, "audited: all documents are what the log says");
    }
    if report.drift.is_empty() {
        return;
    }
    warn!(
        documents,
        drifted, seconds, "audited: some documents are not what the log says; `khala audit --repair` puts them right"
    );
    for row in report.drift.iter().take(NAMED) {
        let (document, reason, partition) = (&row.document_id, row.reason.name(), row.partition);
        warn!(document, reason, partition, detail = row.detail, "drift");
    }
}

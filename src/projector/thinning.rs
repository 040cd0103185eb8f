//! Thins the histories of the partitions that this process projects.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::board::StatusBoard;
use super::driver::now_ms;
use crate::pure::history::surplus;
use crate::store::Store;

const EVERY: Duration = Duration::from_mins(10);
/// Marks looked at.
const MARKS_MAX: usize = 20_000;

/// Runs until `stop`. A failure costs nothing: the next round finds the same marks.
pub(super) async fn thin(store: Arc<dyn Store>, board: Arc<StatusBoard>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        for partition in board.snapshot().into_iter().map(|status| status.partition) {
            let Ok(marks) = store.history(partition, MARKS_MAX).await else {
                continue;
            };
            let ids: Vec<String> = surplus(&marks, now_ms()).iter().map(|mark| mark.id.clone()).collect();
            if let Err(error) = store.forget_marks(partition, &ids).await {
                debug!(%partition, %error, "the history was not thinned");
            }
        }
    }
}

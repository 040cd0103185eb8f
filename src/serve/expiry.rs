//! Takes documents of runs away that ended long ago (`keep_terminal`), in the partitions that this process projects.
//! Invariant: nothing waits for it; what failed is tried again with the next round.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{info, warn};

use crate::access::{Access, Serving, healer};
use crate::config::LogTarget;
use crate::pure::partition::State;
use crate::pure::place::PartitionId;
use crate::repair::{Expired, Expiry, InSnapshot, Keep};

/// Rounds are this far apart at most.
const EVERY_MAX: Duration = Duration::from_secs(15);
const EVERY_MIN: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
pub(super) async fn run(access: Access, serving: Serving) {
    let Some(time) = access.settings.keep_terminal else {
        return;
    };
    let writes_snapshots =
        matches!(access.settings.log, LogTarget::Kafka(_)) && access.settings.snapshot_interval.is_some();
    let keep = Keep {
        keep_ms: i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
        in_snapshot: if writes_snapshots {
            InSnapshot::Must
        } else {
            InSnapshot::NeedNot
        },
    };
    let mut expiries: BTreeMap<(PartitionId, u64), Expiry> = BTreeMap::new();
    loop {
        tokio::time::sleep((time / 10).clamp(EVERY_MIN, EVERY_MAX)).await;
        let running = serving.board.snapshot().into_iter();
        let running: Vec<(PartitionId, u64)> = running
            .filter(|status| status.state == State::Running)
            .map(|status| (status.partition, status.went_back))
            .collect();
        expiries.retain(|known, _| running.contains(known)); // then all is looked at anew
        for (partition, went_back) in running {
            let expiry = expiries.entry((partition, went_back)).or_default();
            match expiry.round(&access.ground(), partition, keep, &healer()).await {
                Ok(Expired { documents: 0, back: 0 }) => {}
                Ok(Expired { documents, back }) => {
                    info!(%partition, documents, back, "documents of runs that ended long ago are taken away");
                }
                Err(error) => warn!(%partition, %error, "no documents were taken away; it is tried again"),
            }
        }
    }
}

//! Projects one partition up to a place, without a group: the redo of a replay where no projector is live.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::board::StatusBoard;
use super::driver::{Driver, Shared};
use super::{CONTROL_QUEUE, ProjectorSettings, group, limits, machine_of, turns_of};
use crate::log::Log;
use crate::pure::partition::{Remembered, State};
use crate::pure::place::{NextOffset, PartitionId};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::messaging::Messaging;

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Projects `partition` until its checkpoint is at `until` or past it.
///
/// # Errors
/// The partition is held: why.
pub async fn redo(
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    settings: ProjectorSettings,
    partition: PartitionId,
    until: NextOffset,
) -> anyhow::Result<()> {
    let (group_sender, offsets) = mpsc::channel(64);
    let board = Arc::new(StatusBoard::default());
    let metrics = Metrics::new("redo").context("instruments")?;
    let shared = Shared {
        metrics: Arc::clone(&metrics),
        spans: Messaging::off(),
        board: Arc::clone(&board),
        group: group_sender,
        limits: limits(&settings),
        turns: turns_of(&settings),
        backoff_max: settings.backoff_max,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(group::commit_offsets(
        Arc::clone(&log),
        metrics,
        Messaging::off(),
        offsets,
    ));
    let (doer, machine) = machine_of(&log, &store, &settings, partition, Remembered::default());
    let (control, messages) = mpsc::channel(CONTROL_QUEUE);
    let driver = Driver::new(doer, shared, machine, settings.cache_bytes);
    let mut driving = JoinSet::new();
    driving.spawn(driver.run(messages));
    let held = loop {
        let status = board.snapshot().into_iter().next();
        if let Some(State::Held { called, detail }) = status.as_ref().map(|status| &status.state) {
            break Some(format!("partition {partition} is held ({}): {detail}", called.name()));
        }
        let running = status.filter(|status| status.state == State::Running);
        if running
            .and_then(|status| status.offset)
            .is_some_and(|next| next >= until)
        {
            break None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    drop(control);
    while let Some(ended) = driving.join_next().await {
        ended.context("the partition's task")?;
    }
    while tasks.join_next().await.is_some() {}
    match held {
        Some(why) => anyhow::bail!(why),
        None => Ok(()),
    }
}

//! The store is lost when the log alone cannot make the documents again.

use std::time::Instant;

use super::super::exit::Failure;
use super::super::gate::failed;
use super::super::gate::place::Place;
use super::super::gate::report::Check;
use super::DrillArgs;
use super::faults::{DRIFT, ERRORS, OnRedis, WRITES, ms, unnoticed};
use crate::access::kafka_settings;
use crate::config::LogTarget;
use crate::log::kafka;
use crate::pure::place::{NextOffset, PartitionId};

const LOST: &str = "reason=\"sink_lost\"";

pub(super) async fn restore(args: &DrillArgs, place: &Place) -> Result<Vec<Check>, Failure> {
    let LogTarget::Kafka(bootstrap) = &place.settings.log else {
        return Err(failed("no Kafka"));
    };
    let OnRedis {
        redis,
        system,
        partitions,
        traffic,
    } = OnRedis::under_traffic(args, place).await?;
    let snapshot = system.truth.snapshot().await?;
    let written: u64 = snapshot.iter().map(|row| row.documents).sum();
    let forgotten: Vec<(PartitionId, NextOffset)> = snapshot
        .iter()
        .filter_map(|row| Some((PartitionId(row.partition), NextOffset(row.offset?))))
        .collect();
    kafka::forget(&kafka_settings(&place.settings, bootstrap), &forgotten)
        .await
        .map_err(failed)?;
    let metrics = system.calls.metrics().await?;
    let (drift, errors) = (metrics.sum(DRIFT, LOST), metrics.sum(WRITES, ERRORS));
    system.sink.cut();
    system.until_counted(WRITES, ERRORS, errors, args.settle).await?;
    redis.put_back(partitions, &[]).await.map_err(failed)?;
    system.sink.mend();
    let lost = Instant::now();
    let noticed = system.until_counted(DRIFT, LOST, drift, args.settle).await?;
    system.calls.settle(args.settle).await?;
    let back = ms(lost);
    args.half().await;
    let sent = traffic.stop(&system.calls).await?;
    let mut checks = vec![
        Check::told("documents in the snapshot", written),
        Check::at_least(
            "partitions whose beginning the log has forgotten",
            forgotten.len() as u64,
            1,
        ),
        Check::at_least("partitions restored from a snapshot", noticed as u64, 1),
        Check::told("from the loss until lag was 0 again", back),
        unnoticed(&sent),
    ];
    checks.extend(sent.verify(&system.calls, args).await?);
    system.stop().await?;
    Ok(checks)
}

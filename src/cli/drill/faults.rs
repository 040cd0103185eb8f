//! The faults. Each under traffic; at the end every run and document is compared with what was sent and with the log.

use std::time::{Duration, Instant};

use super::super::exit::Failure;
use super::super::gate::calls::{Calls, LOOK_EVERY};
use super::super::gate::failed;
use super::super::gate::place::Place;
use super::super::gate::report::Check;
use super::super::gate::system::System;
use super::DrillArgs;
use super::member::Member;
use super::traffic::{Sent, Traffic};
use crate::access::redis_settings;
use crate::config::StoreTarget;
use crate::pure::checkpoint::Checkpoint;
use crate::store::redis::RedisStore;

pub(super) const WRITES: &str = "khala_projection_writes_total";
pub(super) const ERRORS: &str = "result=\"error\"";
pub(super) const DRIFT: &str = "khala_projection_drift_total";
const ROLLED_BACK: &str = "reason=\"sink_rolled_back\"";

pub(super) fn ms(since: Instant) -> String {
    format!("{} ms", since.elapsed().as_millis())
}

/// What nobody who publishes may notice.
pub(super) fn unnoticed(sent: &Sent) -> Check {
    Check::equal("publications refused", sent.refused, 0)
}

pub(super) async fn sink_outage(args: &DrillArgs, place: &Place) -> Result<Vec<Check>, Failure> {
    let system = System::start(place).await?;
    let traffic = Traffic::start(&system.calls, args);
    args.half().await;
    let errors = system.calls.metrics().await?.sum(WRITES, ERRORS);
    system.sink.cut();
    system.until_counted(WRITES, ERRORS, errors, args.settle).await?;
    let before = system.checkpoints().await?;
    args.half().await;
    let moved = before
        .iter()
        .zip(system.checkpoints().await?)
        .filter(|(one, other)| *one != other)
        .count();
    let failures = system.calls.metrics().await?.sum(WRITES, ERRORS) - errors;
    system.sink.mend();
    let mended = Instant::now();
    let sent = traffic.stop(&system.calls).await?;
    system.calls.settle(args.settle).await?;
    let mut checks = vec![
        Check::told("how the store is taken away", system.sink.means()),
        Check::equal("checkpoints that moved meanwhile", moved, 0),
        Check::at_least("write failures counted", failures as u64, 1),
        Check::told("from its return until all was applied", ms(mended)),
        unnoticed(&sent),
    ];
    checks.extend(sent.verify(&system.calls, args).await?);
    system.stop().await?;
    Ok(checks)
}

pub(super) async fn kill(args: &DrillArgs, place: &Place) -> Result<Vec<Check>, Failure> {
    drop(place.open().await?); // makes the topics, and tells what cannot be reached
    let member = Member::start(place).await?;
    let traffic = Traffic::start(&member.calls, args);
    args.half().await;
    let killed = Instant::now();
    let member = member.kill_and_start(place).await?;
    let ready = ms(killed);
    args.half().await;
    let sent = traffic.stop(&member.calls).await?;
    let mut checks = vec![
        Check::told("from the kill until another was ready", ready),
        Check::told("publications tried again", sent.refused),
    ];
    checks.extend(sent.verify(&member.calls, args).await?);
    member.leave().await?;
    Ok(checks)
}

/// Waits until the owners are as they must be; how long that took.
async fn until_owned(
    calls: &Calls,
    patience: Duration,
    what: &str,
    are_right: impl Fn(&[String]) -> bool,
) -> Result<String, Failure> {
    let began = Instant::now();
    let mut owners = Vec::new();
    while began.elapsed() < patience {
        owners = calls.owners().await.unwrap_or(owners);
        if are_right(&owners) {
            return Ok(ms(began));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(failed(format!(
        "{what}: not within {} s; owners: {owners:?}",
        patience.as_secs()
    )))
}

pub(super) async fn zombie(args: &DrillArgs, place: &Place) -> Result<Vec<Check>, Failure> {
    drop(place.open().await?);
    let one = Member::start(place).await?;
    let other = Member::start(place).await?;
    let shared = |owners: &[String]| owners.iter().any(|it| one.owns(it)) && owners.iter().any(|it| other.owns(it));
    until_owned(&other.calls, args.settle, "both have partitions", shared).await?;
    let traffic = Traffic::start(&other.calls, args);
    args.half().await;
    let lost = other
        .calls
        .owners()
        .await?
        .iter()
        .filter(|owner| one.owns(owner))
        .count();
    one.pause()?;
    let all = |owners: &[String]| !owners.is_empty() && owners.iter().all(|owner| other.owns(owner));
    let taken = until_owned(&other.calls, args.settle, "the other has all partitions", all).await;
    one.go_on()?;
    let taken = taken?;
    args.half().await;
    until_owned(&other.calls, args.settle, "both have partitions again", shared).await?;
    let sent = traffic.stop(&other.calls).await?;
    let mut checks = vec![
        Check::at_least("partitions of the one that was stopped", lost as u64, 1),
        Check::told("until the other had all of them", taken),
        unnoticed(&sent),
    ];
    checks.extend(sent.verify(&other.calls, args).await?);
    one.leave().await?;
    other.leave().await?;
    Ok(checks)
}

pub(super) async fn rebalance(args: &DrillArgs, place: &Place) -> Result<Vec<Check>, Failure> {
    drop(place.open().await?);
    let one = Member::start(place).await?;
    let traffic = Traffic::start(&one.calls, args);
    args.half().await;
    let other = Member::start(place).await?;
    let shared = |owners: &[String]| owners.iter().any(|it| one.owns(it)) && owners.iter().any(|it| other.owns(it));
    let joined = until_owned(&one.calls, args.settle, "both have partitions", shared).await?;
    let moved = one
        .calls
        .owners()
        .await?
        .iter()
        .filter(|owner| other.owns(owner))
        .count();
    args.half().await;
    other.leave().await?;
    let all = |owners: &[String]| !owners.is_empty() && owners.iter().all(|owner| one.owns(owner));
    let back = until_owned(&one.calls, args.settle, "the first has all partitions", all).await?;
    let sent = traffic.stop(&one.calls).await?;
    let mut checks = vec![
        Check::at_least("partitions that the second one took over", moved as u64, 1),
        Check::told("from its readiness until both had some", joined),
        Check::told("from its leaving until the first had all", back),
        unnoticed(&sent),
    ];
    checks.extend(sent.verify(&one.calls, args).await?);
    one.leave().await?;
    Ok(checks)
}

pub(super) async fn replay(args: &DrillArgs, place: &Place) -> Result<Vec<Check>, Failure> {
    let system = System::start(place).await?;
    let traffic = Traffic::start(&system.calls, args);
    args.half().await;
    let replay = system.calls.replay("earliest").await?;
    args.half().await;
    let sent = traffic.stop(&system.calls).await?;
    let mut checks = vec![
        Check::at_least("records redone", replay.records, 1),
        Check::told("the redo took", format!("{:.1} s", replay.seconds)),
        Check::equal("documents that it found wrong", replay.proof.wrong.len(), 0),
        unnoticed(&sent),
    ];
    checks.extend(sent.verify(&system.calls, args).await?);
    system.stop().await?;
    Ok(checks)
}

/// Waits until a checkpoint has moved on from what it was: there is something that can be lost.
async fn until_moved(system: &System, before: &[Option<Checkpoint>], patience: Duration) -> Result<(), Failure> {
    let began = Instant::now();
    while began.elapsed() < patience {
        if system.checkpoints().await? != before {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(failed(format!("no checkpoint has moved for {} s", patience.as_secs())))
}

/// A system on Redis under traffic, of which there is something in Redis that can be lost.
pub(super) struct OnRedis {
    pub redis: RedisStore,
    pub system: System,
    pub partitions: u32,
    pub traffic: Traffic,
}

impl OnRedis {
    pub(super) async fn under_traffic(args: &DrillArgs, place: &Place) -> Result<Self, Failure> {
        let StoreTarget::Redis(url) = &place.settings.store else {
            return Err(failed("no Redis"));
        };
        let redis = RedisStore::new(redis_settings(&place.settings, url)).map_err(failed)?;
        let system = System::start(place).await?;
        let partitions = system.truth.partitions().await?.len() as u32;
        let first = system.checkpoints().await?;
        let traffic = Traffic::start(&system.calls, args);
        args.half().await;
        until_moved(&system, &first, args.settle).await?;
        Ok(Self {
            redis,
            system,
            partitions,
            traffic,
        })
    }
}

/// As after a failover to a replica that lagged: cut off, put back, there again.
pub(super) async fn sink_rollback(args: &DrillArgs, place: &Place) -> Result<Vec<Check>, Failure> {
    let OnRedis {
        redis,
        system,
        partitions,
        traffic,
    } = OnRedis::under_traffic(args, place).await?;
    system.sink.cut();
    let earlier = redis.dump(partitions).await.map_err(failed)?;
    let then = system.checkpoints().await?;
    system.sink.mend();
    args.half().await;
    until_moved(&system, &then, args.settle).await?;
    let drift = system.calls.metrics().await?.sum(DRIFT, ROLLED_BACK);
    let errors = system.calls.metrics().await?.sum(WRITES, ERRORS);
    system.sink.cut();
    system.until_counted(WRITES, ERRORS, errors, args.settle).await?;
    redis.put_back(partitions, &earlier).await.map_err(failed)?;
    system.sink.mend();
    let noticed = system.until_counted(DRIFT, ROLLED_BACK, drift, args.settle).await?;
    let sent = traffic.stop(&system.calls).await?;
    let mut checks = vec![
        Check::told("keys put back", earlier.len()),
        Check::at_least("partitions that noticed (sink_rolled_back)", noticed as u64, 1),
        unnoticed(&sent),
    ];
    checks.extend(sent.verify(&system.calls, args).await?);
    system.stop().await?;
    Ok(checks)
}

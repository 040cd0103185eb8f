//! What the server says of itself.

use std::time::Duration;

use super::super::exit::Failure;
use super::super::gate::failed;
use super::super::gate::report::Check;
use super::web::Web;
use crate::access::{PartitionRow, StatusReport};
use crate::projector::now_ms;
use crate::pure::time::Time;

fn status(server: &Web) -> Result<StatusReport, Failure> {
    let value = server.json("/v1/status").map_err(failed)?;
    serde_json::from_value(value).map_err(failed)
}

fn named(rows: &[PartitionRow], is_so: impl Fn(&PartitionRow) -> bool) -> String {
    let those = rows.iter().filter(|row| is_so(row));
    let those: Vec<String> = those.map(|row| row.partition.to_string()).collect();
    if those.is_empty() {
        "none".to_owned()
    } else {
        those.join(", ")
    }
}

fn version_of(metrics: &str) -> String {
    let line = metrics.lines().find(|line| line.starts_with("khala_build_info{"));
    let version = line.and_then(|line| line.split("version=\"").nth(1)?.split('"').next());
    version.unwrap_or("unknown").to_owned()
}

pub(super) fn stands(server: &Web, lag: Duration) -> Vec<Check> {
    let version = match server.text("/metrics") {
        Ok((200, text)) => version_of(&text),
        Ok((status, _)) => format!("/metrics answers {status}"),
        Err(error) => error,
    };
    let mut checks = vec![
        Check::equal("version of the server", version, env!("CARGO_PKG_VERSION").to_owned()),
        Check::equal("/healthz", server.status("/healthz"), "200".to_owned()),
        Check::equal("/readyz", server.status("/readyz"), "200".to_owned()),
    ];
    match status(server) {
        Err(failure) => checks.push(Check::equal("/v1/status", failure.message, "200".to_owned())),
        Ok(report) => {
            let rows = &report.partitions;
            let none = || "none".to_owned();
            let not_running = named(rows, |row| row.state != "running");
            let parked = named(rows, |row| row.parked > 0);
            let oldest = rows.iter().map(|row| row.lag_seconds).fold(0.0, f64::max);
            checks.extend([
                Check::told("namespace, topic", format!("{}, {}", report.namespace, report.topic)),
                Check::at_least("partitions", rows.len() as u64, 1),
                Check::equal("partitions that are not running", not_running, none()),
                Check::equal("partitions with parked entities", parked, none()),
                Check::within(
                    "age of the oldest event not applied",
                    oldest * 1e3,
                    lag.as_secs_f64() * 1e3,
                ),
            ]);
        }
    }
    checks
}

pub(super) fn audited(server: &Web, age_max: Duration) -> Result<Vec<Check>, Failure> {
    let Some(audit) = status(server)?.audit else {
        let wanted = "one that has ended".to_owned();
        return Ok(vec![Check::equal(
            "background audit",
            "none has ended".to_owned(),
            wanted,
        )]);
    };
    let at = audit.last_at.as_deref().and_then(Time::parse);
    let age = at.map(|at| Duration::from_millis((now_ms() - at.ms()).max(0) as u64));
    Ok(vec![
        match age {
            Some(age) => Check::at_most("hours since it ended", age.as_secs() / 3600, age_max.as_secs() / 3600),
            None => Check::is("one has ended since the server's start", false),
        },
        Check::told("documents it looked at", audit.documents),
        Check::equal("of them not what the log says", audit.drifted, 0),
    ])
}

pub(super) fn reaches(server: &Web, horizon: Duration) -> Result<Vec<Check>, Failure> {
    let rows = status(server)?.partitions;
    let beyond: u64 = rows.iter().map(|row| row.beyond_log).sum();
    let shortest = rows.iter().filter_map(|row| row.horizon_seconds).reduce(f64::min);
    Ok(vec![
        match shortest {
            None => Check::told("hours that the log alone reaches back", "all that it ever had"),
            Some(seconds) => Check::at_least(
                "hours that the log alone reaches back",
                (seconds / 3600.0) as u64,
                horizon.as_secs() / 3600,
            ),
        },
        Check::told("documents that only a snapshot can give back", beyond),
    ])
}

pub(super) fn kept(server: &Web, age_max: Duration) -> Result<Vec<Check>, Failure> {
    let Some(snapshots) = status(server)?.snapshots else {
        return Ok(vec![Check::is("the server writes snapshots", false)]);
    };
    let at = snapshots.oldest_at.as_deref().and_then(Time::parse);
    let age = at.map(|at| Duration::from_millis((now_ms() - at.ms()).max(0) as u64));
    Ok(vec![
        Check::told("partitions that the server projects", snapshots.partitions),
        Check::equal("of them without a whole snapshot since then", snapshots.missing, 0),
        match age {
            Some(age) => Check::at_most("seconds since the oldest was whole", age.as_secs(), age_max.as_secs()),
            None => Check::is("one was whole since the server's start", false),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn the_version_is_read_out_of_the_metrics() {
        let line = "# TYPE khala_build_info gauge\nkhala_build_info{namespace=\"khala\",version=\"1.2.3\"} 1\n";
        assert_eq!(version_of(line), "1.2.3");
        assert_eq!(version_of(""), "unknown");
    }
}

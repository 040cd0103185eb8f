//! This process as the system sees it, read from `/proc` when somebody scrapes. Names are those of Prometheus' clients.
//! Invariant: where there is no `/proc`, there are no series.

use std::fs;

use opentelemetry::metrics::Meter;

/// Linux tells times in this unit on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn register(meter: &Meter) {
    gauge(meter, "process.resident_memory", "By", "Memory in RAM.", resident_bytes);
    gauge(meter, "process.open_fds", "", "Open file descriptors.", open_files);
    gauge(
        meter,
        "process.max_fds",
        "",
        "The most file descriptors it may open.",
        files_max,
    );
    gauge(meter, "process.start_time", "s", "Start, since 1970.", started_seconds);
    meter
        .f64_observable_counter("process.cpu")
        .with_unit("s")
        .with_description("Processor time, user and system.")
        .with_callback(|observer| {
            if let Some(seconds) = cpu_seconds() {
                observer.observe(seconds, &[]);
            }
        })
        .build();
}

fn gauge(
    meter: &Meter,
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    read: impl Fn() -> Option<f64> + Send + Sync + 'static,
) {
    meter
        .f64_observable_gauge(name)
        .with_unit(unit)
        .with_description(help)
        .with_callback(move |observer| {
            if let Some(value) = read() {
                observer.observe(value, &[]);
            }
        })
        .build();
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = kilobytes.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

fn open_files() -> Option<f64> {
    // One of them is the one that counts.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn files_max() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok() // "unlimited" is no number, and has no series
}

/// Fields of `/proc/self/stat` behind the program's name, which may hold anything: the first is the state, field 3.
fn stat(field: usize) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(field - 3)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / TICKS_PER_SECOND)
}

fn started_seconds() -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(booted + stat(22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_files_and_a_past() {
        assert!(
            resident_bytes().is_some_and(|bytes| bytes > 1e6),
            "{:?}",
            resident_bytes()
        );
        assert!(open_files() >= Some(3.0) && open_files() <= files_max().or(Some(f64::MAX)));
        assert!(cpu_seconds().is_some());
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let age = now.as_secs_f64() - started_seconds().unwrap();
        assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
    }
}

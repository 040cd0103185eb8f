//! What processes use, from `/proc` (Linux; elsewhere nothing is known). Out: CPU seconds, peak memory in bytes,
//! and who listens on a local port.

use std::fs;
use std::net::IpAddr;

/// Of `getconf CLK_TCK`, which is 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of a process so far, in user space and in the kernel.
pub(super) fn cpu_seconds(process: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may hold spaces; utime and stime are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// The most memory that this process held, in bytes.
pub(super) fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// How many cores of which kind.
pub(in crate::cli) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("cores", |line| line.trim_start_matches([' ', '\t', ':']));
    format!("{cores} x {model}")
}

/// The process that listens on `host:port`, if that is this machine and its files may be looked at.
pub(super) fn listener(address: &str) -> Option<u32> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
    let socket = local.then(|| listening_socket(port)).flatten()?;
    let link = format!("socket:[{socket}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|process| holds(*process, &link))
}

fn listening_socket(port: u16) -> Option<String> {
    const LISTENING: &str = "0A";
    let suffix = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTENING;
        listens
            .then(|| fields.get(9).map(|inode| (*inode).to_owned()))
            .flatten()
    })
}

fn holds(process: u32, link: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return false;
    };
    files
        .filter_map(Result::ok)
        .any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something_and_is_found_by_its_port() {
        assert!(cpu_seconds("self").is_some_and(|seconds| seconds >= 0.0));
        assert!(peak_bytes().is_some_and(|bytes| bytes > 1 << 20));
        let listening = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listening.local_addr().expect("bound").to_string();
        assert_eq!(listener(&address), Some(std::process::id()));
        assert_eq!(listener("192.0.2.1:9092"), None);
    }
}

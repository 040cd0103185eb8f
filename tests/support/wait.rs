//! Waiting on conditions, with a limit and the last value seen.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Asks again until the answer is `Ok`; panics with the last `Err` when the limit has passed.
pub fn eventually<T, E: Debug>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(value) => return value,
            Err(seen) if started.elapsed() > limit => panic!("not in {limit:?}: {what}; last seen: {seen:?}"),
            // The pause between two looks at a condition, not a guess at how long something takes.
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// `eventually` for a yes or no.
pub fn eventually_true(what: &str, limit: Duration, mut ask: impl FnMut() -> bool) {
    eventually(what, limit, || if ask() { Ok(()) } else { Err("not so") });
}

/// Looks for as long as `time` and panics as soon as it is not so: for what must not happen.
pub fn always(what: &str, time: Duration, mut ask: impl FnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < time {
        assert!(ask(), "{what}: not so after {:?}", started.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Seconds as a duration.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

//! Pauses between two tries: they double, are capped, and jittered so that many partitions do not knock at once.

use std::time::Duration;

/// The pause before the second try.
const FIRST: Duration = Duration::from_millis(50);

/// The pause before try number `attempt` (1: the first repetition), between half and all of the doubled time.
pub fn pause(attempt: u32, longest: Duration) -> Duration {
    if attempt == 0 {
        return Duration::ZERO;
    }
    let doubled = FIRST.saturating_mul(1 << (attempt - 1).min(16)).min(longest);
    doubled.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_to_its_limit_and_no_further() {
        let longest = Duration::from_secs(5);
        assert_eq!(pause(0, longest), Duration::ZERO);
        assert!(pause(1, longest) <= FIRST);
        for attempt in [20, 1000, u32::MAX] {
            let pause = pause(attempt, longest);
            assert!(pause >= longest / 2 && pause <= longest, "{attempt}: {pause:?}");
        }
    }
}

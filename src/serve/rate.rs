//! How many requests a token may make a second. In: a token's name and the time. Out: whether this one is within.
//! Invariant: over any time no more than twice a second's worth at once, and the set rate in the long run; nobody's
//! haste costs another.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// So many seconds' worth may come at once.
const BURST_SECONDS: f64 = 2.0;

/// What each token has left.
pub(super) struct Rate {
    per_second: u32,
    /// Bounded by the token file: a name is a token's, or `anyone`.
    left: Mutex<HashMap<String, (f64, Instant)>>,
}

impl Rate {
    /// 0: no limit.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            left: Mutex::new(HashMap::new()),
        }
    }

    /// Takes one request of this token, if it has one left.
    pub(super) fn takes(&self, token: &str, now: Instant) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let (per_second, most) = (f64::from(self.per_second), f64::from(self.per_second) * BURST_SECONDS);
        let mut all = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = all.entry(token.to_owned()).or_insert((most, now));
        *left = (*left + now.saturating_duration_since(*at).as_secs_f64() * per_second).min(most);
        *at = now;
        let is_within = *left >= 1.0;
        if is_within {
            *left -= 1.0;
        }
        is_within
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_hasty_token_is_held_to_its_rate_and_costs_no_other() {
        let (rate, start) = (Rate::new(10), Instant::now());
        let burst = (0..100).filter(|_| rate.takes("hasty", start)).count();
        assert_eq!(burst, 20);
        assert!(rate.takes("calm", start));
        let at = |ms| start + Duration::from_millis(ms);
        let later = (1..=1000).filter(|ms| rate.takes("hasty", at(*ms))).count();
        assert_eq!(later, 10);
        assert!((0..1000).all(|_| Rate::new(0).takes("hasty", start)), "0 is no limit");
    }
}

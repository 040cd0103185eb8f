//! How long there are no transactions after one that took too long. In: what became of them, and when. Out: whether to try
//! one. A Redis that was busy for a moment gets them back soon: scripts cost it three times as much, and would keep it busy.

use std::time::{Duration, Instant};

/// The pause after the first; each that follows is twice as long.
const FIRST: Duration = Duration::from_secs(2);
/// Over a connection that is slow for good nearly all goes by scripts.
const LONGEST: Duration = Duration::from_mins(1);

/// What is known of slow transactions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slow {
    /// Until when there are none.
    until: Option<Instant>,
    /// How long the last pause was, if none went through since.
    pause: Duration,
}

impl Slow {
    /// Whether there are transactions now.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// One took too long. Others that were under way with it tell nothing new.
    pub(super) fn too_slow(&mut self, now: Instant) {
        if self.is_over(now) {
            self.pause = (self.pause * 2).clamp(FIRST, LONGEST);
            self.until = Some(now + self.pause);
        }
    }

    /// One went through.
    pub(super) fn went_through(&mut self, now: Instant) {
        if self.is_over(now) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_moment_costs_little_and_a_slow_connection_is_tried_seldom() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut slow = Slow::default();
        assert!(slow.is_over(begin));
        slow.too_slow(begin);
        slow.too_slow(begin); // of another partition
        assert!(!slow.is_over(at(1)) && slow.is_over(at(2)));
        slow.too_slow(at(2));
        assert!(!slow.is_over(at(5)) && slow.is_over(at(6)));
        slow.went_through(at(5)); // it was begun before
        assert!(!slow.is_over(at(5)));
        slow.went_through(at(6));
        slow.too_slow(at(7));
        assert!(slow.is_over(at(9)), "all is as at first");
        let (mut now, mut pauses) = (at(9), Vec::new());
        for _ in 0..6 {
            slow.too_slow(now);
            let pause = (1..100).find(|seconds| slow.is_over(now + Duration::from_secs(*seconds)));
            pauses.extend(pause);
            now += Duration::from_secs(pause.unwrap_or_default());
        }
        assert_eq!(pauses, [4, 8, 16, 32, 60, 60]);
    }
}

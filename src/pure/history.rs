//! Which marks of a partition's history are worth keeping. In: marks. Out: those that may go.
//! Invariant: all of the last hour stay, then one an hour for a day, then one a day; of several the newest verified
//! one, else the newest. What stayed once stays until it is too old for its span: running it twice changes nothing.

use std::collections::BTreeMap;

use super::checkpoint::Mark;

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The span of time of which one mark is kept; `None`: all are.
fn span(age_ms: i64, written_at_ms: i64) -> Option<(i64, i64)> {
    if age_ms <= HOUR_MS {
        None
    } else if age_ms <= DAY_MS {
        Some((HOUR_MS, written_at_ms.div_euclid(HOUR_MS)))
    } else {
        Some((DAY_MS, written_at_ms.div_euclid(DAY_MS)))
    }
}

/// Marks that may go, as of `now_ms`; `marks` is newest first.
pub fn surplus(marks: &[Mark], now_ms: i64) -> Vec<&Mark> {
    let mut kept: BTreeMap<(i64, i64), &Mark> = BTreeMap::new();
    let mut gone = Vec::new();
    for mark in marks {
        let at = mark.checkpoint.written_at_ms;
        let Some(span) = span(now_ms.saturating_sub(at), at) else {
            continue;
        };
        match kept.get(&span) {
            Some(better) if better.verified || !mark.verified => gone.push(mark),
            Some(_) | None => gone.extend(kept.insert(span, mark)),
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::checkpoint::Checkpoint;
    use crate::pure::place::NextOffset;
    use proptest::prelude::*;

    const NOW: i64 = 1_700_000_000_000;

    fn mark(age_ms: i64, verified: bool) -> Mark {
        Mark {
            id: age_ms.to_string(),
            checkpoint: Checkpoint {
                written_at_ms: NOW - age_ms,
                ..Checkpoint::first(NextOffset(1), "t", 1)
            },
            verified,
        }
    }

    #[test]
    fn the_last_hour_stays_then_one_an_hour_then_one_a_day() {
        let minutes = (0..10 * 24 * 60).map(|minute| mark(minute * 60_000, false));
        let marks: Vec<Mark> = minutes.collect();
        let gone = surplus(&marks, NOW).len();
        let kept = marks.len() - gone;
        assert!((61 + 23 + 9..=61 + 25 + 11).contains(&kept), "{kept}");
        assert!(surplus(&marks[..61], NOW).is_empty());
    }

    #[test]
    fn a_verified_mark_stays_before_a_newer_one() {
        let marks = [
            mark(25 * HOUR_MS, false),
            mark(25 * HOUR_MS + 1, true),
            mark(25 * HOUR_MS + 2, true),
        ];
        let gone: Vec<_> = surplus(&marks, NOW).into_iter().map(|mark| &mark.id).collect();
        assert_eq!(gone, [&marks[0].id, &marks[2].id]);
    }

    proptest! {
        #[test]
        fn thinning_twice_is_thinning_once(ages in prop::collection::vec((0..20 * DAY_MS, any::<bool>()), 0..200)) {
            let mut marks: Vec<Mark> = ages.into_iter().map(|(age, verified)| mark(age, verified)).collect();
            marks.sort_by_key(|mark| -mark.checkpoint.written_at_ms);
            let gone: Vec<Mark> = surplus(&marks, NOW).into_iter().cloned().collect();
            let left: Vec<Mark> = marks.into_iter().filter(|mark| !gone.contains(mark)).collect();
            prop_assert!(surplus(&left, NOW).is_empty());
        }
    }
}

//! A batch too full of dead letters: a bad deploy must not drain the topic into the dead letters' topic.
//! In: records and letters of batch after batch. Out: whether to hold. Small batches are counted together, so that a
//! trickle is seen too; a few letters among few records never hold.

/// When too many are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareLimit {
    /// Dead letters per thousand records; 1000: never too many.
    pub permille_max: u32,
    /// Records that are looked at together, at least.
    pub records_min: u64,
}

/// What was counted since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    records: u64,
    letters: u64,
}

impl Count {
    /// Adds a batch; tells letters and records if there are too many letters.
    pub(super) fn add(&mut self, limit: ShareLimit, records: u64, letters: u64) -> Option<(u64, u64)> {
        self.records += records;
        self.letters += letters;
        if self.records < limit.records_min {
            return None;
        }
        let Self { records, letters } = std::mem::take(self);
        (letters * 1000 > records * u64::from(limit.permille_max)).then_some((letters, records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_letters_among_many_records_hold() {
        let limit = ShareLimit {
            permille_max: 900,
            records_min: 1000,
        };
        let mut count = Count::default();
        assert_eq!(count.add(limit, 999, 999), None, "few records");
        assert_eq!(count.add(limit, 1, 1), Some((1000, 1000)), "a trickle adds up");
        assert_eq!(count.add(limit, 1000, 900), None, "the limit itself");
        assert_eq!(count.add(limit, 1000, 901), Some((901, 1000)));
        let off = ShareLimit {
            permille_max: 1000,
            records_min: 1,
        };
        assert_eq!(count.add(off, 5000, 5000), None);
    }
}

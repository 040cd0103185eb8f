//! Parts of all subjects by a hash: slices that share nothing and together leave nothing out.

use std::ops::RangeInclusive;

/// A part of all subjects: those whose hash lies in the range. Halves of a slice have nothing in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice(RangeInclusive<u64>);

impl Slice {
    /// Every subject.
    pub const ALL: Self = Self(0..=u64::MAX);

    /// About this share of all subjects, 0 to 1, beginning at `from`: another `from`, other subjects.
    /// In two slices where it wraps around.
    pub fn share(share: f64, from: u64) -> Vec<Self> {
        if share >= 1.0 {
            return vec![Self::ALL];
        }
        let width = (share.max(0.0) * 2_f64.powi(64)) as u64;
        match from.checked_add(width) {
            Some(to) => vec![Self(from..=to)],
            None => vec![Self(from..=u64::MAX), Self(0..=from.wrapping_add(width))],
        }
    }

    /// Whether the subject is one of it.
    pub fn contains(&self, subject: &[u8]) -> bool {
        self.0 == Self::ALL.0 || self.0.contains(&spread(subject))
    }

    /// Hashes in it, less one.
    pub fn width(&self) -> u64 {
        self.0.end() - self.0.start()
    }

    /// Its lower half, which it keeps, and its upper one; `None` if it is too small for two.
    pub fn halve(&mut self) -> Option<Self> {
        let (low, high) = (*self.0.start(), *self.0.end());
        let middle = low + (high - low) / 2;
        let upper = (middle < high).then(|| Self(middle + 1..=high));
        self.0 = low..=middle;
        upper
    }
}

/// FNV-1a, then the finalizer of `MurmurHash3`, so that its high bits are as good as its low ones.
fn spread(subject: &[u8]) -> u64 {
    let mut hash = subject.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

//! The bytes at which the inside of a JSON string may end, found 64 bytes at a time: most of an event is text that
//! stands for itself, and a bit a byte says where it does not. Source: the bitmaps of "Parsing Gigabytes of JSON per
//! Second" (Langdale, Lemire 2019).

#![expect(
    clippy::inline_always,
    reason = "measured: a tenth of the instructions that decoding takes"
)]

use wide::u8x16;

/// Bytes looked at together: one bit each.
const BLOCK: usize = 64;

/// Quotes, backslashes and controls of a text, from its start to its end. Bound to one text.
pub(super) struct Marks {
    base: usize,
    mask: u64,
}

impl Marks {
    /// Of the text with these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            base: 0,
            mask: marked_in(bytes),
        }
    }

    /// The place of the first marked byte at or behind `from`, in the text that these are of; `None`: there is none.
    #[inline(always)]
    pub(super) fn next(&mut self, bytes: &[u8], from: usize) -> Option<usize> {
        let at = from.wrapping_sub(self.base);
        if at < BLOCK {
            let left = self.mask >> at;
            if left != 0 {
                return Some(from + left.trailing_zeros() as usize);
            }
        }
        self.next_block(bytes, from)
    }

    #[inline(never)]
    fn next_block(&mut self, bytes: &[u8], mut from: usize) -> Option<usize> {
        if from.wrapping_sub(self.base) < BLOCK {
            from = self.base + BLOCK;
        }
        while from < bytes.len() {
            self.base = from & !(BLOCK - 1);
            self.mask = marked_in(&bytes[self.base..]);
            let left = self.mask >> (from - self.base);
            if left != 0 {
                return Some(from + left.trailing_zeros() as usize);
            }
            from = self.base + BLOCK;
        }
        None
    }
}

/// The marks of the first block.
#[inline]
fn marked_in(bytes: &[u8]) -> u64 {
    if let Some(block) = bytes.first_chunk() {
        return marked(block);
    }
    let mut block = [b' '; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    marked(&block)
}

/// One bit a byte.
#[inline]
fn marked(block: &[u8; BLOCK]) -> u64 {
    let (lanes, _) = block.as_chunks::<16>();
    lanes.iter().rev().fold(0, |mask, lane| {
        let bytes = u8x16::new(*lane);
        let controls = bytes.simd_eq(bytes.min(u8x16::splat(0x1f)));
        let ends = bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\')) | controls;
        mask << 16 | u64::from(ends.to_bitmask())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_marked(byte: u8) -> bool {
        byte < 0x20 || byte == b'"' || byte == b'\\'
    }

    #[test]
    fn each_byte_is_marked_or_not_at_each_place() {
        for byte in 0..=u8::MAX {
            for place in 0..BLOCK {
                let mut block = [b'a'; BLOCK];
                block[place] = byte;
                let expected = u64::from(is_marked(byte)) << place;
                assert_eq!(marked(&block), expected, "{byte:#x} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_the_first_marked_byte_from_there(
            bytes in prop::collection::vec(prop_oneof![9 => Just(b'a'), 1 => any::<u8>()], 0..300),
            steps in prop::collection::vec(0..90_usize, 0..20),
        ) {
            let (mut marks, mut from) = (Marks::of(&bytes), 0);
            for step in steps {
                from += step;
                let expected = (from..bytes.len()).find(|at| is_marked(bytes[*at]));
                prop_assert_eq!(marks.next(&bytes, from), expected);
            }
        }
    }
}

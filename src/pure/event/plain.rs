//! The inside of a JSON string, eight bytes at a time: most of an event is text that stands for itself.
//! Source: Mycroft's test for a byte below a bound (1987), in "Bit Twiddling Hacks" (Anderson).

const EACH: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * EACH;

/// How many bytes of a string stand for themselves: up to a quote, a backslash or a control. All else, ASCII or not, is
/// a character as it stands. `None`: all of them.
pub(super) fn plain_bytes(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(chunk) = bytes[from..].first_chunk() {
        let marked = marked(u64::from_le_bytes(*chunk));
        if marked != 0 {
            return Some(from + (marked.trailing_zeros() / 8) as usize);
        }
        from += size_of::<u64>();
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    Some(from + bytes[from..].iter().position(special)?)
}

/// The highest bit of each byte that ends a run; exact for the lowest such byte: a borrow only goes up from one.
fn marked(word: u64) -> u64 {
    let below = |word: u64, bound: u64| word.wrapping_sub(bound * EACH) & !word;
    let (quote, backslash) = (word ^ (u64::from(b'"') * EACH), word ^ (u64::from(b'\\') * EACH));
    (below(word, 0x20) | below(quote, 1) | below(backslash, 1)) & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_byte_ends_a_run_or_does_not_at_each_place() {
        for byte in 0..=u8::MAX {
            for place in 0..20 {
                let mut text = [b'a'; 20];
                text[place] = byte;
                let ends = byte < 0x20 || byte == b'"' || byte == b'\\';
                assert_eq!(plain_bytes(&text), ends.then_some(place), "{byte:#x} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_the_first_byte_that_ends_a_run(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let ends = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
            prop_assert_eq!(plain_bytes(&bytes), bytes.iter().position(ends));
        }
    }
}

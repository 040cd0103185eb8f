//! JSON texts as they read. In: what stands between two quotes. Out: its letters, and where in the JSON each of them
//! stands, so that what is cut out of it is never half of an escape.

use std::borrow::Cow;

/// `\\u0041`: no escape of a single byte is longer.
const UNIT_BYTES: usize = 6;

/// The text with each escape read; borrowed if it has none. `None`: one is no escape, or half of a surrogate pair.
pub(super) fn plain(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(first) = text.iter().position(|byte| *byte == b'\\') else {
        return Some(Cow::Borrowed(text));
    };
    let mut plain = Vec::with_capacity(text.len());
    plain.extend_from_slice(&text[..first]);
    let mut at = first;
    while let Some(byte) = text.get(at) {
        if *byte == b'\\' {
            let (letter, bytes) = escape(&text[at..])?;
            plain.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            at += bytes;
        } else {
            plain.push(*byte);
            at += 1;
        }
    }
    Some(Cow::Owned(plain))
}

/// As [`plain`], for a text of which only those matter that are short; `None` if it is longer.
pub(super) fn short(text: &[u8], bytes_max: usize) -> Option<Cow<'_, [u8]>> {
    if text.len() > bytes_max * UNIT_BYTES {
        return None;
    }
    plain(text).filter(|plain| plain.len() <= bytes_max)
}

/// Finds places of the plain text in the JSON; asked in their order, it goes through the text once.
pub(super) struct Places<'a> {
    text: &'a [u8],
    at: usize,
    plain: usize,
}

impl<'a> Places<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        Self { text, at: 0, plain: 0 }
    }

    /// Where in the JSON the letter stands that is at `plain` in the plain text.
    pub(super) fn place(&mut self, plain: usize) -> usize {
        while self.plain < plain && self.at < self.text.len() {
            let (letter_bytes, bytes) = match escape(&self.text[self.at..]) {
                Some((letter, bytes)) => (letter.len_utf8(), bytes),
                None => (1, 1),
            };
            self.plain += letter_bytes;
            self.at += bytes;
        }
        self.at
    }
}

/// The letter of the escape that begins here, and how long the escape is.
fn escape(text: &[u8]) -> Option<(char, usize)> {
    let letter = match text.strip_prefix(b"\\")?.first()? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(text),
        same @ (b'"' | b'\\' | b'/') => char::from(*same),
        _ => return None,
    };
    Some((letter, 2))
}

/// `\\u0041`, or two of them that are a pair.
fn unicode(text: &[u8]) -> Option<(char, usize)> {
    let second = text.get(UNIT_BYTES..).and_then(unit);
    let mut letters = char::decode_utf16(std::iter::once(unit(text)?).chain(second));
    let letter = letters.next()?.ok()?;
    Some((letter, UNIT_BYTES * letter.len_utf16()))
}

/// The UTF-16 code unit of the `\uXXXX` that begins here.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.get(..UNIT_BYTES)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        let digit = u16::try_from(char::from(*digit).to_digit(16)?).ok()?;
        Some((unit << 4) | digit)
    })
}

#[cfg(test)]
mod tests;

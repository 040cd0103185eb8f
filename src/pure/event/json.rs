//! Reads one JSON object by its members: checks the whole text against the grammar, and hands out each member's
//! value as a slice of it. No copy, no tree. In: UTF-8 text. Invariant: accepts what RFC 8259 accepts, nested at
//! most [`DEPTH_MAX`] deep; the last of equal keys wins where the caller keeps the last.

#![expect(
    clippy::inline_always,
    reason = "measured: a tenth of the instructions that decoding takes"
)]

use std::borrow::Cow;

use super::marks::Marks;

/// The deepest nesting read.
pub const DEPTH_MAX: u32 = 128;

/// A string as it stands between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// A text in which nothing is escaped.
    pub fn of_plain(raw: &'a str) -> Self {
        Self { raw, escaped: false }
    }

    /// Its characters; `None` never comes of a text that was read as a whole.
    #[inline]
    pub fn read(self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return Some(Cow::Borrowed(self.raw));
        }
        self.unescaped().map(Cow::Owned)
    }

    #[cold]
    fn unescaped(self) -> Option<String> {
        serde_json::from_str(&format!("\"{}\"", self.raw)).ok()
    }

    /// Its characters, if none is escaped.
    pub fn plain(self) -> Option<&'a str> {
        (!self.escaped).then_some(self.raw)
    }

    /// Whether it reads as `name`.
    pub fn is(self, name: &str) -> bool {
        if self.escaped {
            self.read().is_some_and(|text| text == name)
        } else {
            self.raw == name
        }
    }
}

/// A member's value. Arrays and objects are the text from bracket to bracket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// As it stands.
    Number(&'a str),
    /// Between its quotes.
    String(Text<'a>),
    /// With its brackets.
    Array(&'a str),
    /// With its braces.
    Object(&'a str),
}

impl Value<'_> {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Why a text is no JSON object: where, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnObject {
    /// Byte of the text, 0-based.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Calls `member` for each member of the object, in order.
///
/// # Errors
/// The text is no JSON object; some members may have been handed out already.
pub fn read_object<'a>(text: &'a str, mut member: impl FnMut(Text<'a>, Value<'a>)) -> Result<(), NotAnObject> {
    let mut scan = Scan::of(text);
    let read = scan.whole(|scan, key, at, depth| {
        let at = scan.space_end(at);
        if scan.peek(at) == Some(b'"') {
            let (text, at) = scan.quoted(at)?;
            member(key, Value::String(text));
            return Some(at);
        }
        let (token, end) = scan.value(at, depth)?;
        member(key, token.value(&scan.text[at..end]));
        Some(end)
    });
    read.ok_or(scan.wrong)
}

/// What was read; where it stands, the places before and behind it tell. It fits a register, which is why it is no
/// [`Value`].
#[derive(Clone, Copy)]
enum Token {
    Null,
    Bool,
    Number,
    String,
    Escaped,
    Array,
    Object,
}

impl Token {
    #[inline]
    fn value(self, text: &str) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool => Value::Bool(text == "true"),
            Self::Number => Value::Number(text),
            Self::String | Self::Escaped => Value::String(Text {
                raw: &text[1..text.len() - 1],
                escaped: matches!(self, Self::Escaped),
            }),
            Self::Array => Value::Array(text),
            Self::Object => Value::Object(text),
        }
    }
}

/// A text being read. Its functions take the place where something begins, and give the one behind its end. `None`:
/// the text is no JSON, and `wrong` says why.
pub(super) struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    marks: Marks,
    wrong: NotAnObject,
}

impl<'a> Scan<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            marks: Marks::of(text.as_bytes()),
            wrong: NotAnObject {
                at: 0,
                what: "not an object",
            },
        }
    }

    /// The closing quote of the string that begins here, if there is one, and nothing in it is escaped.
    #[inline(always)]
    pub(super) fn plain_end(&mut self, at: usize) -> Option<usize> {
        if self.peek(at) != Some(b'"') {
            return None;
        }
        let end = self.marks.next(self.bytes, at + 1)?;
        (self.bytes[end] == b'"').then_some(end)
    }

    /// The end of the value that begins here, a member's of the text's object.
    pub(super) fn value_end(&mut self, at: usize) -> Option<usize> {
        Some(self.value(at, 1)?.1)
    }

    #[inline]
    fn peek(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    #[cold]
    fn wrong<T>(&mut self, at: usize, what: &'static str) -> Option<T> {
        self.wrong = NotAnObject { at, what };
        None
    }

    #[inline]
    fn space_end(&self, mut at: usize) -> usize {
        while matches!(self.peek(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        at
    }

    #[inline(always)]
    fn whole(&mut self, member: impl FnMut(&mut Self, Text<'a>, usize, u32) -> Option<usize>) -> Option<()> {
        let at = self.space_end(0);
        if self.peek(at) != Some(b'{') {
            return self.wrong(at, "not an object");
        }
        let at = self.object(at, 1, member)?;
        let at = self.space_end(at);
        if at < self.bytes.len() {
            return self.wrong(at, "text after the object");
        }
        Some(())
    }

    /// `member` reads the value of each member, which is `depth` deep, and the white space before it.
    #[inline(always)]
    fn object(
        &mut self,
        at: usize,
        depth: u32,
        mut member: impl FnMut(&mut Self, Text<'a>, usize, u32) -> Option<usize>,
    ) -> Option<usize> {
        let mut at = self.space_end(at + 1);
        if self.peek(at) == Some(b'}') {
            return Some(at + 1);
        }
        loop {
            at = self.space_end(at);
            if self.peek(at) != Some(b'"') {
                return self.wrong(at, "a key must be a string");
            }
            let (key, end) = self.quoted(at)?;
            at = self.space_end(end);
            if self.peek(at) != Some(b':') {
                return self.wrong(at, "a colon is missing");
            }
            at = member(self, key, at + 1, depth)?;
            at = self.space_end(at);
            match self.peek(at) {
                Some(b',') => at += 1,
                Some(b'}') => return Some(at + 1),
                _ => return self.wrong(at, "a comma or a closing brace is missing"),
            }
        }
    }

    fn array(&mut self, at: usize, depth: u32) -> Option<usize> {
        let mut at = self.space_end(at + 1);
        if self.peek(at) == Some(b']') {
            return Some(at + 1);
        }
        loop {
            at = self.value(at, depth)?.1;
            at = self.space_end(at);
            match self.peek(at) {
                Some(b',') => at += 1,
                Some(b']') => return Some(at + 1),
                _ => return self.wrong(at, "a comma or a closing bracket is missing"),
            }
        }
    }

    /// A value inside of something `depth` deep, and the white space before it.
    fn value(&mut self, at: usize, depth: u32) -> Option<(Token, usize)> {
        let at = self.space_end(at);
        match self.peek(at) {
            Some(b'"') => self.string(at),
            Some(b'{' | b'[') if depth == DEPTH_MAX => self.wrong(at, "nested too deep"),
            Some(b'{') => {
                let end = self.object(at, depth + 1, |scan, _, at, depth| Some(scan.value(at, depth)?.1))?;
                Some((Token::Object, end))
            }
            Some(b'[') => Some((Token::Array, self.array(at, depth + 1)?)),
            Some(b't') => self.literal(at, "true", Token::Bool),
            Some(b'f') => self.literal(at, "false", Token::Bool),
            Some(b'n') => self.literal(at, "null", Token::Null),
            Some(b'-' | b'0'..=b'9') => Some((Token::Number, self.number(at)?)),
            Some(_) => self.wrong(at, "no value starts like this"),
            None => self.wrong(at, "the text ends too early"),
        }
    }

    fn literal(&mut self, at: usize, word: &str, token: Token) -> Option<(Token, usize)> {
        if !self.bytes[at..].starts_with(word.as_bytes()) {
            return self.wrong(at, "no value starts like this");
        }
        Some((token, at + word.len()))
    }

    fn number(&mut self, mut at: usize) -> Option<usize> {
        if self.peek(at) == Some(b'-') {
            at += 1;
        }
        at = match self.peek(at) {
            Some(b'0') => at + 1,
            _ => self.digits(at)?,
        };
        if self.peek(at) == Some(b'.') {
            at = self.digits(at + 1)?;
        }
        if matches!(self.peek(at), Some(b'e' | b'E')) {
            at += 1;
            if matches!(self.peek(at), Some(b'+' | b'-')) {
                at += 1;
            }
            at = self.digits(at)?;
        }
        Some(at)
    }

    fn digits(&mut self, start: usize) -> Option<usize> {
        let mut at = start;
        while matches!(self.peek(at), Some(b'0'..=b'9')) {
            at += 1;
        }
        if at == start {
            return self.wrong(at, "a digit is missing");
        }
        Some(at)
    }

    /// A string, and what stands between its quotes.
    #[inline(always)]
    fn quoted(&mut self, at: usize) -> Option<(Text<'a>, usize)> {
        let (token, end) = self.string(at)?;
        let text = Text {
            raw: &self.text[at + 1..end - 1],
            escaped: matches!(token, Token::Escaped),
        };
        Some((text, end))
    }

    #[inline(always)]
    fn string(&mut self, at: usize) -> Option<(Token, usize)> {
        let end = self.marks.next(self.bytes, at + 1);
        if let Some(end) = end
            && self.bytes[end] == b'"'
        {
            return Some((Token::String, end + 1));
        }
        Some((Token::Escaped, self.escaped_end(end)?))
    }

    /// The end of a string that does not end at the first byte that could be its end.
    fn escaped_end(&mut self, mut end: Option<usize>) -> Option<usize> {
        loop {
            let Some(at) = end else {
                return self.wrong(self.bytes.len(), "a string is not closed");
            };
            let behind = match self.bytes[at] {
                b'"' => return Some(at + 1),
                b'\\' => self.escape(at)?,
                _ => return self.wrong(at, "a control character stands in a string"),
            };
            end = self.marks.next(self.bytes, behind);
        }
    }

    fn escape(&mut self, at: usize) -> Option<usize> {
        match self.peek(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Some(at + 2),
            Some(b'u') => {
                let Some(unit) = self.unit(at) else {
                    return self.wrong(at, "\\u needs four hex digits");
                };
                let pairs = matches!(unit, 0xd800..0xdc00) && matches!(self.unit(at + 6), Some(0xdc00..0xe000));
                if matches!(unit, 0xd800..0xe000) && !pairs {
                    return self.wrong(at, "a \\u escape stands for half of a surrogate pair");
                }
                Some(at + if pairs { 12 } else { 6 })
            }
            _ => self.wrong(at, "no such escape"),
        }
    }

    /// The UTF-16 code unit of the `\uXXXX` at this byte.
    fn unit(&self, at: usize) -> Option<u32> {
        let escape = self.bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        escape
            .iter()
            .try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
    }
}

#[cfg(test)]
mod tests;

//! Reads one JSON object by its members: checks the whole text against the grammar, and hands out each member's
//! value as a slice of it. No copy, no tree. In: UTF-8 text. Invariant: accepts what RFC 8259 accepts, nested at
//! most [`DEPTH_MAX`] deep; the last of equal keys wins where the caller keeps the last.

use std::borrow::Cow;

use super::plain::plain_bytes;

/// The deepest nesting read.
pub const DEPTH_MAX: u32 = 128;

/// A string as it stands between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// Its characters; `None` never comes of a text that was read as a whole.
    pub fn read(self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return Some(Cow::Borrowed(self.raw));
        }
        let quoted = format!("\"{}\"", self.raw);
        serde_json::from_str::<String>(&quoted).ok().map(Cow::Owned)
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
    let mut scan = Scan {
        text,
        at: 0,
        what: "not an object",
    };
    let read = scan.whole(|scan, key, depth| {
        scan.skip_space();
        let start = scan.at;
        let token = scan.value(depth)?;
        member(key, token.value(&scan.text[start..scan.at]));
        Some(())
    });
    read.ok_or(NotAnObject {
        at: scan.at,
        what: scan.what,
    })
}

/// What was read; where it stands, the scan's place before and behind it tell. It fits a register, which is why it is
/// no [`Value`].
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
            Self::String | Self::Escaped => Value::String(self.text(text)),
            Self::Array => Value::Array(text),
            Self::Object => Value::Object(text),
        }
    }

    /// Of a string with its quotes.
    #[inline]
    fn text(self, quoted: &str) -> Text<'_> {
        Text {
            raw: &quoted[1..quoted.len() - 1],
            escaped: matches!(self, Self::Escaped),
        }
    }
}

/// A text being read. `None` of its functions: the text is no JSON, and `what` is wrong at `at`.
struct Scan<'a> {
    text: &'a str,
    at: usize,
    what: &'static str,
}

impl<'a> Scan<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[cold]
    fn wrong<T>(&mut self, what: &'static str) -> Option<T> {
        self.what = what;
        None
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn whole(&mut self, member: impl FnMut(&mut Self, Text<'a>, u32) -> Option<()>) -> Option<()> {
        self.skip_space();
        if self.peek() != Some(b'{') {
            return self.wrong("not an object");
        }
        self.object(1, member)?;
        self.skip_space();
        if self.at < self.text.len() {
            return self.wrong("text after the object");
        }
        Some(())
    }

    /// `member` reads the value of each member, which is `depth` deep.
    #[inline]
    fn object(&mut self, depth: u32, mut member: impl FnMut(&mut Self, Text<'a>, u32) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Some(());
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return self.wrong("a key must be a string");
            }
            let start = self.at;
            let key = self.string()?.text(&self.text[start..self.at]);
            self.skip_space();
            if self.peek() != Some(b':') {
                return self.wrong("a colon is missing");
            }
            self.at += 1;
            member(self, key, depth)?;
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Some(());
                }
                _ => return self.wrong("a comma or a closing brace is missing"),
            }
        }
    }

    fn array(&mut self, depth: u32) -> Option<()> {
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Some(());
        }
        loop {
            self.value(depth)?;
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Some(());
                }
                _ => return self.wrong("a comma or a closing bracket is missing"),
            }
        }
    }

    /// A value inside of something `depth` deep, and the white space before it.
    fn value(&mut self, depth: u32) -> Option<Token> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') if depth == DEPTH_MAX => self.wrong("nested too deep"),
            Some(b'{') => {
                self.object(depth + 1, |scan, _, depth| scan.value(depth).map(drop))?;
                Some(Token::Object)
            }
            Some(b'[') => {
                self.array(depth + 1)?;
                Some(Token::Array)
            }
            Some(b't') => self.literal("true", Token::Bool),
            Some(b'f') => self.literal("false", Token::Bool),
            Some(b'n') => self.literal("null", Token::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => self.wrong("no value starts like this"),
            None => self.wrong("the text ends too early"),
        }
    }

    fn literal(&mut self, word: &str, token: Token) -> Option<Token> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.wrong("no value starts like this");
        }
        self.at += word.len();
        Some(token)
    }

    fn number(&mut self) -> Option<Token> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(Token::Number)
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return self.wrong("a digit is missing");
        }
        Some(())
    }

    fn string(&mut self) -> Option<Token> {
        self.at += 1;
        let (mut token, bytes) = (Token::String, self.text.as_bytes());
        loop {
            let rest = &bytes[self.at..];
            let Some(run) = plain_bytes(rest) else {
                self.at = bytes.len();
                return self.wrong("a string is not closed");
            };
            self.at += run;
            match rest[run] {
                b'"' => {
                    self.at += 1;
                    return Some(token);
                }
                b'\\' => {
                    token = Token::Escaped;
                    self.escape(rest.get(run + 1).copied())?;
                }
                _ => return self.wrong("a control character stands in a string"),
            }
        }
    }

    fn escape(&mut self, letter: Option<u8>) -> Option<()> {
        match letter {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let Some(unit) = self.unit(self.at) else {
                    return self.wrong("\\u needs four hex digits");
                };
                let pairs = matches!(unit, 0xd800..0xdc00) && matches!(self.unit(self.at + 6), Some(0xdc00..0xe000));
                if matches!(unit, 0xd800..0xe000) && !pairs {
                    return self.wrong("a \\u escape stands for half of a surrogate pair");
                }
                self.at += if pairs { 12 } else { 6 };
            }
            _ => return self.wrong("no such escape"),
        }
        Some(())
    }

    /// The UTF-16 code unit of the `\uXXXX` at this byte.
    fn unit(&self, at: usize) -> Option<u32> {
        let escape = self.text.as_bytes().get(at..at + 6)?.strip_prefix(b"\\u")?;
        escape
            .iter()
            .try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
    }
}

#[cfg(test)]
mod tests;

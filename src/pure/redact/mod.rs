//! Secrets out of events, before anything is stored or sent on: by the name of a field, and by how the keys of the
//! usual vendors look. In: an event's JSON. Out: the same JSON with each secret replaced by `[redacted:<what>]`, or
//! nothing if there is none: an ordinary event costs one look through its bytes and is left as it is, byte for byte.
//! Names and texts are judged as they read, whichever of their letters are escaped; what is no secret stays as written.
//! Invariant: only texts inside `data` and in extension attributes are touched, so an event stays as legal as it was;
//! what is redacted depends on the event alone.

mod escapes;
mod hints;
mod patterns;

use std::ops::Range;

use self::escapes::Places;
use self::hints::{SECRETS, WITH_EMAIL};
use self::patterns::Secret;

/// What is taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redact {
    /// Nothing.
    Off,
    /// Secrets.
    #[default]
    Secrets,
    /// Secrets, and e-mail addresses.
    SecretsAndEmail,
}

/// Where a JSON text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is a whole event: its attributes stay.
    Event,
    /// It is the `data` of an event.
    Data,
}

/// JSON without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted {
    /// The JSON.
    pub json: Vec<u8>,
    /// How many secrets were taken out.
    pub count: u64,
}

/// A longer name of a field is neither an attribute's nor a secret's.
const NAME_BYTES_MAX: usize = 64;
/// Attributes of `CloudEvents` that say which event it is.
const ATTRIBUTES: [&[u8]; 13] = [
    b"specversion",
    b"id",
    b"source",
    b"type",
    b"subject",
    b"time",
    b"sequence",
    b"traceparent",
    b"tracestate",
    b"datacontenttype",
    b"dataschema",
    b"partitionkey",
    b"recordedtime",
];

impl Redact {
    /// Whether a look from nearer is worth it.
    pub(super) fn may_hold(self, json: &[u8]) -> bool {
        match self {
            Self::Off => false,
            Self::Secrets => SECRETS.are_in(json),
            Self::SecretsAndEmail => WITH_EMAIL.are_in(json),
        }
    }

    /// The JSON without its secrets; `None` if it has none, or is no JSON.
    pub fn json(self, json: &[u8], part: Part) -> Option<Redacted> {
        if !self.may_hold(json) {
            return None;
        }
        let mut out = Vec::new();
        let (mut kept, mut count) = (0, 0);
        walk(json, part, |key, text| {
            let raw = &json[text.clone()];
            let plain = escapes::plain(raw)?;
            let key = key.and_then(|key| escapes::short(&json[key], NAME_BYTES_MAX));
            let mut places = Places::of(raw);
            for (secret, what) in self.secrets(key.as_deref(), &plain) {
                out.extend_from_slice(&json[kept..text.start + places.place(secret.start)]);
                kept = text.start + places.place(secret.end);
                out.extend_from_slice(stand_in(&plain[secret], what).as_bytes());
                count += 1;
            }
            Some(())
        })?;
        if count == 0 {
            return None;
        }
        out.extend_from_slice(&json[kept..]);
        Some(Redacted { json: out, count })
    }

    /// The secrets of one text under this key, in order.
    fn secrets(self, key: Option<&[u8]>, text: &[u8]) -> Vec<Secret> {
        if let Some(what) = key.and_then(|key| patterns::secret_field(key, text)) {
            return vec![(0..text.len(), what)];
        }
        patterns::find(text, self == Self::SecretsAndEmail)
    }
}

/// What stands in a secret's place: never longer than it, so that no event grows over a limit.
fn stand_in(secret: &[u8], what: &str) -> String {
    let words = format!("[redacted:{what}]");
    if words.len() <= secret.len() {
        words
    } else {
        "*".repeat(secret.len().clamp(1, 3))
    }
}

/// Whether an attribute's name stands here.
fn is_attribute(name: &[u8]) -> bool {
    escapes::short(name, NAME_BYTES_MAX).is_some_and(|name| ATTRIBUTES.contains(&&*name))
}

/// Tells of every text that is a value, with its key; in a list, with the list's key. `None`: this is no JSON.
fn walk(json: &[u8], part: Part, mut tell: impl FnMut(Option<Range<usize>>, Range<usize>) -> Option<()>) -> Option<()> {
    let mut open: Vec<(u8, Option<Range<usize>>)> = Vec::new();
    let mut key: Option<Range<usize>> = None;
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            byte @ (b'{' | b'[') => {
                let of_list = key.take().filter(|_| byte == b'[');
                key.clone_from(&of_list);
                open.push((byte, of_list));
            }
            b'}' | b']' => {
                open.pop()?;
                key = None;
            }
            b',' => key = open.last().and_then(|(_, key)| key.clone()),
            b'"' => {
                let text = at + 1..text_end(json, at + 1)?;
                at = text.end;
                let is_in_object = open.last().is_some_and(|(byte, _)| *byte == b'{');
                let is_member = part == Part::Event && open.len() == 1;
                if is_in_object && key.is_none() {
                    key = Some(text);
                } else if !(is_member && key.clone().is_none_or(|key| is_attribute(&json[key]))) {
                    tell(key.clone(), text)?;
                }
            }
            _ => {}
        }
        at += 1;
    }
    open.is_empty().then_some(())
}

/// Where the text that begins at `at` has its closing quote.
fn text_end(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match json.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests;

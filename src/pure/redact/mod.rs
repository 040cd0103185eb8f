//! Secrets out of events, before anything is stored or sent on: by the name of a field, and by how the keys of the
//! usual vendors look. In: an event's JSON. Out: the same JSON with each secret replaced by `[redacted:<what>]`, or
//! nothing if there is none: an ordinary event costs one look through its bytes and is left as it is, byte for byte.
//! Invariant: only texts inside `data` and in extension attributes are touched, so an event stays as legal as it was;
//! what is redacted depends on the event alone.

mod patterns;

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Input, Match, MatchKind, packed};

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

/// A `\\u0041` stands for one byte.
const ESCAPE_BYTES_MAX: usize = 5;
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

/// A text without any of these holds no secret: pieces of names of fields, in the ways they are spelled, and of keys.
#[rustfmt::skip] // a list is read as one
const HINTS: &[&str] = &[
    // names
    "assw", "ASSW", "assphrase", "ASSPHRASE", "ecret", "ECRET", "pi-Key", "pi_key", "pi-key", "piKey", "pikey", "PI_KEY", "PI-KEY",
    "PIKEY", "oken\"", "OKEN\"", "uthoriz", "UTHORIZ", "ookie\"", "OOKIE\"", "rivate", "RIVATE", "igning", "IGNING",
    "ncryption", "NCRYPTION",
    // forms
    "earer ", "EARER ", "sk-", "sk_", "rk_", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "hub_pat_", "glpat-",
    "xox", "xapp-", "AIza", "ya29.", "OCSPX-", "npm_", "pypi-", "hf_", "SG.", "eyJ", "dop_v1_", "dckr_pat_", "hvs.",
    "shpat_", "lin_api_", "xai-", "pplx-", "tvly-", "://",
];

static SECRETS: LazyLock<Hints> = LazyLock::new(|| Hints::of(HINTS.iter().copied()));
static WITH_EMAIL: LazyLock<Hints> = LazyLock::new(|| Hints::of(HINTS.iter().copied().chain(["@"])));

/// Finds hints: by whole vectors of bytes, where the machine can.
struct Hints {
    packed: Option<packed::Searcher>,
    any: AhoCorasick,
}

impl Hints {
    fn of(hints: impl Iterator<Item = &'static str> + Clone) -> Self {
        let built = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(hints.clone());
        Self {
            packed: packed::Searcher::new(hints),
            any: built.expect("a short list of short words"),
        }
    }

    /// The first at or behind `from`.
    #[inline]
    fn find(&self, json: &[u8], from: usize) -> Option<Match> {
        match &self.packed {
            Some(packed) => packed.find_in(json, (from..json.len()).into()),
            None => self.any.find(Input::new(json).range(from..)),
        }
    }
}

impl Redact {
    /// Whether a look from nearer is worth it.
    pub(super) fn may_hold(self, json: &[u8]) -> bool {
        match self {
            Self::Off => false,
            Self::Secrets => {
                let mut from = 0;
                while let Some(found) = SECRETS.find(json, from) {
                    // A URL alone is no hint: most have no password.
                    let text = json[found.end()..].iter().take_while(|byte| **byte != b'"');
                    if json[found.range()] != *b"://" || text.into_iter().any(|byte| *byte == b'@') {
                        return true;
                    }
                    from = found.end();
                }
                false
            }
            Self::SecretsAndEmail => WITH_EMAIL.find(json, 0).is_some(),
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
            for (secret, what) in self.secrets(key.map(|key| &json[key]), &json[text.clone()]) {
                out.extend_from_slice(&json[kept..text.start + secret.start]);
                out.extend_from_slice(stand_in(&json[text.clone()][secret.clone()], what).as_bytes());
                kept = text.start + secret.end;
                count += 1;
            }
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
    let escapes = secret.split(|byte| *byte == b'\\').count() - 1;
    let bytes_max = secret.len().saturating_sub(ESCAPE_BYTES_MAX * escapes).max(1);
    let words = format!("[redacted:{what}]");
    if words.len() <= bytes_max {
        words
    } else {
        "*".repeat(bytes_max.min(3))
    }
}

/// Tells of every text that is a value, with its key; in a list, with the list's key. `None`: this is no JSON.
fn walk(json: &[u8], part: Part, mut tell: impl FnMut(Option<Range<usize>>, Range<usize>)) -> Option<()> {
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
                let is_attribute = part == Part::Event && open.len() == 1;
                if is_in_object && key.is_none() {
                    key = Some(text);
                } else if !(is_attribute && key.clone().is_none_or(|key| ATTRIBUTES.contains(&&json[key]))) {
                    tell(key.clone(), text);
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

//! Whether an event may hold a secret: one look through its bytes, as they stand. In: JSON. Out: yes or no; yes costs
//! a look from nearer, no is certain.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Input, Match, MatchKind, packed};

/// A text without any of these holds no secret: pieces of names of fields, in the ways they are spelled, and of keys, and
/// escapes that may hide them. At most 64: with more, no vectors of bytes are used.
#[rustfmt::skip] // a list is read as one
pub(super) const HINTS: &[&str] = &[
    // names
    "assw", "ASSW", "wd\"", "WD\"", "assphrase", "ASSPHRASE", "ecret", "ECRET", "pi-Key", "pi_key", "pi-key", "piKey", "pikey",
    "PI_KEY", "PI-KEY", "PIKEY", "oken", "OKEN", "uthoriz", "UTHORIZ", "ookie", "OOKIE", "rivate", "RIVATE", "igning", "IGNING",
    "ncryption", "NCRYPTION",
    // forms
    "earer ", "EARER ", "sk-", "sk_", "rk_", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "hub_pat_", "glpat-",
    "xox", "xapp-", "AIza", "ya29.", "OCSPX-", "npm_", "pypi-", "hf_", "SG.", "eyJ", "dop_v1_", "dckr_pat_", "hvs.",
    "shpat_", "lin_api_", "xai-", "pplx-", "tvly-", "://",
    // escapes
    ":\\/", ":/\\", "\\u00",
];

pub(super) static SECRETS: LazyLock<Hints> = LazyLock::new(|| Hints::of(HINTS.iter().copied()));
pub(super) static WITH_EMAIL: LazyLock<Hints> = LazyLock::new(|| Hints::of(HINTS.iter().copied().chain(["@"])));

/// Finds hints: by whole vectors of bytes, where the machine can.
pub(super) struct Hints {
    packed: Option<packed::Searcher>,
    pub(super) any: AhoCorasick,
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
    pub(super) fn find(&self, json: &[u8], from: usize) -> Option<Match> {
        match &self.packed {
            Some(packed) => packed.find_in(json, (from..json.len()).into()),
            None => self.any.find(Input::new(json).range(from..)),
        }
    }

    /// Whether there is one that a secret may stand behind.
    pub(super) fn are_in(&self, json: &[u8]) -> bool {
        let mut from = 0;
        while let Some(found) = self.find(json, from) {
            if is_worth_a_look(json, found) {
                return true;
            }
            from = found.start() + 1;
        }
        false
    }
}

/// Most of what is found most often is no secret: URLs, counts of tokens, working folders, `\\u003c`.
fn is_worth_a_look(json: &[u8], found: Match) -> bool {
    let behind = &json[found.end()..];
    match &json[found.range()] {
        b"://" | b":\\/" | b":/\\" => has_user(behind),
        b"\\u00" => hides_a_hint(behind),
        b"oken" | b"OKEN" | b"ookie" | b"OOKIE" => {
            let plural = behind.strip_prefix(b"s").or(behind.strip_prefix(b"S"));
            ends_a_name(plural.unwrap_or(behind))
        }
        b"wd\"" | b"WD\"" => {
            let before = json[..found.start()].last();
            before.is_some_and(|byte| byte.eq_ignore_ascii_case(&b'p')) && ends_a_name(&json[found.end() - 1..])
        }
        _ => true,
    }
}

/// Whether someone is named before a URL's host.
fn has_user(behind: &[u8]) -> bool {
    let slashes = behind.iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
    let ends = |byte: &u8| matches!(byte, b'@' | b'/' | b'"' | b' ' | b'<' | b'>' | b',');
    behind[slashes..].iter().find(|byte| ends(byte)) == Some(&b'@')
}

/// Whether the letter of these two digits is one that hints have.
fn hides_a_hint(behind: &[u8]) -> bool {
    let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
    let letter = digit(0)
        .zip(digit(1))
        .and_then(|(high, low)| char::from_u32(high * 16 + low));
    letter.is_some_and(is_letter_of_hints)
}

pub(super) fn is_letter_of_hints(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, ' ' | '-' | '.' | '/' | ':' | '@' | '_')
}

/// Whether a field's name ends here, and its value is a text or a list.
fn ends_a_name(behind: &[u8]) -> bool {
    let behind = behind.strip_prefix(b"\"").map(<[u8]>::trim_ascii_start);
    let value = behind.and_then(|behind| behind.strip_prefix(b":"));
    let first = value.and_then(|value| value.trim_ascii_start().first());
    matches!(first, Some(b'"' | b'['))
}

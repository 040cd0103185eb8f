//! What a secret looks like. Rather one secret overlooked than an ordinary text changed: each pattern asks for what
//! prose, ids and paths do not have. Source: the vendors' documents of their keys' forms.

use std::ops::Range;

/// A vendor's key: how it begins, and what must follow.
struct Vendor {
    begins: &'static str,
    /// At least this many letters behind the beginning.
    length: usize,
    /// Letters and digits in a row, somewhere in them.
    run: usize,
    what: &'static str,
}

const fn vendor(begins: &'static str, length: usize, run: usize, what: &'static str) -> Vendor {
    Vendor {
        begins,
        length,
        run,
        what,
    }
}

/// The longer beginning first.
const VENDORS: &[Vendor] = &[
    vendor("sk-ant-", 20, 12, "anthropic_key"),
    vendor("sk-", 20, 16, "api_key"),
    vendor("sk_live_", 16, 16, "stripe_key"),
    vendor("sk_test_", 16, 16, "stripe_key"),
    vendor("rk_live_", 16, 16, "stripe_key"),
    vendor("rk_test_", 16, 16, "stripe_key"),
    vendor("AKIA", 16, 16, "aws_key"),
    vendor("ASIA", 16, 16, "aws_key"),
    vendor("github_pat_", 22, 16, "github_token"),
    vendor("ghp_", 30, 30, "github_token"),
    vendor("gho_", 30, 30, "github_token"),
    vendor("ghu_", 30, 30, "github_token"),
    vendor("ghs_", 30, 30, "github_token"),
    vendor("ghr_", 30, 30, "github_token"),
    vendor("glpat-", 20, 8, "gitlab_token"),
    vendor("xoxb-", 20, 8, "slack_token"),
    vendor("xoxp-", 20, 8, "slack_token"),
    vendor("xoxa-", 20, 8, "slack_token"),
    vendor("xoxs-", 20, 8, "slack_token"),
    vendor("AIza", 35, 8, "google_key"),
    vendor("npm_", 36, 36, "npm_token"),
    vendor("pypi-", 50, 20, "pypi_token"),
    vendor("hf_", 30, 30, "huggingface_token"),
    vendor("dop_v1_", 60, 60, "digitalocean_token"),
    vendor("shpat_", 32, 32, "shopify_token"),
    vendor("lin_api_", 32, 32, "linear_key"),
    vendor("xapp-", 20, 8, "slack_token"),
    vendor("GOCSPX-", 24, 8, "google_secret"),
    vendor("dckr_pat_", 24, 16, "docker_token"),
    vendor("gsk_", 40, 40, "groq_key"),
    vendor("xai-", 40, 40, "xai_key"),
    vendor("pplx-", 40, 40, "perplexity_key"),
    vendor("tvly-", 28, 20, "tavily_key"),
];

/// Names of fields whose text is a secret whatever it looks like; letters only, in lower case.
const SECRET_NAMES: [&str; 20] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secretkey",
    "secretaccesskey",
    "clientsecret",
    "apikey",
    "apisecret",
    "apitoken",
    "accesstoken",
    "refreshtoken",
    "authtoken",
    "sessiontoken",
    "bearertoken",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "webhooksecret",
    "dbpassword",
];
/// As above, when the name ends so.
const SECRET_ENDINGS: [&str; 8] = [
    "password",
    "secret",
    "apikey",
    "secretkey",
    "secretaccesskey",
    "clientsecret",
    "accesstoken",
    "privatekey",
];
/// What stands where a secret is kept out already.
const STAND_INS: [&[u8]; 7] = [b"[redacted", b"***", b"${", b"{{", b"<", b"$(", b"%("];

/// What a text is because of its field's name, in singular or plural.
pub(super) fn secret_field(key: &[u8], text: &[u8]) -> Option<&'static str> {
    let is_stand_in = STAND_INS.iter().any(|stand_in| text.starts_with(stand_in)) || text.iter().all(|b| *b == b'*');
    if is_stand_in {
        return None;
    }
    let name: String = key
        .iter()
        .filter(|byte| byte.is_ascii_alphanumeric())
        .map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect();
    let name = name.strip_suffix('s').unwrap_or(&name);
    let is_secret = SECRET_NAMES.contains(&name) || SECRET_ENDINGS.iter().any(|end| name.ends_with(end));
    if is_secret || (name.ends_with("pwd") && !is_folder(text)) {
        return Some("secret");
    }
    let scheme = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    let has_scheme = ["bearer", "basic", "digest", "token"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()));
    match name {
        "authorization" | "proxyauthorization"
            if (has_scheme && text.len() > scheme.len() + 1) || is_credential(text) =>
        {
            Some("authorization")
        }
        "cookie" | "setcookie" if text.contains(&b'=') => Some("cookie"),
        // `token` is also what a model says: only what looks like a credential is one.
        _ if name.ends_with("token") && is_credential(text) => Some("token"),
        _ => None,
    }
}

/// `pwd` is also the folder that someone works in.
fn is_folder(text: &[u8]) -> bool {
    matches!(text, [b'/' | b'~' | b'.' | b'$' | b'\\', ..] | [b'A'..=b'Z' | b'a'..=b'z', b':', ..])
}

/// One long word of letters and digits both, as no language has it. Paths and members (`a/b.0`) are several.
fn is_credential(text: &[u8]) -> bool {
    let legal = |byte: &u8| is_word(*byte) || matches!(byte, b'.' | b'~' | b'+' | b'/' | b'=');
    let is_long = |word: &[u8]| word.len() >= 16 && has_both(word);
    text.iter().all(legal) && text.split(|byte| matches!(byte, b'.' | b'/' | b'=')).any(is_long)
}

fn has_both(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_digit) && text.iter().any(u8::is_ascii_alphabetic)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Secrets in a text, as it reads, by their form, in order.
pub(super) fn find(text: &[u8], email: bool) -> Vec<Secret> {
    let mut found: Vec<Secret> = Vec::new();
    let (mut at, mut behind_last) = (0, 0);
    let mut words = Words::default();
    while at < text.len() {
        let begins_word = at == 0 || !is_word(text[at - 1]);
        let secret = match text[at] {
            b'-' => private_key(text, at),
            b':' => url_password(text, at),
            b'@' if email => email_address(text, at, behind_last),
            _ if begins_word => bearer(text, at)
                .or_else(|| jwt(text, at, &mut words))
                .or_else(|| dotted(text, at, &mut words))
                .or_else(|| vendor_key(text, at)),
            _ => None,
        };
        match secret {
            Some((range, what)) => {
                (at, behind_last) = (range.end, range.end);
                found.push((range, what));
            }
            None => at += 1,
        }
    }
    found
}

/// Where a secret stands, and what it is.
pub(super) type Secret = (Range<usize>, &'static str);
type Found = Option<Secret>;

fn word_end(text: &[u8], from: usize, legal: impl Fn(u8) -> bool) -> usize {
    let length = text[from..].iter().position(|byte| !legal(*byte));
    length.map_or(text.len(), |length| from + length)
}

/// Words joined by dots, looked through once for all keys that may begin in them: an event of nothing but beginnings
/// would cost the square of its length.
#[derive(Default)]
struct Words {
    end: usize,
    last_digit: usize,
}

impl Words {
    /// Those around a place, which is in a word.
    fn around(&mut self, text: &[u8], at: usize) -> &Self {
        if at >= self.end {
            self.end = word_end(text, at, |byte| is_word(byte) || byte == b'.');
            let last = text[at..self.end].iter().rposition(u8::is_ascii_digit);
            self.last_digit = last.map_or(0, |last| at + last);
        }
        self
    }
}

fn vendor_key(text: &[u8], at: usize) -> Found {
    let vendor = VENDORS
        .iter()
        .find(|vendor| text[at..].starts_with(vendor.begins.as_bytes()))?;
    let from = at + vendor.begins.len();
    let end = word_end(text, from, is_word);
    let tail = &text[from..end];
    let run = tail
        .split(|byte| !byte.is_ascii_alphanumeric())
        .map(<[u8]>::len)
        .max()
        .unwrap_or(0);
    let is_aws = vendor.what == "aws_key";
    let fits = if is_aws {
        tail.len() == 16
            && tail
                .iter()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    } else {
        tail.len() >= vendor.length && run >= vendor.run && tail.iter().any(u8::is_ascii_digit)
    };
    fits.then_some((at..end, vendor.what))
}

/// Keys whose parts are joined by dots.
fn dotted(text: &[u8], at: usize, words: &mut Words) -> Found {
    let (begins, dots, length, what) = match text[at] {
        b'y' => ("ya29.", 1, 30, "google_token"),
        b'h' => ("hvs.", 1, 24, "vault_token"),
        b'S' => ("SG.", 2, 40, "sendgrid_key"),
        _ => return None,
    };
    if !text[at..].starts_with(begins.as_bytes()) {
        return None;
    }
    let Words { end, last_digit } = *words.around(text, at);
    let is_joined = || {
        text[at..end]
            .iter()
            .filter(|byte| **byte == b'.')
            .nth(dots - 1)
            .is_some()
    };
    let fits = end - at >= length && last_digit > at && is_joined();
    fits.then_some((at..end, what))
}

fn jwt(text: &[u8], at: usize, words: &mut Words) -> Found {
    if !text[at..].starts_with(b"eyJ") {
        return None;
    }
    let end = words.around(text, at).end;
    let mut parts = text[at..end].split(|byte| *byte == b'.');
    let (head, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let fits = head.len() >= 10 && claims.starts_with(b"eyJ") && claims.len() >= 10 && signature.len() >= 10;
    fits.then_some((at..end, "jwt"))
}

/// The token behind `Bearer `, not the word.
fn bearer(text: &[u8], at: usize) -> Found {
    const WORD: usize = "bearer ".len();
    let word = text.get(at..at + WORD)?;
    if !word.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let from = at + WORD;
    let end = word_end(text, from, |byte| {
        is_word(byte) || matches!(byte, b'.' | b'~' | b'+' | b'/' | b'=')
    });
    is_credential(&text[from..end]).then_some((from..end, "bearer_token"))
}

fn private_key(text: &[u8], at: usize) -> Found {
    const BEGIN: &[u8] = b"-----BEGIN ";
    const KEY: &[u8] = b"PRIVATE KEY-----";
    if !text[at..].starts_with(BEGIN) {
        return None;
    }
    let label = at + BEGIN.len();
    let close = position(&text[label..], b"-----")? + label;
    let is_label = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b' ';
    if !text[label..close].iter().all(is_label) || !text[label..close + 5].ends_with(KEY) {
        return None;
    }
    let body = close + 5;
    let end = match position(&text[body..], b"-----END ") {
        Some(mark) => position(&text[body + mark..], KEY).map_or(text.len(), |key| body + mark + key + KEY.len()),
        None => text.len(), // cut off: what is there of it is secret
    };
    Some((at..end, "private_key"))
}

/// The password of `scheme://user:password@host`; called at its first `:`.
fn url_password(text: &[u8], at: usize) -> Found {
    if !text[at..].starts_with(b"://") {
        return None;
    }
    let user = at + 3;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'%' | b'+');
    let colon = word_end(text, user, legal);
    if text.get(colon) != Some(&b':') {
        return None;
    }
    let from = colon + 1;
    let ends =
        |byte: u8| matches!(byte, b'/' | b'@' | b' ' | b'\\' | b'"' | b'<' | b'>' | b',') || byte.is_ascii_control();
    let end = word_end(text, from, |byte| !ends(byte));
    let password = &text[from..end];
    let fits = text.get(end) == Some(&b'@')
        && password.len() >= 3
        && !STAND_INS.iter().any(|stand_in| password.starts_with(stand_in));
    fits.then_some((from..end, "url_password"))
}

/// The address around an `@`.
fn email_address(text: &[u8], at: usize, from: usize) -> Found {
    let local = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'%');
    let before = text[from..at].iter().rev().take_while(|byte| local(**byte)).count();
    let end = word_end(text, at + 1, |byte| {
        byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-'
    });
    let host = std::str::from_utf8(&text[at + 1..end]).ok()?.trim_end_matches('.');
    let (_, top) = host.rsplit_once('.')?;
    let fits = before > 0 && top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_alphabetic());
    fits.then(|| (at - before..at + 1 + host.len(), "email"))
}

fn position(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a look to the end of the text from each beginning these would take minutes, and their partition would wait.
    #[test]
    fn a_text_of_nothing_but_beginnings_is_looked_through_once() {
        let keys = ["eyJ.", "hvs.", "SG.", "ya29.", "sk-", "ghp_", "Bearer ", "Bearer."];
        for begin in keys.into_iter().chain(["-----BEGIN ", "://u:", "://", "a@", "a:"]) {
            let text = begin.repeat((4 << 20) / begin.len());
            let found = find(text.as_bytes(), true);
            // That one has digits and dots, as a key of its kind has.
            assert_eq!(found.len(), usize::from(begin == "ya29."), "{begin}");
        }
    }
}

//! The token file: who may call the HTTP server from elsewhere, and what with.
//! In: a file with a token a line, `role[,role] token [scope[,scope]]` or a bare token for all roles; `#` starts a
//! comment line. A token may stand as `sha256:<64 hex digits>`: then the file holds no secret. A scope is the beginning
//! of a subject, as `run/acme.`. Out: tokens. Invariant: an empty or unreadable file is an error, never "no tokens
//! needed".

use std::fmt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::load::ConfigError;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Documents, events, status.
    Read,
    /// Writing events.
    Publish,
    /// Replays, audits, rollouts; reading too: nobody operates blindfold.
    Operate,
}

impl Role {
    const ALL: [Self; 3] = [Self::Read, Self::Publish, Self::Operate];

    /// As the file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Operate => "operate",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// One line of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    roles: Vec<Role>,
    /// SHA-256 of what stands behind `Bearer `. Compare it in constant time.
    pub hash: [u8; 32],
    /// Beginnings of the subjects it reaches; empty: all.
    pub scope: Vec<String>,
    /// What stands behind `Bearer `, if the file tells.
    pub secret: Option<String>,
}

impl Token {
    /// Whether the holder may do what needs `role`.
    pub fn allows(&self, role: Role) -> bool {
        self.roles.contains(&role) || (role == Role::Read && self.roles.contains(&Role::Operate))
    }

    /// What a server needs of it.
    #[must_use]
    pub fn without_secret(self) -> Self {
        Self { secret: None, ..self }
    }

    /// Names it in logs: the first digits of its hash.
    pub fn name(&self) -> String {
        let [a, b, c, d, ..] = self.hash;
        format!("{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("roles", &self.roles)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Reads a token file.
///
/// # Errors
/// The file cannot be read, holds no token, or has a line that is neither form; no message repeats a token.
pub fn read_tokens(path: &Path) -> Result<Vec<Token>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::new("token_file", format!("cannot read {}: {error}", path.display())))?;
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{}:{number}", path.display());
        tokens.push(token(line).map_err(|problem| ConfigError::new(place, problem))?);
    }
    if tokens.is_empty() {
        return Err(ConfigError::new(path.display(), "holds no token: write one a line"));
    }
    Ok(tokens)
}

fn token(line: &str) -> Result<Token, &'static str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (roles, secret, scope) = match words[..] {
        [secret] if Role::of(secret).is_none() => (Role::ALL.to_vec(), secret, Vec::new()),
        [_] => return Err("a role without a token"),
        [named, secret] => (roles(named)?, secret, Vec::new()),
        [named, secret, beginnings] => (roles(named)?, secret, scope(beginnings)?),
        _ => return Err("a line is `role[,role] token [scope]`, or a bare token"),
    };
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token is of visible ASCII letters");
    }
    let (hash, secret) = match secret.strip_prefix("sha256:") {
        Some(digits) => (hash(digits).ok_or("`sha256:` needs 64 hex digits behind it")?, None),
        None => (Sha256::digest(secret.as_bytes()).into(), Some(secret.to_owned())),
    };
    Ok(Token {
        roles,
        hash,
        scope,
        secret,
    })
}

fn roles(names: &str) -> Result<Vec<Role>, &'static str> {
    let roles: Option<Vec<Role>> = names.split(',').map(Role::of).collect();
    roles.ok_or("a line is `role[,role] token [scope]` (read, publish, operate), or a bare token")
}

fn scope(beginnings: &str) -> Result<Vec<String>, &'static str> {
    let scope: Vec<String> = beginnings.split(',').map(str::to_owned).collect();
    let legal = |begin: &String| begin.starts_with("run/") || begin.starts_with("worker/");
    if scope.iter().all(legal) {
        return Ok(scope);
    }
    Err("a scope is a list of beginnings of subjects, as `run/acme.,worker/acme.`")
}

fn hash(digits: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

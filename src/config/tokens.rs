//! The token file: who may call the HTTP server from elsewhere.
//! In: a file with a token a line, `role token` or a bare token for all roles; `#` starts a comment line.
//! Out: tokens. Invariant: an empty or unreadable file is an error, never "no tokens needed".

use std::fmt;
use std::path::Path;

use super::load::ConfigError;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Documents, events, status.
    Read,
    /// Writing events.
    Publish,
    /// Replays, audits, rollouts.
    Operate,
}

/// One line of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// `None`: all roles.
    pub role: Option<Role>,
    /// What stands behind `Bearer `. Compare it in constant time.
    pub secret: String,
}

impl Token {
    /// Whether the holder may do what needs `role`.
    pub fn allows(&self, role: Role) -> bool {
        self.role.is_none_or(|own| own == role)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("role", &self.role)
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
    let mut words = line.split_whitespace();
    let (role, secret) = match (words.next(), words.next(), words.next()) {
        (Some(secret), None, _) if ["read", "publish", "operate"].contains(&secret) => {
            return Err("a role without a token");
        }
        (Some(secret), None, _) => (None, secret),
        (Some("read"), Some(secret), None) => (Some(Role::Read), secret),
        (Some("publish"), Some(secret), None) => (Some(Role::Publish), secret),
        (Some("operate"), Some(secret), None) => (Some(Role::Operate), secret),
        _ => return Err("a line is `role token` (read, publish, operate) or a bare token"),
    };
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token is of visible ASCII letters");
    }
    Ok(Token {
        role,
        secret: secret.to_owned(),
    })
}

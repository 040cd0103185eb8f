//! Exit codes (INTERFACE.md §3) and failures on the way to them.

use std::fmt::Display;
use std::process::ExitCode;

use crate::access::{AccessError, Refusal};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Drift = 3,
    NotFound = 4,
    Unreachable = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What to say, what helps, and how to end.
#[derive(Debug)]
pub(super) struct Failure {
    pub exit: Exit,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
            hint: None,
        }
    }

    pub(super) fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(super) fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        let exit = match error {
            AccessError::BadRequest(_) => Exit::Usage,
            AccessError::NotFound(_) => Exit::NotFound,
            AccessError::Refused(_) => Exit::Drift,
            AccessError::Unreachable(_) => Exit::Unreachable,
            AccessError::Full(_) | AccessError::Failed(_) => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let exit = if error.downcast_ref::<Refusal>().is_some() {
            Exit::Usage
        } else {
            Exit::Failed
        };
        Self::new(exit, format!("{error:#}"))
    }
}

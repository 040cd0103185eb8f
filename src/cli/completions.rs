//! `khala completions SHELL`.

use clap_complete::{Shell, generate};

use super::args;
use super::exit::{Exit, Failure};
use super::out::Out;

#[expect(clippy::unnecessary_wraps, reason = "as every command")]
pub(super) fn run(shell: Shell, out: Out) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    generate(shell, &mut args::command(), "khala", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Done)
}

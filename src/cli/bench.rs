//! `khala bench`.

use super::Context;
use super::args::BenchArgs;
use super::exit::{Exit, Failure};

#[expect(clippy::unused_async, reason = "its work comes next")]
pub(super) async fn run(_args: BenchArgs, _context: &Context) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "not there yet"))
}

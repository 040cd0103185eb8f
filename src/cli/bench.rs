//! `khala bench`.

use super::Context;
use super::args::BenchArgs;
use super::exit::{Exit, Failure};

pub(super) async fn run(_args: BenchArgs, _context: &Context) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "not there yet"))
}

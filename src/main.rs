//! The `khala` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    khala::cli::main()
}

//! `sysemu bench`.

use std::process::ExitCode;

use super::args::BenchArgs;

/// Measures and prints.
pub fn main(args: &BenchArgs) -> ExitCode {
    let _ = args;
    ExitCode::SUCCESS
}

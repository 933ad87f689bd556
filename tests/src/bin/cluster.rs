//! `cargo xtask cluster`, and what its nodes and its registry run.

use std::process::ExitCode;

fn main() -> ExitCode {
    match evenkeel_tests::kubernetes::command::run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\n  cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

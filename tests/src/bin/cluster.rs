//! `cargo xtask cluster`, and what its nodes and its registry run.

use evenkeel_tests::kubernetes::{command, runtime};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next();
    let outcome = if called.as_deref().and_then(|path| Path::new(path).file_name())
        == Some(runtime::PROGRAM.as_ref())
    {
        runtime::run(&arguments.collect::<Vec<_>>()).map(|()| true)
    } else {
        command::run()
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\n  cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

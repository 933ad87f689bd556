//! `cargo xtask demo`.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("peer") {
        evenkeel_tests::peer::run(arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(if evenkeel_tests::demo::run()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

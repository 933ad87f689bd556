//! `cargo xtask demo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = if arguments.next().as_deref() == Some("peer") {
        evenkeel_tests::peer::run(arguments).map(|()| true)
    } else {
        evenkeel_tests::demo::run()
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\n  demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

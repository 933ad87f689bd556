//! The `evenkeel` program.

use std::process::ExitCode;

// The call path allocates little, but from several threads, and the agent stays up for months.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    evenkeel::cli::main()
}

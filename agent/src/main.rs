//! The `evenkeel` program.

use std::process::ExitCode;

// The call path allocates little, but from several threads, and the agent stays up for months.
#[global_allocator]
static ALLOCATOR: evenkeel::allocator::SampledAllocator = evenkeel::allocator::SampledAllocator;

fn main() -> ExitCode {
    evenkeel::cli::main()
}

//! What the process itself costs, and where: CPU and memory, in sums and by stack.
//!
//! Sums are in [`totals`]. By stack, the threads' CPU is sampled by the kernel ([`mod@cpu`], which reads what [`perf`] has it write down), and
//! memory by the allocator ([`mod@heap`]): no thread is ever interrupted by a signal, and none unwinds itself in a handler. Both are
//! [`stacks`] of addresses, which get their names last ([`symbols`]: of the process' files by [`elf`], of the kernel by [`kallsyms`]) and leave
//! as text, or as what pprof reads ([`pprof`]).

mod cpu;
mod elf;
mod heap;
mod kallsyms;
mod perf;
mod pprof;
mod stacks;
mod symbols;
mod totals;

pub use cpu::{CpuRefused, cpu_stacks};
pub use heap::heap_stacks;
pub use stacks::{NOTE, StackFormat, StackProfile};
pub use totals::{CpuProfile, HeapProfile, ThreadTimes, cpu, heap};

//! Memory by stack: what the allocator's samples stand for ([`crate::allocator`]). Next: [`stacks`](super::stacks).
//!
//! What is not sampled is what C code allocates by itself, what mimalloc holds in reserve, the threads' stacks, and the kernel's
//! buffers of sockets: [`heap`](super::heap()) has the sums that these are in.

use super::stacks::{Kind, Stack, StackProfile};
use crate::allocator::{self, SAMPLE_EVERY_BYTES};
use std::time::SystemTime;

/// What the process has allocated, and holds, by stack. It may wait a moment for a thread that takes a sample.
///
/// `None`: this program allocates by another allocator, or has allocated next to nothing.
pub fn heap_stacks() -> Option<StackProfile> {
    let kinds = [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ];
    let stacks = allocator::snapshot()?.into_iter().map(|memory| Stack {
        thread: None,
        // Addresses to return to: the calls are before them.
        frames: memory.frames.iter().map(|returns_to| returns_to - 1).collect(),
        values: [memory.allocated_objects, memory.allocated_bytes, memory.live_objects, memory.live_bytes]
            .map(|value| value.round() as i64)
            .to_vec(),
    });
    Some(StackProfile {
        kinds: kinds.map(|(name, unit)| Kind::new(name, unit)).to_vec(),
        shown: 3,
        period: (Kind::new("space", "bytes"), SAMPLE_EVERY_BYTES as i64),
        began: SystemTime::now(),
        took: None,
        stacks: stacks.collect(),
        notes: Vec::new(),
        without: is_of_allocator,
    })
}

/// Whether a function stands between who asks for memory and the allocator: no answer to who holds it.
fn is_of_allocator(function: &str) -> bool {
    ["__rust", "alloc::alloc::", "<alloc::alloc::"].iter().any(|start| function.starts_with(start))
        || function.contains("evenkeel::allocator::")
}

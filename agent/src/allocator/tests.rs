use super::*;
use crate::telemetry::profile::{StackFormat, heap_stacks};
use std::hint::black_box;
use std::thread;

#[global_allocator]
static ALLOCATOR: SampledAllocator = SampledAllocator;

const MIB: usize = 1 << 20;
const HELD: usize = 64 * MIB;

/// What the stacks with this function hold now, in bytes.
fn held_by(function: &str) -> usize {
    let folded = heap_stacks().expect("there are samples").write(StackFormat::Folded).unwrap();
    let lines = String::from_utf8(folded).unwrap();
    let of_line =
        |line: &str| line.rsplit_once(' ').and_then(|(_, bytes)| bytes.parse::<usize>().ok()).unwrap();
    lines.lines().filter(|line| line.contains(function)).map(of_line).sum()
}

#[inline(never)]
fn hold_one_large_block() -> Vec<u8> {
    // Behind the call there is something to do, so that it is none that replaces this function.
    black_box(vec![1; HELD])
}

#[inline(never)]
fn hold_many_small_blocks() -> Vec<Vec<u8>> {
    black_box((0..HELD / 1_024).map(|_| vec![1; 1_024]).collect())
}

#[test]
fn a_large_block_is_held_by_who_allocated_it_until_it_is_freed() {
    let held = hold_one_large_block();
    assert_eq!(held_by("hold_one_large_block"), HELD);
    drop(held);
    assert_eq!(held_by("hold_one_large_block"), 0);
}

#[test]
fn many_small_blocks_are_held_by_who_allocated_them_until_they_are_freed() {
    let held = hold_many_small_blocks();
    // 128 samples on average, and beside them the list: six deviations.
    let list = held.capacity() * size_of::<Vec<u8>>();
    let seen = held_by("hold_many_small_blocks");
    assert!((HELD / 2 + list..HELD * 3 / 2 + list).contains(&seen), "{seen} of {HELD}");
    drop(held);
    assert_eq!(held_by("hold_many_small_blocks"), 0);
}

#[inline(never)]
fn grow_byte_by_byte(bytes: usize) -> Vec<u8> {
    let mut grown = Vec::new();
    for byte in 0..bytes {
        grown.push((byte % 251) as u8);
    }
    grown
}

#[test]
fn what_grows_and_what_other_threads_free_keeps_its_bytes_and_leaves_no_sample() {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for bytes in [1, 4_095, 4_096, 65_536, 3 * MIB, 5 * MIB + 17] {
                    let grown = grow_byte_by_byte(bytes);
                    let checked = thread::spawn(move || {
                        let is_whole =
                            grown.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251);
                        is_whole && grown.len() == bytes
                    });
                    assert!(checked.join().unwrap());
                }
            });
        }
    });
    assert_eq!(held_by("grow_byte_by_byte"), 0);
}

#[test]
fn memory_that_is_asked_for_as_zero_is_zero() {
    for round in 0..200 {
        let zeros = vec![0_u8; 10_000 + round * 997];
        assert!(zeros.iter().all(|byte| *byte == 0));
        let mut dirty = zeros;
        dirty.fill(0xff);
    }
}

#[test]
fn a_sample_stands_for_the_more_the_smaller_it_is() {
    assert!((stands_for(64 << 20) - 1.0).abs() < 1e-9);
    assert!((stands_for(16) * 16.0 / SAMPLE_EVERY_BYTES - 1.0).abs() < 1e-3);
    assert!((stands_for(524_288) - 1.582).abs() < 1e-3, "1 / (1 - 1/e)");
}

#[test]
fn intervals_are_as_long_as_they_should_be_on_average() {
    const DRAWN: usize = 100_000;
    next_random();
    let sum: i64 = (0..DRAWN).map(|_| exponential(next_random())).sum();
    let mean = sum as f64 / DRAWN as f64;
    // Its deviation is the mean's own by the root of how many were drawn: three per mille.
    assert!((mean / SAMPLE_EVERY_BYTES - 1.0).abs() < 0.03, "{mean}");
}

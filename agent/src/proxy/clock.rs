//! The clock of the data path.

/// Nanoseconds of CLOCK_MONOTONIC: the clock that the kernel programs compare the workers' ticks with
/// (`bpf_ktime_get_ns`).
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer; the call cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

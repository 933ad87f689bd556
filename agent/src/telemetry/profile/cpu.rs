//! CPU by stack: all threads of the process are sampled for a time. Next: [`stacks`](super::stacks).
//!
//! The kernel walks the stacks, by frame pointers, in its timer's interrupt. What it costs, it costs while somebody asks, and no
//! other process of the node. The C library has no frame pointers: of a stack that was met in it, the function that called it is
//! missing, or all, where it uses the register for something else. The call path's reads and writes go without it.

use super::perf::ThreadSamples;
use super::stacks::{Kind, Stack, StackProfile};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, fs, io, thread};

/// How often a thread that runs all the time is sampled, a second: seldom enough to cost it nothing, and out of step with what
/// happens each hundredth of a second.
const SAMPLES_A_SECOND: u64 = 99;
const PERIOD_NS: u64 = 1_000_000_000 / SAMPLES_A_SECOND;

/// How often the threads' rings are read: before they are full, and how long somebody who has gone is worked for.
const READ_EVERY: Duration = Duration::from_millis(100);

/// How often is looked for threads that have begun since.
const LOOK_FOR_THREADS_EVERY: Duration = Duration::from_secs(1);

/// Stacks that are told apart: some megabytes of them. Others count as one.
const MOST_STACKS: usize = 4_096;

const NOT_IN_KERNEL: &str = "time in the kernel is not counted: it takes CAP_PERFMON or CAP_SYS_ADMIN, or \
                             kernel.perf_event_paranoid of 1 or less";

/// Why there is no CPU profile by stack.
#[derive(Debug)]
pub enum CpuRefused {
    /// The threads cannot be listed.
    Threads(io::Error),
    /// The kernel does not sample them.
    Kernel(io::Error),
}

/// Samples what all threads do for a time, or until `has_gone` says that nobody waits for it any more. Blocks for that time.
///
/// # Errors
/// Where the kernel does not let it.
pub fn cpu_stacks(time: Duration, has_gone: impl Fn() -> bool) -> Result<StackProfile, CpuRefused> {
    let (began_at, began) = (SystemTime::now(), Instant::now());
    let mut sampling = Sampling::begin()?;
    let mut looked = began;
    while began.elapsed() < time && !has_gone() {
        thread::sleep(READ_EVERY.min(time.saturating_sub(began.elapsed())));
        if looked.elapsed() >= LOOK_FOR_THREADS_EVERY {
            looked = Instant::now();
            sampling.follow_threads()?;
        }
        sampling.read();
    }
    let took = began.elapsed();
    sampling.read();
    Ok(sampling.end(began_at, took))
}

struct Sampling {
    threads: FxHashMap<u32, Thread>,
    with_kernel: bool,
    counts: FxHashMap<(Arc<str>, Box<[u64]>), u64>,
    lost: u64,
    /// Why a thread is not sampled.
    failure: Option<io::Error>,
}

struct Thread {
    name: Arc<str>,
    samples: ThreadSamples,
}

impl Sampling {
    fn begin() -> Result<Self, CpuRefused> {
        let (threads, counts) = (FxHashMap::default(), FxHashMap::default());
        let mut sampling = Self { threads, with_kernel: true, counts, lost: 0, failure: None };
        match sampling.follow_threads() {
            // Its own threads anybody may sample, where not even that is forbidden.
            Err(CpuRefused::Kernel(error)) if is_denied(&error) => {
                sampling.with_kernel = false;
                sampling.follow_threads()?;
            }
            followed => followed?,
        }
        Ok(sampling)
    }

    /// Samples the threads that are not sampled yet, and lets go of those that have ended.
    fn follow_threads(&mut self) -> Result<(), CpuRefused> {
        self.read();
        let mut there = FxHashSet::default();
        for task in fs::read_dir("/proc/self/task").map_err(CpuRefused::Threads)? {
            let task = task.map_err(CpuRefused::Threads)?;
            let Some(id) = task.file_name().to_str().and_then(|id| id.parse().ok()) else { continue };
            there.insert(id);
            if self.threads.contains_key(&id) {
                continue;
            }
            // One that has ended meanwhile is not there any more.
            let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
            match ThreadSamples::begin(id, PERIOD_NS, self.with_kernel) {
                Ok(samples) => {
                    self.threads.insert(id, Thread { name: name.trim_end().into(), samples });
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                // What has been sampled of the others is not thrown away.
                Err(error) if !self.threads.is_empty() => self.failure = Some(error),
                Err(error) => return Err(CpuRefused::Kernel(error)),
            }
        }
        self.threads.retain(|id, _| there.contains(id));
        Ok(())
    }

    fn read(&mut self) {
        for Thread { name, samples } in self.threads.values_mut() {
            self.lost += samples.drain(|frames| {
                let is_full = self.counts.len() >= MOST_STACKS;
                let mut stack = (Arc::clone(name), frames.into());
                if is_full && !self.counts.contains_key(&stack) {
                    // By thread, all the same.
                    stack.1 = Box::default();
                }
                *self.counts.entry(stack).or_default() += 1;
            });
        }
    }

    fn end(self, began_at: SystemTime, took: Duration) -> StackProfile {
        let stacks = self.counts.into_iter().map(|((thread, frames), count)| Stack {
            thread: Some(thread),
            frames,
            values: vec![count as i64, (count * PERIOD_NS) as i64],
        });
        let lost =
            (self.lost > 0).then(|| format!("{} samples were lost: nobody read them in time", self.lost));
        let failure = self.failure.map(|error| format!("not all threads are in it: {error}"));
        StackProfile {
            kinds: vec![Kind::new("samples", "count"), Kind::new("cpu", "nanoseconds")],
            shown: 0,
            period: (Kind::new("cpu", "nanoseconds"), PERIOD_NS as i64),
            began: began_at,
            took: Some(took),
            stacks: stacks.collect(),
            notes: [(!self.with_kernel).then(|| NOT_IN_KERNEL.to_owned()), lost, failure]
                .into_iter()
                .flatten()
                .collect(),
            without: |_| false,
        }
    }
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

impl fmt::Display for CpuRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(error) => write!(f, "cannot read /proc: {error}"),
            Self::Kernel(error) if is_denied(error) => {
                let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
                let paranoid = paranoid.as_deref().map_or("not to be read", str::trim);
                write!(
                    f,
                    "the kernel does not let the agent sample its own threads (perf_event_open: {error}): it takes CAP_PERFMON or \
                     CAP_SYS_ADMIN, or kernel.perf_event_paranoid of 2 or less (it is {paranoid}), a seccomp profile that lets \
                     perf_event_open through, and no other security module against it; format=json says what each thread costs without it"
                )
            }
            Self::Kernel(error) => {
                let is_unknown =
                    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::ENOENT | libc::EOPNOTSUPP));
                let takes = if is_unknown { ": it takes CONFIG_PERF_EVENTS" } else { "" };
                write!(
                    f,
                    "the kernel does not sample threads (perf_event_open: {error}){takes}; format=json says what each thread costs \
                     without it"
                )
            }
        }
    }
}

impl std::error::Error for CpuRefused {}

#[cfg(test)]
mod tests {
    use super::super::StackFormat;
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::sync::mpsc;

    #[inline(never)]
    fn spin_in_a_function_with_a_name(stop: &AtomicBool) -> u64 {
        let mut rounds = 0_u64;
        while !stop.load(Relaxed) {
            rounds = std::hint::black_box(rounds + 1);
        }
        rounds
    }

    /// Has this thread, and those that it makes, meet a system call's refusal by the kernel (seccomp(2)).
    fn deny_on_this_thread(call: libc::c_long, error: i32) {
        // `linux/filter.h`: load the number; if it is this call's, the error, else go on.
        let filter = [
            libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
            libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: call as u32 },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | error as u32 },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the filter lives until the calls are back, and is as long as it says.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
        }
    }

    #[test]
    fn a_kernel_that_forbids_it_is_told_with_what_it_takes() {
        let refused_with = |error| {
            let refused = thread::spawn(move || {
                deny_on_this_thread(libc::SYS_perf_event_open, error);
                cpu_stacks(Duration::from_millis(1), || false).unwrap_err().to_string()
            });
            refused.join().unwrap()
        };
        let denied = refused_with(libc::EACCES);
        assert!(denied.contains("CAP_PERFMON") && denied.contains("perf_event_paranoid of 2"), "{denied}");
        let unknown = refused_with(libc::ENOSYS);
        assert!(unknown.contains("CONFIG_PERF_EVENTS"), "{unknown}");
    }

    #[test]
    fn what_a_thread_does_is_named() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("not root: the kernel may forbid it");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (began, has_begun) = mpsc::channel();
        let spinning = thread::Builder::new().name("spinner".into()).spawn(move || {
            began.send(()).unwrap();
            spin_in_a_function_with_a_name(&stopped)
        });
        let spinning = spinning.unwrap();
        // A thread names itself: before that it has its parent's name.
        has_begun.recv().unwrap();
        // It is on a CPU sooner or later, however loaded the machine is.
        let line = loop {
            let profile = cpu_stacks(Duration::from_millis(200), || false).unwrap();
            let folded = String::from_utf8(profile.write(StackFormat::Folded).unwrap()).unwrap();
            let of_it = |line: &&str| line.contains("spin_in_a_function_with_a_name");
            if let Some(line) = folded.lines().find(of_it) {
                break line.to_owned();
            }
        };
        stop.store(true, Relaxed);
        spinning.join().unwrap();
        assert!(line.starts_with("spinner;"), "the thread is the stack's root: {line}");
        assert!(
            line.contains("thread_start") || line.contains("what_a_thread_does_is_named"),
            "callers are there: {line}"
        );
    }

    #[test]
    fn who_has_gone_is_not_worked_for() {
        if rustix::process::geteuid().is_root() {
            let profile = cpu_stacks(Duration::from_secs(3_600), || true).unwrap();
            assert!(profile.took.unwrap() < Duration::from_secs(3_600));
        }
    }
}

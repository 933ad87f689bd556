//! What the threads cost by the scheduler's own count, and memory as the kernel and the allocator have it. Next:
//! [`cpu`](mod@super::cpu), the same by stack.

use schemars::JsonSchema;
use serde::Serialize;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::fs;
use std::io;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// What the threads cost for a time.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CpuProfile {
    /// The process: the worker process of an agent.
    pub pid: u32,
    /// For how long was looked, in seconds.
    pub seconds: f64,
    /// The threads that were there all the time, the dearest first.
    pub threads: Vec<ThreadTimes>,
}

/// What a thread cost.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ThreadTimes {
    /// Its name: `worker-N` are the call path's, `tokio-…` and the program's own name the control path's.
    pub name: String,
    /// Its id.
    pub tid: u32,
    /// How much of a CPU it had.
    pub cpu_percent: f64,
    /// For how long it ran, in milliseconds.
    pub cpu_ms: f64,
    /// For how long it could have run and had no CPU, in milliseconds.
    pub waited_ms: f64,
    /// How often it was put on a CPU.
    pub runs: u64,
}

/// A thread's counts so far, as `/proc/PID/task/TID/schedstat` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    on_cpu_ns: u64,
    waited_ns: u64,
    runs: u64,
}

/// Looks for a time what each thread costs.
///
/// # Errors
/// `/proc` cannot be read.
pub async fn cpu(time: Duration) -> io::Result<CpuProfile> {
    let (began, before) = (Instant::now(), threads()?);
    sleep(time).await;
    let (took, after) = (began.elapsed(), threads()?);
    let mut threads: Vec<_> = after
        .into_iter()
        .filter_map(|(tid, (name, after))| {
            let (_, before) = before.get(&tid)?;
            let on_cpu_ns = after.on_cpu_ns.saturating_sub(before.on_cpu_ns);
            Some(ThreadTimes {
                name,
                tid,
                cpu_percent: on_cpu_ns as f64 * 100.0 / took.as_nanos() as f64,
                cpu_ms: on_cpu_ns as f64 / 1e6,
                waited_ms: after.waited_ns.saturating_sub(before.waited_ns) as f64 / 1e6,
                runs: after.runs.saturating_sub(before.runs),
            })
        })
        .collect();
    threads.sort_by(|one, other| other.cpu_ms.total_cmp(&one.cpu_ms).then(one.tid.cmp(&other.tid)));
    Ok(CpuProfile { pid: std::process::id(), seconds: took.as_secs_f64(), threads })
}

fn threads() -> io::Result<HashMap<u32, (String, Times)>> {
    let mut threads = HashMap::new();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        let read = |file: &str| fs::read_to_string(task.path().join(file));
        // One that has ended meanwhile is not there any more.
        let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else { continue };
        let tid = task.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(tid), Some(times)) = (tid, Times::parse(&times)) {
            threads.insert(tid, (name.trim_end().to_owned(), times));
        }
    }
    Ok(threads)
}

impl Times {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
        Some(Self { on_cpu_ns: numbers.next()??, waited_ns: numbers.next()??, runs: numbers.next()?? })
    }
}

/// What the process holds in memory.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HeapProfile {
    /// The process: the worker process of an agent.
    pub pid: u32,
    /// Memory in RAM, in bytes.
    pub resident_bytes: u64,
    /// The most that there ever was.
    pub resident_peak_bytes: u64,
    /// Of what is in RAM now, what is no file's.
    pub anonymous_bytes: u64,
    /// What the allocator has committed, in bytes.
    pub committed_bytes: u64,
    /// The most that it ever had.
    pub committed_peak_bytes: u64,
    /// Page faults that had to wait for a disk.
    pub major_page_faults: u64,
    /// The allocator's own statistics (mimalloc), line by line.
    pub allocator_statistics: Vec<String>,
}

/// Asks the kernel and the allocator what the process holds.
///
/// # Errors
/// `/proc` cannot be read.
pub fn heap() -> io::Result<HeapProfile> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = |field: &str| {
        let value = |line: &str| {
            line.strip_prefix(field)?.trim_start_matches(':').split_whitespace().next()?.parse().ok()
        };
        status.lines().find_map(value).unwrap_or(0_u64)
    };
    let [mut committed, mut committed_peak, mut faults] = [0_usize; 3];
    let [mut elapsed, mut user, mut system, mut resident, mut resident_peak] = [0_usize; 5];
    // SAFETY: it writes one number to each pointer, all of which are valid for it.
    unsafe {
        libmimalloc_sys::mi_process_info(
            &raw mut elapsed,
            &raw mut user,
            &raw mut system,
            &raw mut resident,
            &raw mut resident_peak,
            &raw mut committed,
            &raw mut committed_peak,
            &raw mut faults,
        );
    }
    Ok(HeapProfile {
        pid: std::process::id(),
        resident_bytes: kib("VmRSS") * 1_024,
        resident_peak_bytes: kib("VmHWM") * 1_024,
        anonymous_bytes: kib("RssAnon") * 1_024,
        committed_bytes: committed as u64,
        committed_peak_bytes: committed_peak as u64,
        major_page_faults: faults as u64,
        allocator_statistics: allocator_statistics(),
    })
}

fn allocator_statistics() -> Vec<String> {
    unsafe extern "C" fn take(message: *const c_char, into: *mut c_void) {
        if message.is_null() {
            return;
        }
        // SAFETY: mimalloc hands over a string that ends with a zero, and the pointer that it was given, to a `Vec<u8>` that
        // nobody else uses until `mi_stats_print_out` is back.
        let (message, into) = unsafe { (CStr::from_ptr(message), &mut *into.cast::<Vec<u8>>()) };
        into.extend_from_slice(message.to_bytes());
    }
    let mut text: Vec<u8> = Vec::new();
    // SAFETY: the callback fits the pointer that goes with it, and is not called later.
    unsafe { libmimalloc_sys::mi_stats_print_out(Some(take), (&raw mut text).cast()) };
    String::from_utf8_lossy(&text).lines().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_works_is_named_with_what_it_costs() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let busy = std::thread::Builder::new()
            .name("busy".into())
            .spawn(move || while matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {})
            .unwrap();
        // It is on a CPU sooner or later, however loaded the machine is.
        let found = loop {
            let profile = cpu(Duration::from_millis(20)).await.unwrap();
            let found = profile.threads.into_iter().find(|thread| thread.name == "busy");
            if let Some(found) = found.filter(|thread| thread.cpu_ms > 0.0) {
                break found;
            }
        };
        drop(stop);
        busy.join().unwrap();
        assert!(found.cpu_percent > 0.0 && found.tid > 0, "{found:?}");
    }

    #[test]
    fn the_process_holds_memory() {
        let heap = heap().unwrap();
        assert!(heap.resident_bytes > 0 && heap.resident_peak_bytes >= heap.anonymous_bytes, "{heap:?}");
    }

    #[test]
    fn the_schedulers_counts_are_read() {
        let times = Times { on_cpu_ns: 12, waited_ns: 3, runs: 4 };
        assert_eq!(
            (Times::parse("12 3 4\n"), Times::parse("12 x 4"), Times::parse("")),
            (Some(times), None, None)
        );
    }
}

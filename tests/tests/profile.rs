//! Profiles by stack of a real agent that carries calls: they name what it does, as much of it as the kernel counts, and pprof reads them.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::agent::Agent;
use evenkeel_tests::evenkeel_cli::run;
use evenkeel_tests::host::{self, privileged};
use evenkeel_tests::wait::{eventually_some, eventually_some_within};
use evenkeel_tests::{Outcome, Shop};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Calls for as long as a test takes, as fast as they go.
const BUSY: [&str; 4] = ["--in-flight", "32", "--rate", "20000"];
/// The agent's samples of a thread that runs all the time, a second.
const SAMPLES_A_SECOND: f64 = 99.0;
/// `USER_HZ`: the same on all that Linux runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// Folded stacks: the frames of each, the outermost first, and its number.
fn folded(text: &str) -> Result<Vec<(Vec<&str>, u64)>> {
    let mut stacks = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        let (stack, number) = line.rsplit_once(' ').with_context(|| format!("a number: {line}"))?;
        stacks.push((stack.split(';').collect(), number.parse().with_context(|| line.to_owned())?));
    }
    Ok(stacks)
}

/// The samples of worker threads' stacks that are so.
fn of_workers(stacks: &[(Vec<&str>, u64)], is_so: &dyn Fn(&[&str]) -> bool) -> u64 {
    let stacks = stacks.iter().filter(|(stack, _)| is_workers(stack) && is_so(stack));
    stacks.map(|(_, samples)| samples).sum()
}

fn is_workers(stack: &[&str]) -> bool {
    stack.first().is_some_and(|thread| thread.starts_with("worker-"))
}

/// For how long the worker threads of the agent have been on a CPU, in seconds, as the kernel counts it.
fn worker_seconds(agent: &Agent) -> Result<f64> {
    let mut ticks = 0;
    for task in fs::read_dir(format!("/proc/{}/task", agent.worker_process()?))? {
        // proc_pid_stat(5): behind the name in brackets, utime and stime are the 12th and 13th.
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        let (name, rest) = stat.rsplit_once(") ").context("a name in brackets")?;
        if name.contains("(worker-") {
            let times = rest.split(' ').skip(11).take(2).map(str::parse::<u64>);
            ticks += times.sum::<Result<u64, _>>()?;
        }
    }
    Ok(ticks as f64 / TICKS_A_SECOND)
}

#[test]
fn cpu_by_stack_names_the_call_path_and_the_kernel_and_is_as_much_as_the_kernel_counts() -> Outcome {
    const SECONDS: f64 = 5.0;
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    let _load = shop.client.load(&shop.v4(), &BUSY)?;
    let resident_before = agent.resident_kib()?;
    let has = |stack: &[&str], word: &str| stack.iter().any(|frame| frame.contains(word));
    let of_engine =
        |frame: &&str| frame.contains("evenkeel::proxy::engine::") || frame.contains("evenkeel::http2::");
    // By chance, of few samples, a kind may be missing.
    let profile = eventually_some(
        "the worker threads' samples are as many as they run, whole, and of all they do",
        || {
            let (began, before) = (Instant::now(), worker_seconds(&agent)?);
            let answer =
                agent.ask("GET", &format!("/profile/cpu?format=folded&seconds={SECONDS}"), &[], "")?;
            ensure!(answer.status == 200, "{answer:?}");
            // The agent was busy as before while it looked for names.
            let counted = (worker_seconds(&agent)? - before) / began.elapsed().as_secs_f64();
            let stacks = folded(&answer.body)?;
            let samples = |is_so: &dyn Fn(&[&str]) -> bool| of_workers(&stacks, is_so);
            let all = samples(&|_| true);
            let sampled = all as f64 / SAMPLES_A_SECOND / SECONDS;
            // Up to the thread's first function.
            let whole = samples(&|stack| has(stack, "::thread_start"));
            let in_engine = samples(&|stack| {
                has(stack, "evenkeel::proxy::worker::Worker::run") && stack.iter().any(of_engine)
            });
            // What the call path has the kernel do.
            let sends =
                samples(&|stack| has(stack, "evenkeel::proxy::worker::") && has(stack, "tcp_sendmsg_[k]"));
            eprintln!(
                "of a CPU the kernel counts {counted:.3}, samples say {sampled:.3}; of {all} {whole} are whole, {in_engine} of the engine, {sends} send"
            );
            let is_as_much = all > 20 && sampled > counted / 1.5 && sampled < counted * 1.5;
            let is_all = whole * 10 >= all * 9 && in_engine > 0 && sends > 0;
            Ok((is_as_much && is_all).then_some(answer.body))
        },
    )?;
    eprintln!("in RAM: {resident_before} KiB before, {} KiB behind it", agent.resident_kib()?);
    ensure!(agent.resident_kib()? < resident_before + 32 * 1_024, "names are not kept");

    let stacks = folded(&profile)?;
    // The kernel's functions are the inner ones.
    let is_kernels = |frame: &&str| frame.ends_with("_[k]");
    let mixed = stacks.iter().filter(|(stack, _)| is_workers(stack)).find(|(stack, _)| {
        let mut inner = stack.iter().skip_while(|frame| !is_kernels(frame));
        inner.any(|frame| !is_kernels(frame))
    });
    ensure!(mixed.is_none(), "{mixed:?}");
    Ok(())
}

#[test]
fn pprof_reads_what_the_command_line_writes() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    let _load = shop.client.load(&shop.v4(), &BUSY)?;
    let folder = tempfile::tempdir()?;
    let evenkeel = |arguments: &[&str]| run(&shop.cluster.node, arguments)?.clean();
    let pprof = |arguments: &[&str]| host::run("go", &[&["tool", "pprof"], arguments].concat(), "");

    let cpu = folder.path().join("cpu.pb.gz");
    let cpu = cpu.to_str().context("a path of text")?;
    let top = eventually_some("there is enough to see the call path in", || {
        let said = evenkeel(&["profile", "cpu", "--seconds", "2", "-o", cpu])?;
        ensure!(said.contains("go tool pprof -http=: ") && said.contains(cpu), "{said}");
        let top = pprof(&["-top", "-cum", "-nodecount=2000", cpu])?;
        ensure!(top.contains("Type: samples"), "{top}");
        Ok((top.contains("tcp_sendmsg") && top.contains("evenkeel::proxy::")).then_some(top))
    })?;
    // It is told as it was, on a busy machine longer than it was asked for.
    let took = top.split("Duration: ").nth(1).and_then(|rest| rest.split('s').next()?.parse::<f64>().ok());
    ensure!(took.is_some_and(|seconds| seconds >= 2.0), "{took:?}: {top}");
    let by_time = pprof(&["-top", "-sample_index=cpu", cpu])?;
    ensure!(by_time.contains("Type: cpu") && by_time.contains("ms"), "{by_time}");
    let tags = pprof(&["-tags", cpu])?;
    ensure!(tags.contains("thread") && tags.contains("worker-"), "{tags}");
    let raw = pprof(&["-raw", cpu])?;
    let mapping = raw.lines().find(|line| line.contains("/evenkeel") && line.contains("[FN]"));
    ensure!(mapping.is_some(), "the program with its functions: {raw}");

    let heap = folder.path().join("heap.pb.gz");
    let heap = heap.to_str().context("a path of text")?;
    evenkeel(&["profile", "heap", "-o", heap])?;
    for (index, unit) in
        [("inuse_space", "B"), ("alloc_space", "B"), ("inuse_objects", ""), ("alloc_objects", "")]
    {
        let top = pprof(&["-top", "-nodecount=2000", &format!("-sample_index={index}"), heap])?;
        ensure!(top.contains(&format!("Type: {index}")) && top.contains(&format!("{unit} total")), "{top}");
        // Who asks, and not the allocator that is asked.
        ensure!(top.contains("evenkeel::") && !top.contains("evenkeel::allocator::"), "{top}");
    }
    let lines = evenkeel(&["profile", "heap"])?;
    ensure!(!folded(&lines)?.is_empty(), "{lines}");
    let wrong = run(&shop.cluster.node, &["profile", "heap", "--seconds", "2"])?;
    ensure!(!wrong.success && wrong.stderr.contains("--seconds is for cpu"), "{wrong:?}");
    drop(agent);
    Ok(())
}

#[test]
fn one_profile_is_taken_at_a_time_and_none_for_who_has_gone() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(1)?;
    let agent = Agent::start(&shop.cluster)?;
    let asked_for_a_minute = || -> Result<TcpStream> {
        let [mut asking, ..] = agent.silent_connections()?;
        write!(asking, "GET /profile/cpu?format=folded&seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        asking.set_nonblocking(true)?;
        Ok(asking)
    };
    let mut patient = asked_for_a_minute()?;
    let is_taken = || agent.ask("GET", "/profile/heap?format=folded", &[], "");
    let refused = eventually_some("the first is at it", || {
        let answer = is_taken()?;
        // The turn may have been this one's when the first asked for it: then that one is refused, and asks again.
        if answer.status == 200 && patient.peek(&mut [0]).is_ok() {
            patient = asked_for_a_minute()?;
        }
        Ok((answer.status == 409).then_some(answer))
    })?;
    ensure!(refused.body.contains("another profile by stack is being taken"), "{refused:?}");
    ensure!(agent.ask("GET", "/profile/cpu?format=pprof&seconds=1", &[], "")?.status == 409);
    // Sums are there all the same.
    ensure!(agent.admin("/profile/heap")?["resident_bytes"].as_u64() > Some(0));
    drop(patient);
    // It would have gone on for a minute.
    eventually_some_within(Duration::from_secs(45), "its turn ends with who waited", || {
        Ok((is_taken()?.status == 200).then_some(()))
    })?;
    Ok(())
}

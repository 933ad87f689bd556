//! Parts of the agent die or hang: the pods' calls go on.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::host::{privileged, show};
use evenkeel_tests::process::{signal_to, threads};
use evenkeel_tests::{Agent, Load, Outcome, Shop, eventually};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long new connections may still be sent to an agent that no longer beats: the heartbeat's limit of 1 s and a tick, and what a busy
/// test machine takes to run them.
const STRAIGHT_WITHIN: Duration = Duration::from_secs(30);

/// Waits until fresh connections of the client go straight, and says how long that took.
fn until_straight(shop: &Shop) -> Result<Duration> {
    let start = Instant::now();
    eventually("fresh connections go straight", || goes_straight(shop).unwrap_or(false))?;
    let took = start.elapsed();
    show(&format!("fresh connections went straight after {took:.1?}"));
    Ok(took)
}

/// Opens a connection in the pod (which an agent that hangs accepts, too: the kernel does) and looks where it went.
fn goes_straight(shop: &Shop) -> Result<bool> {
    let load = shop.client.load(&shop.v4(), &["--rate", "20"])?;
    eventually("the client connects", || {
        load.process.stdout().iter().any(|line| line.starts_with("connected"))
    })?;
    shop.client.goes_straight_to(&shop.v4())
}

fn running(shop: &Shop) -> Result<Load> {
    let mut load = shop.client.load(&shop.v4(), &[])?;
    load.more_calls(30)?.is_clean()?;
    ensure!(!shop.client.goes_straight_to(&shop.v4())?, "taken at first");
    Ok(load)
}

#[test]
fn after_a_kill_of_the_worker_process_redials_wait_and_are_taken_again() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(3)?;
    let mut agent = Agent::start(&shop.cluster)?;
    let mut load = running(&shop)?;
    for _ in 0..3 {
        agent.kill_worker_process()?;
        let now = load.tally()?;
        load.until("all servers answer again", &now, |tally| tally.calls.len() == 3)?;
        load.more_calls(150)?.is_even(&shop.names(), 0.1)?;
        ensure!(!shop.client.goes_straight_to(&shop.v4())?, "redials are taken again");
    }
    Ok(())
}

#[test]
fn after_a_kill_of_the_whole_agent_calls_go_on_straight() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(3)?;
    let mut agent = Agent::start(&shop.cluster)?;
    let mut load = running(&shop)?;
    let worker = agent.worker_process()?;
    agent.process.kill()?;
    // The worker process ends what it carries, and the client dials again.
    eventually("calls go on straight", || {
        let tally = load.more_calls(30);
        tally.is_ok_and(|tally| tally.calls.len() == 1 && tally.failed() == 0)
    })?;
    ensure!(shop.client.goes_straight_to(&shop.v4())?, "{:?}", shop.client.established_to()?);
    eventually("the worker process ends with its keeper", || threads(worker).is_empty())?;
    // And a new agent takes fresh connections again.
    let _agent = Agent::start(&shop.cluster)?;
    ensure!(shop.spreads_calls_of(&shop.client)?);
    Ok(())
}

#[test]
fn while_the_worker_process_hangs_new_connections_go_straight() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    ensure!(shop.spreads_calls_of(&shop.client)?);
    let worker = agent.worker_process()?;
    signal_to(worker, libc::SIGSTOP);
    let took = until_straight(&shop)?;
    ensure!(took < STRAIGHT_WITHIN, "took {took:?}");
    signal_to(worker, libc::SIGCONT);
    eventually("it is taken again", || shop.spreads_calls_of(&shop.client).is_ok_and(|spread| spread))
}

#[test]
fn while_the_keeper_hangs_new_connections_go_straight() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    ensure!(shop.spreads_calls_of(&shop.client)?);
    agent.process.signal(libc::SIGSTOP);
    let took = until_straight(&shop)?;
    ensure!(took < STRAIGHT_WITHIN, "took {took:?}");
    agent.process.signal(libc::SIGCONT);
    eventually("it is taken again", || shop.spreads_calls_of(&shop.client).is_ok_and(|spread| spread))
}

#[test]
fn while_one_worker_thread_hangs_new_connections_go_straight() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    ensure!(shop.spreads_calls_of(&shop.client)?);
    let hung = HungThread::of(agent.worker_process()?, WORKER_THREAD)?;
    let took = until_straight(&shop)?;
    ensure!(took < STRAIGHT_WITHIN, "took {took:?}");
    drop(hung);
    eventually("it is taken again", || shop.spreads_calls_of(&shop.client).is_ok_and(|spread| spread))
}

#[test]
fn while_one_worker_thread_hangs_pods_are_withdrawn_all_the_same() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(3)?;
    let agent = Agent::start(&shop.cluster)?;
    ensure!(shop.spreads_calls_of(&shop.client)?);
    let hung = HungThread::of(agent.worker_process()?, WORKER_THREAD)?;
    // A change that all threads are to know first.
    shop.publish_servers(&[0, 1])?;
    shop.cluster.enrol_namespace(false);
    shop.cluster.publish()?;
    eventually("no pod is enrolled", || {
        let pods = agent.admin("/pods").ok();
        pods.and_then(|pods| Some(pods.as_array()?.iter().all(|pod| pod["enrolled"] != true)))
            .unwrap_or(false)
    })?;
    drop(hung);
    shop.cluster.enrol_namespace(true);
    shop.cluster.publish()?;
    eventually("it is taken again", || shop.spreads_calls_of(&shop.client).is_ok_and(|spread| spread))
}

#[test]
fn connections_opened_while_the_agent_is_killed_all_succeed_but_for_those_in_hand() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let mut agent = Agent::start(&shop.cluster)?;
    let mut loads = Vec::new();
    for _ in 0..4 {
        loads.push(shop.client.load(&shop.v4(), &["--connections", "8"])?);
    }
    for load in &mut loads {
        load.more_calls(20)?.is_clean()?;
    }
    agent.process.kill()?;
    for load in &mut loads {
        let now = load.tally()?;
        load.until("calls go on", &now, |tally| tally.completed() >= 100)?;
        let settled = load.more_calls(100)?;
        settled.is_clean()?;
    }
    Ok(())
}

/// How the data path's threads are called, up to a number.
const WORKER_THREAD: &str = "worker";

/// A thread of another process that does not run on until this is dropped. SIGSTOP stops all threads of a process, so it is traced.
struct HungThread {
    release: mpsc::Sender<()>,
    tracer: Option<std::thread::JoinHandle<()>>,
}

impl HungThread {
    fn of(process: i32, name: &str) -> Result<Self> {
        let named = |thread: &i32| {
            std::fs::read_to_string(format!("/proc/{process}/task/{thread}/comm"))
                .is_ok_and(|comm| comm.starts_with(name))
        };
        let thread = threads(process)
            .into_iter()
            .find(named)
            .with_context(|| format!("process {process} has no thread {name}"))?;
        let (release, released) = mpsc::channel::<()>();
        let (report, stopped) = mpsc::channel();
        // Only the thread that attached may detach.
        let tracer = std::thread::spawn(move || {
            let _ = report.send(hold(thread));
            let _ = released.recv();
            // SAFETY: no memory is involved; detaching lets the thread run on.
            unsafe { libc::ptrace(libc::PTRACE_DETACH, thread, 0, 0) };
        });
        stopped.recv()??;
        Ok(Self { release, tracer: Some(tracer) })
    }
}

fn hold(thread: i32) -> Result<()> {
    // SAFETY: no memory is involved.
    if unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error()).context("PTRACE_SEIZE");
    }
    // SAFETY: as above.
    if unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error()).context("PTRACE_INTERRUPT");
    }
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    if unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) } != thread {
        return Err(std::io::Error::last_os_error()).context("waitpid");
    }
    Ok(())
}

impl Drop for HungThread {
    fn drop(&mut self) {
        let _ = self.release.send(());
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}

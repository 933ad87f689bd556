//! Every figure that the agent gives of calls, beside what their clients and servers say of each single one, over a run in which calls are
//! cancelled, sent again, refused, late and lost, while servers fail attempts, send their clients away, drain, go and are killed; and then
//! the same of the worker process that comes after one that was killed.
//!
//! Clients say how each call ended, servers say of each attempt that they have begun (before anything becomes of it, so that a server that is
//! killed has said it, too), and the trace id of a call is its name everywhere: [`life`] puts together what all of them tell of it, and checks call
//! by call; [`ledger`] then holds the agent's sums against the lives.
//!
//! What is exact: that each call that its client did not give up is told once, with its client's status, and each other one once or (cancelled before
//! it left) not at all; all sums of the agent's among each other; the attempts that each server has begun, but for attempts that ended otherwise than with an
//! answer. Of those (lost with a killed server, cancelled, late) nobody but the server's kernel knows whether the server would have begun them: each may have
//! been begun once, and that is all that is said.

mod ledger;
mod life;
mod stage;

use anyhow::{Result, ensure};
use evenkeel_tests::host::{privileged, show};
use evenkeel_tests::{Outcome, Tally, eventually};
use ledger::Ledger;
use life::Lives;
use stage::{Client, DRAINS, FAILS, IS_KILLED, Stage};

/// Calls on which a step of the run waits.
const SOME: u64 = 60;
const TO_NOBODY: u64 = 10;
const LATE: u64 = 20;

/// Unary and streaming calls, of which some are cancelled, held so long that some are under way at each server at each moment.
const MIXED: &[&str] = &[
    "--kind",
    "mixed",
    "--rate",
    "120",
    "--in-flight",
    "48",
    "--hold-milliseconds",
    "100",
    "--cancel-every",
    "9",
    "--payload-bytes",
    "300",
    "--reply-bytes",
    "500",
    "--connections",
    "3",
];
const UNARY: &[&str] =
    &["--rate", "80", "--in-flight", "32", "--hold-milliseconds", "100", "--connections", "2"];

/// What clients have counted.
#[derive(Default)]
struct Counted {
    tallies: Vec<Tally>,
}

impl Counted {
    fn take(&mut self, tally: Tally) -> Tally {
        self.tallies.push(tally.clone());
        tally
    }

    fn connections(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.connections).sum()
    }
}

/// Everything that can become of calls, while they go on.
fn run_mixed(stage: &mut Stage) -> Result<Counted> {
    let mut counted = Counted::default();
    let (plain, again) = (stage.plain.v4(), stage.again.v4());
    let mut clients = [stage.client(&plain, MIXED)?, stage.client(&again, UNARY)?];
    more(&mut clients)?;

    // One drains: no call is to go to it any more by one Service, while by the other it says so by itself.
    stage.publish("plain", &[0, FAILS, IS_KILLED])?;
    stage.stop(DRAINS)?;
    more(&mut clients)?;
    stage.serve(DRAINS)?;
    stage.publish("plain", &[0, FAILS, DRAINS, IS_KILLED])?;
    until_it_answers(&mut clients, "server-3")?;

    // One is killed while it has calls of both.
    let killed = stage.address(IS_KILLED);
    let active = |service: &str| stage.active(service, &killed).unwrap_or(0);
    eventually("calls of both Services are with it", || {
        active("shop/plain:50051") >= 2 && active("shop/again:50051") >= 2
    })?;
    stage.kill(IS_KILLED)?;
    more(&mut clients)?;
    stage.serve(IS_KILLED)?;
    until_it_answers(&mut clients, "server-4")?;

    let narrow = stage.narrow.v4();
    let options = ["--rate", "300", "--in-flight", "12", "--hold-milliseconds", "30"];
    let mut client = stage.client(&narrow, &options)?;
    let now = client.load.tally()?;
    client.load.until("the circuit was open, and not for all", &now, |tally| {
        tally.failed() >= SOME && tally.completed() >= SOME
    })?;
    counted.take(stage.stop_client(client)?);

    let nobody = stage.nobody.v4();
    let nobody = counted.take(stage.call(&nobody, TO_NOBODY, &[])?);
    ensure!(nobody.failed() == TO_NOBODY, "{nobody:?}");
    let late = ["--header", "grpc-timeout=60m", "--hold-milliseconds", "60000"];
    let late = counted.take(stage.call(&plain, LATE, &late)?);
    ensure!(late.failed() == LATE, "{late:?}");

    let [plain, again] = clients;
    let plain = counted.take(stage.stop_client(plain)?);
    // Those that it fails by itself, and those that were lost.
    ensure!(plain.errors.keys().any(|error| error.ends_with("not yet")), "{plain:?}");
    ensure!(plain.errors.keys().any(|error| !error.ends_with("not yet")), "none was lost: {plain:?}");
    ensure!(plain.cancelled > 0, "{plain:?}");
    let again = counted.take(stage.stop_client(again)?);
    ensure!(again.completed() > 5 * again.failed(), "retries are of no use: {again:?}");
    show(&format!("{} calls of mixed load: {plain:?}, {again:?}", plain.completed() + again.completed()));
    Ok(counted)
}

fn more(clients: &mut [Client]) -> Outcome {
    clients.iter_mut().try_for_each(|Client { load, .. }| load.more_calls(SOME).map(drop))
}

fn until_it_answers(clients: &mut [Client], name: &str) -> Outcome {
    for Client { load, .. } in clients {
        let now = load.tally()?;
        load.until(&format!("{name} answers again"), &now, |tally| tally.calls.contains_key(name))?;
    }
    Ok(())
}

#[test]
fn every_figure_is_what_clients_and_servers_count_over_a_mixed_run() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut stage = Stage::new()?;
    let counted = run_mixed(&mut stage)?;
    let ledger = Ledger::settled(&stage)?;
    let lives = Lives::of(&stage, ledger.process)?;
    // All of them: no call is left out because nobody but its client tells of it.
    lives.are_all_of(stage.seen())?;
    lives.check()?;
    ledger.check(&lives)?;
    ledger.has_met_everything()?;
    ensure!(ledger.taken() == counted.connections(), "{} were taken", ledger.taken());
    ledger.check_connections(counted.connections())
}

#[test]
fn the_worker_process_after_one_that_was_killed_counts_what_there_is_from_then_on() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut stage = Stage::new()?;
    let (plain, options) = (stage.plain.v4(), [UNARY, &["--connections", "1"]].concat());
    let mut client = stage.client(&plain, &options)?;
    client.load.more_calls(SOME)?;
    let first = stage.process_start()?;
    let before = client.load.tally()?;
    stage.agent.kill_worker_process()?;
    client.load.more_calls(SOME)?;
    let tally = stage.stop_client(client)?;
    let second = stage.process_start()?;
    ensure!(second > first, "whoever reads counters cannot see that they began anew: {first}, {second}");

    // Its counts are those of calls that it carried, each told once. Which of those that ended about the time of the kill it was is not known to the
    // client; not one that had ended before.
    let ledger = Ledger::settled(&stage)?;
    let lives = Lives::of(&stage, ledger.process)?;
    lives.check()?;
    ledger.check(&lives)?;
    let since = tally.since(&before);
    let ended = since.completed() + since.failed();
    // On a machine with much else to do, the client may have dialled again when the keeper no longer trusted that a worker would come.
    let straight = tally.connections - ledger.taken();
    let least = if straight == 0 { SOME } else { 0 };
    ensure!((least..=ended).contains(&ledger.calls()), "{} calls of {ended}: {since:?}", ledger.calls());

    // And whatever can become of calls from now on.
    let before = stage.seen().clone();
    let counted = run_mixed(&mut stage)?;
    let ledger = Ledger::settled(&stage)?;
    let lives = Lives::of(&stage, ledger.process)?;
    let seen = stage.seen().iter().filter(|(call, _)| !before.contains_key(*call));
    lives.are_all_of(&seen.map(|(call, end)| (call.clone(), end.clone())).collect())?;
    lives.check()?;
    ledger.check(&lives)?;
    ledger.has_met_everything()?;
    ledger.check_connections(counted.connections() + since.connections - straight)
}

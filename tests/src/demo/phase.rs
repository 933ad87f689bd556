//! What is done in each phase, and where the calls must go then.

use super::stage::{RATE, Stage};
use crate::Tally;
use anyhow::{Result, ensure};
use std::time::Duration;

/// How long a change may take to show: generous, for a machine that builds at the same time.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Calls over which it is judged whether they go as they should by now.
pub(super) const WINDOW_CALLS: u64 = 100;
/// Distance from a server's share that a window may have.
pub(super) const WINDOW_TOLERANCE: f64 = 0.15;
/// Calls, or more, that are counted once they do: for shares that are to be even, and for the servers of which each is to answer.
pub(super) const STEADY_CALLS: u64 = 1500;
/// See [`STEADY_CALLS`].
pub(super) const STEADY_CALLS_OF_A_SET: u64 = 400;
/// Distance from a server's share that these may have.
pub(super) const TOLERANCE: f64 = 0.10;

/// One act of the demo.
pub(super) struct Phase<S> {
    pub(super) title: &'static str,
    pub(super) change: fn(&mut S) -> Result<()>,
    pub(super) expected: fn(&S) -> Expected,
    /// A change after which the calls do not go as they should within so long has failed.
    pub(super) limit: Duration,
    /// How many calls may fail until they do.
    pub(super) may_fail: u64,
    /// How many calls are counted once they do, at least.
    pub(super) steady_calls: u64,
}

/// How many of so many calls a second may fail when what carries them is killed, or their connection ended: those in flight, of which the
/// client has no more. A call takes a millisecond or two, and up to a fifth of a second on a machine that builds at the same time.
pub(super) const fn in_flight_max(rate: u64) -> u64 {
    rate / 5
}

/// The acts without a cluster, in order.
pub(super) const PHASES: &[Phase<Stage>] = &[
    lossless("without Evenkeel", |_| Ok(()), |_| Expected::OneServer),
    // A connection that never rests is ended all the same, so that its client dials again.
    lossy("Evenkeel starts, the namespace is labelled", Stage::enrol, Stage::all_servers),
    lossless("a fourth server joins", Stage::add_server, Stage::all_servers),
    lossy("one server is killed (-9)", Stage::kill_server, Stage::all_servers),
    lossy("Evenkeel's worker process is killed (-9)", Stage::kill_worker_process, Stage::all_servers),
    lossy("all of Evenkeel is killed (-9)", Stage::kill_agent, |_| Expected::OneServer),
];

const fn lossless(
    title: &'static str,
    change: fn(&mut Stage) -> Result<()>,
    expected: fn(&Stage) -> Expected,
) -> Phase<Stage> {
    Phase { title, change, expected, limit: SETTLE_LIMIT, may_fail: 0, steady_calls: STEADY_CALLS }
}

const fn lossy(
    title: &'static str,
    change: fn(&mut Stage) -> Result<()>,
    expected: fn(&Stage) -> Expected,
) -> Phase<Stage> {
    Phase { may_fail: in_flight_max(RATE), ..lossless(title, change, expected) }
}

/// Where calls must go.
pub(super) enum Expected {
    /// All to one, whichever: the connection decides.
    OneServer,
    /// To each of these its share.
    Even(Vec<String>),
    /// To each of these, from that address; to those that answer sooner, more: on nodes that share this machine, none is equal for long.
    Spread { servers: Vec<String>, seen_as: String },
}

impl Expected {
    /// Whether the calls went so, and none failed.
    pub(super) fn is_met(&self, tally: &Tally, tolerance: f64) -> Result<()> {
        tally.is_clean()?;
        match self {
            Self::OneServer => {
                ensure!(
                    tally.calls.len() == 1,
                    "the calls of one connection went to several servers: {tally:?}"
                );
                Ok(())
            }
            Self::Even(servers) => {
                tally.is_even(&servers.iter().map(String::as_str).collect::<Vec<_>>(), tolerance)
            }
            Self::Spread { servers, seen_as } => {
                ensure!(
                    tally.calls.keys().eq(servers.iter()),
                    "calls went to {:?}, not to {servers:?}",
                    tally.calls.keys()
                );
                ensure!(tally.seen_as.keys().eq([seen_as]), "servers saw {:?}, not {seen_as}", tally.seen_as);
                Ok(())
            }
        }
    }
}

/// What a phase came to.
#[derive(Default)]
pub(super) struct Verdict {
    pub(super) title: &'static str,
    /// Counted from the change until the calls went as they should.
    pub(super) change: Tally,
    /// Counted after that.
    pub(super) steady: Tally,
    pub(super) settled_after: Duration,
    pub(super) failure: Option<String>,
}

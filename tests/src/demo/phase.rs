//! What is done in each phase, and where the calls must go then.

use super::stage::Stage;
use crate::Tally;
use anyhow::{Result, ensure};
use std::time::Duration;

/// A change after which the calls do not go as they should within so long has failed.
pub(super) const SETTLE_LIMIT: Duration = Duration::from_secs(15);
/// Calls over which it is judged whether they go as they should by now.
pub(super) const WINDOW_CALLS: u64 = 100;
/// Distance from a server's share that a window may have.
pub(super) const WINDOW_TOLERANCE: f64 = 0.15;
/// Calls that are counted once they do.
pub(super) const STEADY_CALLS: u64 = 1500;
/// Distance from a server's share that these may have.
pub(super) const TOLERANCE: f64 = 0.10;

/// One act of the demo.
pub(super) struct Phase {
    pub(super) title: &'static str,
    pub(super) change: fn(&mut Stage) -> Result<()>,
    pub(super) expected: fn(&Stage) -> Expected,
}

/// The acts, in order.
pub(super) const PHASES: &[Phase] = &[
    Phase { title: "without Evenkeel", change: |_| Ok(()), expected: |_| Expected::OneServer },
    Phase {
        title: "Evenkeel starts, the namespace is labelled",
        change: Stage::enrol,
        expected: Stage::all_servers,
    },
    Phase { title: "a fourth server joins", change: Stage::add_server, expected: Stage::all_servers },
    Phase { title: "one server is killed (-9)", change: Stage::kill_server, expected: Stage::all_servers },
    Phase {
        title: "Evenkeel's worker process is killed (-9)",
        change: Stage::kill_worker_process,
        expected: Stage::all_servers,
    },
    Phase {
        title: "all of Evenkeel is killed (-9)",
        change: Stage::kill_agent,
        expected: |_| Expected::OneServer,
    },
];

/// Where calls must go.
pub(super) enum Expected {
    /// All to one, whichever: the connection decides.
    OneServer,
    /// To each of these its share.
    Even(Vec<String>),
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

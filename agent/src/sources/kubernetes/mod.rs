//! A cluster's API, and what the fields of its objects mean.
//!
//! `access` reaches the API server, [`kinds`] says what is asked of it, `watch` follows one kind through whatever happens
//! (`split` and `wire` take its answers apart, `backoff` says when to try again), `store` puts all kinds together, and
//! [`KubernetesSource`] hands out what comes of it. [`objects`] turns an object into its row; [`labels`] names what is read
//! of its metadata, [`write_back`] is what the agent writes.

mod access;
#[cfg(test)]
mod fake_server;
mod fault;
pub mod kinds;
pub mod labels;
pub mod objects;
pub mod permissions;
mod split;
mod standing;
mod store;
mod version;
mod watch;
mod wire;
pub mod write_back;

pub use access::Access;
pub(crate) use access::{chain, client_of, names_a_proxy};
pub use fault::Fault;
pub use standing::{KindView, State};

use self::kinds::KINDS;
use self::standing::Standing;
use self::store::Store;
use self::watch::{Report, Watch};
use super::journal::{Journal, Restored};
use super::{Change, Problems};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// How soon after a batch the next may follow: a change that comes alone goes at once, and of those that come in a rush not
/// each makes a snapshot.
const BATCH_EVERY: Duration = Duration::from_millis(10);

/// How many words of the watches may wait: a list comes faster than it is put away.
const WAITING_REPORTS: usize = 64;

/// After how long what does not get on is said again; doubled each time.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The longest time after which it is said again.
const SAY_AGAIN_AT_MOST: Duration = Duration::from_secs(3600);

/// The objects of a cluster, watched.
#[derive(Debug)]
pub struct KubernetesSource {
    batches: mpsc::Receiver<Vec<Change>>,
    problems: Problems,
    standings: Vec<Standing>,
    // The watches, and where they come together: none ends but with this.
    tasks: JoinSet<()>,
}

/// What watches the API server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what watches the API server has ended")
    }
}

impl std::error::Error for Ended {}

impl KubernetesSource {
    /// Begins to watch what concerns this node. `before` is what was known last; the first batch, if no rows were, is
    /// everything there is. Each change is written down in the journal before it is handed out. `netns_annotation`: a pod
    /// may say where its network namespace is ([`labels::NETNS`]).
    pub fn open(
        access: &Access,
        node: &str,
        netns_annotation: bool,
        before: &Restored,
        journal: Journal,
    ) -> Self {
        let (reports, received) = mpsc::channel(WAITING_REPORTS);
        let node: Arc<str> = node.into();
        let stamps = before.stamps.iter().copied().chain(std::iter::repeat(0));
        let standings: Vec<Standing> =
            KINDS.iter().zip(stamps).map(|(_, contact_ns)| Standing::new(contact_ns)).collect();
        let heard = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        for (place, (kind, standing)) in KINDS.iter().zip(&standings).enumerate() {
            let (node, access) = (node.clone(), access.clone());
            let (reports, standing) = (reports.clone(), standing.clone());
            tasks.spawn(Watch::new(place, kind, node, access, reports, standing, heard.clone()).run());
        }
        // One batch waits at most: what changes while it does goes into the next.
        let (sender, batches) = mpsc::channel(1);
        let problems = Problems::default();
        let hub = Hub {
            store: Store::new(&before.rows, netns_annotation),
            received,
            batches: sender,
            problems: problems.clone(),
            standings: standings.clone(),
            journal,
        };
        tasks.spawn(hub.run());
        Self { batches, problems, standings, tasks }
    }

    /// Waits for the next batch. Cancel-safe.
    ///
    /// # Errors
    /// A part of it has ended, by a panic, and what is known would never change again: a process that starts anew goes on with what
    /// the journal has.
    pub async fn next(&mut self) -> Result<Vec<Change>, Ended> {
        tokio::select! {
            Some(changes) = self.batches.recv() => Ok(changes),
            _ = self.tasks.join_next() => Err(Ended),
        }
    }

    /// What is wrong now, always up to date.
    pub fn problems(&self) -> Problems {
        self.problems.clone()
    }

    /// How each kind stands.
    pub fn kinds(&self) -> Vec<KindView> {
        KINDS.iter().zip(&self.standings).map(|(kind, standing)| standing.view(kind.resource)).collect()
    }
}

/// How often it is written down when something came last: it is shown in seconds.
const STAMP_EVERY: Duration = Duration::from_secs(1);

/// A worker that has lived so long has not died of what it knows.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// Where what the watches say comes together.
struct Hub {
    store: Store,
    received: mpsc::Receiver<(usize, Vec<Report>)>,
    batches: mpsc::Sender<Vec<Change>>,
    problems: Problems,
    standings: Vec<Standing>,
    journal: Journal,
}

impl Hub {
    async fn run(mut self) {
        let mut next_batch = Instant::now();
        let (mut say_again, mut patience) = (None::<Instant>, SAY_AGAIN_AFTER);
        let mut well_at = Some(Instant::now() + WELL_AFTER);
        let mut stamp = interval(STAMP_EVERY);
        stamp.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_batch = self.store.has_batch();
            tokio::select! {
                // What has come already goes into the batch.
                biased;
                received = self.received.recv() => {
                    let Some((place, reports)) = received else { return };
                    for report in reports {
                        self.store.take(place, report);
                    }
                    self.standings[place].counts(self.store.objects(place));
                    if let Some(problems) = self.store.changed_problems() {
                        self.problems.replace(problems);
                        match self.store.faults().is_empty() {
                            true => (say_again, patience) = (None, SAY_AGAIN_AFTER),
                            false => say_again = say_again.or(Some(Instant::now() + patience)),
                        }
                    }
                }
                permit = ready_for_batch(&self.batches, next_batch), if has_batch => {
                    let Ok(permit) = permit else { return };
                    let batch = self.store.take_batch();
                    self.journal.write(&batch, || self.store.rows());
                    permit.send(batch);
                    next_batch = Instant::now() + BATCH_EVERY;
                }
                _ = stamp.tick() => self.journal.stamp(self.standings.iter().map(Standing::contact_ns)),
                () = sleep_until(well_at.unwrap_or_else(Instant::now)), if well_at.is_some() => {
                    self.journal.well();
                    well_at = None;
                }
                () = sleep_until(say_again.unwrap_or_else(Instant::now)), if say_again.is_some() => {
                    for fault in self.store.faults() {
                        tracing::warn!("still: {fault}");
                    }
                    patience = (2 * patience).min(SAY_AGAIN_AT_MOST);
                    say_again = Some(Instant::now() + patience);
                }
            }
        }
    }
}

async fn ready_for_batch(
    batches: &mpsc::Sender<Vec<Change>>,
    not_before: Instant,
) -> Result<mpsc::Permit<'_, Vec<Change>>, mpsc::error::SendError<()>> {
    sleep_until(not_before).await;
    batches.reserve().await
}

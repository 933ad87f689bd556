//! A shop whose agent is scraped by a Prometheus, and a run of calls of every kind that two scrapes enclose.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::consumers::{Instant, Prometheus};
use evenkeel_tests::wait::eventually_answered;
use evenkeel_tests::{Agent, Pod, Shop, Tally, deploy, eventually};

/// Of each kind of call; there are four.
const OF_EACH_KIND: u64 = 50;
const FAILED: u64 = 60;
const OF_CANCELS: u64 = 60;
/// FAILED_PRECONDITION, which neither the agent nor the client gives by itself.
pub(crate) const FAILED_STATUS: &str = "9";
const REQUEST_BYTES: u64 = 700;
const REPLY_BYTES: u64 = 3_000;
/// Around a payload: a message's prefix and a few fields.
pub(crate) const ENVELOPE_BYTES: u64 = 100;
/// Requests, or replies, of a call of each of the four kinds together, with streams of five messages.
const MESSAGES_OF_ALL_KINDS: u64 = 1 + 5 + 1 + 5;

/// What the clients counted of a run.
#[derive(Debug)]
pub(crate) struct Run {
    answered: Tally,
    cancelled: Tally,
}

impl Run {
    fn of(client: &Pod, to: &str) -> Result<Self> {
        let sizes = [REQUEST_BYTES, REPLY_BYTES].map(|bytes| bytes.to_string());
        let mixed = ["--kind", "mixed", "--payload-bytes", &sizes[0], "--reply-bytes", &sizes[1]];
        let answered = client.call(to, 4 * OF_EACH_KIND, &mixed)?;
        answered.is_clean()?;
        let failed = client.call(to, FAILED, &["--fail-with", FAILED_STATUS])?;
        ensure!(failed.failed() == FAILED, "{failed:?}");
        let cancelled = client.call(to, OF_CANCELS, &["--cancel-every", "2"])?;
        ensure!(cancelled.failed() == 0 && cancelled.cancelled == OF_CANCELS / 2, "{cancelled:?}");
        Ok(Self { answered, cancelled })
    }

    /// Calls that servers answered with OK.
    pub(crate) fn ok(&self) -> u64 {
        self.answered.completed() + self.cancelled.completed()
    }

    /// Calls that servers answered with [`FAILED_STATUS`].
    pub(crate) fn failed(&self) -> u64 {
        FAILED
    }

    /// Calls that servers answered.
    pub(crate) fn answered(&self) -> u64 {
        self.ok() + self.failed()
    }

    /// Calls that the client cancelled. Some of them never left it.
    pub(crate) fn cancelled(&self) -> u64 {
        self.cancelled.cancelled
    }

    /// Requests' messages of the calls that were answered.
    pub(crate) fn requests(&self) -> u64 {
        OF_EACH_KIND * MESSAGES_OF_ALL_KINDS + self.cancelled.completed() + FAILED
    }

    /// Replies' messages.
    pub(crate) fn replies(&self) -> u64 {
        OF_EACH_KIND * MESSAGES_OF_ALL_KINDS + self.cancelled.completed()
    }

    /// Payloads of requests, in bytes.
    pub(crate) fn request_bytes(&self) -> u64 {
        OF_EACH_KIND * MESSAGES_OF_ALL_KINDS * REQUEST_BYTES
    }

    /// Payloads of replies, in bytes.
    pub(crate) fn reply_bytes(&self) -> u64 {
        OF_EACH_KIND * MESSAGES_OF_ALL_KINDS * REPLY_BYTES
    }
}

/// The shop, and what its Prometheus has seen.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) prometheus: Prometheus,
    pub(crate) agent: Agent,
    /// What was called between the two scrapes.
    pub(crate) run: Run,
    /// What was called before them, so that each series was there when the run began: a rate cannot know what a series began with.
    pub(crate) earlier: Run,
    /// The last one without it, and the first that has the whole run.
    scrapes: (Instant, Instant),
    /// Right behind them.
    pub(crate) after: Instant,
    _shop: Shop,
}

impl Watched {
    /// One of three servers refuses connections, so that calls meet it, and go elsewhere; a pod that cannot be enrolled asks for it.
    pub(crate) fn start() -> Result<Self> {
        let mut shop = Shop::enrolled(3)?;
        shop.greeters[1].process.kill()?;
        let refused = shop.cluster.host_network_pod("on-the-host")?;
        shop.cluster.label_pod(&refused, true);
        shop.cluster.publish()?;
        let agent = Agent::start(&shop.cluster)?;
        let prometheus =
            Prometheus::start(&shop.cluster, &agent, &[&deploy::chart().join("files/rules.yaml")])?;
        let calls = || -> Result<Run> {
            let run = Run::of(&shop.client, &shop.v4())?;
            eventually("the last call is over for the agent too", || {
                agent.active_calls().is_ok_and(|calls| calls == 0)
            })?;
            Ok(run)
        };
        let earlier = calls()?;
        Self::scraped(&prometheus, earlier.answered())?;
        let run = prometheus.asleep(calls)??;
        let mut after = Self::scraped(&prometheus, earlier.answered() + run.answered())?;
        let mut before = prometheus.scrape_before(after)?;
        // Who asks slowly hears of a later one.
        while prometheus.sum_at(ANSWERED, behind(before))? == prometheus.sum_at(ANSWERED, behind(after))? {
            after = before;
            before = prometheus.scrape_before(after)?;
        }
        let answered = prometheus.sum_at(ANSWERED, behind(before))?;
        ensure!(
            answered == earlier.answered() as f64,
            "{answered} answered calls before the run, not {earlier:?}"
        );
        let (scrapes, after) = ((before, after), behind(after));
        Ok(Self { prometheus, agent, run, earlier, scrapes, after, _shop: shop })
    }

    /// A scrape that has so many answered calls.
    fn scraped(prometheus: &Prometheus, answered: u64) -> Result<Instant> {
        let mut last = 0.0;
        let found = eventually_answered("Prometheus has scraped all calls", || {
            let Some(at) = prometheus.last_scrape()? else { return Ok(None) };
            last = prometheus.sum_at(ANSWERED, behind(at))?;
            Ok((last == answered as f64).then_some(at))
        });
        found.with_context(|| format!("it has {last} of {answered}"))
    }

    /// The range that has both scrapes, and none other: what is extrapolated, a millisecond, is what it is longer than the time between them.
    pub(crate) fn range(&self) -> String {
        let (before, after) = self.scrapes;
        format!("{}ms", behind(after).0 - before.0)
    }

    /// The time between them in seconds: of so many a rate over the range is.
    pub(crate) fn seconds(&self) -> f64 {
        let (before, after) = self.scrapes;
        (after.0 - before.0) as f64 / 1e3
    }

    /// How often something has happened that was so often a second.
    pub(crate) fn count(&self, rate: f64) -> f64 {
        rate * self.seconds()
    }
}

/// The next millisecond. Prometheus reads a query's time as a fraction, and may take it for the millisecond before.
fn behind(scrape: Instant) -> Instant {
    Instant(scrape.0 + 1)
}

/// All calls that servers answered, as counters have them.
const ANSWERED: &str = r#"istio_requests_total{response_flags="-"}"#;

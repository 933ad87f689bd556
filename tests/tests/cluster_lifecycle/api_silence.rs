//! An API server that falls silent, for longer than any of the agent's time-outs: minutes, in which nearly nothing is to be done.
//!
//! So it stands here, beside tests of which only one can run at a time, and before them in the alphabet, which is the order in which they
//! are handed out: it has a thread to itself, and the others have the other one.

use anyhow::{Context, ensure};
use evenkeel_tests::api_shop::{kind, problems};
use evenkeel_tests::host::privileged;
use evenkeel_tests::wait::eventually_some_within;
use evenkeel_tests::{ApiShop, Outcome, eventually};
use std::time::Duration;

/// It takes connections and says nothing. No error tells of that: the agent's own limits do.
#[test]
fn an_api_server_that_falls_silent_is_named_and_calls_go_on() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    /// Longer than the agent waits for a watch's next word.
    const LIMIT: Duration = Duration::from_secs(300);
    let mut shop = ApiShop::enrolled(3)?;
    shop.publish_servers(&[0, 1])?;
    let agent = shop.agent()?;
    let mut load = shop.shop.client.load(&shop.shop.v4(), &["--rate", "50"])?;
    load.more_calls(50)?.is_clean()?;
    shop.plane.api_server.freeze()?;
    let contact = |name: &str| kind(&agent, name).map(|kind| kind["seconds_since_contact"].as_f64());
    let said = "the API server can't be reached: it does not answer";
    eventually_some_within(LIMIT, "the silence is named", || {
        Ok(problems(&agent).contains(said).then_some(()))
    })
    .with_context(|| problems(&agent))?;
    // Longer than between the marks that a watch is sent once a minute, so that a slow server is not taken for a silent one.
    ensure!(contact("services")? > Some(90.0), "{:?}", contact("services"));
    ensure!(agent.is_ready(), "the last state serves");
    load.is_even(100, &["server-1", "server-2"], 0.2)?;
    load.stop()?.is_clean()?;

    shop.plane.api_server.thaw()?;
    // It has time-outs of its own to get over.
    shop.plane.wait_until_ready()?;
    shop.publish_servers(&[0, 1, 2])?;
    let mut load = shop.shop.client.load(&shop.shop.v4(), &["--rate", "200"])?;
    eventually("what changed since arrives", || {
        load.more_calls(40).is_ok_and(|tally| tally.calls.contains_key("server-3"))
    })?;
    eventually("nothing is wrong any more", || problems(&agent) == "[]")
}

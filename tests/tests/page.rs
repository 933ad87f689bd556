//! The page at the admin endpoint, in a real browser: Debian's Chromium, driven by `tests/page/steps.mjs`.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::agent::Options;
use evenkeel_tests::host::{self, privileged};
use evenkeel_tests::manifests::{ENABLED_LABEL, PICKER_ANNOTATION};
use evenkeel_tests::{Agent, Browser, Outcome, Shop, eventually};
use serde_json::json;

/// Where pictures of the page go, if somebody wants to look at them.
const PICTURES_VARIABLE: &str = "EVENKEEL_PICTURES";

/// As markup it would set `window.harmed`.
const HOSTILE: &str = "<img src=x onerror=\"window.harmed=1\"><script>window.harmed=2</script>";

/// A pod that is nowhere, made from the client's; each has a number of its own.
fn ghost(shop: &mut Shop, number: u8, name: &str) -> Result<()> {
    let mut ghost = shop.cluster.pods.get("client").context("the client has an object")?.clone();
    ghost.name = name.to_owned();
    ghost.uid = format!("00000000-0000-4000-8000-{number:012}");
    ghost.addresses = vec![[10, 244, 255, number].into()];
    shop.cluster.pods.insert(name.to_owned(), ghost);
    Ok(())
}

/// An agent that answers; it is not ready for some seconds where a pod cannot be enrolled.
fn answering(shop: &Shop) -> Result<Agent> {
    let agent = Agent::launch(&shop.cluster, &Options::default())?;
    eventually("the agent answers", || agent.admin("/pods").is_ok())?;
    Ok(agent)
}

#[test]
fn its_arithmetic_is_right() -> Outcome {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/page/sums.test.mjs");
    host::run("node", &["--test", tests], "")?;
    Ok(())
}

#[test]
fn its_numbers_are_the_agents_and_the_clients() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(3)?;
    let agent = Agent::start(&shop.cluster)?;
    let tally = shop.client.call(&shop.v4(), 300, &["--kind", "mixed"])?;
    tally.is_clean()?;
    ensure!(tally.completed() == 300, "{tally:?}");
    Browser::new(&shop.cluster)?.step(&agent, "numbers", &json!({ "calls": tally.calls, "enrolled": 4 }))
}

#[test]
fn an_even_spread_is_called_even_and_another_one_uneven() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(3)?;
    let all: Vec<_> = shop.servers.iter().collect();
    let sticky = shop.cluster.service("sticky", &all)?;
    let object = shop.cluster.services.get_mut("sticky").context("it is there")?;
    object.annotations.insert(PICKER_ANNOTATION.to_owned(), "ring-hash".to_owned());
    shop.cluster.publish()?;
    let agent = Agent::start(&shop.cluster)?;
    let mut even = shop.client.load(&shop.v4(), &[])?;
    let mut uneven = shop.client.load(&sticky.v4(), &[])?;
    even.more_calls(30)?.is_clean()?;
    uneven.more_calls(30)?.is_clean()?;
    // One client's calls are all at one of three.
    let said = json!({ "even": "shop/greeter:50051", "uneven": "shop/sticky:50051", "busiest": "3.00" });
    Browser::new(&shop.cluster)?.step(&agent, "spread", &said)?;
    even.stop()?.is_clean()?;
    uneven.stop()?.is_clean()
}

#[test]
fn what_is_no_failure_of_the_servers_is_none_and_every_status_is_shown() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    const NOT_FOUND: u64 = 40;
    const INTERNAL: u64 = 7;
    shop.client.call(&shop.v4(), 60, &[])?.is_clean()?;
    for (calls, status) in [(NOT_FOUND, "5"), (INTERNAL, "13")] {
        let tally = shop.client.call(&shop.v4(), calls, &["--fail-with", status])?;
        ensure!(tally.failed() == calls, "{tally:?}");
    }
    let said = json!({
        "method": "evenkeel.test.Greeter/SayHello",
        "statuses": [["OK", 60], ["NOT_FOUND", NOT_FOUND], ["INTERNAL", INTERNAL]],
        "failed": INTERNAL,
    });
    Browser::new(&shop.cluster)?.step(&agent, "statuses", &said)
}

#[test]
fn calls_are_tapped_with_their_headers_as_text_while_somebody_looks() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    let hostile = format!("x-note={HOSTILE}");
    let headers = ["--header", &hostile, "--header", "authorization=Bearer hunter2"];
    let mut load = shop.client.load(&shop.v4(), &headers)?;
    load.more_calls(30)?.is_clean()?;
    let said =
        json!({ "pod": "shop/client", "method": "evenkeel.test.Greeter/SayHello", "hostile": HOSTILE });
    Browser::new(&shop.cluster)?.step(&agent, "tap", &said)?;
    load.stop()?.is_clean()
}

#[test]
fn an_endpoint_that_fails_calls_is_marked_with_the_reason() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(3)?;
    let agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), &[])?;
    load.more_calls(30)?;
    shop.greeters[1].process.kill()?;
    Browser::new(&shop.cluster)?.step(&agent, "ejected", &json!({ "pod": "server-2" }))?;
    load.runs()
}

#[test]
fn it_says_why_a_pod_is_not_enrolled_and_takes_no_name_for_markup() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    ghost(&mut shop, 1, "ghost")?;
    ghost(&mut shop, 2, HOSTILE)?;
    ghost(&mut shop, 3, "unasked")?;
    let unasked = shop.cluster.pods.get_mut("unasked").context("it is there")?;
    unasked.labels.insert(ENABLED_LABEL.to_owned(), "false".to_owned());
    shop.cluster.publish()?;
    let agent = answering(&shop)?;
    let said = json!({ "waiting": "ghost", "unasked": "unasked", "hostile": HOSTILE });
    Browser::new(&shop.cluster)?.step(&agent, "pods", &said)
}

#[test]
fn everything_can_be_done_by_keys() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let all: Vec<_> = shop.servers.iter().collect();
    shop.cluster.service("other", &all)?;
    let agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), &[])?;
    load.more_calls(30)?;
    let browser = Browser::new(&shop.cluster)?;
    browser.step(&agent, "keyboard", &json!({ "pod": "client", "service": "shop/greeter:50051" }))?;
    browser.step(&agent, "hidden", &json!({}))?;
    load.stop()?.is_clean()
}

#[test]
fn it_is_for_wide_and_narrow_screens_light_and_dark_and_for_those_who_listen() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(4)?;
    let some: Vec<_> = shop.servers[..3].iter().collect();
    let sticky = shop.cluster.service("sticky", &some)?;
    let object = shop.cluster.services.get_mut("sticky").context("it is there")?;
    object.annotations.insert(PICKER_ANNOTATION.to_owned(), "ring-hash".to_owned());
    let other = shop.cluster.pod("checkout-5d9c7b6f4-x2lqp")?;
    ghost(&mut shop, 1, "ghost")?;
    shop.cluster.publish()?;
    let agent = answering(&shop)?;
    let mut loads = [
        shop.client.load(&shop.v4(), &["--rate", "120"])?,
        other.load(&shop.v4(), &["--rate", "40", "--kind", "mixed"])?,
        other.load(&sticky.v4(), &["--rate", "25", "--hold-milliseconds", "30"])?,
    ];
    for load in &mut loads {
        load.more_calls(30)?.is_clean()?;
    }
    let pictures = std::env::var_os(PICTURES_VARIABLE).map(|folder| folder.to_string_lossy().into_owned());
    let browser = Browser::new(&shop.cluster)?;
    for screen in ["desktop", "phone"] {
        for scheme in ["light", "dark"] {
            let given = json!({ "screen": screen, "colorScheme": scheme, "pictures": pictures });
            browser.step(&agent, "screen", &given).with_context(|| format!("{screen}, {scheme}"))?;
        }
    }
    Ok(())
}

#[test]
fn it_says_that_the_agent_does_not_answer_and_that_it_does_again() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(1)?;
    let mut agent = Agent::start(&shop.cluster)?;
    let browser = Browser::new(&shop.cluster)?;
    let mut page = browser.begin(&agent, "silence", &json!({}))?;
    page.line("stop the agent")?;
    agent.stop()?;
    drop(agent);
    page.line("start another")?;
    let _agent = Agent::start(&shop.cluster)?;
    page.line("done silence")?;
    Ok(())
}

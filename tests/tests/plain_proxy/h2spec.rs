//! h2spec, the conformance test of HTTP/2, against `evenkeel proxy` in front of a plain HTTP/2 server.

use anyhow::{Context, ensure};
use evenkeel_tests::host::{self, privileged};
use evenkeel_tests::stacks::H2spec;
use evenkeel_tests::{Outcome, Shop, eventually};
use std::process::Command;

const LISTEN: u16 = 9000;
const SERVER: u16 = 9001;
/// What h2spec has at least, its strict cases included: a report of less is none.
const CASES: usize = 140;

/// Cases that may fail, by section and title, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "http2/3.5",
        "Sends invalid connection preface",
        "what does not begin as HTTP/2 is relayed untouched, and the server's own end of it may be a TCP reset",
    ),
    ("http2/5.3.1", "Sends HEADERS frame that depend on itself", "RFC 9113 §5.3.2 has taken priorities out"),
    ("http2/5.3.1", "Sends PRIORITY frame that depend on itself", "RFC 9113 §5.3.2 has taken priorities out"),
];

/// A case of the report.
#[derive(Debug)]
struct Case {
    section: String,
    title: String,
    failed: bool,
    skipped: bool,
}

impl Case {
    fn is_excepted(&self) -> bool {
        EXCEPTIONS.iter().any(|(section, title, _)| self.section == *section && self.title == *title)
    }
}

/// The cases of a JUnit report.
fn cases(report: &str) -> Vec<Case> {
    let attribute = |of: &str, name: &str| {
        let (_, behind) = of.split_once(&format!("{name}=\""))?;
        Some(behind.split_once('"')?.0.to_owned())
    };
    let case = |text: &str| {
        let (section, title) = (attribute(text, "package")?, attribute(text, "classname")?);
        let body = text.split("</testcase>").next()?;
        let failed = body.contains("<failure") || body.contains("<error");
        Some(Case { section, title, failed, skipped: body.contains("<skipped") })
    };
    report.split("<testcase ").skip(1).filter_map(case).collect()
}

#[test]
fn every_case_passes_but_those_that_are_excepted() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let tools = H2spec::build()?;
    let mut shop = Shop::not_enrolled(1)?;
    let mut server = Command::new(&tools.server);
    server.args(["--listen", &format!("[::]:{SERVER}")]);
    let mut server = shop.servers[0].spawn("h2spec-server", server)?;
    server.line("ready")?;
    let host = shop.cluster.pod("host")?;
    let mut proxy = Command::new(host::evenkeel_binary()?);
    proxy.args(["proxy", "--workers", "1", "--listen", &host.v4(LISTEN)]);
    proxy.args(["--to", &shop.servers[0].v4(SERVER)]);
    let mut proxy = host.spawn("proxy", proxy)?;
    eventually("the proxy listens", || {
        host.listening_on().is_ok_and(|all| all.iter().any(|address| address.port() == LISTEN))
    })?;
    let address = host.v4(LISTEN);
    let (address, _) = address.rsplit_once(':').context("an address has a port")?;
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report.xml");
    let mut h2spec = Command::new(&tools.program);
    // A case that waits in vain, as one of the exceptions does, waits for so long.
    h2spec.args(["--strict", "--timeout", "10"]);
    h2spec.args(["--host", address, "--port", &LISTEN.to_string(), "--junit-report"]).arg(&report);
    let mut h2spec = shop.client.spawn("h2spec", h2spec)?;
    // It fails as soon as one case does; the report says which.
    h2spec.wait()?;
    let said = h2spec.stdout();
    let report = std::fs::read_to_string(&report).with_context(|| format!("h2spec said {said:#?}"))?;
    let cases = cases(&report);
    ensure!(cases.len() >= CASES, "{} cases; h2spec said {said:#?}", cases.len());
    // Such as one for which the server's answer is too short: it has shown nothing.
    let skipped: Vec<&Case> = cases.iter().filter(|case| case.skipped).collect();
    ensure!(skipped.is_empty(), "{skipped:#?}\n{said:#?}");
    let failed: Vec<&Case> = cases.iter().filter(|case| case.failed && !case.is_excepted()).collect();
    ensure!(failed.is_empty(), "{failed:#?}\n{said:#?}");
    ensure!(proxy.ended()?.is_none(), "the proxy ended: {:#?}", proxy.stderr());
    Ok(())
}

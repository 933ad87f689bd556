//! What came of each phase.

use super::phase::Verdict;
use crate::Tally;
use std::collections::BTreeSet;

/// A phase in a few words.
pub(super) fn outcome(verdict: &Verdict) -> String {
    match &verdict.failure {
        Some(why) => format!("FAILED: {why}"),
        None => {
            let steady = &verdict.steady;
            let went = match steady.calls.keys().collect::<Vec<_>>()[..] {
                [only] => format!("all on {only}"),
                ref servers => {
                    let shares: Vec<String> = servers.iter().map(|server| percent(steady, server)).collect();
                    format!("{} %", shares.join(" + "))
                }
            };
            match verdict.change.failed() {
                0 => went,
                failed => format!("{went} · {failed} failed"),
            }
        }
    }
}

/// The table at the end; `phases` is how many should have been played.
pub(super) fn print(verdicts: &[Verdict], phases: usize) {
    let servers: BTreeSet<&String> =
        verdicts.iter().flat_map(|verdict| verdict.steady.calls.keys()).collect();
    let heads: String = servers.iter().map(|server| format!("{server:>10}")).collect();
    println!(
        "\n  {:<44}{heads}{:>9}{:>10}{:>12}",
        "share of the calls of one client", "failed", "settled", "meanwhile"
    );
    for verdict in verdicts {
        let shares: String =
            servers.iter().map(|server| format!("{:>10}", share(&verdict.steady, server))).collect();
        println!(
            "  {:<44}{shares}{:>9}{:>8.1} s{:>12}",
            verdict.title,
            verdict.steady.failed(),
            verdict.settled_after.as_secs_f64(),
            format!("{} failed", verdict.change.failed()),
        );
    }
    print_end(verdicts, phases);
}

/// What failed, and whether everything went as it should.
pub(super) fn print_end(verdicts: &[Verdict], phases: usize) {
    println!();
    for (error, count) in verdicts.iter().flat_map(|verdict| &verdict.change.errors) {
        println!("  failed meanwhile: {count} × {error}");
    }
    match verdicts.iter().find(|verdict| verdict.failure.is_some()) {
        Some(Verdict { title, failure: Some(why), .. }) => println!("  ✘ {title}: {why}"),
        _ if verdicts.len() == phases => println!("  ✔ each phase went as it should"),
        _ => println!("  ✘ not all phases were played"),
    }
    println!();
}

fn share(tally: &Tally, server: &str) -> String {
    match tally.calls.contains_key(server) {
        true => format!("{} %", percent(tally, server)),
        false => "–".to_owned(),
    }
}

/// The server's share of the completed calls.
fn percent(tally: &Tally, server: &str) -> String {
    let calls = tally.calls.get(server).copied().unwrap_or(0);
    format!("{:.0}", 100.0 * calls as f64 / tally.completed().max(1) as f64)
}

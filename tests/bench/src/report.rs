//! Medians, and in each round the ratio to one peer: what the machine did to a round, it did to both.

use anyhow::{Context, Result};
use serde_json::json;

use crate::load::Seen;
use crate::peers::Kind;
use crate::scenario::{Arrivals, Scenario};

/// One scenario through one peer in one round.
pub(crate) struct Measured {
    pub(crate) peer: Kind,
    pub(crate) scenario: &'static str,
    pub(crate) round: usize,
    pub(crate) seen: Seen,
}

/// All that was measured.
pub(crate) struct Report {
    peers: Vec<Kind>,
    scenarios: Vec<&'static Scenario>,
    /// The peer that ratios are to.
    base: Option<Kind>,
    measured: Vec<Measured>,
    /// How often others used the machine when a scenario began.
    disturbed: usize,
    /// Memory after the load.
    pub(crate) resident_kib: Vec<(Kind, u64)>,
}

impl Report {
    pub(crate) fn new(peers: Vec<Kind>, scenarios: Vec<&'static Scenario>) -> Self {
        let base = peers.iter().copied().find(|kind| *kind == Kind::Haproxy).or(peers.first().copied());
        Self { peers, scenarios, base, measured: Vec::new(), disturbed: 0, resident_kib: Vec::new() }
    }

    pub(crate) fn add(&mut self, measured: Measured) {
        self.measured.push(measured);
    }

    pub(crate) fn was_not_quiet(&mut self) {
        self.disturbed += 1;
    }

    /// CPU a call, calls a second, latencies: for people.
    pub(crate) fn print_table(&self) -> Result<()> {
        let base = self.base.context("no peer was measured")?;
        println!("CPU µs a call of the proxy alone (its ratio to {base}'s), medians");
        self.print_rows(|scenario, peer| {
            let cpu = self.median(scenario, peer, cpu_microseconds);
            format!("{cpu:.1} ({:.2})", self.ratio(scenario, peer, base))
        });
        println!("\nCalls a second, medians; closed loops end where the proxy's core or the load's does");
        self.print_rows(|scenario, peer| {
            format!("{:.0}", self.median(scenario, peer, |seen| seen.calls as f64 / seen.seconds))
        });
        println!("\nLatency p50/p99 in µs, medians; of open loops from the moment when a call was due");
        self.print_rows(|scenario, peer| {
            let p50 = self.median(scenario, peer, |seen| seen.latency_p50);
            format!("{p50:.0}/{:.0}", self.median(scenario, peer, |seen| seen.latency_p99))
        });
        let resident = |(kind, kib): &(Kind, u64)| format!("{kind} {:.0}", *kib as f64 / 1024.0);
        println!(
            "\nResident MiB after it: {}",
            self.resident_kib.iter().map(resident).collect::<Vec<_>>().join(", ")
        );
        if self.disturbed > 0 {
            println!(
                "Others used this machine {} times when a scenario began: trust the ratios less.",
                self.disturbed
            );
        }
        Ok(())
    }

    fn print_rows(&self, cell: impl Fn(&Scenario, Kind) -> String) {
        print!("{:<12}", "");
        self.peers.iter().for_each(|peer| print!("{:>16}", peer.to_string()));
        println!();
        for scenario in &self.scenarios {
            print!("{:<12}", scenario.name);
            self.peers.iter().for_each(|peer| print!("{:>16}", cell(scenario, *peer)));
            println!();
        }
    }

    /// The same, with every round's figures: for programs.
    pub(crate) fn print_json(&self) -> Result<()> {
        let base = self.base.context("no peer was measured")?;
        let scenarios: Vec<_> = self.scenarios.iter().map(|scenario| {
            let peers: Vec<_> = self.peers.iter().map(|peer| json!({
                "peer": peer.to_string(),
                "cpu_microseconds_per_call": self.median(scenario, *peer, cpu_microseconds),
                "ratio": self.ratio(scenario, *peer, base),
                "rounds": self.of(scenario, *peer).map(|measured| &measured.seen).collect::<Vec<_>>(),
            })).collect();
            json!({ "scenario": scenario.name, "open_loop": matches!(scenario.arrivals, Arrivals::Open { .. }), "peers": peers })
        }).collect();
        let resident: Vec<_> = self
            .resident_kib
            .iter()
            .map(|(peer, kib)| json!({ "peer": peer.to_string(), "resident_kib": kib }))
            .collect();
        let report = json!({
            "ratio_to": base.to_string(),
            "scenarios": scenarios,
            "resident": resident,
            "disturbed": self.disturbed,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        Ok(())
    }

    fn of<'r>(&'r self, scenario: &Scenario, peer: Kind) -> impl Iterator<Item = &'r Measured> {
        let name = scenario.name;
        self.measured.iter().filter(move |measured| measured.scenario == name && measured.peer == peer)
    }

    fn median(&self, scenario: &Scenario, peer: Kind, figure: impl Fn(&Seen) -> f64) -> f64 {
        median(self.of(scenario, peer).map(|measured| figure(&measured.seen)).collect())
    }

    /// The median of the rounds' ratios of CPU a call.
    fn ratio(&self, scenario: &Scenario, peer: Kind, base: Kind) -> f64 {
        let ratios = self.of(scenario, peer).filter_map(|measured| {
            let other = self.of(scenario, base).find(|other| other.round == measured.round)?;
            Some(cpu_microseconds(&measured.seen) / cpu_microseconds(&other.seen))
        });
        median(ratios.collect())
    }
}

fn cpu_microseconds(seen: &Seen) -> f64 {
    seen.cpu_nanoseconds as f64 / 1e3 / seen.calls as f64
}

/// The middle one, or the mean of the two in the middle.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let half = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => figures[half],
        _ => f64::midpoint(figures[half - 1], figures[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![9.0, 1.0, 3.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
    }
}

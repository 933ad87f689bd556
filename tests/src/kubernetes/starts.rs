//! Pods whose container dials as its first act: whether each one's first connection was taken, and how long its enrolment took.

use super::running_pod::RunningPod;
use super::shop::{CLIENT, Shop, client_container, pod};
use crate::Tally;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fmt;
use std::net::SocketAddr;

/// The label `app` of these pods.
const DIALLER: &str = "dialler";
/// Calls a second of one of them: the first at once, and few enough for many pods on a small machine.
const RATE: &str = "1";

/// What became of pods that dialled as soon as they could.
#[derive(Debug, Default)]
pub struct Starts {
    /// How many were started.
    pub pods: usize,
    /// Those whose first connection was not taken, and what shows it.
    pub missed: Vec<String>,
    /// Those whose first connection went straight though they were enrolled by then, and what shows it: the agent's threads had not run for
    /// a second, and nobody's connections wait for an agent that hangs.
    pub agent_silent: Vec<String>,
    /// From the first word of a pod's sandbox to its enrolment, in milliseconds.
    pub enrolled_after_ms: Vec<f64>,
    /// Those that were enrolled without a word of their sandbox before: they were there when the agent learnt of them.
    pub found_there: usize,
}

impl Starts {
    /// Starts so many pods on a node, of an enrolled shop, `at_once` of them at a time, each of which calls `to` from its first
    /// moment on.
    ///
    /// # Errors
    /// When they do not run, or are never enrolled.
    pub fn of(shop: &Shop<'_>, node: &str, to: SocketAddr, pods: usize, at_once: usize) -> Result<Self> {
        let mut starts = Self::default();
        while starts.pods < pods {
            let burst = at_once.min(pods - starts.pods);
            starts.burst(shop, node, to, burst)?;
        }
        Ok(starts)
    }

    fn burst(&mut self, shop: &Shop<'_>, node: &str, to: SocketAddr, pods: usize) -> Result<()> {
        let mut container = client_container(CLIENT, to);
        container["args"] = json!(["load", "--to", to.to_string(), "--rate", RATE]);
        let names = (self.pods..self.pods + pods).map(|number| format!("{DIALLER}-{number}"));
        let objects: Vec<Value> = names.map(|name| pod(&name, node, DIALLER, &container)).collect();
        shop.apply(&objects)?;
        let label = format!("app={DIALLER}");
        shop.all_ready(&label)?;
        let pods = shop.pods(&label)?;
        ensure!(pods.len() == objects.len(), "{} pods of {}", pods.len(), objects.len());
        for pod in &pods {
            let answered = |tally: &Tally| tally.completed() > 0;
            let tally = pod.until(CLIENT, "its first call is answered", &Tally::default(), answered)?;
            shop.is_clean(pod, &tally)?;
            let shown = shop.is_enrolled(pod)?;
            if let Some(why) = missed(pod, to, &tally, &shown)? {
                let is_silence = shown["connections"]["agent_silent"] == 1 && shown["opened_before"] == 0;
                let those = if is_silence { &mut self.agent_silent } else { &mut self.missed };
                those.push(format!("{}: {why}", pod.name));
            }
            match shown["enrolled_after_ms"].as_f64() {
                Some(after) => self.enrolled_after_ms.push(after),
                None => self.found_there += 1,
            }
        }
        self.pods += pods.len();
        shop.kubectl(&["delete", "pod", "-l", &label]).map(drop)
    }

    /// Checks that each was enrolled before its first connection.
    ///
    /// # Errors
    /// With those that were not.
    pub fn none_was_late(&self) -> Result<()> {
        ensure!(self.missed.is_empty(), "{self}: {:#?}", self.missed);
        Ok(())
    }

    /// Checks that the first connection of each was taken, on a machine that has nothing else to do.
    ///
    /// # Errors
    /// With those of which it was not.
    pub fn none_went_straight(&self) -> Result<()> {
        self.none_was_late()?;
        ensure!(self.agent_silent.is_empty(), "{self}: {:#?}", self.agent_silent);
        Ok(())
    }
}

/// Why the first connection of a pod was not taken, if it was not: by the pod's own sockets, and by the agent's counters.
fn missed(pod: &RunningPod, to: SocketAddr, tally: &Tally, shown: &Value) -> Result<Option<String>> {
    let straight = pod.goes_straight_to(to)?;
    let is_taken = !straight
        && tally.connections == 1
        && shown["connections"]["taken"] == tally.connections
        && shown["opened_before"] == 0;
    Ok((!is_taken)
        .then(|| format!("straight: {straight}, opened {}, by the agent {shown}", tally.connections)))
}

impl fmt::Display for Starts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.enrolled_after_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
            sorted.get(place).copied().unwrap_or(f64::NAN)
        };
        write!(
            formatter,
            "of {} first connections {} were missed, and {} went straight past an agent that got no time; enrolled {:.1} ms after the first word of the sandbox (median; 90 %: \
             {:.1}, 99 %: {:.1}, worst: {:.1}), {} without one",
            self.pods,
            self.missed.len(),
            self.agent_silent.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
            self.found_there
        )
    }
}

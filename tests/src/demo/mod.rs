//! The demos: one client with one channel, real servers, the real agent, and what is done to them.
//!
//! [`stage`] sets up the one that needs no cluster and makes its changes, [`phase`] says what each must lead to, [`play`](mod@play) does it and
//! counts, [`screen`] shows the counting while it goes on, [`summary`] what came of it. [`cluster`] is the same on a real Kubernetes.

pub mod cluster;
mod phase;
mod play;
mod screen;
mod stage;
mod summary;

use crate::{host, interrupt, process};
use anyhow::{Result, ensure};
use phase::PHASES;
use play::{Stage as _, play};
use screen::Screen;
use stage::Stage;

/// Shows all phases; true when each went as it should.
///
/// # Errors
/// When the stage cannot be set up, or someone interrupts.
pub fn run() -> Result<bool> {
    ensure!(
        host::privileged(),
        "run it as root: it makes network namespaces and cgroups, and loads BPF programs"
    );
    host::evenkeel_binary()?;
    process::keep_quiet();
    interrupt::listen();
    let mut screen = Screen::new();
    screen.say("making pods: network namespaces with cgroups, four servers, one client …");
    let mut stage = Stage::set_up()?;
    let mut verdicts = Vec::new();
    for (number, phase) in PHASES.iter().enumerate() {
        screen.begin(number);
        let verdict = play(phase, &mut stage, |tally, stage| screen.draw(tally, stage))?;
        screen.end(&verdict);
        screen.draw(&stage.tally()?, &stage);
        let failed = verdict.failure.is_some();
        verdicts.push(verdict);
        if failed {
            break;
        }
    }
    screen.leave();
    summary::print(&verdicts, PHASES.len());
    let well = verdicts.len() == PHASES.len() && verdicts.iter().all(|verdict| verdict.failure.is_none());
    if !well {
        stage.print_agents_last_words();
    }
    Ok(well)
}

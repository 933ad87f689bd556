//! The demo: one client with one channel, real servers, the real agent, and what is done to them.
//!
//! [`stage`] sets it up and makes the changes, [`phase`] says what each must lead to, [`screen`] shows the counting while it goes on,
//! [`summary`] what came of it.

mod interrupt;
mod phase;
mod screen;
mod stage;
mod summary;

use crate::{host, process};
use anyhow::{Result, ensure};
use phase::{PHASES, Phase, Verdict};
use screen::Screen;
use stage::Stage;
use std::time::{Duration, Instant};

/// How often the screen is drawn.
const FRAME: Duration = Duration::from_millis(100);

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
        let verdict = play(phase, &mut stage, &mut screen)?;
        screen.end(&verdict);
        screen.draw(&stage.tally()?, &stage);
        let failed = verdict.failure.is_some();
        verdicts.push(verdict);
        if failed {
            break;
        }
    }
    screen.leave();
    summary::print(&verdicts);
    let well = verdicts.len() == PHASES.len() && verdicts.iter().all(|verdict| verdict.failure.is_none());
    if !well {
        stage.print_agents_last_words();
    }
    Ok(well)
}

/// Makes the phase's change, waits until the calls go as they should, and counts whether they stay so.
fn play(phase: &Phase, stage: &mut Stage, screen: &mut Screen) -> Result<Verdict> {
    let start = Instant::now();
    let before = stage.tally()?;
    (phase.change)(stage)?;
    let expected = (phase.expected)(stage);

    let mut window = stage.tally()?;
    let mut settled = None;
    while start.elapsed() < phase::SETTLE_LIMIT {
        interrupt::check()?;
        let now = stage.tally()?;
        screen.draw(&now, stage);
        let latest = now.since(&window);
        if latest.completed() >= phase::WINDOW_CALLS {
            if expected.is_met(&latest, phase::WINDOW_TOLERANCE).is_ok() {
                settled = Some((start.elapsed(), window));
                break;
            }
            window = now;
        }
        std::thread::sleep(FRAME);
    }
    let Some((settled_after, settled)) = settled else {
        let latest = stage.tally()?.since(&before);
        let why = expected.is_met(&latest, phase::TOLERANCE).err();
        let failure = why.map_or_else(|| "it did not settle".to_owned(), |why| format!("{why:#}"));
        return Ok(Verdict {
            title: phase.title,
            change: latest,
            failure: Some(failure),
            ..Verdict::default()
        });
    };

    let counting = Instant::now();
    let steady = loop {
        interrupt::check()?;
        let now = stage.tally()?;
        screen.draw(&now, stage);
        let steady = now.since(&settled);
        if steady.completed() + steady.failed() >= phase::STEADY_CALLS
            || counting.elapsed() > phase::SETTLE_LIMIT
        {
            break steady;
        }
        std::thread::sleep(FRAME);
    };
    let failure = expected.is_met(&steady, phase::TOLERANCE).err().map(|why| format!("{why:#}"));
    Ok(Verdict { title: phase.title, change: settled.since(&before), steady, settled_after, failure })
}

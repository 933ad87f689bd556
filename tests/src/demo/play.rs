//! One phase: its change, the wait until the calls go as they should, and the count of whether they stay so.

use super::interrupt;
use super::phase::{self, Phase, Verdict};
use crate::Tally;
use anyhow::Result;
use std::time::{Duration, Instant};

/// How often the client's count is looked at and shown.
const FRAME: Duration = Duration::from_millis(100);

/// Where a demo is played.
pub(super) trait Stage {
    /// What the client has counted so far.
    ///
    /// # Errors
    /// When the client says something else than counts.
    fn tally(&mut self) -> Result<Tally>;
}

/// Makes the phase's change, waits until the calls go as they should, and counts whether they stay so.
///
/// # Errors
/// When the change cannot be made, or someone interrupts.
pub(super) fn play<S: Stage>(
    phase: &Phase<S>,
    stage: &mut S,
    mut draw: impl FnMut(&Tally, &S),
) -> Result<Verdict> {
    let start = Instant::now();
    let before = stage.tally()?;
    (phase.change)(stage)?;
    let expected = (phase.expected)(stage);

    let mut window = stage.tally()?;
    let mut settled = None;
    while start.elapsed() < phase.limit {
        interrupt::check()?;
        let now = stage.tally()?;
        draw(&now, stage);
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
        draw(&now, stage);
        let steady = now.since(&settled);
        if steady.completed() + steady.failed() >= phase::STEADY_CALLS || counting.elapsed() > phase.limit {
            break steady;
        }
        std::thread::sleep(FRAME);
    };
    let change = settled.since(&before);
    let met = expected.is_met(&steady, phase::TOLERANCE);
    let met = met.and_then(|()| if phase.lossless { change.is_clean() } else { Ok(()) });
    let failure = met.err().map(|why| format!("{why:#}"));
    Ok(Verdict { title: phase.title, change, steady, settled_after, failure })
}

//! One phase: its change, the wait until the calls go as they should, and the count of whether they stay so.

use super::phase::{self, Expected, Phase, Verdict};
use crate::{Tally, interrupt};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// How often the client's count is looked at and shown.
const FRAME: Duration = Duration::from_millis(100);

/// Where a demo is played.
pub(super) trait Stage {
    /// What the client has counted so far.
    ///
    /// # Errors
    /// When the client has ended, or says something else than counts.
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

    // A change takes as long as it takes: a rollout, for one, waits for what ends.
    let changed = Instant::now();
    let mut window = stage.tally()?;
    let mut settled = None;
    while changed.elapsed() < phase.limit {
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
        let is_enough = steady.completed() + steady.failed() >= phase.steady_calls;
        // Over more calls, shares come even; a call that has failed stays so.
        let is_clear = steady.failed() > 0 || expected.is_met(&steady, phase::TOLERANCE).is_ok();
        if is_enough && is_clear || counting.elapsed() > phase.limit {
            break steady;
        }
        std::thread::sleep(FRAME);
    };
    let change = settled.since(&before);
    let failure = judge(phase, &expected, &change, &steady).err().map(|why| format!("{why:#}"));
    Ok(Verdict { title: phase.title, change, steady, settled_after, failure })
}

/// Whether the calls went as they should, once they had settled and until then.
fn judge<S>(phase: &Phase<S>, expected: &Expected, change: &Tally, steady: &Tally) -> Result<()> {
    expected.is_met(steady, phase::TOLERANCE)?;
    let counted = steady.completed() + steady.failed();
    ensure!(
        counted >= phase.steady_calls,
        "only {counted} calls of {} ended in {} s",
        phase.steady_calls,
        phase.limit.as_secs()
    );
    ensure!(
        change.failed() <= phase.may_fail,
        "{} calls failed until it had settled, and {} may: {:?}",
        change.failed(),
        phase.may_fail,
        change.errors
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn tally(completed: u64, failed: u64) -> Tally {
        let of = |name: &str, count: u64| BTreeMap::from([(name.to_owned(), count)]);
        let errors = if failed > 0 { of("Unavailable: gone", failed) } else { BTreeMap::new() };
        Tally { calls: of("server", completed), errors, ..Tally::default() }
    }

    #[test]
    fn an_act_fails_if_too_many_calls_do_or_too_few_end() {
        let act = |may_fail: u64| Phase::<()> {
            title: "an act",
            change: |()| Ok(()),
            expected: |()| Expected::OneServer,
            limit: Duration::from_secs(1),
            may_fail,
            steady_calls: phase::STEADY_CALLS,
        };
        let steady = tally(phase::STEADY_CALLS, 0);
        let is_well = |act: &Phase<()>, change: &Tally, steady: &Tally| {
            judge(act, &Expected::OneServer, change, steady).is_ok()
        };
        assert!(is_well(&act(0), &tally(9, 0), &steady));
        assert!(!is_well(&act(0), &tally(9, 1), &steady));
        assert!(is_well(&act(3), &tally(9, 3), &steady));
        assert!(!is_well(&act(3), &tally(9, 4), &steady));
        assert!(!is_well(&act(0), &tally(9, 0), &tally(phase::STEADY_CALLS - 1, 0)));
        assert!(!is_well(&act(3), &tally(9, 0), &tally(phase::STEADY_CALLS, 1)));
    }

    /// What a client counts of two servers' calls: one of these a look, and the last from then on.
    struct Told(Vec<(u64, u64)>);

    impl Stage for Told {
        fn tally(&mut self) -> Result<Tally> {
            let (a, b) = if self.0.len() > 1 { self.0.remove(0) } else { self.0[0] };
            Ok(Tally {
                calls: BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]),
                ..Tally::default()
            })
        }
    }

    #[test]
    fn shares_are_counted_until_they_are_even_or_the_limit() {
        let failure = |counts: &[(u64, u64)], limit: Duration| {
            let act = Phase::<Told> {
                title: "an act",
                change: |_| Ok(()),
                expected: |_| Expected::Even(vec!["a".to_owned(), "b".to_owned()]),
                limit,
                may_fail: 0,
                steady_calls: 400,
            };
            play(&act, &mut Told(counts.to_vec()), |_, _| {}).expect("it is played").failure
        };
        let counts = [(0, 0), (0, 0), (56, 44), (224, 176), (500, 500)];
        assert_eq!(failure(&counts, Duration::from_secs(60)), None);
        assert!(failure(&counts[..4], Duration::from_millis(200)).is_some());
    }
}

//! Waiting for a condition, never for a time.

use crate::interrupt;
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// The one limit of all waiting: generous, since a passing test never meets it and a slow machine must not fail one.
pub const WAIT_LIMIT: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Errors
/// Naming `what` when it does not within [`WAIT_LIMIT`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    eventually_some(what, || Ok(condition().then_some(())))
}

/// Waits until `condition` gives a value.
///
/// # Errors
/// The condition's own, at once; else naming `what` when there is none within [`WAIT_LIMIT`].
pub fn eventually_some<T>(what: &str, condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    eventually_some_within(WAIT_LIMIT, what, condition)
}

/// Waits until `ask` gives a value, for what may fail to answer in time: that is asked again.
///
/// # Errors
/// Naming `what`, and why the last answer failed if it did, when there is no value within [`WAIT_LIMIT`].
pub fn eventually_answered<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let mut failure = None;
    let waited = eventually_some(what, || match ask() {
        Ok(answer) => {
            failure = None;
            Ok(answer)
        }
        Err(error) => {
            failure = Some(error);
            Ok(None)
        }
    });
    waited.map_err(|why| match failure {
        Some(failure) => failure.context(why),
        None => why,
    })
}

/// Waits until `condition` gives a value, for what takes the more time the more the machine has to do.
///
/// # Errors
/// The condition's own, at once, or when somebody interrupts; else naming `what` when there is none within `limit`.
pub fn eventually_some_within<T>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    undisturbed_within(limit, what, || {
        interrupt::check()?;
        condition()
    })
}

/// As [`eventually_some_within`], for what cleans up: it waits on when somebody interrupts, and leaves the interruption to others.
///
/// # Errors
/// The condition's own, at once; else naming `what` when there is no value within `limit`.
pub(crate) fn undisturbed_within<T>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("waited {} s in vain: {what}", limit.as_secs());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

//! Pods that were let go, with connections that still need their names.

use super::Tools;
use super::enrolled::Enrolled;
use super::sighting::Sighting;
use evenkeel_common::HEARTBEAT_LIMIT_NS;
use std::time::{Duration, Instant};

/// How long a pod is kept at the least: what the kernel sent to its listener just before waits there until a worker thread accepts it,
/// and one that takes longer counts as dead.
const KEPT_FOR: Duration = Duration::from_nanos(HEARTBEAT_LIMIT_NS);

/// Pods that were let go.
#[derive(Default)]
pub(super) struct Leaving(Vec<(Instant, Enrolled)>);

impl Leaving {
    /// A pod is let go, now.
    pub(super) fn push(&mut self, enrolled: Enrolled) {
        self.0.push((Instant::now(), enrolled));
    }

    /// The one with that network namespace, and where it is.
    pub(super) fn find(&mut self, cookie: u64) -> Option<(usize, &mut Enrolled)> {
        let mut left = self.0.iter_mut().map(|(_, enrolled)| enrolled).enumerate();
        left.find(|(_, enrolled)| enrolled.cookie() == cookie)
    }

    /// Takes one out.
    pub(super) fn take(&mut self, position: usize) -> Enrolled {
        self.0.swap_remove(position).1
    }

    /// Forgets those whose last connection has ended, and those that have gone.
    pub(super) fn look_around(&mut self, sighting: &Sighting, tools: &Tools<'_>) {
        self.0.retain_mut(|(since, left)| {
            let is_there = left.is_there(sighting);
            // What cannot be told has not changed.
            let gone = matches!(is_there, Ok(false));
            left.mind(is_there.err());
            let is_kept = is_kept(gone, since.elapsed(), tools.workers.pod_connections(&left.pod.key));
            if !is_kept {
                left.forget(gone, tools);
            }
            is_kept
        });
    }

    /// Forgets all.
    pub(super) fn forget_all(&mut self, tools: &Tools<'_>) {
        for (_, left) in self.0.drain(..) {
            left.forget(false, tools);
        }
    }
}

/// Whether a pod that was let go so long ago keeps its listener.
fn is_kept(gone: bool, left_ago: Duration, connections: u64) -> bool {
    !gone && (connections > 0 || left_ago < KEPT_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_was_let_go_keeps_its_listener_until_all_that_was_sent_to_it_has_ended() {
        let just_now = KEPT_FOR - Duration::from_millis(1);
        for (gone, left_ago, connections, kept) in [
            (false, Duration::ZERO, 0, true),
            (false, just_now, 0, true),
            (false, KEPT_FOR, 0, false),
            (false, 100 * KEPT_FOR, 1, true),
            (true, Duration::ZERO, 1, false),
        ] {
            assert_eq!(is_kept(gone, left_ago, connections), kept, "{gone} {left_ago:?} {connections}");
        }
    }
}

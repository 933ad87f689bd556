//! Pods that are about to have a sandbox: its cgroup was made, or a process of the runtime entered it that is not in the pod's network
//! namespace yet. They are looked for again within milliseconds, since the app's first connection follows within tens of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first pause: what a runtime takes from one of its steps to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The longest pause, where pauses double: the app is not started before the sandbox has been for about that long.
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// How long such a pod is looked for so often: a runtime that takes longer is stuck, and each of its further steps is an event.
const SOON: Duration = Duration::from_secs(5);

/// After a pass over /proc, no look comes for so many times what the pass took: it must not be most of what the agent does.
const REST: u32 = 10;

/// Pods to look for again, by UID.
#[derive(Debug, Default)]
pub(super) struct Soon {
    pods: HashMap<Arc<str>, Again>,
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct Again {
    at: Instant,
    pause: Duration,
    until: Instant,
}

impl Soon {
    /// Something happened to the pod: the pauses begin anew.
    pub(super) fn expect(&mut self, uid: &Arc<str>, now: Instant) {
        let again = Again { at: now + FIRST_PAUSE, pause: FIRST_PAUSE, until: now + SOON };
        self.pods.insert(uid.clone(), again);
    }

    /// The pod was found, or nobody wants it any more.
    pub(super) fn forget(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    /// A pass over /proc took so long.
    pub(super) fn rest_after(&mut self, took: Duration, now: Instant) {
        self.rests_until = Some(now + took * REST);
    }

    /// Whether a look is too much for now: it comes by itself.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = self.pods.values().map(|again| again.at).min()?;
        Some(self.rests_until.map_or(next, |until| next.max(until)))
    }

    /// The pods whose time has come; each stays, for another look after a pause twice as long.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Arc<str>> {
        self.pods.retain(|_, again| now < again.until);
        let mut due = Vec::new();
        for (uid, again) in self.pods.iter_mut().filter(|(_, again)| again.at <= now) {
            again.pause = (again.pause * 2).min(LONGEST_PAUSE);
            again.at = now + again.pause;
            due.push(uid.clone());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_follow_each_other_at_growing_pauses_until_the_pod_is_found() {
        let (mut soon, uid, start) = (Soon::default(), Arc::from("uid"), Instant::now());
        assert_eq!(soon.next(), None);
        soon.expect(&uid, start);
        let mut pauses = Vec::new();
        let mut now = start;
        for _ in 0..8 {
            let next = soon.next().unwrap();
            pauses.push((next - now).as_millis());
            assert!(soon.due(next - Duration::from_nanos(1)).is_empty(), "not before its time");
            assert_eq!(soon.due(next), std::slice::from_ref(&uid));
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
        soon.expect(&uid, now);
        assert_eq!(soon.next(), Some(now + FIRST_PAUSE), "another event");
        soon.forget("uid");
        assert_eq!(soon.next(), None);
        soon.expect(&uid, now);
        assert!(soon.due(now + SOON).is_empty() && soon.next().is_none(), "not for ever");
    }

    #[test]
    fn after_a_costly_look_the_next_ones_wait() {
        let (mut soon, uid, start) = (Soon::default(), Arc::from("uid"), Instant::now());
        soon.expect(&uid, start);
        soon.rest_after(Duration::from_millis(7), start);
        assert!(soon.rests(start));
        let next = start + Duration::from_millis(70);
        assert_eq!(soon.next(), Some(next));
        assert!(!soon.rests(next));
        assert_eq!(soon.due(next), [uid]);
        assert_eq!(soon.next(), Some(next + 2 * FIRST_PAUSE), "and then as ever");
    }
}

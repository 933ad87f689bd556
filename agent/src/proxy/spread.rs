//! Which worker a pod's next connection goes to: the pod's home, unless that is busy.
//!
//! By time, and not by connections: one connection may be all of a node's load, and thousands may be none. Few workers a pod keep its
//! connections to servers few.

/// Of a thousandth parts of its time, a worker that works so many has no room for more: queues grow fast from there on.
const BUSY_PERMILLE: u32 = 800;
/// A worker that works fewer takes a share of another's pod.
const FREE_PERMILLE: u32 = 400;

/// The worker for a connection of a pod at home with `home`; `busy`: how much of its time each has worked of late, in thousandths. The
/// nearest behind the home that has time, always in the same order: a third one serves a pod when the second is busy too.
pub(super) fn worker_for(home: usize, busy: impl Fn(usize) -> u32, workers: usize) -> usize {
    if busy(home) < BUSY_PERMILLE {
        return home;
    }
    let others = (1..workers).map(|step| (home + step) % workers);
    others.into_iter().find(|worker| busy(*worker) <= FREE_PERMILLE).unwrap_or(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_gets_a_second_worker_when_its_home_is_busy_and_a_third_when_that_is_too() {
        for (home, busy, expected) in [
            (0, &[0, 0, 0][..], 0),
            (0, &[799, 0, 0], 0),
            (0, &[800, 0, 0], 1),
            (0, &[1_000, 401, 400], 2),
            (2, &[0, 0, 900], 0),
            (1, &[300, 900, 900], 0),
            // Where nobody has time, home is as good as any.
            (1, &[900, 1_000, 500], 1),
            (0, &[1_000], 0),
        ] {
            assert_eq!(worker_for(home, |worker| busy[worker], busy.len()), expected, "{home} of {busy:?}");
        }
    }
}

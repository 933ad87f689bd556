//! Who is left out, when, and for how long.

use super::super::ejection::*;
use super::*;
use crate::mesh::Ejection;

const SECOND: u64 = 1_000_000_000;

/// A source's view of some endpoints.
struct View {
    endpoints: Vec<Arc<Endpoint>>,
    ejections: Ejections,
    rule: Ejection,
    source: u64,
    now: u64,
}

impl View {
    fn of(endpoints: &[Arc<Endpoint>], source: u64) -> Self {
        Self::of_part(endpoints, endpoints.len(), source)
    }

    /// Of endpoints that are a part of so many.
    fn of_part(endpoints: &[Arc<Endpoint>], of: usize, source: u64) -> Self {
        let ejections = Ejections::new(endpoints.len(), of);
        let rule = Ejection::default();
        Self { endpoints: endpoints.to_vec(), ejections, rule, source, now: 100 * SECOND }
    }

    fn observe(&mut self, endpoint: usize, observation: Observation, times: u32) -> bool {
        let mut ejected = false;
        for _ in 0..times {
            ejected = self.ejections.observe(
                endpoint,
                observation,
                self.rule,
                &self.endpoints,
                self.source,
                self.now,
            );
        }
        ejected
    }

    fn fail(&mut self, endpoint: usize) -> bool {
        self.observe(endpoint, Observation::Failure, CONSECUTIVE_FAILURES)
    }

    /// Time passes, a review a second.
    fn wait(&mut self, seconds: u64) -> &mut Self {
        for _ in 0..seconds {
            self.now += SECOND;
            self.ejections.review(self.rule, &self.endpoints, self.source, self.now);
        }
        self
    }

    fn out(&self) -> Vec<usize> {
        (0..self.endpoints.len()).filter(|endpoint| self.ejections.is_out(*endpoint, self.now)).collect()
    }
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_them_starts_the_count_anew() {
    let mut view = View::of(&endpoints(4), 1);
    view.observe(2, Observation::Failure, CONSECUTIVE_FAILURES - 1);
    view.observe(2, Observation::Success, 1);
    assert!(!view.observe(2, Observation::Failure, CONSECUTIVE_FAILURES - 1));
    assert_eq!(view.out(), [] as [usize; 0]);
    assert!(view.observe(2, Observation::Failure, 1));
    assert_eq!(view.out(), [2]);
    view.rule = Ejection::Off;
    assert!(!view.fail(1));
    assert_eq!(view.wait(1).out(), [] as [usize; 0], "who says \"off\" wants them all, and at once");
    // But who itself says that it does not serve is believed.
    view.endpoints[1].load.left_out.set_unhealthy(view.now + 5 * SECOND);
    assert_eq!(view.wait(1).out(), [1]);
}

#[test]
fn of_a_part_as_many_may_be_ejected_as_of_all() {
    // The only one nearby, of four.
    let mut view = View::of_part(&endpoints(1), 4, 1);
    assert!(view.fail(0));
    assert!(view.ejections.in_panic(view.now) && view.ejections.left(|_| true, view.now) == 0);
    // A part of a large Service.
    let mut view = View::of_part(&endpoints(12), 100, 1);
    assert!((0..10).all(|endpoint| view.fail(endpoint)));
    assert_eq!((view.ejections.left(|_| true, view.now), view.ejections.in_panic(view.now)), (2, true));
    // And half of all there are, however many are looked at.
    let mut view = View::of_part(&endpoints(6), 8, 1);
    assert_eq!((0..6).filter(|endpoint| view.fail(*endpoint)).count(), 4);
}

#[test]
fn what_fails_while_it_is_out_does_not_count_when_it_is_back() {
    let mut view = View::of(&endpoints(4), 1);
    view.fail(2);
    view.wait(10);
    // Calls that it had already.
    view.observe(2, Observation::Failure, 20);
    assert_eq!(view.wait(20).out(), [] as [usize; 0]);
    assert!(!view.observe(2, Observation::Failure, CONSECUTIVE_FAILURES - 1));
    assert!(view.observe(2, Observation::Failure, 1));
}

#[test]
fn while_nothing_has_failed_no_endpoint_is_looked_at() {
    let mut view = View::of(&endpoints(4), 1);
    // Later than whatever other tests have met.
    view.now = u64::MAX / 4;
    view.wait(100);
    assert_eq!(view.ejections.passes, 0);
    view.fail(2);
    view.wait(BASE_NS / SECOND);
    assert_eq!(view.out(), [] as [usize; 0]);
    // It is remembered until its count is back at nothing, and then no more.
    view.wait(2 * INTERVAL_NS / SECOND);
    let passes = view.ejections.passes;
    view.wait(100);
    assert_eq!(view.ejections.passes, passes);
}

#[test]
fn an_endpoint_comes_back_and_stays_away_longer_each_time_it_fails_again() {
    let mut view = View::of(&endpoints(4), 1);
    for (time, seconds) in [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300].into_iter().enumerate() {
        assert!(view.fail(2), "time {time}");
        assert_eq!(view.wait(seconds - 1).out(), [2], "time {time}");
        assert_eq!(view.wait(1).out(), [] as [usize; 0], "time {time}");
    }
    // Ten seconds of health take one off, and after long enough it is as if it had never been out.
    view.wait(115);
    assert!(view.fail(2));
    assert_eq!(view.wait(30).out(), [] as [usize; 0]);
}

#[test]
fn a_lost_connection_counts_once_however_many_calls_fell_with_it() {
    let mut view = View::of(&endpoints(4), 1);
    for _ in 0..CONSECUTIVE_FAILURES - 1 {
        assert!(!view.observe(2, Observation::LostConnection, 100));
        view.now += 1;
    }
    assert!(view.observe(2, Observation::LostConnection, 1));
}

#[test]
fn at_most_half_of_the_endpoints_is_ejected_though_one_of_two_and_never_the_only_one() {
    for (count, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
        let mut view = View::of(&endpoints(count), 1);
        for endpoint in 0..count {
            view.fail(endpoint);
        }
        assert_eq!(view.out(), (0..most).collect::<Vec<_>>(), "{count}");
    }
}

#[test]
fn what_two_pods_have_met_holds_for_all_and_what_one_has_met_for_itself() {
    let endpoints = endpoints(4);
    let [mut one, mut two, mut three] = [1, 2, 3].map(|source| View::of(&endpoints, source));
    assert!(one.fail(2));
    assert_eq!((one.wait(1).out(), two.wait(1).out(), three.wait(1).out()), (vec![2], vec![], vec![]));
    assert!(two.fail(2));
    // The others learn of it within a second.
    assert_eq!(three.wait(1).out(), [2]);
    assert_eq!(three.wait(29).out(), [] as [usize; 0], "and it comes back for them too");
}

#[test]
fn another_worker_of_the_same_pod_follows_and_does_not_count_as_a_second_pod() {
    let endpoints = endpoints(4);
    let [mut one, mut same, mut other] = [1, 1, 2].map(|source| View::of(&endpoints, source));
    assert!(one.fail(2));
    assert!(same.fail(2));
    assert_eq!((same.wait(1).out(), other.wait(1).out()), (vec![2], vec![]));
}

#[test]
fn where_more_than_half_are_out_all_are_used() {
    let endpoints = endpoints(4);
    let [mut one, mut two, mut three] = [1, 2, 3].map(|source| View::of(&endpoints, source));
    for view in [&mut one, &mut two] {
        view.fail(0);
        view.fail(1);
    }
    assert_eq!(three.wait(1).out(), [0, 1], "half are left");
    assert!(three.fail(2));
    assert_eq!(three.out(), [] as [usize; 0], "a quarter is left: panic");
    assert_eq!(three.wait(30).out(), [] as [usize; 0]);
}

#[test]
fn an_outlier_in_success_rate_is_ejected_where_that_is_asked_for() {
    let run = |rule, hosts: usize, calls: u32| {
        let mut view = View::of(&endpoints(hosts), 1);
        view.rule = rule;
        view.wait(1);
        for _ in 0..calls / 5 {
            // One of five calls to endpoint 3 fails, and never several in a row.
            (0..hosts).for_each(|endpoint| {
                view.observe(endpoint, Observation::Success, if endpoint == 3 { 4 } else { 5 });
            });
            view.observe(3, Observation::Failure, 1);
        }
        view.wait(INTERVAL_NS / SECOND).out()
    };
    assert_eq!(run(Ejection::SuccessRate, 6, 100), [3]);
    let nobody: [usize; 0] = [];
    assert_eq!(run(Ejection::ConsecutiveFailures, 6, 100), nobody, "nobody asked for it");
    assert_eq!(run(Ejection::SuccessRate, 4, 100), nobody, "too few to compare with");
    assert_eq!(run(Ejection::SuccessRate, 6, 95), nobody, "too few calls to tell");
}

#[test]
fn what_is_known_of_an_endpoint_goes_with_it_when_the_list_changes() {
    let endpoints = endpoints(5);
    let mut view = View::of(&endpoints[1..], 1);
    view.fail(2);
    // Another one has come before it.
    view.ejections = Ejections::carried_over(&view.ejections, 5, 5, (1..5).map(|index| (index, index - 1)));
    view.endpoints = endpoints;
    assert_eq!(view.out(), [3]);
}

use super::*;

fn id(number: u32) -> DestinationId {
    DestinationId::new(number).unwrap()
}

fn unused(_: DestinationId) -> u64 {
    0
}

/// Takes a live id through its quarantine, to the moment at which it is free again.
fn let_go(ids: &mut Ids, id: DestinationId, now: &mut Instant) {
    ids.retire(id);
    ids.removed_from_kernel(id, *now);
    *now += QUARANTINE;
    assert_eq!(ids.advance(*now, unused), [id]);
    assert_eq!(ids.advance(*now, unused), []);
}

#[test]
fn an_id_is_free_again_a_round_after_its_quarantine_and_not_before() {
    let mut now = Instant::now();
    let mut ids = Ids::new(1);
    let only = ids.allocate().unwrap();
    assert_eq!(ids.allocate(), None);

    ids.retire(only);
    now += 10 * QUARANTINE;
    assert_eq!(ids.advance(now, unused), [], "the kernel may still give it out");
    ids.removed_from_kernel(only, now);
    assert_eq!(ids.advance(now + QUARANTINE - Duration::from_nanos(1), unused), []);
    now += QUARANTINE;
    assert_eq!(ids.advance(now, |_| 1), [], "a connection carries it");
    assert_eq!(ids.allocate(), None);
    assert_eq!(ids.advance(now, unused), [only]);
    assert_eq!(ids.allocate(), None, "workers may still know it");
    assert_eq!(ids.advance(now, |_| 1), []);
    assert_eq!(ids.allocate(), None, "a connection came at the last moment");
    assert_eq!(ids.advance(now, unused), []);
    assert_eq!(ids.allocate(), Some(only));
}

#[test]
fn the_id_that_rested_longest_is_used_first_and_fresh_ones_before_it() {
    let mut now = Instant::now();
    let mut ids = Ids::new(3);
    let [a, b] = [ids.allocate().unwrap(), ids.allocate().unwrap()];
    let_go(&mut ids, b, &mut now);
    let_go(&mut ids, a, &mut now);
    assert_eq!(ids.allocate(), Some(id(2)));
    assert_eq!(ids.allocate(), Some(b));
    assert_eq!(ids.allocate(), Some(a));
}

#[test]
fn only_an_id_in_quarantine_is_revived() {
    let now = Instant::now();
    let mut ids = Ids::new(4);
    let a = ids.allocate().unwrap();
    assert!(!ids.revive(a), "live");
    ids.retire(a);
    assert!(!ids.revive(a), "the kernel's map may still be about to lose it");
    ids.removed_from_kernel(a, now);
    assert!(ids.revive(a));
    assert_eq!(ids.advance(now + 10 * QUARANTINE, unused), [], "it is live again");
    assert_eq!((ids.live(), ids.resting()), (1, 0));
}

#[test]
fn a_restart_knows_the_ids_of_the_process_before() {
    let now = Instant::now();
    let mut ids = Ids::new(6);
    ids.restore([id(1), id(3)], [id(3), id(4)], now);
    assert_eq!((ids.live(), ids.resting()), (2, 1));
    // Above the highest first, then the gaps.
    let given: Vec<u32> = std::iter::from_fn(|| ids.allocate()).map(DestinationId::number).collect();
    assert_eq!(given, [5, 0, 2]);
    assert_eq!(ids.advance(now + QUARANTINE, unused), [id(4)]);
}

#[test]
fn ids_beyond_a_capacity_that_shrank_are_not_used_again() {
    let mut now = Instant::now();
    let mut ids = Ids::new(2);
    ids.restore([id(7)], [], now);
    let_go(&mut ids, id(7), &mut now);
    let given: Vec<u32> = std::iter::from_fn(|| ids.allocate()).map(DestinationId::number).collect();
    assert_eq!(given, [0, 1]);
}

/// A small random number generator, so that a failure replays from its seed (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// What is outside of `Ids`: the kernel's map, the workers' snapshot, and connections that carry ids.
#[derive(Default)]
struct Outside {
    kernel: Vec<DestinationId>,
    workers: Vec<DestinationId>,
    retiring: Vec<DestinationId>,
    connections: Vec<DestinationId>,
}

#[test]
fn whatever_happens_an_id_that_anything_may_carry_is_not_given_out() {
    for seed in 1..=300 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut now = Instant::now();
        let mut ids = Ids::new(8);
        let mut outside = Outside::default();
        let mut given = 0;
        for step in 0..400 {
            match random.below(6) {
                0 => {
                    let Some(fresh) = ids.allocate() else { continue };
                    let held = [&outside.kernel, &outside.workers, &outside.retiring, &outside.connections];
                    assert!(
                        held.iter().all(|held| !held.contains(&fresh)),
                        "seed {seed}, step {step}: {fresh:?}"
                    );
                    outside.workers.push(fresh);
                    outside.kernel.push(fresh);
                    given += 1;
                }
                1 if !outside.kernel.is_empty() => {
                    let gone = outside.kernel.swap_remove(random.below(outside.kernel.len()));
                    ids.retire(gone);
                    outside.retiring.push(gone);
                }
                2 if !outside.retiring.is_empty() => {
                    let gone = outside.retiring.swap_remove(random.below(outside.retiring.len()));
                    ids.removed_from_kernel(gone, now);
                    if random.below(4) == 0 && ids.revive(gone) {
                        outside.kernel.push(gone);
                    }
                }
                3 if !outside.kernel.is_empty() => {
                    outside.connections.push(outside.kernel[random.below(outside.kernel.len())]);
                }
                4 if !outside.connections.is_empty() => {
                    outside.connections.swap_remove(random.below(outside.connections.len()));
                }
                5 => {
                    now += QUARANTINE / 4;
                    let carried =
                        |id| outside.connections.iter().filter(|carried| **carried == id).count() as u64;
                    for dropped in ids.advance(now, carried) {
                        outside.workers.retain(|known| *known != dropped);
                    }
                }
                _ => {}
            }
        }
        assert!(given > 8, "seed {seed} proves nothing: no id came round");
    }
}

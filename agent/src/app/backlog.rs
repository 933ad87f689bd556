//! Changes on their way to workers and kernel, in the order that keeps any connection from a worker that does not know it: a snapshot
//! to all workers, and when all have it, the rest. While workers take their time (one may hang), further changes are put together, so
//! that what waits is bounded by what there is, and nothing else has to wait.

use crate::control::{Delta, Enrolment};
use crate::mesh::{DestinationId, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What is to be done, once the workers have a snapshot.
#[derive(Debug, Default)]
pub(super) struct Batch {
    snapshot: Option<Arc<Snapshot>>,
    /// What the kernel is to know of each address.
    pub(super) addresses: BTreeMap<SocketAddr, Capture>,
    /// Ids that the kernel's map leads to no more once that is done.
    pub(super) retired: Vec<DestinationId>,
    /// Pods to enrol, or whose row is another, by UID.
    pub(super) pods: BTreeMap<Arc<str>, Enrolment>,
    /// Of the addresses, those that the kernel refused before.
    again: BTreeSet<SocketAddr>,
}

/// What the kernel is to know of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capture {
    /// Its connections are taken, with this id.
    Taken(DestinationId),
    /// They go straight, and are counted as such, while it has no endpoint.
    WithoutEndpoint(DestinationId),
    /// Nothing: they go straight.
    Nothing,
}

/// Changes, one batch in hand and one that gathers.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    in_hand: Option<(Batch, Instant)>,
    gathering: Batch,
    /// What the kernel refused to learn: [`Self::try_again`].
    refused: Batch,
}

impl Backlog {
    /// Takes a change in, after all before it. Gives the pods that are to be withdrawn, by UID: the workers need not know anything
    /// for that, and a pod that has gone is not to wait for a worker that hangs.
    #[must_use]
    pub(super) fn push(&mut self, mut delta: Delta) -> Vec<Arc<str>> {
        let withdrawn = std::mem::take(&mut delta.withdraw);
        for uid in &withdrawn {
            if let Some((batch, _)) = &mut self.in_hand {
                batch.pods.remove(uid);
            }
            self.gathering.pods.remove(uid);
        }
        self.gathering.add(delta);
        let later = &self.gathering.addresses;
        self.refused.addresses.retain(|address, _| !later.contains_key(address));
        withdrawn
    }

    /// Takes back what of a batch the kernel refused, unless there is a later word on it, and the ids that its map may still lead to.
    pub(super) fn put_back(
        &mut self,
        mut addresses: BTreeMap<SocketAddr, Capture>,
        retired: Vec<DestinationId>,
    ) {
        addresses.retain(|address, _| !self.gathering.addresses.contains_key(address));
        self.refused.addresses.extend(addresses);
        self.refused.retired.extend(retired);
    }

    /// Has what was refused tried again with the next batch.
    pub(super) fn try_again(&mut self) {
        let Batch { addresses, retired, .. } = std::mem::take(&mut self.refused);
        self.gathering.again.extend(addresses.keys());
        self.gathering.addresses.extend(addresses);
        self.gathering.retired.extend(retired);
    }

    /// The addresses of which the kernel knows something else than it should, also while it is to be told again.
    pub(super) fn refused(&self) -> impl Iterator<Item = &SocketAddr> {
        let in_hand = self.in_hand.iter().flat_map(|(batch, _)| &batch.again);
        self.refused.addresses.keys().chain(in_hand).chain(&self.gathering.again)
    }

    /// Takes the next batch in hand, if there is none. What it gives is to be published.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Arc<Snapshot>> {
        if self.in_hand.is_some() || self.gathering.is_empty() {
            return None;
        }
        let batch = std::mem::take(&mut self.gathering);
        let snapshot = batch.snapshot.clone();
        self.in_hand = Some((batch, now));
        snapshot
    }

    /// The batch in hand, if all workers go by its snapshot: to be carried out.
    pub(super) fn ready(&mut self, applied: u64) -> Option<Batch> {
        let is_known = |batch: &Batch| batch.snapshot.as_ref().is_none_or(|known| known.version <= applied);
        self.in_hand.take_if(|(batch, _)| is_known(batch)).map(|(batch, _)| batch)
    }

    /// Since when a batch waits for the workers.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.in_hand.as_ref().map(|(_, since)| *since)
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.snapshot.is_none()
            && self.addresses.is_empty()
            && self.retired.is_empty()
            && self.pods.is_empty()
    }

    /// The later word on an address or a pod is the one that counts; a later snapshot knows all ids of an earlier one that are still
    /// in the kernel's map.
    fn add(&mut self, delta: Delta) {
        let Delta { snapshot, add, without_endpoint, remove, retired, enrol, change, withdraw: _ } = delta;
        self.snapshot = snapshot.or(self.snapshot.take());
        self.addresses.extend(remove.into_iter().map(|address| (address, Capture::Nothing)));
        self.addresses.extend(add.into_iter().map(|(address, id)| (address, Capture::Taken(id))));
        let without_endpoint = without_endpoint.into_iter();
        self.addresses.extend(without_endpoint.map(|(address, id)| (address, Capture::WithoutEndpoint(id))));
        self.retired.extend(retired);
        let enrolments = enrol.into_iter().chain(change);
        self.pods.extend(enrolments.map(|enrolment| (enrolment.pod.uid.clone(), enrolment)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::rows::{Enabled, OnEnrol, PodRow};
    use crate::sources::sample;

    fn delta(version: u64) -> Delta {
        let snapshot = Snapshot { version, ..Snapshot::default() };
        Delta { snapshot: Some(Arc::new(snapshot)), ..Delta::default() }
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 96, 0, 1], port))
    }

    fn id(number: u32) -> DestinationId {
        DestinationId::new(number).unwrap()
    }

    #[test]
    fn nothing_is_carried_out_before_all_workers_know_it() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        assert!(backlog.begin(now).is_none() && backlog.ready(0).is_none());
        assert!(backlog.push(Delta { add: vec![(address(1), id(1))], ..delta(5) }).is_empty());
        assert_eq!(backlog.begin(now).unwrap().version, 5);
        assert!(backlog.ready(4).is_none());
        assert_eq!(backlog.waits_since(), Some(now));
        assert_eq!(backlog.ready(5).unwrap().addresses, [(address(1), Capture::Taken(id(1)))].into());
        assert!(backlog.waits_since().is_none() && backlog.begin(now).is_none());
    }

    #[test]
    fn a_pod_that_goes_waits_for_no_worker() {
        let enrolment = |uid: &str| Enrolment {
            pod: Arc::new(PodRow { uid: uid.into(), ..sample::pod(uid, Enabled::Yes) }),
            on_enrol: OnEnrol::Keep,
        };
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let enrol = ["a", "b"].map(enrolment).into();
        assert!(backlog.push(Delta { enrol, ..delta(1) }).is_empty());
        backlog.begin(now);
        let enrol = ["c", "d"].map(enrolment).into();
        assert!(backlog.push(Delta { enrol, ..delta(2) }).is_empty());
        let gone: Vec<Arc<str>> = ["a", "c", "e"].map(Arc::from).into();
        assert_eq!(backlog.push(Delta { withdraw: gone.clone(), ..Delta::default() }), gone);
        assert!(backlog.ready(1).unwrap().pods.keys().eq([&Arc::from("b")]));
        backlog.begin(now);
        assert!(backlog.ready(2).unwrap().pods.keys().eq([&Arc::from("d")]));
    }

    #[test]
    fn what_the_kernel_refused_is_tried_again_until_there_is_a_later_word() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let refused = [(address(1), Capture::Taken(id(1))), (address(2), Capture::Nothing)];
        let _ = backlog.push(Delta { remove: vec![address(2)], ..Delta::default() });
        backlog.put_back(refused.into(), vec![id(9)]);
        assert!(backlog.refused().eq([&address(1)]), "a later word on the other waits already");
        backlog.begin(now);
        assert!(backlog.ready(0).unwrap().retired.is_empty(), "not before it is asked for");
        backlog.try_again();
        assert!(backlog.refused().eq([&address(1)]), "the kernel has not learnt of it yet");
        backlog.begin(now);
        assert!(backlog.refused().eq([&address(1)]), "nor while the workers take their time");
        let batch = backlog.ready(0).unwrap();
        assert_eq!((batch.addresses, batch.retired), ([refused[0]].into(), vec![id(9)]));
        assert_eq!(backlog.refused().next(), None);

        backlog.put_back([refused[0]].into(), vec![id(9)]);
        let _ = backlog.push(Delta { remove: vec![address(1)], retired: vec![id(1)], ..Delta::default() });
        assert_eq!(backlog.refused().next(), None);
        backlog.try_again();
        backlog.begin(now);
        let batch = backlog.ready(0).unwrap();
        assert_eq!(batch.addresses, [(address(1), Capture::Nothing)].into());
        assert_eq!(batch.retired, [id(1), id(9)]);
    }

    #[test]
    fn while_a_worker_hangs_changes_are_put_together_and_the_last_word_counts() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        assert!(backlog.push(delta(1)).is_empty());
        backlog.begin(now);
        for round in 0..1_000_u32 {
            let version = 2 + u64::from(round);
            let _ = backlog.push(Delta {
                add: vec![(address(1), id(round))],
                remove: vec![address(2)],
                retired: vec![id(round + 1_000)],
                ..delta(version)
            });
            assert!(backlog.begin(now).is_none(), "one batch at a time");
        }
        let _ = backlog.push(Delta {
            remove: vec![address(1)],
            add: vec![(address(2), id(7))],
            without_endpoint: vec![(address(3), id(8))],
            ..Delta::default()
        });
        assert!(backlog.ready(1).unwrap().addresses.is_empty());
        assert_eq!(backlog.begin(now).unwrap().version, 1_001);
        let batch = backlog.ready(1_001).unwrap();
        let expected = [
            (address(1), Capture::Nothing),
            (address(2), Capture::Taken(id(7))),
            (address(3), Capture::WithoutEndpoint(id(8))),
        ];
        assert_eq!(batch.addresses, expected.into());
        assert_eq!(batch.retired.len(), 1_000);
    }
}

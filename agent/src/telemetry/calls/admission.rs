//! What is counted by a name of its own. Clients name methods and servers give statuses, as many as they like: of these the first come are
//! told apart, for all pods of a workload, workers and addresses of a Service together, for as long as anything of it is told.

use super::Status;
use rustc_hash::FxHashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Methods that are counted by name, for each workload and Service port; the largest APIs have some hundred, and of a client's inventions
/// there is no end. Calls of others count as [`OTHER_METHOD`].
pub const MOST_METHODS: usize = 100;
/// What stands for the methods beyond, as in OTel's conventions for RPC.
pub const OTHER_METHOD: &str = "_OTHER";
/// Ends of calls that are told apart, for each workload and Service port: gRPC has 17 codes, the agent some 20 flags, most of them with one
/// code. Of others the HTTP status' class alone is counted.
const MOST_STATUSES: usize = 64;

/// From one workload to one Service port.
#[derive(Debug, Default)]
pub(super) struct Admission(Mutex<Admitted>);

#[derive(Debug, Default)]
struct Admitted {
    methods: FxHashSet<Arc<str>>,
    statuses: FxHashSet<Status>,
}

impl Admission {
    /// A method's name, held once. If there is room for no more: all that there are, for good.
    pub(super) fn method(&self, name: &str) -> Result<Arc<str>, Vec<Arc<str>>> {
        let methods = &mut self.lock().methods;
        if let Some(known) = methods.get(name) {
            return Ok(Arc::clone(known));
        }
        if methods.len() >= MOST_METHODS {
            return Err(methods.iter().cloned().collect());
        }
        let name = Arc::from(name);
        methods.insert(Arc::clone(&name));
        Ok(name)
    }

    /// Whether calls that end so are told apart from others. If there is room for no more: all that are, for good.
    pub(super) fn status(&self, status: Status) -> Result<(), FxHashSet<Status>> {
        let statuses = &mut self.lock().statuses;
        if statuses.len() >= MOST_STATUSES {
            return Err(statuses.clone());
        }
        statuses.insert(status);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Admitted> {
        // Sets are whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's view of the statuses that are told apart.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    own: FxHashSet<Status>,
    is_full: bool,
}

impl Statuses {
    /// What a call that ended so counts as.
    pub(super) fn told(&mut self, status: Status, admission: &Admission) -> Status {
        if !self.own.contains(&status) && !self.is_full {
            match admission.status(status) {
                Ok(()) => drop(self.own.insert(status)),
                Err(all) => (self.own, self.is_full) = (all, true),
            }
        }
        if self.own.contains(&status) { status } else { coarse(status) }
    }
}

/// All that is told of a status that is one of too many.
pub(super) fn coarse(status: Status) -> Status {
    Status { http: status.http - status.http % 100, ..status }
}

#[cfg(test)]
mod tests {
    use super::super::Flag;
    use super::*;

    #[test]
    fn statuses_beyond_the_limit_are_told_alike_on_all_workers() {
        let admission = Admission::default();
        let mut workers = [Statuses::default(), Statuses::default()];
        let status = |http, grpc| Status { is_grpc: true, http, grpc: Some(grpc), flag: Flag::None };
        let mut told = FxHashSet::default();
        for round in 0..3 {
            for http in 200..600 {
                for worker in &mut workers {
                    told.insert(worker.told(status(http, (http % 17) as u8), &admission));
                }
                assert_eq!(
                    workers[0].told(status(http, (http % 17) as u8), &admission),
                    workers[1].told(status(http, (http % 17) as u8), &admission),
                    "round {round}"
                );
            }
        }
        assert!(told.len() <= MOST_STATUSES + 4 * 17, "{}", told.len());
        assert_eq!(workers[0].told(status(599, 14), &admission), status(500, 14));
        assert_eq!(workers[1].told(status(200, 13), &admission), status(200, 13), "it was among the first");
    }
}

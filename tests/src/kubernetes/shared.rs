//! One cluster for all tests of a process: its start costs more than most tests.

use super::cluster::Cluster;
use anyhow::{Result, anyhow};
use std::sync::{Once, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A cluster that the tests of a process share, in a `static`; it ends with the process.
#[derive(Debug)]
pub struct SharedCluster {
    cluster: OnceLock<Result<RwLock<Option<Cluster>>, String>>,
}

/// A shared cluster that others use too.
pub struct Shared(RwLockReadGuard<'static, Option<Cluster>>);

/// A shared cluster that nobody else uses now.
pub struct Exclusive(RwLockWriteGuard<'static, Option<Cluster>>);

impl SharedCluster {
    /// None is started before the first use.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "only ever a static")]
    pub const fn new() -> Self {
        Self { cluster: OnceLock::new() }
    }

    /// For tests in namespaces of their own, which do nothing to nodes, agents or the API server.
    ///
    /// # Errors
    /// When the cluster does not come up by `start`.
    pub fn get(&'static self, start: fn() -> Result<Cluster>) -> Result<Shared> {
        Ok(Shared(self.started(start)?.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// For tests that take from the others what they need, and put it back.
    ///
    /// # Errors
    /// When the cluster does not come up by `start`.
    pub fn get_alone(&'static self, start: fn() -> Result<Cluster>) -> Result<Exclusive> {
        Ok(Exclusive(self.started(start)?.write().unwrap_or_else(PoisonError::into_inner)))
    }

    fn started(&'static self, start: fn() -> Result<Cluster>) -> Result<&'static RwLock<Option<Cluster>>> {
        let started = self.cluster.get_or_init(|| {
            end_with_process(self);
            start().map(|cluster| RwLock::new(Some(cluster))).map_err(|error| format!("{error:#}"))
        });
        started.as_ref().map_err(|error| anyhow!("the shared cluster did not come up: {error}"))
    }

    fn end(&self) {
        if let Some(Ok(cluster)) = self.cluster.get() {
            drop(cluster.write().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// Statics are never dropped.
fn end_with_process(cluster: &'static SharedCluster) {
    static ENDING: OnceLock<&'static SharedCluster> = OnceLock::new();
    static ONCE: Once = Once::new();
    extern "C" fn end() {
        if let Some(cluster) = ENDING.get() {
            cluster.end();
        }
    }
    // The same once more, if its first start has panicked.
    let known: &'static SharedCluster = ENDING.get_or_init(|| cluster);
    assert!(std::ptr::eq(known, cluster), "a process shares one cluster");
    // SAFETY: the handler takes no arguments and unwinds into nobody: what it calls reports errors and does not panic.
    ONCE.call_once(|| assert_eq!(unsafe { libc::atexit(end) }, 0, "there is room for a handler"));
}

impl std::ops::Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.0.as_ref().expect("it ends after the last test")
    }
}

impl std::ops::Deref for Exclusive {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.0.as_ref().expect("it ends after the last test")
    }
}

impl std::ops::DerefMut for Exclusive {
    fn deref_mut(&mut self) -> &mut Cluster {
        self.0.as_mut().expect("it ends after the last test")
    }
}

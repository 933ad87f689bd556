//! Who sends a call.

use super::{ObjectName, PodKey, Workload};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A pod of this node that is enrolled.
#[derive(Debug)]
pub struct Pod {
    /// Which incarnation of the pod.
    pub key: PodKey,
    /// Its name.
    pub name: ObjectName,
    /// What it belongs to.
    pub workload: Arc<Workload>,
    /// Its network namespace, in which upstream sockets are created. It lives as long as this descriptor: whoever holds a
    /// `Pod` lets it go when the pod has gone.
    pub netns: OwnedFd,
}

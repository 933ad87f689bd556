//! Who sends a call.

use super::{ObjectName, PodKey};
use std::os::fd::OwnedFd;

/// A pod of this node that is enrolled.
#[derive(Debug)]
pub struct Pod {
    /// Which incarnation of the pod.
    pub key: PodKey,
    /// Its name.
    pub name: ObjectName,
    /// Its network namespace, in which upstream sockets are created. It lives as long as this descriptor: whoever holds a
    /// `Pod` lets it go when the pod has gone.
    pub netns: OwnedFd,
}

//! Why a pod that is to be enrolled is not: a name that programs can rely on, and a text for people.

use crate::kernel::{KernelError, NotFound};
use std::io;
use std::time::{Duration, Instant};

/// How long an obstacle stands before it is told as one that lasts: longer than a runtime takes for a pod's start on a busy node.
pub(super) const LASTING_AFTER: Duration = Duration::from_secs(10);

/// What stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// Its name in metrics, in the admin endpoint and in Events.
    pub(super) reason: &'static str,
    /// What it is.
    pub(super) text: String,
}

impl Obstacle {
    pub(super) fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    /// Whether it may be over in a moment, since the pod's start is under way.
    pub(super) fn is_of_a_start(&self) -> bool {
        matches!(self.reason, "no_process" | "node_network_namespace")
    }

    /// Whether it says nothing of the pod, but that the kernel does not let the agent look, or act.
    pub(super) fn is_refusal(&self) -> bool {
        self.reason == "kernel_refuses"
    }

    /// Whether nothing that happens in the pod's start will end it.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.reason, "sandboxed_runtime" | "no_listener_port" | "too_many_pods")
    }

    /// Whether the pod's owner should hear of it: not of a pod that waits for its image, its node's volumes or its network. One that
    /// has an address waits for none of them: its sandbox is there, since it was given it (`has_sandbox`).
    pub(super) fn lasts(&self, since: Instant, has_sandbox: bool) -> bool {
        match self.reason {
            "no_process" if !has_sandbox => false,
            "sandboxed_runtime" | "no_listener_port" | "cgroup_of_another_pod" => true,
            _ => since.elapsed() >= LASTING_AFTER,
        }
    }
}

impl From<NotFound> for Obstacle {
    fn from(not_found: NotFound) -> Self {
        let reason = match not_found {
            NotFound::NoProcess => "no_process",
            NotFound::NotVisible => "processes_not_visible",
            NotFound::InNodeNamespace => "node_network_namespace",
            NotFound::SandboxedRuntime(_) => "sandboxed_runtime",
            NotFound::Refused(_) => "kernel_refuses",
        };
        Self::new(reason, not_found.to_string())
    }
}

impl From<KernelError> for Obstacle {
    fn from(error: KernelError) -> Self {
        let reason = match &error {
            KernelError::NoPort { .. } => "no_listener_port",
            KernelError::Full { .. } => "too_many_pods",
            KernelError::NoObject | KernelError::Refused { .. } | KernelError::NotHeld { .. } => {
                "kernel_refuses"
            }
        };
        Self::new(reason, error.to_string())
    }
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::new("kernel_refuses", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_in_the_way_is_told_to_the_pods_owner() {
        let now = Instant::now();
        let long_ago = now.checked_sub(LASTING_AFTER).unwrap();
        for (reason, at_once, later) in [
            ("no_process", false, true),
            ("node_network_namespace", false, true),
            ("processes_not_visible", false, true),
            ("kernel_refuses", false, true),
            ("sandboxed_runtime", true, true),
            ("no_listener_port", true, true),
            ("cgroup_of_another_pod", true, true),
        ] {
            let obstacle = Obstacle::new(reason, "");
            assert_eq!(
                (obstacle.lasts(now, true), obstacle.lasts(long_ago, true)),
                (at_once, later),
                "{reason}"
            );
        }
        let image_is_pulled = Obstacle::new("no_process", "");
        assert!(!image_is_pulled.lasts(long_ago, false), "it has no address, so it may have no sandbox yet");
    }
}

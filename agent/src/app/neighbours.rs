//! What others have attached to the node's cgroups: what is in the way of the agent's programs, and whether there is a socket load
//! balancer. Looked at in the start and from time to time, since none of it announces itself.

use super::place::Place;
use crate::kernel::legacy::{self, Effect, Legacy};
use crate::kernel::{KernelError, balancers};
use crate::telemetry::LegacyAttachment;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// What was found last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Neighbours {
    /// Attachments of the old, single-program kind, with their effect.
    in_the_way: Vec<InTheWay>,
    /// Others' programs at `connect()`.
    load_balancers: BTreeSet<String>,
}

/// An attachment that is in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct InTheWay {
    /// Where it is.
    cgroup: PathBuf,
    /// What it is attached as.
    kind: &'static str,
    /// The programs' ids.
    programs: Vec<u32>,
    /// What follows, by its name.
    effect: &'static str,
}

impl Neighbours {
    /// Looks, on a thread that it may hold up: it asks each cgroup of each pod, which takes milliseconds.
    pub(super) async fn look(place: Place) -> Option<Self> {
        let look = tokio::task::spawn_blocking(move || Self::look_at(&place.mount, &place.cgroup));
        match look.await.ok()? {
            Ok(neighbours) => Some(neighbours),
            Err(error) => {
                warn!("cannot see what others have attached: {error}");
                None
            }
        }
    }

    fn look_at(mount: &Path, cgroup: &Path) -> Result<Self, KernelError> {
        let in_the_way = legacy::attachments(mount, cgroup)?.into_iter().map(InTheWay::from);
        Ok(Self { in_the_way: in_the_way.collect(), load_balancers: balancers::programs(mount, cgroup)? })
    }

    /// Says what is another than before.
    pub(super) fn tell(&self, before: &Self) {
        for found in self.in_the_way.iter().filter(|found| !before.in_the_way.contains(found)) {
            let InTheWay { cgroup, kind, programs, effect } = found;
            warn!(
                cgroup = %cgroup.display(), kind, ?programs, effect,
                "a program attached in the old way is in the agent's way: its owner is to attach it with a link, or with BPF_F_ALLOW_MULTI"
            );
        }
        for gone in before.in_the_way.iter().filter(|gone| !self.in_the_way.contains(gone)) {
            info!(cgroup = %gone.cgroup.display(), kind = gone.kind, "no longer in the agent's way");
        }
        if self.load_balancers != before.load_balancers {
            info!(programs = ?self.load_balancers, "socket load balancers beside the agent");
        }
    }

    /// Whether another's program may put an endpoint's address in place of a Service's.
    pub(super) fn has_load_balancer(&self) -> bool {
        !self.load_balancers.is_empty()
    }

    /// For the metrics.
    pub(super) fn legacy_attachments(&self) -> Vec<LegacyAttachment> {
        let found = self.in_the_way.iter().map(|found| LegacyAttachment {
            cgroup: found.cgroup.display().to_string(),
            kind: found.kind,
            effect: found.effect,
        });
        found.collect()
    }
}

impl From<Legacy> for InTheWay {
    fn from(legacy: Legacy) -> Self {
        let effect = match legacy.effect {
            Effect::Refuses => "refuses",
            Effect::IsReplaced => "is_replaced",
            Effect::Replaces => "replaces",
        };
        Self { cgroup: legacy.cgroup, kind: legacy.attach_type, programs: legacy.programs, effect }
    }
}

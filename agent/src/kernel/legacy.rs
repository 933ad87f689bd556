//! Programs that others attached to cgroups in the old, single-program way, where they and ours get into each other's way.
//!
//! A cgroup attachment with flags (`BPF_F_ALLOW_MULTI`), as every link is, shares; one without rules alone: at our cgroup or above it
//! refuses ours (EPERM), below it silently runs instead of ours. One that allows itself to be overridden
//! (`BPF_F_ALLOW_OVERRIDE`) is silently replaced by ours. None of that shows unless someone looks: at start, and from time to time.

use super::bpf::{self, AttachType};
use super::error::{Context as _, KernelError};
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

const BPF_F_ALLOW_OVERRIDE: u32 = 1;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// What an attachment of the old kind and ours do to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ours cannot be attached.
    Refuses,
    /// Ours replaces it for the pods.
    IsReplaced,
    /// It replaces ours for the pods in its cgroup: their connections go straight.
    Replaces,
}

/// An attachment of the old kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Legacy {
    /// Where it is attached.
    pub cgroup: PathBuf,
    /// As what: `connect4` and such.
    pub attach_type: &'static str,
    /// The ids of its programs, as bpftool shows them.
    pub programs: Vec<u32>,
    /// What follows.
    pub effect: Effect,
}

/// All attachments of the old kind at a cgroup, above and below it, of the kinds that the agent attaches.
///
/// # Errors
/// No such cgroup within the mount; BPF_PROG_QUERY is refused (needs CAP_NET_ADMIN or CAP_SYS_ADMIN).
pub fn attachments(mount: &Path, cgroup: &Path) -> Result<Vec<Legacy>, KernelError> {
    let mut found = Vec::new();
    for at in cgroup.ancestors().take_while(|at| at.starts_with(mount)) {
        look(at, |flags| effect_at_or_above(flags, at == cgroup), &mut found)?;
    }
    look_below(cgroup, &mut found)?;
    Ok(found)
}

fn look_below(cgroup: &Path, found: &mut Vec<Legacy>) -> Result<(), KernelError> {
    let entries = match fs::read_dir(cgroup) {
        Ok(entries) => entries,
        // Cgroups come and go.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(|| format!("reading {}", cgroup.display())),
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let below = entry.path();
        match look(&below, effect_below, found) {
            Err(_) if !below.exists() => continue,
            looked => looked?,
        }
        look_below(&below, found)?;
    }
    Ok(())
}

fn look(
    cgroup: &Path,
    effect: impl Fn(u32) -> Option<Effect>,
    found: &mut Vec<Legacy>,
) -> Result<(), KernelError> {
    let directory = File::open(cgroup).context(|| format!("opening the cgroup {}", cgroup.display()))?;
    for attach_type in AttachType::ALL {
        let attached = bpf::attached(directory.as_fd(), attach_type)
            .context(|| format!("asking what is attached to {}", cgroup.display()))?;
        if attached.programs.is_empty() {
            continue;
        }
        if let Some(effect) = effect(attached.flags) {
            found.push(Legacy {
                cgroup: cgroup.to_owned(),
                attach_type: attach_type.name(),
                programs: attached.programs,
                effect,
            });
        }
    }
    Ok(())
}

fn effect_at_or_above(flags: u32, is_at: bool) -> Option<Effect> {
    match flags {
        multi if multi & BPF_F_ALLOW_MULTI != 0 => None,
        over if over & BPF_F_ALLOW_OVERRIDE != 0 && !is_at => Some(Effect::IsReplaced),
        _ => Some(Effect::Refuses),
    }
}

fn effect_below(flags: u32) -> Option<Effect> {
    (flags & BPF_F_ALLOW_MULTI == 0).then_some(Effect::Replaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shares_is_in_nobodys_way() {
        assert_eq!(effect_at_or_above(BPF_F_ALLOW_MULTI, true), None);
        assert_eq!(effect_at_or_above(BPF_F_ALLOW_MULTI, false), None);
        assert_eq!(effect_below(BPF_F_ALLOW_MULTI), None);
    }

    #[test]
    fn what_does_not_share_refuses_replaces_or_is_replaced() {
        assert_eq!(effect_at_or_above(0, true), Some(Effect::Refuses));
        assert_eq!(effect_at_or_above(0, false), Some(Effect::Refuses));
        assert_eq!(effect_at_or_above(BPF_F_ALLOW_OVERRIDE, true), Some(Effect::Refuses));
        assert_eq!(effect_at_or_above(BPF_F_ALLOW_OVERRIDE, false), Some(Effect::IsReplaced));
        assert_eq!(effect_below(0), Some(Effect::Replaces));
        assert_eq!(effect_below(BPF_F_ALLOW_OVERRIDE), Some(Effect::Replaces));
    }
}

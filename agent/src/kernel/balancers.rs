//! A socket load balancer beside the agent, as Cilium's in place of kube-proxy: another's programs at `connect()`, at the pods' cgroup
//! or above it. They run after the agent's, so what the agent takes they never see; what it leaves alone they send to an endpoint,
//! and so do they with what was dialled before the agent came. Next: [`reconnect`](super::reconnect), for which that matters.

use super::bpf::{self, AttachType};
use super::error::{Context as _, KernelError};
use aya::programs::{ProgramError, loaded_programs};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

/// Begins the names of the agent's programs; the kernel keeps 15 characters of a name.
const OWN_PREFIX: &str = "evenkeel_";

/// The names of others' programs that may change where the pods' connections go, by being attached as `connect4` or `connect6` to
/// the cgroup or one above it.
///
/// # Errors
/// No such cgroup within the mount; the kernel refuses to tell.
pub fn programs(mount: &Path, cgroup: &Path) -> Result<BTreeSet<String>, KernelError> {
    let mut ids = BTreeSet::new();
    for at in cgroup.ancestors().take_while(|at| at.starts_with(mount)) {
        let directory = File::open(at).context(|| format!("opening the cgroup {}", at.display()))?;
        for attach_type in [AttachType::Connect4, AttachType::Connect6] {
            let attached = bpf::attached(directory.as_fd(), attach_type)
                .context(|| format!("asking what is attached to {}", at.display()))?;
            ids.extend(attached.programs);
        }
    }
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut names = BTreeSet::new();
    for program in loaded_programs() {
        match program {
            Ok(program) if ids.contains(&program.id()) => {
                names.insert(program.name_as_str().unwrap_or("(without a name)").to_owned());
            }
            Ok(_) => {}
            Err(error) if has_gone(&error) => {}
            Err(error) => return Err(KernelError::refused("asking which programs are loaded", error)),
        }
    }
    names.retain(|name| !name.starts_with(OWN_PREFIX));
    Ok(names)
}

/// Programs come and go meanwhile: one that is gone is nobody's balancer.
fn has_gone(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::ENOENT))
}

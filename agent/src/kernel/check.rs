//! What this node has and lacks, each tried for real rather than read off the kernel's version: `evenkeel check`.
//! Next: [`object`](super::object).

use super::legacy::{self, Effect};
use super::load::{Kernel, LoadOptions};
use super::netns::{Netns, cookie_of};
use super::{KernelError, cgroups, reconnect};
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What was tried.
    pub name: &'static str,
    /// Whether the node has it.
    pub ok: bool,
    /// Whether the agent cannot do without.
    pub needed: bool,
    /// What was found.
    pub detail: String,
    /// What a person can do about it; empty where nothing is amiss.
    pub remedy: &'static str,
}

/// CAP_SYS_ADMIN, which stands for CAP_BPF and CAP_PERFMON too (capabilities(7)).
const SYS_ADMIN: u64 = 1 << 21;

/// The capabilities that the agent uses, any of a set's (`linux/capability.h`), and what for.
const CAPABILITIES: [(u64, &str); 5] = [
    (1 << 12, "CAP_NET_ADMIN: SO_MARK, routes in pods"),
    (1 << 19, "CAP_SYS_PTRACE: other users' /proc/PID/ns"),
    (SYS_ADMIN, "CAP_SYS_ADMIN: setns"),
    (1 << 38 | SYS_ADMIN, "CAP_PERFMON: tracepoints"),
    (1 << 39 | SYS_ADMIN, "CAP_BPF: programs and maps"),
];

/// Runs all probes. Attaches the programs to `cgroup` (or the root of cgroup2) for a moment, with nobody enrolled.
pub fn probe(cgroup: Option<&Path>) -> Vec<Probe> {
    let mut probes =
        vec![kernel_release(), capabilities(), netns_cookie(), entering_namespaces(), ending_connections()];
    let mount = cgroups::cgroup2_mount();
    probes.push(result(
        "cgroup2",
        true,
        mount.as_ref().map(|mount| format!("mounted at {}", mount.display())).map_err(ToString::to_string),
        "mount it (`mount -t cgroup2 none /sys/fs/cgroup/unified`), or boot with systemd.unified_cgroup_hierarchy=1",
    ));
    let loaded = Kernel::load(&LoadOptions::default());
    probes.push(result(
        "kernel programs",
        true,
        loaded.as_ref().map(|_| "loaded and verified, with their maps and ring buffer".to_owned()).map_err(ToString::to_string),
        "needs CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN), CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF, and no lockdown=confidentiality",
    ));
    if let Ok(mount) = mount {
        let cgroup = cgroup.map_or_else(|| mount.clone(), Path::to_owned);
        probes.push(whole_hierarchy(&mount));
        if let Ok(kernel) = loaded {
            probes.push(attaching(&kernel, &cgroup));
            probes.push(tracepoints(&kernel));
        }
        probes.push(legacy_attachments(&mount, &cgroup));
    }
    probes
}

fn result(name: &'static str, needed: bool, outcome: Result<String, String>, remedy: &'static str) -> Probe {
    match outcome {
        Ok(detail) => Probe { name, ok: true, needed, detail, remedy: "" },
        Err(detail) => Probe { name, ok: false, needed, detail, remedy },
    }
}

fn kernel_release() -> Probe {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").map(|r| r.trim().to_owned());
    result("kernel", false, release.map_err(|e| e.to_string()), "mount /proc")
}

fn capabilities() -> Probe {
    let outcome = fs::read_to_string("/proc/self/status").map_err(|e| e.to_string()).and_then(|status| {
        let missing = missing_capabilities(&status).ok_or("no CapEff in /proc/self/status")?;
        if missing.is_empty() {
            Ok("all that are used".into())
        } else {
            Err(format!("lacks {}", missing.join("; ")))
        }
    });
    result("capabilities", true, outcome, "run as root, or with the capabilities that the DaemonSet asks for")
}

/// What the effective set of a `/proc/PID/status` lacks.
fn missing_capabilities(status: &str) -> Option<Vec<&'static str>> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(CAPABILITIES.iter().filter(|(any, _)| effective & any == 0).map(|(_, name)| *name).collect())
}

fn netns_cookie() -> Probe {
    let outcome = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| cookie_of(socket.as_fd()));
    result(
        "SO_NETNS_COOKIE",
        true,
        outcome.map(|cookie| format!("this namespace is {cookie}")).map_err(|e| e.to_string()),
        "needs Linux 5.14 or later",
    )
}

fn entering_namespaces() -> Probe {
    let outcome = Netns::of_process(std::process::id());
    result(
        "setns",
        true,
        outcome.map(|_| "a socket was made inside a network namespace".into()).map_err(|e| e.to_string()),
        "needs CAP_SYS_ADMIN and, for pods, the host's PIDs (hostPID: true)",
    )
}

fn ending_connections() -> Probe {
    let outcome = Netns::of_process(std::process::id())
        .map_err(|e| e.to_string())
        .and_then(|netns| reconnect::probe(&netns).map_err(|e| e.to_string()));
    result(
        "SOCK_DESTROY",
        false,
        outcome.map(|()| "connections can be ended (evenkeel.dev/on-enrol: reconnect)".into()),
        "needs CONFIG_INET_DIAG_DESTROY; without it `evenkeel.dev/on-enrol: reconnect` does nothing",
    )
}

fn whole_hierarchy(mount: &Path) -> Probe {
    let outcome = if cgroups::is_whole(mount) {
        Ok(format!("{} holds the whole hierarchy", mount.display()))
    } else {
        Err(format!("{} is rooted at a cgroup of its own: pods elsewhere are not seen", mount.display()))
    };
    result("host's cgroups", true, outcome, "mount the host's /sys/fs/cgroup into the agent's pod (hostPath)")
}

fn attaching(kernel: &Kernel, cgroup: &Path) -> Probe {
    let outcome = kernel.link_to_cgroup(cgroup);
    result(
        "attaching",
        true,
        outcome.map(|_| format!("attached to {} and detached", cgroup.display())).map_err(|e| e.to_string()),
        "see the legacy attachments below, or choose a cgroup (--cgroup)",
    )
}

fn tracepoints(kernel: &Kernel) -> Probe {
    let outcome = kernel.link_to_tracepoints();
    result(
        "raw tracepoints",
        true,
        outcome.map(|_| "new pods are announced".into()).map_err(|e| e.to_string()),
        "needs CAP_PERFMON and CONFIG_BPF_EVENTS",
    )
}

fn legacy_attachments(mount: &Path, cgroup: &Path) -> Probe {
    let outcome =
        legacy::attachments(mount, cgroup).map_err(|e: KernelError| e.to_string()).and_then(|found| {
            if found.is_empty() {
                return Ok("none in the way".into());
            }
            let lines = found.iter().map(|legacy| {
                let effect = match legacy.effect {
                    Effect::Refuses => "refuses ours",
                    Effect::IsReplaced => "would be replaced by ours",
                    Effect::Replaces => "replaces ours there",
                };
                let (programs, at) = (&legacy.programs, legacy.cgroup.display());
                format!("{} program {programs:?} at {at} {effect}", legacy.attach_type)
            });
            Err(lines.collect::<Vec<_>>().join("; "))
        });
    result(
        "legacy attachments",
        true,
        outcome,
        "find the owner (`bpftool cgroup tree`) and have it attach with links, or with BPF_F_ALLOW_MULTI",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(vec![]));
        let lacks = missing_capabilities("CapEff:\t000001fffff7ffff\n").unwrap();
        assert_eq!(lacks, ["CAP_SYS_PTRACE: other users' /proc/PID/ns"]);
        // What the DaemonSet asks for.
        assert_eq!(missing_capabilities("CapEff:\t0000000000281000\n"), Some(vec![]));
        assert_eq!(missing_capabilities("CapEff:\t0\n").unwrap().len(), CAPABILITIES.len());
        assert_eq!(missing_capabilities("CapEff:\tnonsense\n"), None);
        assert_eq!(missing_capabilities(""), None);
    }
}

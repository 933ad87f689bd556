//! Brings the programs into the kernel, attaches them, and makes the same handle again after a restart of the worker process.
//! Next: [`maps`](super::maps), how the agent talks to them.
//!
//! What lives how long: a **link** keeps its program attached and alive, a program its maps. The worker process keeps copies of
//! programs and maps, and gives every link away ([`Kernel::attach`]) to the keeper: so a crash of the worker detaches nothing,
//! and the end of the keeper everything, at once.

use super::bpf::{self, AttachType};
use super::error::{Context as _, KernelError};
use super::maps::Tables;
use super::object::object;
use aya::maps::{Map, MapData};
use aya::programs::{CgroupSockAddr, ProgramError, RawTracePoint};
use aya::{Ebpf, EbpfLoader};
use evenkeel_common::names;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::Mutex;

/// Begins the labels of links: the keeper holds them and hands them to nobody.
pub const LINK_LABEL: &str = "kernel/link/";
/// Begins the labels of programs.
pub const PROGRAM_LABEL: &str = "kernel/program/";
/// Begins the labels of maps.
pub const MAP_LABEL: &str = "kernel/map/";

/// The programs that attach to a cgroup, by their names in the object.
const CGROUP_PROGRAMS: [(&str, AttachType); 6] = [
    ("evenkeel_connect4", AttachType::Connect4),
    ("evenkeel_connect6", AttachType::Connect6),
    ("evenkeel_getpeername4", AttachType::GetPeerName4),
    ("evenkeel_getpeername6", AttachType::GetPeerName6),
    ("evenkeel_getsockname4", AttachType::GetSockName4),
    ("evenkeel_getsockname6", AttachType::GetSockName6),
];

/// The programs that attach to a raw tracepoint.
const TRACEPOINT_PROGRAMS: [(&str, &CStr); 3] = [
    ("evenkeel_cgroup_made", c"cgroup_mkdir"),
    ("evenkeel_cgroup_entered", c"cgroup_attach_task"),
    ("evenkeel_cgroup_removed", c"cgroup_rmdir"),
];

/// The maps that the agent uses.
pub(super) const MAPS: [&str; 6] =
    [names::DESTINATIONS, names::ORIGINALS, names::PODS, names::COUNTERS, names::HEARTBEAT, names::EVENTS];

/// A descriptor that the keeper holds while worker processes come and go.
#[derive(Debug)]
pub struct Held {
    /// What it is, for [`Kernel::restore`]; opaque to the keeper but for [`Self::is_link`].
    pub label: String,
    /// The descriptor.
    pub fd: OwnedFd,
}

impl Held {
    /// Whether this is for the keeper alone: a worker that held a link would keep the programs attached after the keeper's end.
    pub fn is_link(&self) -> bool {
        self.label.starts_with(LINK_LABEL)
    }
}

/// How large the maps are, and what the programs must know from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Pods that may be enrolled at a time.
    pub pods: u32,
    /// Addresses that may be captured at a time.
    pub destinations: u32,
    /// Destination ids, in use and in quarantine.
    pub ids: u32,
    /// The mark of the agent's own sockets.
    pub mark: u32,
    /// Whether each taken connection gives a debug line in the programs' log ([`Kernel::log`](super::log)).
    pub log_connections: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            // Four times what a kubelet runs with its largest usual setting, since restarted sandboxes overlap.
            pods: 1_024,
            // The most Services that Kubernetes is tested with are 10,000; each with some ports and two families.
            destinations: 65_536,
            // As many again wait in quarantine: 2.6 MB.
            ids: 131_072,
            mark: evenkeel_common::DEFAULT_MARK,
            log_connections: false,
        }
    }
}

/// The kernel programs and their maps. Shared between tasks: each operation is short.
pub struct Kernel {
    programs: Vec<(&'static str, OwnedFd)>,
    map_fds: Vec<(&'static str, OwnedFd)>,
    pub(super) tables: Mutex<Tables>,
}

impl Kernel {
    /// Loads and verifies the programs. They see nothing until [`Self::attach`].
    ///
    /// # Errors
    /// A binary without programs; a kernel that refuses them; a mark that is none.
    pub fn load(options: &LoadOptions) -> Result<Self, KernelError> {
        if options.mark == 0 {
            return Err(KernelError::refused("loading the kernel programs", "the mark 0 is every socket's"));
        }
        let mut ebpf = parse(options)?;
        let mut programs = Vec::new();
        for (name, _) in CGROUP_PROGRAMS {
            let program: &mut CgroupSockAddr = program(&mut ebpf, name)?;
            verify(name, || program.load())?;
            let fd = program.fd().map_err(|e| KernelError::refused(format!("loading {name}"), e))?;
            programs.push((name, duplicate(fd.as_fd(), name)?));
        }
        for (name, _) in TRACEPOINT_PROGRAMS {
            let program: &mut RawTracePoint = program(&mut ebpf, name)?;
            verify(name, || program.load())?;
            let fd = program.fd().map_err(|e| KernelError::refused(format!("loading {name}"), e))?;
            programs.push((name, duplicate(fd.as_fd(), name)?));
        }
        let mut maps = Vec::new();
        for name in MAPS {
            let map = ebpf
                .take_map(name)
                .ok_or_else(|| KernelError::refused("reading the object", format!("no map {name}")))?;
            maps.push((name, duplicate(data_of(&map, name)?.fd().as_fd(), name)?));
        }
        Self::assemble(programs, maps)
    }

    /// The handle again, in a new worker process, from what [`Self::hold`] gave the keeper. Other descriptors are ignored.
    ///
    /// # Errors
    /// A label that is missing; a descriptor that is not what its label says.
    pub fn restore(held: Vec<Held>) -> Result<Self, KernelError> {
        let mut held = held;
        let mut take = |label: String| {
            let at = held.iter().position(|h| h.label == label).ok_or(KernelError::NotHeld { label })?;
            Ok::<_, KernelError>(held.swap_remove(at).fd)
        };
        let names = CGROUP_PROGRAMS
            .map(|(name, _)| name)
            .into_iter()
            .chain(TRACEPOINT_PROGRAMS.map(|(name, _)| name));
        let programs = names
            .map(|name| Ok((name, take(format!("{PROGRAM_LABEL}{name}"))?)))
            .collect::<Result<_, KernelError>>()?;
        let maps = MAPS
            .into_iter()
            .map(|name| Ok((name, take(format!("{MAP_LABEL}{name}"))?)))
            .collect::<Result<_, KernelError>>()?;
        Self::assemble(programs, maps)
    }

    fn assemble(
        programs: Vec<(&'static str, OwnedFd)>,
        map_fds: Vec<(&'static str, OwnedFd)>,
    ) -> Result<Self, KernelError> {
        let mut typed = Vec::new();
        for (name, fd) in &map_fds {
            let data = MapData::from_fd(duplicate(fd.as_fd(), name)?)
                .map_err(|e| KernelError::refused(format!("reading the map {name}"), e))?;
            typed.push((*name, data));
        }
        Ok(Self { programs, map_fds, tables: Mutex::new(Tables::new(typed)?) })
    }

    /// Attaches the programs to a cgroup and the tracepoints. The links are the caller's only: with the last of their
    /// descriptors, wherever it is, the programs are detached.
    ///
    /// # Errors
    /// No such cgroup; not a cgroup2; a legacy attachment in the way (EPERM: see [`check`](super::check)).
    pub fn attach(&self, cgroup: &Path) -> Result<Vec<Held>, KernelError> {
        let mut links = self.link_to_cgroup(cgroup)?;
        links.extend(self.link_to_tracepoints()?);
        Ok(links)
    }

    pub(super) fn link_to_cgroup(&self, cgroup: &Path) -> Result<Vec<Held>, KernelError> {
        let directory = File::open(cgroup).context(|| format!("opening the cgroup {}", cgroup.display()))?;
        let link = |(name, attach_type): (&str, AttachType)| {
            let fd = bpf::link_to_cgroup(self.program(name)?, directory.as_fd(), attach_type)
                .context(|| format!("attaching {} to {}", attach_type.name(), cgroup.display()))?;
            Ok(Held { label: format!("{LINK_LABEL}{}", attach_type.name()), fd })
        };
        CGROUP_PROGRAMS.into_iter().map(link).collect()
    }

    pub(super) fn link_to_tracepoints(&self) -> Result<Vec<Held>, KernelError> {
        let link = |(name, tracepoint): (&str, &CStr)| {
            let tracepoint_name = tracepoint.to_string_lossy();
            let fd = bpf::link_to_tracepoint(self.program(name)?, tracepoint)
                .context(|| format!("attaching to the tracepoint {tracepoint_name}"))?;
            Ok(Held { label: format!("{LINK_LABEL}{tracepoint_name}"), fd })
        };
        TRACEPOINT_PROGRAMS.into_iter().map(link).collect()
    }

    /// Copies of all that a later worker process needs for [`Self::restore`].
    ///
    /// # Errors
    /// No more descriptors.
    pub fn hold(&self) -> io::Result<Vec<Held>> {
        let labelled = |prefix: &'static str| {
            move |(name, fd): &(&'static str, OwnedFd)| {
                Ok(Held { label: format!("{prefix}{name}"), fd: fd.try_clone()? })
            }
        };
        self.programs
            .iter()
            .map(labelled(PROGRAM_LABEL))
            .chain(self.map_fds.iter().map(labelled(MAP_LABEL)))
            .collect()
    }

    /// The programs, and what each is attached as.
    pub(super) fn attach_points(&self) -> impl Iterator<Item = (&'static str, String, &OwnedFd)> {
        let of_cgroup =
            CGROUP_PROGRAMS.iter().map(|(name, attach_type)| (*name, attach_type.name().to_owned()));
        let of_tracepoint =
            TRACEPOINT_PROGRAMS.iter().map(|(name, at)| (*name, at.to_string_lossy().into_owned()));
        let points: Vec<_> = of_cgroup.chain(of_tracepoint).collect();
        self.programs.iter().filter_map(move |(name, fd)| {
            let (_, attached_as) = points.iter().find(|(known, _)| known == name)?;
            Some((*name, attached_as.clone(), fd))
        })
    }

    /// The maps.
    pub(super) fn maps(&self) -> impl Iterator<Item = (&'static str, &OwnedFd)> {
        self.map_fds.iter().map(|(name, fd)| (*name, fd))
    }

    /// The id of one of the programs, by which all their maps can be found.
    pub(super) fn program_id(&self) -> Result<u32, KernelError> {
        let program = self.program(CGROUP_PROGRAMS[0].0)?;
        let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
        let info = std::fs::read_to_string(&path).context(|| format!("reading {path}"))?;
        let id = info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
        id.ok_or_else(|| KernelError::refused(format!("reading {path}"), "no prog_id"))
    }

    fn program(&self, name: &str) -> Result<std::os::fd::BorrowedFd<'_>, KernelError> {
        let found = self.programs.iter().find(|(n, _)| *n == name);
        found
            .map(|(_, fd)| fd.as_fd())
            .ok_or_else(|| KernelError::NotHeld { label: format!("{PROGRAM_LABEL}{name}") })
    }

    /// A copy of a map's descriptor.
    pub(super) fn map_fd(&self, name: &str) -> Result<OwnedFd, KernelError> {
        let label = || format!("{MAP_LABEL}{name}");
        let (_, fd) = self
            .map_fds
            .iter()
            .find(|(n, _)| *n == name)
            .ok_or_else(|| KernelError::NotHeld { label: label() })?;
        duplicate(fd.as_fd(), name)
    }
}

/// Loads a program; again where a signal, as of a child's end, broke into the verifier's work (EAGAIN).
fn verify(name: &str, mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), KernelError> {
    /// Signals do not come faster than the verifier works, but for an odd one.
    const ATTEMPTS: usize = 10;
    let mut attempt = 1;
    loop {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) && attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            loaded => return loaded.map_err(|e| KernelError::refused(format!("loading {name}"), e)),
        }
    }
}

/// Reads the object, with the maps' sizes and the constants set.
fn parse(options: &LoadOptions) -> Result<Ebpf, KernelError> {
    let log_level: u8 =
        if options.log_connections { aya_log::Level::Debug } else { aya_log::Level::Warn } as u8;
    EbpfLoader::new()
        .map_max_entries(names::PODS, options.pods)
        .map_max_entries(names::COUNTERS, options.pods)
        .map_max_entries(names::DESTINATIONS, options.destinations)
        .map_max_entries(names::ORIGINALS, options.ids)
        .override_global(names::MARK, &options.mark, true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .load(object()?)
        .map_err(|e| KernelError::refused("loading the kernel programs", e))
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| KernelError::refused("reading the object", format!("no program {name}")))?;
    program.try_into().map_err(|e: ProgramError| KernelError::refused(format!("loading {name}"), e))
}

fn data_of<'a>(map: &'a Map, name: &str) -> Result<&'a MapData, KernelError> {
    match map {
        Map::HashMap(data) | Map::Array(data) | Map::PerCpuArray(data) | Map::RingBuf(data) => Ok(data),
        _ => Err(KernelError::refused("reading the object", format!("the map {name} is of another kind"))),
    }
}

fn duplicate(fd: std::os::fd::BorrowedFd<'_>, what: &str) -> Result<OwnedFd, KernelError> {
    fd.try_clone_to_owned().context(|| format!("duplicating the descriptor of {what}"))
}

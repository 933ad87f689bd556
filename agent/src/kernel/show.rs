//! The programs and maps as the kernel has them, for people and programs that look.
//!
//! Next: [`maps`](super::maps), what is in them.

use super::error::{Context as _, KernelError};
use super::load::Kernel;
use aya::maps::{HashMap, Map, MapData, MapError};
use aya::programs::loaded_links;
use evenkeel_common::{Destination, DestinationEntry, PodEntry, names};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Whether the kernel counts what programs cost: `sysctl kernel.bpf_stats_enabled`.
const STATISTICS_ENABLED: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel's side of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KernelFacts {
    /// Whether the kernel counts the programs' runs: `sysctl kernel.bpf_stats_enabled=1` makes it.
    pub counts_runs: bool,
    /// The programs.
    pub programs: Vec<ProgramFacts>,
    /// The maps.
    pub maps: Vec<MapFacts>,
}

/// A program of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProgramFacts {
    /// Its name.
    pub name: &'static str,
    /// What it is attached as: a cgroup's `connect4` and such, or a tracepoint.
    pub attached_as: String,
    /// Whether a link holds it there.
    pub attached: bool,
    /// The kernel's id of it, as `bpftool prog` shows it.
    pub id: u32,
    /// How often it has run while that was counted; absent where it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<u64>,
    /// How long, in nanoseconds, all in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_time_ns: Option<u64>,
    /// Runs that were left out, as the program ran on that CPU already.
    pub missed_runs: u64,
    /// Instructions that the verifier went through.
    pub verified_instructions: u64,
    /// Memory that it holds, in bytes.
    pub memory_bytes: u64,
}

/// A map of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MapFacts {
    /// Its name.
    pub name: &'static str,
    /// The kernel's id of it, as `bpftool map` shows it.
    pub id: u32,
    /// Entries in it now; absent for arrays, which always have all, and ring buffers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<usize>,
    /// Entries that it can have; of a ring buffer, bytes.
    pub capacity: u32,
    /// Memory that it holds, in bytes.
    pub memory_bytes: u64,
}

impl Kernel {
    /// Asks the kernel for its side. It counts the maps' entries one by one, which takes tens of milliseconds where there are very
    /// many: nothing for the control loop.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn facts(&self) -> Result<KernelFacts, KernelError> {
        // A link that goes meanwhile is no link.
        let linked: HashSet<u32> = loaded_links().filter_map(|link| Some(link.ok()?.program_id())).collect();
        let program = |(name, attached_as, fd): (&'static str, String, &OwnedFd)| {
            let info = FdInfo::read(fd)?;
            let id = info.number("prog_id") as u32;
            let runs = Some(info.number("run_cnt")).filter(|runs| *runs > 0);
            Ok(ProgramFacts {
                name,
                attached_as,
                attached: linked.contains(&id),
                id,
                runs,
                run_time_ns: runs.map(|_| info.number("run_time_ns")),
                missed_runs: info.number("recursion_misses"),
                verified_instructions: info.number("verified_insns"),
                memory_bytes: info.number("memlock"),
            })
        };
        let map = |(name, fd): (&'static str, &OwnedFd)| {
            let info = FdInfo::read(fd)?;
            let capacity = info.number("max_entries") as u32;
            Ok(MapFacts {
                name,
                id: info.number("map_id") as u32,
                entries: self.entries(name, capacity)?,
                capacity,
                memory_bytes: info.number("memlock"),
            })
        };
        Ok(KernelFacts {
            counts_runs: fs::read_to_string(STATISTICS_ENABLED).is_ok_and(|text| text.trim() == "1"),
            programs: self.attach_points().map(program).collect::<Result<_, KernelError>>()?,
            maps: self.maps().map(map).collect::<Result<_, KernelError>>()?,
        })
    }

    /// How many entries a hash has, by descriptors of its own: nobody who writes waits.
    fn entries(&self, name: &str, capacity: u32) -> Result<Option<usize>, KernelError> {
        let wrong = |e: MapError| KernelError::refused(format!("reading the map {name}"), e);
        let open = || Ok(Map::HashMap(MapData::from_fd(self.map_fd(name)?).map_err(wrong)?));
        // Where entries go meanwhile, a walk may begin anew: it ends at what there can be.
        let most = capacity as usize;
        Ok(match name {
            names::PODS => {
                let pods: HashMap<MapData, u64, PodEntry> = open()?.try_into().map_err(wrong)?;
                Some(pods.keys().take(most).filter(Result::is_ok).count())
            }
            names::DESTINATIONS => {
                let destinations: HashMap<MapData, Destination, DestinationEntry> =
                    open()?.try_into().map_err(wrong)?;
                Some(destinations.keys().take(most).filter(Result::is_ok).count())
            }
            _ => None,
        })
    }
}

/// What the kernel tells of a descriptor.
struct FdInfo(String);

impl FdInfo {
    fn read(fd: &OwnedFd) -> Result<Self, KernelError> {
        let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        Ok(Self(fs::read_to_string(&path).context(|| format!("reading {path}"))?))
    }

    /// A field's number; 0 where this kernel does not tell it.
    fn number(&self, field: &str) -> u64 {
        let value = |line: &str| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok();
        self.0.lines().find_map(value).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = FdInfo("pos:\t0\nprog_type:\t18\nrun_time_ns:\t12\nrun_cnt:\t3\n".into());
        assert_eq!(
            ["run_cnt", "run_time_ns", "run_time", "memlock"].map(|field| info.number(field)),
            [3, 12, 0, 0]
        );
    }
}

//! What processes hold in the kernel by BPF: links, programs and maps, and whether the kernel still has them.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;

/// BPF objects by their ids, which the kernel does not use again soon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelObjects {
    /// Programs' attachments.
    pub links: BTreeSet<u32>,
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
}

impl KernelObjects {
    /// What these processes have descriptors of.
    ///
    /// # Errors
    /// When one has ended.
    pub fn held_by(pids: &[i32]) -> Result<Self> {
        let mut held = Self::default();
        for pid in pids {
            let folder = format!("/proc/{pid}/fdinfo");
            for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
                // A descriptor may be closed meanwhile.
                let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
                held.add(&info);
            }
        }
        Ok(held)
    }

    /// Those of them that the kernel still has.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn remaining(&self) -> Result<Self> {
        let links: Result<BTreeSet<u32>, _> =
            aya::programs::loaded_links().map(|link| link.map(|link| link.id())).collect();
        let programs: Result<BTreeSet<u32>, _> =
            aya::programs::loaded_programs().map(|program| program.map(|program| program.id())).collect();
        let maps: Result<BTreeSet<u32>, _> =
            aya::maps::loaded_maps().map(|map| map.map(|map| map.id())).collect();
        Ok(Self {
            links: &self.links & &links?,
            programs: &self.programs & &programs?,
            maps: &self.maps & &maps?,
        })
    }

    /// Whether it is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.programs.is_empty() && self.maps.is_empty()
    }

    /// Reads one `/proc/PID/fdinfo/FD` (proc_pid_fdinfo(5)).
    fn add(&mut self, info: &str) {
        for line in info.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let Ok(id) = value.trim().parse() else { continue };
            match key {
                "link_id" => drop(self.links.insert(id)),
                "prog_id" => drop(self.programs.insert(id)),
                "map_id" => drop(self.maps.insert(id)),
                _ => (),
            }
        }
    }
}

//! Names of the functions at some addresses of this process, by what the process consists of (`/proc/self/maps`). Only what is asked for is
//! kept: symbol tables are read once, from their beginning to their end, as all of an agent's would take tens of megabytes.
//!
//! Functions that the compiler has put into others have no symbols of their own, and count as these. With line tables they could be
//! told apart; a release's take hundreds of megabytes to read, and the image has none. Next: [`pprof`](super::pprof).

use super::elf::ElfFile;
use super::kallsyms;
use rustc_hash::FxHashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

const NO_KERNEL_NAMES: &str = "the kernel's functions have no names in it: it takes CAP_SYSLOG and kernel.kptr_restrict of 1 or \
                               less, or kernel.perf_event_paranoid of 1 or less and kernel.kptr_restrict of 0";

/// What is at some addresses.
pub(super) struct Symbols {
    names: FxHashMap<u64, String>,
    /// The files that the process consists of, as far as addresses were in them.
    pub(super) mappings: Vec<Mapping>,
    /// What whoever reads the profile should know.
    pub(super) notes: Vec<String>,
}

/// A part of a file that is mapped to be executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where in the file it begins.
    pub(super) offset: u64,
    /// The file's path; for what is no file's, a name in brackets.
    pub(super) path: String,
    /// The linker's, in hexadecimal; empty where there is none.
    pub(super) build_id: String,
}

impl Symbols {
    /// The names at these addresses, which are in order, each once.
    ///
    /// # Errors
    /// `/proc/self/maps` cannot be read.
    pub(super) fn of(addresses: &[u64]) -> io::Result<Self> {
        let mut symbols = Self { names: FxHashMap::default(), mappings: Vec::new(), notes: Vec::new() };
        let (of_process, of_kernel) =
            addresses.split_at(addresses.partition_point(|address| !kallsyms::is_kernels(*address)));
        for line in fs::read_to_string("/proc/self/maps")?.lines() {
            let Some(mapping) = Mapping::executable(line) else { continue };
            let first = of_process.partition_point(|address| *address < mapping.start);
            let behind = of_process.partition_point(|address| *address < mapping.end);
            if first < behind {
                symbols.name_mapping(mapping, &of_process[first..behind]);
            }
        }
        if !of_kernel.is_empty() {
            symbols.name_kernel(of_kernel);
        }
        Ok(symbols)
    }

    /// The function at an address that was asked for.
    pub(super) fn name(&self, address: u64) -> &str {
        match self.names.get(&address) {
            Some(name) => name,
            None if kallsyms::is_kernels(address) => kallsyms::NAMELESS,
            None => "[unknown]",
        }
    }

    /// The mapping that an address is in, by its position.
    pub(super) fn mapping_of(&self, address: u64) -> Option<usize> {
        self.mappings.iter().position(|mapping| (mapping.start..mapping.end).contains(&address))
    }

    fn name_mapping(&mut self, mut mapping: Mapping, addresses: &[u64]) {
        // What cannot be read has no names: what is there of the others is worth more than an error.
        if let Ok(elf) = mapping.open().and_then(ElfFile::of) {
            mapping.build_id = elf.build_id().unwrap_or_default();
            let offsets: Vec<u64> =
                addresses.iter().map(|address| address - mapping.start + mapping.offset).collect();
            let names = elf.names(&offsets).unwrap_or_default();
            for (address, name) in addresses.iter().zip(names) {
                let name = name.map(|name| format!("{:#}", rustc_demangle::demangle(&name)));
                self.names.insert(*address, name.unwrap_or_else(|| mapping.unnamed()));
            }
        }
        for address in addresses {
            self.names.entry(*address).or_insert_with(|| mapping.unnamed());
        }
        self.mappings.push(mapping);
    }

    fn name_kernel(&mut self, addresses: &[u64]) {
        match kallsyms::names(addresses) {
            Ok(Some(names)) => {
                for (address, name) in addresses.iter().zip(names) {
                    self.names.extend(name.map(|name| (*address, name)));
                }
            }
            Ok(None) | Err(_) => self.notes.push(NO_KERNEL_NAMES.to_owned()),
        }
        let (Some(start), Some(last)) = (addresses.first(), addresses.last()) else { return };
        let path = "[kernel.kallsyms]".to_owned();
        self.mappings.push(Mapping {
            start: *start,
            end: last.saturating_add(1),
            path,
            ..Mapping::default()
        });
    }
}

impl Mapping {
    /// A line of `/proc/PID/maps`, if what it shows may be executed: `7f00-7f10 r-xp 00001000 fe:01 17   /lib/libc.so.6`.
    fn executable(line: &str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        if !fields.next()?.contains('x') {
            return None;
        }
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let offset = number(fields.next()?)?;
        let path = fields.nth(2).unwrap_or_default().trim_start().to_owned();
        Some(Self { start: number(start)?, end: number(end)?, offset, path, build_id: String::new() })
    }

    fn open(&self) -> io::Result<File> {
        // The program may have been replaced since it was started, as by an upgrade.
        let is_program =
            fs::read_link("/proc/self/exe").is_ok_and(|program| program == Path::new(&self.path));
        File::open(if is_program { "/proc/self/exe" } else { &self.path })
    }

    /// What stands for a function of it that has no name.
    fn unnamed(&self) -> String {
        match self.path.rsplit('/').next() {
            Some("") | None => "[unknown]".to_owned(),
            Some(name) if name.starts_with('[') => name.to_owned(),
            Some(name) => format!("[{name}]"),
        }
    }
}

/// Finds, among symbols that come in any order, the last one that begins at or before each of some addresses.
pub(super) struct Nearest<'a, T> {
    addresses: &'a [u64],
    /// Of each address, the nearest symbol that begins behind the address before it.
    found: Vec<Option<(u64, T)>>,
}

impl<'a, T: Default + Clone> Nearest<'a, T> {
    /// The addresses are in order.
    pub(super) fn of(addresses: &'a [u64]) -> Self {
        Self { addresses, found: vec![None; addresses.len()] }
    }

    /// Takes a symbol in; `keep` is called if it is the nearest so far to any.
    pub(super) fn offer(&mut self, start: u64, keep: impl FnOnce(&mut T)) {
        let first_behind = self.addresses.partition_point(|address| *address < start);
        let Some(found) = self.found.get_mut(first_behind) else { return };
        if found.as_ref().is_none_or(|(nearest, _)| *nearest < start) {
            let (kept_start, kept) = found.get_or_insert_default();
            *kept_start = start;
            keep(kept);
        }
    }

    /// Where the symbol of each address begins, and what was kept of it.
    pub(super) fn found(mut self) -> Vec<Option<(u64, T)>> {
        for position in 1..self.found.len() {
            if self.found[position].is_none() {
                self.found[position] = self.found[position - 1].clone();
            }
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_symbol_that_begins_last_before_it_in_whatever_order_they_come() {
        let mut nearest = Nearest::<&str>::of(&[5, 10, 11, 30]);
        for (start, name) in [(20, "d"), (10, "c"), (1, "a"), (7, "b"), (40, "e")] {
            nearest.offer(start, |kept| *kept = name);
        }
        assert_eq!(nearest.found(), [Some((1, "a")), Some((10, "c")), Some((10, "c")), Some((20, "d"))]);
        let mut none = Nearest::<&str>::of(&[5]);
        none.offer(6, |kept| *kept = "later");
        assert_eq!(none.found(), [None]);
    }

    #[test]
    fn what_can_be_executed_is_read_of_a_process_maps() {
        let line = "7f2e5c028000-7f2e5c17d000 r-xp 00028000 fe:01 131   /usr/lib/a name/libc.so.6";
        let mapping = Mapping::executable(line).unwrap();
        assert_eq!((mapping.start, mapping.end), (0x7f2e_5c02_8000, 0x7f2e_5c17_d000));
        assert_eq!((mapping.offset, mapping.path.as_str()), (0x28000, "/usr/lib/a name/libc.so.6"));
        assert_eq!(mapping.unnamed(), "[libc.so.6]");
        assert_eq!(Mapping::executable("7f2e5c028000-7f2e5c17d000 rw-p 00028000 fe:01 131"), None);
        let anonymous = Mapping::executable("7f2e5c028000-7f2e5c17d000 r-xp 00000000 00:00 0").unwrap();
        assert_eq!(anonymous.unnamed(), "[unknown]");
    }

    #[test]
    fn functions_of_this_program_and_of_its_libraries_have_their_names() {
        let own = functions_of_this_program_and_of_its_libraries_have_their_names as fn() as usize as u64;
        let of_library = libc::malloc as *const () as usize as u64;
        let mut addresses = [own + 1, of_library + 1];
        addresses.sort_unstable();
        let symbols = Symbols::of(&addresses).unwrap();
        let expected = "symbols::tests::functions_of_this_program_and_of_its_libraries_have_their_names";
        assert!(symbols.name(own + 1).ends_with(expected), "{}", symbols.name(own + 1));
        assert_eq!(symbols.name(of_library + 1), "malloc");
        let mapping = &symbols.mappings[symbols.mapping_of(own + 1).unwrap()];
        assert!(mapping.path.contains("evenkeel"), "{mapping:?}");
        assert_eq!(symbols.name(17), "[unknown]");
    }
}

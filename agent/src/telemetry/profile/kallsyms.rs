//! Names of the kernel's functions, by `/proc/kallsyms`. It shows addresses to whoever has CAP_SYSLOG, unless `kernel.kptr_restrict`
//! is 2, or to anybody where that is 0 and `kernel.perf_event_paranoid` 1 or less.

use super::symbols::Nearest;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};

/// What stands for the kernel's functions where their names are not to be had.
pub(super) const NAMELESS: &str = "[kernel]";

/// Whether an address is the kernel's: the upper half of the address space is, on both architectures.
pub(super) fn is_kernels(address: u64) -> bool {
    address >> 63 == 1
}

/// The names at these addresses, which are in order; `None`: it does not show where anything is.
///
/// # Errors
/// It cannot be read.
pub(super) fn names(addresses: &[u64]) -> io::Result<Option<Vec<Option<String>>>> {
    let file = BufReader::new(File::open("/proc/kallsyms")?);
    let mut nearest = Nearest::<String>::of(addresses);
    let mut shows_addresses = false;
    for line in file.lines() {
        let line = line?;
        let Some((address, name)) = function(&line) else { continue };
        shows_addresses |= address != 0;
        nearest.offer(address, |kept| name.clone_into(kept));
    }
    let found = nearest.found().into_iter().map(|found| found.map(|(_, name)| name));
    Ok(shows_addresses.then(|| found.collect()))
}

/// A line's address and name, if it is a function's: `ffffffff81000000 T name`, with `[module]` behind it where it is of one.
fn function(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let is_function = matches!(words.next()?, "t" | "T" | "w" | "W");
    is_function.then_some((address, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_told_from_data_and_modules_functions_are_some() {
        assert_eq!(function("ffffffff81000000 T _stext"), Some((0xffff_ffff_8100_0000, "_stext")));
        assert_eq!(
            function("ffffffffc0001000 t nft_do_chain\t[nf_tables]"),
            Some((0xffff_ffff_c000_1000, "nft_do_chain"))
        );
        for other in ["ffffffff82000000 D jiffies", "0000000000000000 A fixed_percpu_data", "", "x y z"] {
            assert_eq!(function(other), None, "{other}");
        }
    }
}

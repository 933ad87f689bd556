//! Packs programs of this machine, with the libraries that they are linked with, as a root file system in memory
//! (the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::answer;
use crate::workspace::Workspace;

pub(super) const BUSYBOX: &str = "/bin/busybox";
/// What the benchmark starts, and the init script's shell.
const PROGRAMS: &[&str] = &["sh", "ip", "setpriv", "taskset"];
const FOLDERS: &[&str] = &["proc", "sys", "dev", "run", "tmp", "usr", "usr/bin"];
const FOLDER: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
/// A character device; its numbers are those of `/dev/console`, without which the first process says nothing.
const DEVICE: u32 = 0o020_600;
const CONSOLE: (u32, u32) = (5, 1);

/// Writes the archive with this first process.
///
/// # Errors
/// If a program is not here.
pub(super) fn pack(workspace: &Workspace, init: &str, path: &Path) -> Result<()> {
    let built = workspace.agent(false);
    let bench = built.with_file_name("evenkeel-bench");
    let mut programs = vec![PathBuf::from(BUSYBOX), built, bench];
    for name in PROGRAMS {
        programs.push(on_path(name).with_context(|| format!("{name} is not on PATH"))?);
    }

    let file = fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut archive = Archive { out: std::io::BufWriter::new(file), next_inode: 1 };
    for folder in FOLDERS {
        archive.entry(folder, FOLDER, (0, 0), b"")?;
    }
    archive.entry("dev/console", DEVICE, CONSOLE, b"")?;
    archive.entry("init", EXECUTABLE, (0, 0), init.as_bytes())?;
    let mut libraries = BTreeSet::new();
    for program in &programs {
        let name = program.file_name().context("a program has a name")?.to_string_lossy();
        archive.entry(&format!("usr/bin/{name}"), EXECUTABLE, (0, 0), &read(program)?)?;
        libraries.extend(linked(program));
    }
    let mut folders = BTreeSet::new();
    for library in libraries {
        let inside = library.strip_prefix("/").unwrap_or(&library);
        let parents: Vec<_> = inside.ancestors().skip(1).filter(|it| !it.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev() {
            let parent = parent.to_string_lossy().into_owned();
            if !FOLDERS.contains(&parent.as_str()) && folders.insert(parent.clone()) {
                archive.entry(&parent, FOLDER, (0, 0), b"")?;
            }
        }
        archive.entry(&inside.to_string_lossy(), EXECUTABLE, (0, 0), &read(&library)?)?;
    }
    archive.entry("TRAILER!!!", 0, (0, 0), b"")?;
    archive.out.flush().context("cannot write the initramfs")
}

struct Archive<W> {
    out: W,
    next_inode: u32,
}

impl<W: Write> Archive<W> {
    /// Adds a file in the `newc` format: thirteen fields of eight hexadecimal digits, name and content padded to four bytes.
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let inode = self.next_inode;
        self.next_inode += 1;
        let size =
            u32::try_from(content.len()).with_context(|| format!("{name} is too large for an initramfs"))?;
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        let mut head = b"070701".to_vec();
        for field in fields {
            write!(head, "{field:08x}")?;
        }
        head.extend_from_slice(name.as_bytes());
        head.push(0);
        pad(&mut head);
        self.out.write_all(&head)?;
        self.out.write_all(content)?;
        self.out.write_all(&[0; 3][..content.len().next_multiple_of(4) - content.len()])?;
        Ok(())
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn on_path(name: &str) -> Option<PathBuf> {
    // `ip` may be where only root's PATH looks.
    let also = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders = env::split_paths(&env::var_os("PATH")?).chain(also).collect::<Vec<_>>();
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The libraries that the dynamic linker would load, and itself; none for a static program.
fn linked(program: &Path) -> Vec<PathBuf> {
    let listed = answer(Command::new("ldd").arg(program)).unwrap_or_default();
    let paths = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

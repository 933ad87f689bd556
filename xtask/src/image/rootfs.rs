//! What is in the image: the agent, the loader and the libraries that it was linked with. No shell, no package manager,
//! no certificates (the API server's comes with the service account), nothing to update but the agent.
//!
//! The libraries are those of the machine that builds, so that the image runs the very binary that was tested. Next:
//! [`archive`](super::archive).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use crate::process::answer;

/// Where the agent is.
pub(super) const AGENT: &str = "usr/local/bin/evenkeel";
const LICENCE: &str = "usr/share/licenses/evenkeel/LICENSE";
/// Anyone may read and run what is in the image; nobody needs to write.
const EXECUTABLE: u32 = 0o755;
const READABLE: u32 = 0o644;

/// The files of an image, by their path without the leading `/`; folders follow from them.
pub(super) struct RootFs {
    files: BTreeMap<String, File>,
}

pub(super) struct File {
    pub(super) mode: u32,
    pub(super) contents: Vec<u8>,
}

impl RootFs {
    /// The agent and what it is linked with.
    pub(super) fn of_agent(binary: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let licence = include_bytes!("../../../LICENSE").to_vec();
        files.insert(LICENCE.to_owned(), File { mode: READABLE, contents: licence });
        let agent = read(binary)?;
        let libraries = match interpreter(&agent)
            .with_context(|| format!("{} is no program for Linux", binary.display()))?
        {
            Some(loader) => linked_with(&loader, binary)?,
            None => Vec::new(),
        };
        files.insert(AGENT.to_owned(), File { mode: EXECUTABLE, contents: agent });
        for library in libraries {
            // Where the loader of the image looks is where this machine's does.
            let name = library.strip_prefix("/").unwrap_or(&library).to_string_lossy().into_owned();
            files.insert(name, File { mode: EXECUTABLE, contents: read(&library)? });
        }
        Ok(Self { files })
    }

    /// Every file, in the order of their paths.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &File)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// How large the files are together.
    pub(super) fn bytes(&self) -> usize {
        self.files.values().map(|file| file.contents.len()).sum()
    }

    /// Writes the files below a folder.
    pub(super) fn write_to(&self, folder: &Path) -> Result<()> {
        for (path, file) in self.files() {
            let path = folder.join(path);
            let parent = path.parent().context("a file stands in a folder")?;
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&path, &file.contents))
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The loader that a program names; `None` if it is linked statically.
fn interpreter(program: &[u8]) -> Result<Option<PathBuf>> {
    let header = FileHeader64::<Endianness>::parse(program)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, program)? {
        if let Some(path) = segment.interpreter(endian, program)? {
            return Ok(Some(PathBuf::from(std::str::from_utf8(path)?)));
        }
    }
    Ok(None)
}

/// The loader and all libraries that it finds for a program.
fn linked_with(loader: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let listed = answer(Command::new(loader).env_remove("LD_LIBRARY_PATH").arg("--list").arg(program))?;
    let mut found = vec![loader.to_owned()];
    for line in listed.lines().map(str::trim) {
        // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`; the kernel's own and the loader itself have no arrow.
        let Some((name, path)) = line.split_once(" => ") else { continue };
        match path.split_once(" (0x") {
            Some((path, _)) if Path::new(path) != loader => found.push(PathBuf::from(path)),
            Some(_) => (),
            None => bail!("{} needs {name}, which is not on this machine", program.display()),
        }
    }
    Ok(found)
}

//! The files of the folder: which there are, whether they are still the same, and their text.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The largest file that is read. 10,000 Services with 100,000 endpoints are about 60 MB of YAML.
pub(super) const MAX_FILE_BYTES: u64 = 128 << 20;

/// How many files a folder may hold: a file for each object of a large cluster.
pub(super) const MAX_FILES: usize = 100_000;

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// What a file looks like from outside. It is read again when this is another, or when it was seen to be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The files that count, by name, symbolic links followed. A file that can't be looked at counts, too: its error is found
/// when it is read.
pub(super) fn list(directory: &Path) -> io::Result<BTreeMap<OsString, Option<Fingerprint>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !counts(&name) {
            continue;
        }
        let metadata = fs::metadata(directory.join(&name));
        if metadata.as_ref().is_ok_and(Metadata::is_dir) {
            continue;
        }
        if files.len() == MAX_FILES {
            return Err(io::Error::other(format!("there are more than {MAX_FILES} files in it")));
        }
        files.insert(name, metadata.ok().as_ref().map(Fingerprint::of));
    }
    Ok(files)
}

/// Whether a name is that of a file to read. Those that begin with a dot are editors' temporary files, and the folders
/// behind a mounted ConfigMap.
fn counts(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
        && !name.as_encoded_bytes().starts_with(b".")
        && !name.as_encoded_bytes().starts_with(b"#")
}

/// The bytes of a file, if it is one and not too large.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // To open a pipe would wait for somebody to write to it.
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yaml_and_json_count_and_nothing_that_an_editor_leaves() {
        for (name, expected) in [
            ("a.yaml", true),
            ("a.yml", true),
            ("a.json", true),
            ("a.b.yaml", true),
            ("a.txt", false),
            ("yaml", false),
            (".yaml", false),
            (".a.yaml", false),
            (".a.yaml.swp", false),
            ("a.yaml~", false),
            ("a.yaml.tmp", false),
            ("#a.yaml#", false),
            (".#a.yaml", false),
            ("#a.yaml", false),
            ("4913", false),
            ("..data", false),
        ] {
            assert_eq!(counts(OsStr::new(name)), expected, "{name}");
        }
    }
}

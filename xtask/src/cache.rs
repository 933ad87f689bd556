//! What takes minutes to build and seldom changes is built once, and kept in the cache ([`workspace::cache`]) under a name that says what
//! it was built from.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::workspace::{self, Workspace};

/// What nobody has asked for in so long is removed: another clone that wants it is then an old one.
const UNUSED_LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// The folder of that name and key, filled by `build` if the cache has none. `link`, below the target folder, leads there too, for
/// tests that are run without xtask.
///
/// # Errors
/// `build`'s own, or when a folder cannot be written.
pub(crate) fn find_or_build(
    workspace: &Workspace,
    name: &str,
    key: u64,
    link: &str,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = workspace::cache()?;
    fs::create_dir_all(&cache)?;
    let folder = cache.join(format!("{name}-{key:016x}"));
    if !folder.exists() {
        // Two clones may want it at the same moment; the second then finds what the first has built.
        let lock = File::create(cache.join(format!("{name}.lock")))?;
        lock.lock()?;
        if !folder.exists() {
            let unfinished = folder.with_extension("unfinished");
            let _ = fs::remove_dir_all(&unfinished);
            fs::create_dir_all(&unfinished)?;
            build(&unfinished)?;
            fs::rename(&unfinished, &folder).with_context(|| folder.display().to_string())?;
        }
        remove_unused(&cache, name);
    }
    // A folder's time says when it was last asked for. Somebody else's cannot be set, and need not.
    let _ = File::open(&folder).and_then(|open| open.set_modified(SystemTime::now()));
    let link = workspace.target.join(link);
    if !fs::read_link(&link).is_ok_and(|target| target == folder) {
        fs::create_dir_all(link.parent().context("a link stands in a folder")?)?;
        // Made under a name of our own, and moved: another process may make the same link at this moment.
        let unfinished = link.with_extension(std::process::id().to_string());
        let _ = fs::remove_file(&unfinished);
        symlink(&folder, &unfinished).with_context(|| unfinished.display().to_string())?;
        fs::rename(&unfinished, &link).with_context(|| link.display().to_string())?;
    }
    Ok(folder)
}

/// Removes folders of that name that were not asked for in a long time.
fn remove_unused(cache: &Path, name: &str) {
    let is_old = |path: &Path| {
        let age = fs::metadata(path).and_then(|data| data.modified()).map(|time| time.elapsed());
        age.is_ok_and(|age| age.is_ok_and(|age| age > UNUSED_LIMIT))
    };
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let (path, file) = (entry.path(), entry.file_name());
        let key = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('-'));
        // `cluster-0123456789abcdef`, and none of what begins with that name only.
        let is_one = key.is_some_and(|key| key.bytes().take_while(u8::is_ascii_hexdigit).count() == 16);
        if is_one && is_old(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_in_a_long_time_is_removed() {
        let cache = tempfile::tempdir().unwrap();
        let long_ago = SystemTime::now() - 2 * UNUSED_LIMIT;
        for (name, time) in [
            ("cluster-0123456789abcdef", long_ago),
            ("cluster-fedcba9876543210", SystemTime::now()),
            ("cluster-tools-0123456789abcdef", long_ago),
            ("cluster.lock", long_ago),
        ] {
            let path = cache.path().join(name);
            fs::create_dir(&path).unwrap();
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
        remove_unused(cache.path(), "cluster");
        let mut left: Vec<_> =
            fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["cluster-fedcba9876543210", "cluster-tools-0123456789abcdef", "cluster.lock"]);
    }
}

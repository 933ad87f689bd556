//! Waits until something in the folder has moved and it is quiet again.

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How long nothing must move before the folder is read: tools that write several files, or one in pieces, do so faster.
const QUIET: Duration = Duration::from_millis(50);

/// How long a folder that never gets quiet is waited for.
const MAX_UNQUIET: Duration = Duration::from_millis(1_000);

/// How often the folder is looked at without being told of anything: what a symbolic link leads to, and what another
/// host writes to a network file system, moves unseen. It costs a `stat` a file.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What wakes the thread.
#[derive(Debug)]
pub(super) enum Wake {
    /// Something moved: these names in the folder, or the folder itself.
    Moved(Vec<OsString>),
    /// The source is gone.
    Stop,
}

/// A watch on a folder, and on the folder that it is in, so that it is seen to go, to come back, and to be exchanged.
#[derive(Debug)]
pub(super) struct Watch {
    directory: PathBuf,
    watcher: RecommendedWatcher,
    /// Which folder is watched under the path: device and inode.
    watched: Option<(u64, u64)>,
    wakes: Receiver<Wake>,
}

impl Watch {
    pub(super) fn new(
        directory: &Path,
        wake: Sender<Wake>,
        wakes: Receiver<Wake>,
    ) -> Result<Self, notify::Error> {
        let within = directory.to_owned();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Lost or unreadable events: look at everything.
            let moved = event.map_or_else(|_| Some(Vec::new()), |event| moved(&event, &within));
            if let Some(moved) = moved {
                // The thread may have ended already.
                let _ = wake.send(Wake::Moved(moved));
            }
        })?;
        if let Some(parent) = directory.parent()
            && let Err(error) = watcher.watch(parent, RecursiveMode::NonRecursive)
        {
            tracing::debug!("can't watch {}: {error}", parent.display());
        }
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        let watched = identity(directory);
        Ok(Self { directory: directory.to_owned(), watcher, watched, wakes })
    }

    /// Waits until the folder is worth another look, at once or nearly so if it has to be looked at `again`. Returns the names
    /// that moved; `None` when the source is gone.
    pub(super) fn wait(&mut self, again: bool) -> Option<Vec<OsString>> {
        let mut touched = Vec::new();
        let first = self.wakes.recv_timeout(if again { QUIET } else { LOOK_EVERY });
        let since = Instant::now();
        let mut next = first;
        loop {
            match next {
                Ok(Wake::Moved(names)) => touched.extend(names),
                Err(RecvTimeoutError::Timeout) => break,
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
            }
            if since.elapsed() > MAX_UNQUIET {
                break;
            }
            next = self.wakes.recv_timeout(QUIET);
        }
        self.follow();
        Some(touched)
    }

    /// Watches the folder that is there under the path now.
    fn follow(&mut self) {
        let now = identity(&self.directory);
        if now == self.watched {
            return;
        }
        // The old watch may have gone with its folder.
        let _ = self.watcher.unwatch(&self.directory);
        self.watched = now.filter(|_| {
            let watched = self.watcher.watch(&self.directory, RecursiveMode::NonRecursive);
            watched
                .inspect_err(|error| tracing::debug!("can't watch {}: {error}", self.directory.display()))
                .is_ok()
        });
    }
}

fn identity(directory: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(directory).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The names in the folder that an event tells of; `None` if it tells of nothing that matters.
fn moved(event: &Event, directory: &Path) -> Option<Vec<OsString>> {
    // Our own reading is an event, too.
    if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
        return None;
    }
    if event.need_rescan() {
        return Some(Vec::new());
    }
    let within: Vec<_> = event.paths.iter().filter_map(|path| path.strip_prefix(directory).ok()).collect();
    if within.is_empty() {
        return None;
    }
    Some(within.iter().filter_map(|path| path.file_name()).map(ToOwned::to_owned).collect())
}

//! A folder of the YAML that a cluster would hold: Namespaces, Services, EndpointSlices and Pods, any number of documents a
//! file.
//!
//! `watch` wakes when something in the folder moves, `read` reads the files that changed, `parse` turns one file into
//! rows, and `state` puts all files together and says what is another than before. All of it runs on a thread of its
//! own, so that large files keep nobody waiting; [`FolderSource`] hands out what comes of it.
//!
//! What the folder says counts as a whole or not at all: while one file is broken, the last good state goes on.

mod parse;
mod read;
mod state;
mod watch;

use self::state::Folder;
use self::watch::{Wake, Watch};
use super::{Change, Problems};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc as sync_mpsc;
use tokio::sync::mpsc;

/// A folder of the YAML that a cluster would hold, watched.
#[derive(Debug)]
pub struct FolderSource {
    batches: mpsc::Receiver<Vec<Change>>,
    problems: Problems,
    wake: sync_mpsc::Sender<Wake>,
}

/// Why a folder can't be a source.
#[derive(Debug)]
pub enum FolderError {
    /// It can't be read: it is not there, is not a folder, or may not be read.
    Unreadable(PathBuf, io::Error),
    /// It can't be watched.
    Unwatchable(PathBuf, notify::Error),
    /// No thread could be started for it.
    NoThread(io::Error),
}

impl FolderSource {
    /// Opens the folder, and says what is in it. A broken file is no error, but a problem: nothing is known then until it is
    /// mended.
    pub fn open(directory: &Path) -> Result<(Self, Vec<Change>), FolderError> {
        // Relative paths are told as they were given, but watched as they were meant.
        let directory = std::path::absolute(directory)
            .map_err(|error| FolderError::Unreadable(directory.to_owned(), error))?;
        let unreadable = |error| FolderError::Unreadable(directory.clone(), error);
        std::fs::read_dir(&directory).map_err(unreadable)?;

        // Watch first and read then: what changes in between is read twice, not missed.
        let (wake, wakes) = sync_mpsc::channel();
        let watch = Watch::new(&directory, wake.clone(), wakes)
            .map_err(|error| FolderError::Unwatchable(directory.clone(), error))?;
        let problems = Problems::default();
        let mut folder = Folder::new(directory, problems.clone());
        let initial = loop {
            let outcome = folder.reread(&[]);
            if !outcome.is_unsettled() {
                break outcome.into_changes();
            }
        };

        // One batch waits at most: what changes while it does goes into the next.
        let (sender, batches) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("folder-source".into())
            .spawn(move || run(folder, watch, &sender))
            .map_err(FolderError::NoThread)?;
        Ok((Self { batches, problems, wake }, initial))
    }

    /// Waits for the next change of what the folder says. Cancel-safe.
    pub async fn next(&mut self) -> Vec<Change> {
        match self.batches.recv().await {
            Some(changes) => changes,
            None => {
                tracing::error!("the thread that watches the folder has ended: its last state goes on");
                std::future::pending().await
            }
        }
    }

    /// What is wrong with the folder now, always up to date.
    pub fn problems(&self) -> Problems {
        self.problems.clone()
    }
}

impl Drop for FolderSource {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.wake.send(Wake::Stop);
    }
}

fn run(mut folder: Folder, mut watch: Watch, batches: &mpsc::Sender<Vec<Change>>) {
    let mut again = false;
    while let Some(touched) = watch.wait(again) {
        let outcome = folder.reread(&touched);
        again = outcome.is_unsettled();
        let changes = outcome.into_changes();
        if !changes.is_empty() && batches.blocking_send(changes).is_err() {
            return;
        }
    }
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FolderError::Unreadable(path, error) => {
                write!(f, "can't read the folder {}: {error}", path.display())
            }
            FolderError::Unwatchable(path, error) => {
                write!(f, "can't watch the folder {}: {error}", path.display())?;
                if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) {
                    f.write_str(" (raise fs.inotify.max_user_watches)")?;
                }
                Ok(())
            }
            FolderError::NoThread(error) => write!(f, "can't start a thread to watch the folder: {error}"),
        }
    }
}

impl std::error::Error for FolderError {}

#[cfg(test)]
mod tests;

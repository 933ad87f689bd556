//! A folder of the YAML that a cluster would hold.
use super::{Change, Problems};
use std::path::Path;

/// A folder of the YAML that a cluster would hold, watched.
#[derive(Debug)]
pub struct FolderSource {}

/// Why a folder can't be a source.
#[derive(Debug)]
pub struct FolderError {}

impl FolderSource {
    /// Opens the folder, and says what is in it.
    pub fn open(directory: &Path) -> Result<(Self, Vec<Change>), FolderError> {
        let _ = directory;
        todo!()
    }

    /// Waits for the next change of what is in the folder. Cancel-safe.
    pub async fn next(&mut self) -> Vec<Change> {
        todo!()
    }

    /// What is wrong with the folder now, always up to date.
    pub fn problems(&self) -> Problems {
        todo!()
    }
}

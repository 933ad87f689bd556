//! Where the truth comes from. Each source turns what it reads into [`rows`] and hands them on as batches of
//! [`Change`]s, each of which is applied as a whole by [`control`](crate::control).
//!
//! [`folder`] reads the YAML that a cluster would hold, [`kubernetes`] knows what the fields of its objects mean, and
//! [`dns`] serves plain host names. What a source can't use it tells through [`problems`].

pub mod dns;
pub mod folder;
pub mod intern;
pub mod kubernetes;
pub mod problems;
pub mod rows;
#[cfg(test)]
pub(crate) mod sample;

pub use dns::{NameSource, Target};
pub use folder::{FolderError, FolderSource};
pub use problems::{Problem, Problems, Severity};
pub use rows::{Change, Row, RowKey};

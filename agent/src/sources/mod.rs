//! Where the truth comes from. Each source turns what it reads into [`rows`] and hands them on as batches of
//! [`Change`]s, each of which is applied as a whole by [`control`](crate::control).
//!
//! [`kubernetes`] watches a cluster's API, [`folder`] reads the YAML that a cluster would hold, and [`dns`] serves plain host
//! names. What a source can't use it tells through [`problems`]; what it said last is kept for a restart in the [`journal`].

pub mod dns;
pub mod folder;
pub mod intern;
pub mod journal;
pub mod kubernetes;
pub mod problems;
pub mod rows;
#[cfg(test)]
pub(crate) mod sample;

pub use dns::{NameSource, Target};
pub use folder::{FolderError, FolderSource};
pub use journal::{Journal, Restored};
pub use kubernetes::KubernetesSource;
pub use problems::{Problem, Problems, Severity};
pub use rows::{Change, Row, RowKey};

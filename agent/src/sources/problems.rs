//! What a source can't use, for people: said once in the log, and kept for as long as it lasts for the admin endpoint.

use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Something that is wrong with what a source was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file that it is in, if it is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line of the file, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The column of the line, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// The object, as `Kind namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What is wrong, and what was done about it or is to be done.
    pub cause: String,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The source can't be used as it is: its last good state goes on.
    Error,
    /// One object, or a part of it, is left out.
    Warning,
}

impl Problem {
    /// A warning that is in no file.
    pub fn warning(object: Option<String>, cause: String) -> Self {
        Self { severity: Severity::Warning, file: None, line: None, column: None, object, cause }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}")?;
            for number in [self.line, self.column].into_iter().map_while(|number| number) {
                write!(f, ":{number}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.cause)
    }
}

/// The problems that a source has now, shared with whoever shows them.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    current: Arc<Mutex<Arc<[Problem]>>>,
}

impl Problems {
    /// The problems of this moment, sorted.
    pub fn current(&self) -> Arc<[Problem]> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the problems by these, and logs those that were not there before and those that are no more.
    pub fn replace(&self, mut problems: Vec<Problem>) {
        problems.sort();
        problems.dedup();
        let fresh: Arc<[Problem]> = problems.into();
        let old = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, fresh.clone())
        };
        for problem in fresh.iter().filter(|problem| old.binary_search(problem).is_err()) {
            match problem.severity {
                Severity::Error => tracing::error!("{problem}"),
                Severity::Warning => tracing::warn!("{problem}"),
            }
        }
        for problem in old.iter().filter(|problem| fresh.binary_search(problem).is_err()) {
            tracing::info!("no longer so: {problem}");
        }
    }
}

//! All files of the folder together: what they say, and what of it is another than before.

use super::parse::{self, Contents, Fault};
use super::read::{self, Fingerprint};
use crate::sources::intern::Interner;
use crate::sources::rows::{Change, Row, RowKey};
use crate::sources::{Problem, Problems, Severity};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// How many times in a row the folder is read again because it changed meanwhile: one that changes all the time must count,
/// too.
const MAX_UNSETTLED: u32 = 5;

/// What is known of the folder.
#[derive(Debug)]
pub(super) struct Folder {
    directory: PathBuf,
    files: BTreeMap<OsString, KnownFile>,
    /// The last good state.
    rows: HashMap<RowKey, Row>,
    names: Interner,
    problems: Problems,
    /// How many times in a row the folder changed while it was read.
    unsettled: u32,
}

#[derive(Debug)]
struct KnownFile {
    /// What it looked like before it was read; `None` if it could not be looked at.
    fingerprint: Option<Fingerprint>,
    contents: Result<Contents, Fault>,
}

/// What came of reading the folder.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It says this.
    Settled(Vec<Change>),
    /// It changed under way: it must be read again.
    Unsettled,
}

impl Outcome {
    pub(super) fn is_unsettled(&self) -> bool {
        matches!(self, Outcome::Unsettled)
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        match self {
            Outcome::Settled(changes) => changes,
            Outcome::Unsettled => Vec::new(),
        }
    }
}

impl Folder {
    pub(super) fn new(directory: PathBuf, problems: Problems) -> Self {
        Self {
            directory,
            files: BTreeMap::new(),
            rows: HashMap::new(),
            names: Interner::default(),
            problems,
            unsettled: 0,
        }
    }

    /// Reads the files that are others than before, and those that are known to have been written to.
    pub(super) fn reread(&mut self, touched: &[OsString]) -> Outcome {
        let found = match read::list(&self.directory) {
            Ok(found) => found,
            Err(error) => {
                let cause = format!("can't read the folder: {error}; its last state goes on");
                self.problems.replace(vec![self.problem(None, Severity::Error, None, None, cause)]);
                return Outcome::Settled(Vec::new());
            }
        };
        self.files.retain(|name, _| found.contains_key(name));
        let mut read_any = false;
        for (name, fingerprint) in &found {
            let known = self.files.get(name);
            if fingerprint.is_some()
                && !touched.contains(name)
                && known.is_some_and(|known| known.fingerprint == *fingerprint)
            {
                continue;
            }
            read_any = true;
            let contents = self.read(name);
            self.files.insert(name.clone(), KnownFile { fingerprint: *fingerprint, contents });
        }
        // Files that were exchanged together, one read before and one after, would make a state that never was.
        if read_any
            && self.unsettled < MAX_UNSETTLED
            && read::list(&self.directory).is_ok_and(|now| now != found)
        {
            self.unsettled += 1;
            return Outcome::Unsettled;
        }
        self.unsettled = 0;
        self.put_together()
    }

    fn read(&mut self, name: &OsStr) -> Result<Contents, Fault> {
        let bytes = read::read(&self.directory.join(name)).map_err(|error| Fault {
            line: None,
            column: None,
            cause: format!("can't read it: {error}"),
        })?;
        parse::parse(&bytes, &mut self.names)
    }

    /// The state that all files make together, or the last good one if they make none.
    fn put_together(&mut self) -> Outcome {
        let mut problems = Vec::new();
        for (name, file) in &self.files {
            match &file.contents {
                Ok(contents) => problems.extend(contents.remarks.iter().map(|remark| {
                    self.problem(
                        Some(name),
                        Severity::Warning,
                        remark.line,
                        remark.object.clone(),
                        remark.cause.clone(),
                    )
                })),
                Err(fault) => {
                    let cause = format!("{}; the folder's last good state goes on", fault.cause);
                    let problem = self.problem(Some(name), Severity::Error, fault.line, None, cause);
                    problems.push(Problem { column: fault.column, ..problem });
                }
            }
        }
        let rows = match self.merge() {
            Ok(rows) => Some(rows),
            Err(duplicates) => {
                problems.extend(duplicates);
                None
            }
        };
        let broken = problems.iter().any(|problem| problem.severity == Severity::Error);
        self.problems.replace(problems);
        match rows {
            Some(rows) if !broken => Outcome::Settled(self.changes_to(rows)),
            _ => Outcome::Settled(Vec::new()),
        }
    }

    /// The rows of all files; or the objects that are there more than once.
    fn merge(&self) -> Result<HashMap<RowKey, Row>, Vec<Problem>> {
        let mut rows = HashMap::new();
        let mut places: HashMap<&str, (&OsStr, u64)> = HashMap::new();
        let mut pods: HashMap<RowKey, &str> = HashMap::new();
        let mut duplicates = Vec::new();
        let objects = self.files.iter().filter_map(|(name, file)| Some((name, file.contents.as_ref().ok()?)));
        for (name, object) in
            objects.flat_map(|(name, contents)| contents.objects.iter().map(move |object| (name, object)))
        {
            let mut duplicate = |other: String| {
                let cause = format!("{other}; the folder's last good state goes on");
                let line = Some(object.line);
                duplicates.push(self.problem(
                    Some(name),
                    Severity::Error,
                    line,
                    Some(object.name.clone()),
                    cause,
                ));
            };
            match places.entry(&object.name) {
                Entry::Occupied(first) => {
                    let (file, line) = first.get();
                    let file = self.directory.join(file);
                    duplicate(format!("is in {}:{line}, too", file.display()));
                    continue;
                }
                Entry::Vacant(place) => place.insert((name, object.line)),
            };
            let key = object.row.key();
            if let RowKey::Pod(uid) = &key
                && let Some(other) = pods.insert(key.clone(), &object.name)
            {
                duplicate(format!("has the UID {uid}, which {other} has, too"));
                continue;
            }
            rows.insert(key, object.row.clone());
        }
        if duplicates.is_empty() { Ok(rows) } else { Err(duplicates) }
    }

    /// Makes these rows the state, and says what is another by it.
    fn changes_to(&mut self, rows: HashMap<RowKey, Row>) -> Vec<Change> {
        let gone = self.rows.keys().filter(|key| !rows.contains_key(key)).cloned().map(Change::Remove);
        let set = rows.iter().filter(|(key, row)| self.rows.get(key) != Some(row));
        let changes = gone.chain(set.map(|(_, row)| Change::Set(row.clone()))).collect();
        self.rows = rows;
        changes
    }

    fn problem(
        &self,
        name: Option<&OsStr>,
        severity: Severity,
        line: Option<u64>,
        object: Option<String>,
        cause: String,
    ) -> Problem {
        let path = name.map_or_else(|| self.directory.clone(), |name| self.directory.join(name));
        Problem { severity, file: Some(path.display().to_string()), line, column: None, object, cause }
    }
}

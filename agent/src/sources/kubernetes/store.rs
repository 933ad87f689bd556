//! What all kinds say together: the rows that are known, the changes that nobody has taken yet, and what is wrong.
//!
//! Nothing is handed out before every kind has been listed once: half a cluster would look like one whose other half is gone.

use super::fault::Fault;
use super::kinds::{KINDS, Kind, Object};
use super::objects::Remarks;
use super::watch::Report;
use crate::mesh::ObjectName;
use crate::sources::rows::{Change, Row, RowKey};
use crate::sources::{Problem, Severity};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How many objects that can't be used are told one by one, of each kind.
const MAX_REMARKS_TOLD: usize = 50;

/// Everything that is known of the cluster.
#[derive(Debug)]
pub(super) struct Store {
    kinds: Vec<Known>,
    /// What has changed since the last batch; the last word on a row counts.
    pending: HashMap<RowKey, Change>,
    complete: bool,
    /// Whether a pod may say where its network namespace is.
    netns_annotation: bool,
    /// What does not get on is another than when it was told last.
    faults_changed: bool,
    /// What is not used is another than when it was told last.
    remarks_changed: bool,
}

/// What is known of a kind.
#[derive(Debug)]
struct Known {
    kind: &'static Kind,
    listed: bool,
    /// A list is under way.
    listing: bool,
    /// The number of the latest list.
    list: u32,
    objects: HashMap<ObjectName, KnownObject>,
    remarks: BTreeMap<ObjectName, Remarks>,
    /// The objects whose remarks are told one by one: as long as they have some, whoever else gets some.
    told: BTreeSet<ObjectName>,
    fault: Option<Fault>,
}

#[derive(Debug)]
struct KnownObject {
    row: Option<Row>,
    /// The list that named it last.
    list: u32,
}

impl Store {
    /// A store that knows these rows from before, or nothing.
    pub(super) fn new(before: &[Row], netns_annotation: bool) -> Self {
        let known = |kind| Known {
            kind,
            // What was known last has been listed once.
            listed: !before.is_empty(),
            listing: false,
            list: 0,
            objects: HashMap::new(),
            remarks: BTreeMap::new(),
            told: BTreeSet::new(),
            fault: None,
        };
        let mut store = Self {
            kinds: KINDS.iter().map(known).collect(),
            pending: HashMap::new(),
            complete: !before.is_empty(),
            netns_annotation,
            faults_changed: false,
            remarks_changed: false,
        };
        for row in before {
            let (kind, name) = identity(row);
            if let Some(known) = store.kinds.iter_mut().find(|known| known.kind.kind == kind) {
                known.objects.insert(name, KnownObject { row: Some(row.clone()), list: 0 });
            }
        }
        store
    }

    /// Takes in what a watch has to say.
    pub(super) fn take(&mut self, place: usize, report: Report) {
        let Self { kinds, pending, netns_annotation, .. } = self;
        let Some(known) = kinds.get_mut(place) else { return };
        match report {
            Report::Listing => {
                known.list += 1;
                known.listing = true;
            }
            Report::Object(mut object) => {
                if !*netns_annotation {
                    object.ignore_netns();
                }
                self.remarks_changed |= known.set(object, pending);
            }
            Report::Gone(name) => self.remarks_changed |= known.remove(&name, pending),
            Report::Listed => {
                self.remarks_changed |= known.end_list(pending);
                (known.listed, known.listing) = (true, false);
            }
            Report::Fault(fault) => {
                (known.fault, known.listing) = (Some(fault), false);
                self.faults_changed = true;
            }
            Report::Well => {
                known.fault = None;
                self.faults_changed = true;
            }
        }
        let is_there = |known: &Known| known.listed || (known.kind.optional && known.fault.is_some());
        self.complete |= self.kinds.iter().all(is_there);
    }

    /// Whether there is something to hand out.
    pub(super) fn has_batch(&self) -> bool {
        self.complete && !self.pending.is_empty()
    }

    /// Everything that has changed since the last call.
    pub(super) fn take_batch(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.pending).into_values().collect()
    }

    /// All rows that are known.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.kinds.iter().flat_map(|known| known.objects.values().filter_map(|object| object.row.as_ref()))
    }

    /// How many objects of the kind are known.
    pub(super) fn objects(&self, place: usize) -> usize {
        self.kinds.get(place).map_or(0, |known| known.objects.len())
    }

    /// What is wrong, if that has changed since the last call. What a list brings is told as a whole, at its end.
    pub(super) fn changed_problems(&mut self) -> Option<Vec<Problem>> {
        let is_listing = self.kinds.iter().any(|known| known.listing);
        if !self.faults_changed && (!self.remarks_changed || is_listing) {
            return None;
        }
        (self.faults_changed, self.remarks_changed) = (false, is_listing && self.remarks_changed);
        Some(self.problems())
    }

    /// What does not get on, a line each.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.kinds.iter().filter_map(Known::fault_line).collect();
        lines.sort();
        lines.dedup();
        lines
    }

    fn problems(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for known in &mut self.kinds {
            if let Some(cause) = known.fault_line() {
                let of_all = known.fault.as_ref().is_some_and(Fault::is_of_connection);
                let severity =
                    if known.kind.optional && !of_all { Severity::Warning } else { Severity::Error };
                problems.push(problem(severity, None, cause));
            }
            known.choose_told();
            let told = known.told.iter().filter_map(|name| Some((name, known.remarks.get(name)?)));
            for (name, remarks) in told {
                let name = match name.namespace.is_empty() {
                    true => name.name.to_string(),
                    false => name.to_string(),
                };
                let object = format!("{} {name}", known.kind.kind);
                problems.extend(
                    remarks
                        .iter()
                        .map(|cause| problem(Severity::Warning, Some(object.clone()), cause.clone())),
                );
            }
            // Not each one more or less is worth a line in the log.
            if let Some(power) = known.remarks.len().saturating_sub(MAX_REMARKS_TOLD).checked_ilog2() {
                let at_least = 1_usize << power;
                let cause = format!(
                    "at least {at_least} more {} are not used, or not as a whole",
                    known.kind.resource
                );
                problems.push(problem(Severity::Warning, None, cause));
            }
        }
        problems
    }
}

impl Known {
    /// Whether what is wrong is another by it.
    fn set(&mut self, object: Object, pending: &mut HashMap<RowKey, Change>) -> bool {
        let Object { name, row, remarks, .. } = object;
        let remarked = match remarks.is_empty() {
            true => self.remarks.remove(&name).is_some(),
            false => self.remarks.insert(name.clone(), remarks.clone()) != Some(remarks),
        };
        match self.objects.entry(name) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.list = self.list;
                if known.row != row {
                    change(std::mem::replace(&mut known.row, row.clone()), row, pending);
                }
            }
            Entry::Vacant(place) => {
                change(None, row.clone(), pending);
                place.insert(KnownObject { row, list: self.list });
            }
        }
        remarked
    }

    fn remove(&mut self, name: &ObjectName, pending: &mut HashMap<RowKey, Change>) -> bool {
        if let Some(known) = self.objects.remove(name) {
            change(known.row, None, pending);
        }
        self.remarks.remove(name).is_some()
    }

    /// Fills up what is told with the next by name.
    fn choose_told(&mut self) {
        let Self { told, remarks, .. } = self;
        told.retain(|name| remarks.contains_key(name));
        for name in remarks.keys() {
            if told.len() == MAX_REMARKS_TOLD {
                return;
            }
            told.insert(name.clone());
        }
    }

    /// What the list did not name is gone.
    fn end_list(&mut self, pending: &mut HashMap<RowKey, Change>) -> bool {
        let list = self.list;
        let (mut gone, mut remarked) = (Vec::new(), false);
        self.objects.retain(|name, known| {
            let named = known.list == list;
            if !named {
                gone.push(known.row.take());
                remarked |= self.remarks.remove(name).is_some();
            }
            named
        });
        for row in gone {
            change(row, None, pending);
        }
        remarked
    }

    fn fault_line(&self) -> Option<String> {
        let fault = self.fault.as_ref()?;
        let Kind { resource, group, optional, .. } = self.kind;
        let then = match (self.listed, optional) {
            (true, _) => "what was known last goes on",
            (false, true) if !fault.is_of_connection() => "the agent serves without",
            (false, _) => "the agent is not ready until then",
        };
        Some(match fault {
            Fault::Forbidden(_) => {
                let group = if group.is_empty() { "\"\"" } else { group };
                format!(
                    "{resource}: {fault}; the agent's ClusterRole needs the verbs list and watch on {resource} of the \
                     API group {group}; {then}"
                )
            }
            // One line for all kinds.
            fault if fault.is_of_connection() => format!("{fault}; {then}"),
            fault => format!("{resource}: {fault}; {then}"),
        })
    }
}

/// Notes what becomes of an object's row.
fn change(before: Option<Row>, now: Option<Row>, pending: &mut HashMap<RowKey, Change>) {
    let now_key = now.as_ref().map(Row::key);
    if let Some(key) = before.map(|row| row.key()).filter(|key| Some(key) != now_key.as_ref()) {
        pending.insert(key.clone(), Change::Remove(key));
    }
    if let (Some(key), Some(row)) = (now_key, now) {
        pending.insert(key, Change::Set(row));
    }
}

/// The kind and name of the object that a row was made from.
fn identity(row: &Row) -> (&'static str, ObjectName) {
    let of_cluster = |name: &std::sync::Arc<str>| ObjectName { namespace: "".into(), name: name.clone() };
    match row {
        Row::Namespace(row) => ("Namespace", of_cluster(&row.name)),
        Row::Service(row) => ("Service", row.name.clone()),
        Row::Slice(row) => ("EndpointSlice", row.name.clone()),
        Row::Pod(row) => ("Pod", row.name.clone()),
        Row::Node(row) => ("Node", of_cluster(&row.name)),
    }
}

fn problem(severity: Severity, object: Option<String>, cause: String) -> Problem {
    Problem { severity, file: None, line: None, column: None, object, cause }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

//! The pods and what was decided on each.

use super::delta::{Delta, Enrolment, Refused};
use super::enrolment::{self, Here, NotEnrolled};
use crate::mesh::ObjectName;
use crate::sources::rows::{NamespaceRow, OnEnrol, PodRow};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The rows of the namespaces that are known.
type Namespaces = HashMap<Arc<str>, Arc<NamespaceRow>>;

/// The pods, and what was decided on each.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pods: HashMap<Arc<str>, Arc<PodRow>>,
    by_namespace: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    enrolled: HashMap<Arc<str>, Enrolment>,
    /// Those that somebody asked for and that can't be enrolled.
    refused: BTreeMap<Arc<str>, Refused>,
    /// Pods that the batch in hand touches.
    touched: BTreeSet<Arc<str>>,
}

impl Pods {
    /// A namespace's row is another, or gone.
    pub(super) fn touch_namespace(&mut self, name: &Arc<str>) {
        self.touched.extend(self.by_namespace.get(name).into_iter().flatten().cloned());
    }

    pub(super) fn set(&mut self, row: Arc<PodRow>) {
        self.touched.insert(row.uid.clone());
        self.by_namespace.entry(row.name.namespace.clone()).or_default().insert(row.uid.clone());
        let namespace = row.name.namespace.clone();
        if let Some(old) = self.pods.insert(row.uid.clone(), row)
            && old.name.namespace != namespace
        {
            // Only a person who writes UIDs by hand can move a pod.
            self.leave_namespace(&old);
        }
    }

    pub(super) fn remove(&mut self, uid: &Arc<str>) {
        self.touched.insert(uid.clone());
        if let Some(old) = self.pods.remove(uid) {
            self.leave_namespace(&old);
        }
    }

    fn leave_namespace(&mut self, pod: &PodRow) {
        let namespace = &pod.name.namespace;
        if let Some(pods) = self.by_namespace.get_mut(namespace) {
            pods.remove(&pod.uid);
            if pods.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
    }

    /// Decides anew on the pods that the batch touched.
    pub(super) fn settle(&mut self, here: Here<'_>, namespaces: &Namespaces, delta: &mut Delta) {
        for uid in std::mem::take(&mut self.touched) {
            let decided = self.pods.get(&uid).map(|pod| {
                let namespace = namespaces.get(&pod.name.namespace).map(Arc::as_ref);
                let enrolment =
                    || Enrolment { pod: pod.clone(), on_enrol: enrolment::on_enrol(pod, namespace) };
                let decision = enrolment::decide(pod, namespace, here);
                let reason = enrolment::refusal(pod, &decision, here);
                (reason.map(|reason| Refused { pod: pod.clone(), reason }), decision.map(|()| enrolment()))
            });
            let (refused, enrolment) =
                decided.map_or((None, None), |(refused, decision)| (refused, decision.ok()));
            match refused {
                Some(refused) => self.refused.insert(uid.clone(), refused),
                None => self.refused.remove(&uid),
            };
            match (self.enrolled.get(&uid), enrolment) {
                (None, None) => {}
                (Some(old), Some(enrolment)) if *old == enrolment => {}
                (Some(_), None) => {
                    self.enrolled.remove(&uid);
                    delta.withdraw.push(uid);
                }
                (old, Some(enrolment)) => {
                    let list = if old.is_some() { &mut delta.change } else { &mut delta.enrol };
                    list.push(enrolment.clone());
                    self.enrolled.insert(uid, enrolment);
                }
            }
        }
    }

    /// The pod of this name: of several, as where one is deleted and made anew, the one that is to be enrolled, or at least runs.
    pub(super) fn find(&self, name: &ObjectName) -> Option<&Arc<PodRow>> {
        let uids = self.by_namespace.get(&name.namespace)?;
        let named = uids.iter().filter_map(|uid| self.pods.get(uid)).filter(|pod| pod.name == *name);
        named.max_by_key(|pod| (self.enrolled.contains_key(&pod.uid), !pod.finished))
    }

    /// The pods that somebody asked for in vain.
    pub(super) fn refused(&self) -> impl Iterator<Item = &Refused> {
        self.refused.values()
    }

    /// The pods that are labelled as ones that are to be enrolled, and that nobody asks for any more.
    pub(super) fn labelled_in_vain(&self) -> impl Iterator<Item = &Arc<PodRow>> {
        self.pods.values().filter(|pod| {
            pod.status_label.is_some()
                && !self.enrolled.contains_key(&pod.uid)
                && !self.refused.contains_key(&pod.uid)
        })
    }

    /// All pods, each with the decision on it and what to do with its old connections.
    pub(super) fn decisions<'a>(
        &'a self,
        here: Here<'a>,
        namespaces: &'a Namespaces,
    ) -> impl Iterator<Item = (&'a PodRow, Result<(), NotEnrolled>, OnEnrol)> {
        self.pods.values().map(move |pod| {
            let namespace = namespaces.get(&pod.name.namespace).map(Arc::as_ref);
            (pod.as_ref(), enrolment::decide(pod, namespace, here), enrolment::on_enrol(pod, namespace))
        })
    }
}

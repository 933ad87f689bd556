//! The label `evenkeel.dev/status` on this node's pods, for `kubectl get pods -L evenkeel.dev/status`. Only where it is asked
//! for: each change of it goes to all who watch pods.

use super::{NOTICE_EVERY, PodNote, TRY_AGAIN_AFTER, Task, WriteProblems, patch};
use crate::mesh::ObjectName;
use crate::sources::kubernetes::access::Access;
use crate::sources::kubernetes::fault::Fault;
use crate::sources::kubernetes::labels;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::sleep;

/// What a pod's label says, and of which pod.
type Labels = HashMap<Arc<str>, (ObjectName, String)>;

pub(super) async fn run(access: Access, mut pods: watch::Receiver<Vec<PodNote>>, problems: WriteProblems) {
    let mut written = Labels::new();
    loop {
        let wanted = wanted(&pods.borrow_and_update());
        for (uid, name, value) in changes(&written, &wanted) {
            let path = format!("/api/v1/namespaces/{}/pods/{}", name.namespace, name.name);
            // The UID makes it count for this pod only, not for the next of its name.
            let body = json!({ "metadata": { "uid": uid, "labels": { labels::STATUS: value } } });
            match patch(&access, &path, &body).await {
                // Gone, or another by now.
                Ok(()) | Err(Fault::UnknownKind | Fault::Malformed(_)) => problems.set(Task::PodLabels, None),
                Err(fault) => {
                    let cause = format!("pods are not labelled: {fault}; it needs the verb patch on pods");
                    problems.set(Task::PodLabels, Some(cause));
                    sleep(TRY_AGAIN_AFTER).await;
                    break;
                }
            }
            match value {
                Some(value) => drop(written.insert(uid, (name, value))),
                None => drop(written.remove(&uid)),
            }
        }
        // Not each of a start's states is worth a write.
        sleep(NOTICE_EVERY).await;
        if pods.changed().await.is_err() {
            return;
        }
    }
}

fn wanted(notes: &[PodNote]) -> Labels {
    let label = |pod: &PodNote| {
        let status = pod.obstacle.as_ref().map_or("enrolled", |obstacle| match obstacle.lasts {
            true => &obstacle.reason,
            false => "waiting",
        });
        (pod.uid.clone(), (pod.name.clone(), status.to_owned()))
    };
    notes.iter().map(label).collect()
}

/// What is to be written so that the pods' labels are as wanted; `None` takes one away.
fn changes(written: &Labels, wanted: &Labels) -> Vec<(Arc<str>, ObjectName, Option<String>)> {
    let set = wanted.iter().filter(|(uid, label)| written.get(*uid) != Some(label));
    let set = set.map(|(uid, (name, value))| (uid.clone(), name.clone(), Some(value.clone())));
    let gone = written.iter().filter(|(uid, _)| !wanted.contains_key(*uid));
    set.chain(gone.map(|(uid, (name, _))| (uid.clone(), name.clone(), None))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Obstacle;
    use super::*;

    #[test]
    fn a_label_is_written_when_it_changes_and_taken_away_when_the_pod_is_not_wanted_any_more() {
        let obstacle =
            |lasts| Some(Obstacle { reason: "no_listener_port".into(), text: String::new(), lasts });
        let pod =
            |uid: &str, obstacle| PodNote { uid: uid.into(), name: ObjectName::new("shop", uid), obstacle };
        let written = wanted(&[pod("a", None), pod("b", obstacle(false)), pod("c", None)]);
        assert_eq!(written["b"].1, "waiting");
        let now = wanted(&[pod("a", None), pod("b", obstacle(true))]);
        let mut changes = changes(&written, &now);
        changes.sort();
        let changes: Vec<_> = changes.iter().map(|(uid, _, value)| (&**uid, value.as_deref())).collect();
        assert_eq!(changes, [("b", Some("no_listener_port")), ("c", None)]);
    }
}

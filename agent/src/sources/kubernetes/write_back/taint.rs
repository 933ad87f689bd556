//! The start-up taint: it keeps pods off a node until the agent there is ready to take their first connections.

use super::{TRY_AGAIN_AFTER, Task, WriteProblems, patch};
use crate::sources::kubernetes::access::{self, Access};
use crate::sources::kubernetes::fault::Fault;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// How soon it is tried again when somebody else has changed the Node meanwhile, and how soon where the API server is away: a
/// node that stays tainted gets no pods.
const TRY_SOON_AFTER: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    taints: Vec<Value>,
}

pub(super) async fn run(
    access: Access,
    node: Arc<str>,
    key: String,
    mut ready: watch::Receiver<bool>,
    problems: WriteProblems,
) {
    if ready.wait_for(|ready| *ready).await.is_err() {
        return;
    }
    loop {
        match take_off(&access, &node, &key).await {
            Ok(was_there) => {
                problems.set(Task::Taint, None);
                if was_there {
                    tracing::info!(key, "took the start-up taint off the node");
                }
                return;
            }
            Err(fault) => {
                let remedy = match fault {
                    Fault::Forbidden(_) => "; it needs the verbs get and patch on nodes",
                    _ => "",
                };
                let cause = format!("the start-up taint {key} stays on the node: {fault}{remedy}");
                problems.set(Task::Taint, Some(cause));
                sleep(if fault.lasts() { TRY_AGAIN_AFTER } else { TRY_SOON_AFTER }).await;
            }
        }
    }
}

/// Takes the taint off, whatever its effect; whether it was there.
async fn take_off(access: &Access, node: &str, key: &str) -> Result<bool, Fault> {
    let path = format!("/api/v1/nodes/{node}");
    let client = access.client().await?;
    let found: Node = access::object(&client, access::get(&path, "application/json")?).await?;
    let Some(without) = without(&found, key) else { return Ok(false) };
    patch(&client, &path, &without).await.map(|()| true)
}

/// The patch that takes the taint off and leaves the others. It counts only for the Node as it was read: the list of taints is
/// replaced as a whole.
fn without(node: &Node, key: &str) -> Option<Value> {
    let rest: Vec<&Value> = node.spec.taints.iter().filter(|taint| taint["key"] != key).collect();
    (rest.len() < node.spec.taints.len()).then(|| {
        json!({
            "metadata": { "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": rest },
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_taints_stay_and_a_node_without_it_is_left_alone() {
        let node: Node = serde_json::from_value(json!({
            "metadata": { "resourceVersion": "7" },
            "spec": { "taints": [
                { "key": "a", "effect": "NoSchedule" },
                { "key": "dedicated", "value": "x", "effect": "NoExecute", "timeAdded": "t" },
                { "key": "a", "effect": "NoExecute" },
            ]},
        }))
        .unwrap();
        let patch = without(&node, "a").unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["spec"]["taints"], json!([node.spec.taints[1]]));
        assert!(without(&node, "b").is_none());
    }
}

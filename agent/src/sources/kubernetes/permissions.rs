//! Whether the API server is there and new enough, and what of it the agent may use: asked beforehand, for `evenkeel check`.

use super::access::{self, Access};
use super::fault::Fault;
use super::kinds::KINDS;
use super::version::{self, OLDEST_MINOR, Version};
use super::write_back::Wishes;
use http::Request;
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};

/// What was asked, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was asked about.
    pub what: &'static str,
    /// Whether the agent cannot do without.
    pub needed: bool,
    /// What was found, or is missing.
    pub outcome: Result<String, String>,
    /// What a person can do about it; empty where nothing is amiss.
    pub remedy: String,
}

/// A right: a verb on a resource of an API group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Right {
    verb: &'static str,
    resource: &'static str,
    group: &'static str,
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
struct ReviewStatus {
    #[serde(default)]
    allowed: bool,
}

/// Asks everything, for this node, if its name is known.
pub async fn check(access: &Access, node: Option<&str>, wishes: &Wishes) -> Vec<Finding> {
    let reached = async {
        let client = access.client().await?;
        let version = version::of(&client).await?;
        Ok::<_, Fault>((client, version))
    };
    let (client, version) = match reached.await {
        Ok(reached) => reached,
        Err(fault) => {
            let remedy = "see --kubeconfig, the pod's service account, and its way to the API server";
            return vec![missing("API server", true, fault.to_string(), remedy)];
        }
    };
    let mut findings = vec![of_version(&version)];
    for kind in &KINDS {
        let rights = ["list", "watch"].map(|verb| Right { verb, resource: kind.resource, group: kind.group });
        findings.push(of_rights(&client, kind.resource, !kind.optional, &rights).await);
    }
    let events = [Right { verb: "create", resource: "events", group: "events.k8s.io" }];
    findings.push(of_rights(&client, "events", false, &events).await);
    if wishes.startup_taint.is_some() {
        let rights = ["get", "patch"].map(|verb| Right { verb, resource: "nodes", group: "" });
        findings.push(of_rights(&client, "start-up taint", true, &rights).await);
    }
    if wishes.label_pods {
        let rights = [Right { verb: "patch", resource: "pods", group: "" }];
        findings.push(of_rights(&client, "pods' labels", false, &rights).await);
    }
    findings.extend(match node {
        Some(node) => of_node(&client, node).await,
        None => Some(missing(
            "node's name",
            true,
            "not given".into(),
            "set EVENKEEL_NODE_NAME from spec.nodeName, or say --node-name",
        )),
    });
    findings
}

fn of_version(version: &Version) -> Finding {
    if version.is_too_old() {
        return missing(
            "API server",
            true,
            format!("{version}, which is too old"),
            &format!(
                "needs Kubernetes 1.{OLDEST_MINOR} or later (EndpointSlices of discovery.k8s.io/v1, internalTrafficPolicy)"
            ),
        );
    }
    let lists = match version.has_streaming_lists() {
        true => "it may have streaming lists",
        false => "it has no streaming lists: lists come in pages",
    };
    found("API server", true, format!("{version}; {lists}"))
}

async fn of_rights(client: &Client, what: &'static str, needed: bool, rights: &[Right]) -> Finding {
    let mut lacks = Vec::new();
    for right in rights {
        match is_allowed(client, right).await {
            Ok(true) => {}
            Ok(false) => lacks.push(*right),
            Err(fault) => {
                return missing(what, needed, format!("can't be asked about: {fault}"), "try again");
            }
        }
    }
    let verbs = |rights: &[Right]| rights.iter().map(|right| right.verb).collect::<Vec<_>>().join(" and ");
    let Some(Right { resource, group, .. }) = lacks.first() else {
        let resource = rights.first().map_or("", |right| right.resource);
        return found(what, needed, format!("may {} {resource}", verbs(rights)));
    };
    missing(
        what,
        needed,
        format!("may not {} {resource} of the API group {}", verbs(&lacks), in_words(group)),
        &format!(
            "add to the agent's ClusterRole: apiGroups [\"{group}\"], resources [\"{resource}\"], verbs {:?}",
            lacks.iter().map(|right| right.verb).collect::<Vec<_>>()
        ),
    )
}

async fn is_allowed(client: &Client, right: &Right) -> Result<bool, Fault> {
    let Right { verb, resource, group } = right;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": { "verb": verb, "resource": resource, "group": group } },
    });
    let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "application/json")
        .body(review.to_string().into_bytes())
        .map_err(|error| Fault::Malformed(error.to_string()))?;
    access::object::<Review>(client, request).await.map(|review| review.status.allowed)
}

/// Whether there is such a node. What may not be asked was told already.
async fn of_node(client: &Client, node: &str) -> Option<Finding> {
    let kind = KINDS.iter().find(|kind| kind.kind == "Node")?;
    let path = format!("{}?limit=1{}", kind.path(), kind.selection(node));
    let list = async { access::object::<Value>(client, access::get(&path, kind.list_form())?).await };
    let list = match list.await {
        Ok(list) => list,
        Err(Fault::Forbidden(_)) => return None,
        Err(fault) => {
            return Some(missing("node's name", true, format!("can't be asked about: {fault}"), "try again"));
        }
    };
    Some(match list["items"].as_array().is_some_and(|items| !items.is_empty()) {
        true => found("node's name", true, format!("{node} is a node of the cluster")),
        false => missing(
            "node's name",
            true,
            format!("the cluster has no node {node}"),
            "set EVENKEEL_NODE_NAME from spec.nodeName, or say --node-name",
        ),
    })
}

fn found(what: &'static str, needed: bool, detail: String) -> Finding {
    Finding { what, needed, outcome: Ok(detail), remedy: String::new() }
}

fn missing(what: &'static str, needed: bool, detail: String, remedy: &str) -> Finding {
    Finding { what, needed, outcome: Err(detail), remedy: remedy.into() }
}

fn in_words(group: &str) -> &str {
    if group.is_empty() { "\"\"" } else { group }
}

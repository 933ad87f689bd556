//! A role cannot say "its own": the chart's admission policies hold each agent to its own Node and its own node's pods, and to what it is
//! to change of them.

use anyhow::{Result, ensure};
use evenkeel_tests::deploy::{self, rendered};
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::ControlPlane;
use evenkeel_tests::{Outcome, eventually};
use serde_json::{Value, json};

/// An API server with the chart of this value.
fn with_chart(value: &str) -> Result<ControlPlane> {
    let plane = ControlPlane::start()?;
    plane.run(&["create", "namespace", deploy::NAMESPACE])?;
    plane.apply(&rendered(&[&format!("--set={value}")])?)?;
    Ok(plane)
}

/// Changes an object as the agent of the node `own`, whose token names it.
fn patch(plane: &ControlPlane, what: &str, patch: &Value) -> Result<String> {
    let account = format!("--as=system:serviceaccount:{}:evenkeel", deploy::NAMESPACE);
    let token = "--as-user-extra=authentication.kubernetes.io/node-name=own";
    plane.run(&["patch", what, "--type=merge", "-p", &patch.to_string(), &account, token])
}

fn refused(plane: &ControlPlane, what: &str, change: &Value, why: &str) -> bool {
    patch(plane, what, change).is_err_and(|error| format!("{error:#}").contains(why))
}

#[test]
fn an_agent_may_take_the_startup_taint_off_its_own_node_and_do_nothing_else_to_it_or_to_others() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let plane = with_chart("startupTaint.enabled=true")?;
    let (startup, other) = (
        json!({"key": "evenkeel.dev/agent-not-ready", "effect": "NoSchedule"}),
        json!({"key": "other", "effect": "NoSchedule"}),
    );
    for (node, address) in [("own", "10.0.0.1"), ("others", "10.0.0.2")] {
        plane.fake_node(node, address.parse()?, None)?;
        let tainted = json!({"spec": {"taints": [startup, other]}}).to_string();
        plane.run(&["patch", "node", node, "--type=merge", "-p", &tainted])?;
    }
    let untainted = json!({"spec": {"taints": [other]}});
    // The API server learns of a policy a moment after it has taken it: by what changes nothing if it has not.
    let unchanged = json!({"spec": {"taints": [startup, other]}});
    eventually("the policy is in force", || refused(&plane, "node/others", &unchanged, "its own Node only"))?;
    ensure!(refused(&plane, "node/others", &untainted, "its own Node only"));
    for change in [
        json!({"spec": {"taints": []}}),
        json!({"spec": {"unschedulable": true, "taints": [other]}}),
        json!({"metadata": {"labels": {"team": "mine"}}, "spec": {"taints": [other]}}),
    ] {
        ensure!(refused(&plane, "node/own", &change, "change nothing else"), "{change}");
    }
    patch(&plane, "node/own", &untainted)?;
    let taints = plane.object("node/own", "default")?["spec"]["taints"].clone();
    ensure!(
        taints.as_array().is_some_and(|taints| taints.len() == 1 && taints[0]["key"] == "other"),
        "{taints}"
    );
    Ok(())
}

#[test]
fn an_agent_may_label_pods_of_its_own_node_with_their_status_and_change_nothing_else_of_pods() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let plane = with_chart("labelPods=true")?;
    plane.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: default, name: default}}")?;
    // kubectl looks at an object before it patches it; the agent does not.
    plane.run(&["create", "clusterrole", "looks", "--verb=get", "--resource=pods"])?;
    let account = format!("--serviceaccount={}:evenkeel", deploy::NAMESPACE);
    plane.run(&["create", "clusterrolebinding", "looks", "--clusterrole=looks", &account])?;
    for (pod, node) in [("own", "own"), ("others", "other")] {
        plane.fake_node(node, "10.0.0.1".parse()?, None)?;
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": pod, "labels": {"app": "web", "other": "yes"}},
            "spec": {
                "nodeName": node, "automountServiceAccountToken": false,
                "containers": [{"name": "web", "image": "web"}],
            },
        });
        plane.apply(&object.to_string())?;
    }
    let labels = |value: Value| json!({"metadata": {"labels": {"evenkeel.dev/status": value}}});
    let nothing = json!({"metadata": {"labels": {"app": "web"}}});
    eventually("the policy is in force", || {
        refused(&plane, "pod/others", &nothing, "pods of its own node only")
    })?;
    ensure!(refused(&plane, "pod/others", &labels(json!("enrolled")), "pods of its own node only"));
    for change in [
        json!({"metadata": {"labels": {"app": "another"}}}),
        json!({"metadata": {"labels": {"other": null}}}),
        json!({"metadata": {"labels": {"evenkeel.dev/enabled": "true", "evenkeel.dev/status": "enrolled"}}}),
        json!({"metadata": {"annotations": {"team": "mine"}}}),
        json!({"metadata": {"finalizers": ["example.org/never"]}}),
        json!({"spec": {"containers": [{"name": "web", "image": "another"}]}}),
        json!({"spec": {"activeDeadlineSeconds": 1}}),
    ] {
        ensure!(refused(&plane, "pod/own", &change, "and nothing else of it"), "{change}");
    }
    let status = || -> Result<Value> {
        Ok(plane.object("pod/own", "default")?["metadata"]["labels"]["evenkeel.dev/status"].clone())
    };
    for value in [json!("enrolled"), json!("waiting"), Value::Null] {
        patch(&plane, "pod/own", &labels(value.clone()))?;
        ensure!(status()? == value, "{value}");
    }
    // A node's name in the token is what it goes by: without one, nothing is its own.
    let account = format!("--as=system:serviceaccount:{}:evenkeel", deploy::NAMESPACE);
    let label = labels(json!("enrolled")).to_string();
    let without = plane.run(&["patch", "pod/own", "--type=merge", "-p", &label, &account]);
    ensure!(without.is_err_and(|error| format!("{error:#}").contains("pods of its own node only")));
    // Nobody else is held to it.
    plane.run(&["label", "pod/others", "app=another", "--overwrite"]).map(drop)
}

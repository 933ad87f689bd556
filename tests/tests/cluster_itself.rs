//! The real Kubernetes without Evenkeel: what the other cluster suites take for granted.

use anyhow::ensure;
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::{ControlPlane, Options};
use evenkeel_tests::{Outcome, eventually};
use serde_json::Value;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: grpc, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {nodeName: fake, containers: [{name: web, image: web}]}
";

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

#[test]
fn controllers_fill_the_slice_with_pods_that_are_ready() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let plane = ControlPlane::start_with_controllers()?;
    plane.fake_node("fake", "10.0.0.9".parse()?, Some("zone-a"))?;
    plane.apply(SHOP)?;
    let mut pods = Vec::new();
    eventually("the Deployment has its pods", || {
        pods = plane.list("pods", "shop", "app=web").unwrap_or_default();
        pods.len() == 2
    })?;
    plane.fake_running("shop", name(&pods[0]), &["10.244.9.1".parse()?], true)?;
    plane.fake_running("shop", name(&pods[1]), &["10.244.9.2".parse()?], false)?;
    eventually("the slice has both, one of them ready", || {
        let slices = plane.list("endpointslices", "shop", "kubernetes.io/service-name=web");
        let Some(slice) = slices.ok().and_then(|slices| slices.into_iter().next()) else { return false };
        let ready = |address: &str| {
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            endpoints
                .filter(|endpoint| endpoint["addresses"][0] == address)
                .map(|endpoint| endpoint["conditions"]["ready"].as_bool())
                .collect::<Vec<_>>()
        };
        ready("10.244.9.1") == [Some(true)] && ready("10.244.9.2") == [Some(false)]
    })
}

#[test]
fn two_control_planes_at_once_know_nothing_of_each_other() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let (one, other) = (ControlPlane::start()?, ControlPlane::start()?);
    one.apply("{apiVersion: v1, kind: Namespace, metadata: {name: only-here}}")?;
    one.wait_for("namespace/only-here", "default")?;
    ensure!(other.object("namespace/only-here", "default").is_err());
    Ok(())
}

#[test]
fn a_killed_api_server_comes_back_with_all_objects() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut plane = ControlPlane::start()?;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")?;
    plane.api_server.kill()?;
    ensure!(plane.object("namespace/shop", "default").is_err());
    plane.start_api_server()?;
    ensure!(name(&plane.object("namespace/shop", "default")?) == "shop");
    Ok(())
}

#[test]
fn a_service_account_may_do_what_its_role_says_and_nothing_else() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let plane = ControlPlane::start_with(&Options { controllers: false, ..Options::default() })?;
    plane.apply(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [''], resources: [services], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
",
    )?;
    let reader = plane.with_kubeconfig(&plane.service_account_kubeconfig("default", "reader")?);
    eventually("the role is in force", || reader.list("services", "default", "").is_ok())?;
    let refused = reader.list("pods", "default", "").map(drop);
    ensure!(refused.is_err_and(|error| format!("{error:#}").contains("forbidden")));
    Ok(())
}

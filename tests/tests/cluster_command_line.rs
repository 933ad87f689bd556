//! The command line on a real cluster of two nodes: agents are found by their labels and reached through the API's port-forward.

use anyhow::{Context, ensure};
use evenkeel_tests::Outcome;
use evenkeel_tests::deploy::NAMESPACE;
use evenkeel_tests::evenkeel_cli::{line, run_on};
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::shop::{CLIENT, GREETER, SERVICE_PORT};
use evenkeel_tests::kubernetes::{Cluster, SharedCluster, Shop};
use serde_json::json;

static CLUSTER: SharedCluster = SharedCluster::new();

/// What a person need not say, on a machine that has nothing else to do.
const PATIENTLY: [&str; 2] = ["--timeout", "60"];

fn start() -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(2)?;
    cluster.install(&[])?;
    Ok(cluster)
}

#[test]
fn agents_of_all_nodes_of_one_and_of_a_pods_are_asked_through_the_api() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = CLUSTER.get(start)?;
    let shop = Shop::enrolled(&cluster, "looked-at")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let client = shop.client("client", "node-2", address)?;
    shop.is_enrolled(&client)?;
    client.more_calls(CLIENT, 20)?;
    let evenkeel =
        |arguments: &[&str]| run_on(&cluster, &cluster.kubeconfig(), &[arguments, &PATIENTLY].concat());

    let status = evenkeel(&["status"])?.clean()?;
    for node in ["node-1", "node-2"] {
        let words = line(&status, &[node]).with_context(|| status.clone())?;
        ensure!(words[1] == "yes", "{node} is ready: {status}");
    }
    let of_one = evenkeel(&["status", "--node", "node-2", "-o", "json"])?.json()?;
    ensure!(of_one.as_array().map(Vec::len) == Some(1) && of_one[0]["node"] == "node-2", "{of_one}");
    ensure!(of_one[0]["calls"]["begun"].as_u64() >= Some(20), "{of_one}");

    let pods = evenkeel(&["pods", "-n", "looked-at"])?.clean()?;
    let words = line(&pods, &["client", "yes"]).with_context(|| pods.clone())?;
    ensure!(words.contains(&"node-2"), "{pods}");
    ensure!(evenkeel(&["pods"])?.stderr.starts_with("No pods in the namespace default"), "as kubectl's");
    ensure!(evenkeel(&["pods", "-A"])?.clean()?.contains("kube-system"), "all namespaces'");

    let services = evenkeel(&["services", "-n", "looked-at"])?.clean()?;
    let words = line(&services, &[GREETER]).with_context(|| services.clone())?;
    ensure!(words[2] == "yes" && words.contains(&"2/2"), "both nodes see it alike: {services}");

    let told = evenkeel(&[
        "explain",
        "--pod",
        "looked-at/client",
        "--to",
        &format!("{GREETER}:{}", address.port()),
    ])?;
    let told = told.clean()?;
    ensure!(told.contains("yes, for") && told.contains("each call goes to one of 2 endpoints"), "{told}");

    // A pod in which nobody listens there: the node says what it met.
    let of_client = format!("app={CLIENT}");
    let deaf = evenkeel(&["status", "--agent-namespace", "looked-at", "--agent-selector", &of_client])?;
    ensure!(!deaf.success && deaf.stdout.is_empty() && deaf.stderr.lines().count() == 1, "{deaf:?}");
    ensure!(
        deaf.stderr.contains("its pod looked-at/client takes no connection at port 15800")
            && deaf.stderr.contains("refused"),
        "{deaf:?}"
    );

    let nobody = evenkeel(&["status", "--node", "node-1", "--node", "node-9"])?;
    ensure!(
        !nobody.success && line(&nobody.stdout, &["node-1"]).is_some(),
        "the other's is shown: {nobody:?}"
    );
    ensure!(
        nobody.stderr.lines().count() == 1 && nobody.stderr.contains("node-9: it has no agent"),
        "{nobody:?}"
    );
    Ok(())
}

/// What README asks for, and what is said where it is missing.
#[test]
fn the_rights_that_are_needed_are_named_where_they_are_missing() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = CLUSTER.get(start)?;
    const NAME: &str = "looks";
    cluster.run(&["create", "serviceaccount", NAME, "-n", NAMESPACE])?;
    let kubeconfig = cluster.service_account_kubeconfig(NAMESPACE, NAME)?;
    let status = || run_on(&cluster, &kubeconfig, &[&["status"][..], &PATIENTLY].concat());
    let allow = |rules: serde_json::Value| {
        let metadata = json!({"name": NAME, "namespace": NAMESPACE});
        let group = "rbac.authorization.k8s.io";
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": metadata, "rules": rules},
                {
                    "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": metadata,
                    "roleRef": {"apiGroup": group, "kind": "Role", "name": NAME},
                    "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
                },
            ],
        })
        .to_string())
    };
    let none = status()?;
    ensure!(!none.success && none.stderr.contains("the verb list on pods"), "{none:?}");
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]});
    allow(json!([pods]))?;
    evenkeel_tests::eventually("the API server goes by the role", || {
        status().is_ok_and(|said| !said.stderr.contains("the verb list on pods"))
    })?;
    let some = status()?;
    ensure!(
        !some.success && some.stderr.contains("the verbs create and get on pods/portforward"),
        "{some:?}"
    );
    ensure!(some.stderr.lines().count() == 2, "a line for each node: {some:?}");
    let forward = json!({"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["create", "get"]});
    allow(json!([pods, forward]))?;
    evenkeel_tests::eventually("both agents answer", || {
        status().is_ok_and(|said| said.success && said.stdout.lines().count() >= 3)
    })
}

//! What the Helm chart and the kustomize folders render, which values the chart refuses, and what an API server says of it. [`admission`]:
//! what its admission policies hold agents to.

mod admission;

use anyhow::{Context, ensure};
use evenkeel_tests::deploy::{self, Objects, kustomized, objects, rendered};
use evenkeel_tests::host::{evenkeel_binary, privileged};
use evenkeel_tests::kubernetes::ControlPlane;
use evenkeel_tests::{Outcome, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;

/// The chart's objects with these arguments for helm.
fn chart(arguments: &[&str]) -> Objects {
    objects(&rendered(arguments).expect("the chart renders")).expect("the chart renders objects")
}

fn named<'a>(objects: &'a Objects, kind: &str) -> &'a Value {
    &objects[&(kind.to_owned(), "evenkeel".to_owned())]
}

fn pod_spec(objects: &Objects) -> &Value {
    &named(objects, "DaemonSet")["spec"]["template"]["spec"]
}

fn agent(objects: &Objects) -> &Value {
    &pod_spec(objects)["containers"][0]
}

fn argument(objects: &Objects, flag: &str) -> Option<String> {
    let arguments = agent(objects)["args"].as_array().expect("the agent has arguments");
    let prefix = format!("{flag}=");
    arguments.iter().find_map(|argument| argument.as_str()?.strip_prefix(&prefix)).map(str::to_owned)
}

/// The value of an environment variable of the agent's.
fn variable(objects: &Objects, name: &str) -> Option<String> {
    let variables = agent(objects)["env"].as_array().expect("the agent has variables");
    let variable = variables.iter().find(|variable| variable["name"] == name)?;
    variable["value"].as_str().map(str::to_owned)
}

/// Takes away what only releases of Helm have.
fn without_helms_own(mut objects: Objects) -> Objects {
    for object in objects.values_mut() {
        if let Some(labels) = object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.retain(|label, _| label != "helm.sh/chart" && label != "app.kubernetes.io/managed-by");
        }
    }
    objects
}

#[test]
fn the_kustomize_base_is_the_chart_with_its_namespace() {
    let mut base = objects(&kustomized("base").unwrap()).unwrap();
    let namespace = base.remove(&("Namespace".to_owned(), deploy::NAMESPACE.to_owned())).unwrap();
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
    assert_eq!(base, without_helms_own(chart(&[])));
}

#[test]
fn the_kustomize_example_is_the_chart_with_those_values() {
    let mut example = objects(&kustomized("example").unwrap()).unwrap();
    example.remove(&("Namespace".to_owned(), deploy::NAMESPACE.to_owned())).unwrap();
    let chart = chart(&[
        "--set=image.repository=example.org/mirror/evenkeel",
        "--set=startupTaint.enabled=true",
        "--set=metrics.annotations=false,metrics.podMonitor.enabled=true,metrics.prometheusRule.enabled=true",
    ]);
    assert_eq!(example, without_helms_own(chart));
}

#[test]
fn every_flag_of_the_agent_is_a_value_or_the_charts_own() {
    let help = Command::new(evenkeel_binary().unwrap()).args(["agent", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flags: BTreeSet<String> = help
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"))
        .map(|line| line.split([' ', '=']).next().unwrap_or_default().to_owned())
        .filter(|flag| flag != "help")
        .collect();
    // By other values or by the downward API; and what makes sense outside of a pod only.
    let others = [
        "log",
        "log-format",
        "readiness",
        "metrics",
        "startup-taint",
        "node-name",
        "pod-uid",
        "label-pods",
        "source",
        "kubeconfig",
        "netns-annotation",
        // The agent's container has no file that it may write.
        "access-log-to",
    ];
    let schema = std::fs::read_to_string(deploy::chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let values: BTreeSet<String> = schema["properties"]["agent"]["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(|name| kebab(name))
        .collect();
    let missing: Vec<_> =
        flags.iter().filter(|flag| !values.contains(*flag) && !others.contains(&flag.as_str())).collect();
    assert!(missing.is_empty(), "flags that no value sets: {missing:?}");
    let unknown: Vec<_> = values.difference(&flags).collect();
    assert!(unknown.is_empty(), "values of flags that the agent does not have: {unknown:?}");
}

fn kebab(camel: &str) -> String {
    camel.chars().fold(String::new(), |name, letter| match letter {
        'A'..='Z' => format!("{name}-{}", letter.to_ascii_lowercase()),
        _ => format!("{name}{letter}"),
    })
}

#[test]
fn values_reach_the_agent_as_they_are_written() {
    let chart = chart(&[
        "--set=agent.maxDestinations=1000000,agent.mark=8192,agent.drainSeconds=0",
        "--set=agent.accessLog=all,agent.accessLogSample=0.05",
    ]);
    assert_eq!(argument(&chart, "--max-destinations").as_deref(), Some("1000000"));
    assert_eq!(argument(&chart, "--mark").as_deref(), Some("8192"));
    assert_eq!(argument(&chart, "--drain-seconds").as_deref(), Some("0"));
    assert_eq!(argument(&chart, "--access-log").as_deref(), Some("all"));
    assert_eq!(argument(&chart, "--access-log-sample").as_deref(), Some("0.05"));
    assert_eq!(argument(&chart, "--max-pods"), None, "what is not set is the agent's own default");
}

#[test]
fn what_goes_with_spans_comes_from_a_secret_and_stands_in_no_argument() {
    let with = chart(&["--set=otlpHeadersSecret.name=collector"]);
    let variables = agent(&with)["env"].as_array().expect("the agent has variables");
    let headers = variables.iter().find(|variable| variable["name"] == "OTEL_EXPORTER_OTLP_HEADERS");
    let expected = json!({"secretKeyRef": {"name": "collector", "key": "headers", "optional": true}});
    assert_eq!(headers.expect("it is set")["valueFrom"], expected);
    let plain = chart(&[]);
    assert!(!agent(&plain)["env"].to_string().contains("OTEL_"));
    assert_eq!(agent(&with)["args"], agent(&plain)["args"]);
}

#[test]
fn the_kubelet_waits_longer_than_the_agent_drains() {
    for drain in [0, 20, 600] {
        let chart = chart(&[&format!("--set=agent.drainSeconds={drain}")]);
        let grace = pod_spec(&chart)["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > drain, "{grace} s for a drain of {drain} s");
    }
}

#[test]
fn objects_may_be_patched_by_the_options_that_do_so_only() {
    let may_patch = |objects: &Objects, kind: &str| {
        named(objects, "ClusterRole")["rules"].as_array().unwrap().iter().any(|rule| {
            let has = |list: &str, word: &str| rule[list].as_array().unwrap().contains(&json!(word));
            has("resources", kind) && has("verbs", "patch")
        })
    };
    let plain = chart(&[]);
    assert!(!may_patch(&plain, "nodes") && !may_patch(&plain, "pods"));
    assert_eq!(variable(&plain, "EVENKEEL_STARTUP_TAINT"), None);
    let tainted = chart(&["--set=startupTaint.enabled=true"]);
    assert!(may_patch(&tainted, "nodes") && !may_patch(&tainted, "pods"));
    assert_eq!(variable(&tainted, "EVENKEEL_STARTUP_TAINT").as_deref(), Some("evenkeel.dev/agent-not-ready"));
    let labelled = chart(&["--set=labelPods=true"]);
    assert!(may_patch(&labelled, "pods") && !may_patch(&labelled, "nodes"));
    assert_eq!(variable(&labelled, "EVENKEEL_LABEL_PODS").as_deref(), Some("true"));
}

/// `kubectl exec … -- evenkeel check` has the agent's variables, and not its arguments.
#[test]
fn check_in_the_agents_container_checks_what_the_chart_turns_on() {
    let chart =
        chart(&["--set=startupTaint.enabled=true,labelPods=true,agent.cgroup=/host/sys/fs/cgroup/none"]);
    assert_eq!(argument(&chart, "--cgroup"), None, "as a variable alone");
    let mut check = Command::new(evenkeel_binary().unwrap());
    check.arg("check");
    for name in ["EVENKEEL_CGROUP", "EVENKEEL_STARTUP_TAINT", "EVENKEEL_LABEL_PODS"] {
        check.env(name, variable(&chart, name).unwrap_or_else(|| panic!("{name} is not set")));
    }
    // A folder that is not there: it is looked at.
    let said = String::from_utf8(check.output().unwrap().stdout).unwrap();
    assert!(said.contains("/host/sys/fs/cgroup/none"), "{said}");
}

#[test]
fn an_older_cluster_gets_its_apparmor_profile_as_an_annotation() {
    let annotation = "container.apparmor.security.beta.kubernetes.io/agent";
    let metadata = |objects: &Objects| named(objects, "DaemonSet")["spec"]["template"]["metadata"].clone();
    // What the API server takes: k8s.io/kubernetes/pkg/apis/core/validation, ValidateAppArmorProfileFormat.
    for (profile, expected) in [
        ("type=Unconfined", "unconfined"),
        ("type=RuntimeDefault", "runtime/default"),
        ("type=Localhost,appArmorProfile.localhostProfile=own", "localhost/own"),
    ] {
        let profile = format!("--set=appArmorProfile.{profile}");
        let older = chart(&["--kube-version=1.29.0", &profile]);
        assert_eq!(metadata(&older)["annotations"][annotation], expected);
        assert_eq!(agent(&older)["securityContext"]["appArmorProfile"], Value::Null);
        let newer = chart(&["--kube-version=1.33.0", &profile]);
        assert_eq!(metadata(&newer)["annotations"][annotation], Value::Null);
        assert!(
            profile.contains(agent(&newer)["securityContext"]["appArmorProfile"]["type"].as_str().unwrap())
        );
    }
}

#[test]
fn a_users_annotation_wins_over_the_charts_own() {
    let chart = chart(&["--set-string=podAnnotations.prometheus\\.io/port=1,podAnnotations.team=mine"]);
    let annotations = &named(&chart, "DaemonSet")["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], "1");
    assert_eq!(annotations["prometheus.io/scrape"], "true");
    assert_eq!(annotations["team"], "mine");
}

#[test]
fn the_admin_endpoint_may_be_a_socket_in_a_folder_of_its_own() {
    let (with, without) = (chart(&["--set=agent.admin=unix:/run/evenkeel/admin.sock"]), chart(&[]));
    assert_eq!(argument(&with, "--admin").as_deref(), Some("unix:/run/evenkeel/admin.sock"));
    let of_admin = |list: &Value| list.as_array().unwrap().iter().find(|one| one["name"] == "admin").cloned();
    let mount = of_admin(&agent(&with)["volumeMounts"]).expect("the folder can be written to");
    assert_eq!(mount, json!({ "name": "admin", "mountPath": "/run/evenkeel" }));
    // A folder of the node's would be both agents' while they overlap.
    let volume = of_admin(&pod_spec(&with)["volumes"]).expect("what is mounted is there");
    assert_eq!(volume["emptyDir"]["medium"], "Memory");
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(agent(&with)[probe], agent(&without)[probe], "{probe}");
    }
    assert_eq!(of_admin(&pod_spec(&without)["volumes"]), None);
}

#[test]
fn rules_and_dashboard_come_as_the_files_are_and_only_when_asked_for() {
    let file = |name: &str| std::fs::read_to_string(deploy::chart().join("files").join(name)).unwrap();
    let has = |objects: &Objects, kind: &str| objects.keys().any(|(known, _)| known == kind);
    let plain = chart(&[]);
    assert!(!has(&plain, "PrometheusRule") && !has(&plain, "ConfigMap"));
    let with = chart(&["--set=metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true"]);
    let rules: Value = serde_saphyr::from_str(&file("rules.yaml")).unwrap();
    assert_eq!(named(&with, "PrometheusRule")["spec"], rules);
    let dashboard = &with[&("ConfigMap".to_owned(), "evenkeel-dashboard".to_owned())];
    assert_eq!(dashboard["data"]["evenkeel.json"].as_str().unwrap().trim(), file("dashboard.json").trim());
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
}

#[test]
fn bad_values_are_refused_by_name() {
    for (value, complaint) in [
        ("agent.drainSeconds=soon", "at '/agent/drainSeconds': got string, want integer"),
        ("agent.drainSecond=20", "at '/agent': additional properties 'drainSecond' not allowed"),
        ("agent.accessLog=some", "at '/agent/accessLog': value must be one of"),
        ("agent.accessLogSample=2", "at '/agent/accessLogSample'"),
        ("agent.maxPods=0", "at '/agent/maxPods': minimum: got 0, want 1"),
        ("agent.podMemory=512Ki", "at '/agent/podMemory'"),
        ("agent.mark=none", "at '/agent/mark'"),
        ("agent.mark=0", "at '/agent/mark': minimum: got 0, want 1"),
        ("agent.mark=0x0", "at '/agent/mark'"),
        ("ports.metrics=15801", "three ports, and are 15800, 15801, 15801"),
        ("agent.admin=127.0.0.1:15802", "three ports, and are 15802, 15801, 15802"),
        ("agent.admin=unix:admin.sock", "at '/agent/admin'"),
        ("agent.admin=unix:/run/admin.sock", "at '/agent/admin'"),
        ("agent.admin=unix:/usr/bin/admin.sock", "at '/agent/admin'"),
        ("agent.admin=unix:/run/evenkeel/../x", "at '/agent/admin'"),
        ("agent.upstreamSockets=both", "at '/agent/upstreamSockets': value must be one of 'pod', 'node'"),
        ("agent.listenerPorts=15810", "at '/agent/listenerPorts'"),
        ("agent.cgroup=kubepods", "at '/agent/cgroup'"),
        ("ports.metrics=70000", "at '/ports/metrics': maximum: got 70,000, want 65,535"),
        ("log.format=xml", "at '/log/format': value must be one of 'text', 'json'"),
        ("image.digest=latest", "at '/image/digest'"),
        ("image.repository=", "at '/image/repository'"),
        ("startupTaint.key=a b", "at '/startupTaint/key'"),
        ("tolerations[0].operator=Always", "at '/tolerations/0/operator'"),
        ("seccompProfile.type=Localhost", "at '/seccompProfile': missing property 'localhostProfile'"),
        ("otlpHeadersSecret.name=No", "at '/otlpHeadersSecret/name'"),
        ("otlpHeadersSecret.value=x", "at '/otlpHeadersSecret': additional properties 'value' not allowed"),
        ("resources.limits.memory=lots", "at '/resources/limits/memory'"),
        ("metrics.podMonitor.interval=30", "at '/metrics/podMonitor/interval'"),
        ("metricss.annotations=true", "at '': additional properties 'metricss' not allowed"),
    ] {
        let refusal = rendered(&["--set", value]).err().unwrap_or_else(|| panic!("{value} is taken"));
        let refusal = format!("{refusal:#}");
        assert!(refusal.contains(complaint), "{value}: {refusal}");
    }
}

#[test]
fn every_example_of_values_renders() {
    for entry in std::fs::read_dir(deploy::chart().join("ci")).unwrap() {
        let path = entry.unwrap().path();
        let yaml = rendered(&["--values", path.to_str().unwrap()]).unwrap();
        assert!(objects(&yaml).unwrap().len() >= 4, "{}", path.display());
    }
}

#[test]
fn an_api_server_takes_every_example_as_it_stands() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let plane = ControlPlane::start()?;
    plane.run(&["create", "namespace", deploy::NAMESPACE])?;
    let mut values = vec![deploy::chart().join("values.yaml")];
    for entry in std::fs::read_dir(deploy::chart().join("ci"))? {
        values.push(entry?.path());
    }
    for values in values {
        let mut objects = chart(&["--values", &values.to_string_lossy()]);
        // Their definitions are the Prometheus operator's.
        objects.retain(|(kind, _), _| !["PodMonitor", "PrometheusRule"].contains(&kind.as_str()));
        let list: Vec<_> = objects.into_values().collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": list}).to_string();
        // Strict: a field that the server does not know is an error.
        plane
            .run_with(&["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"], &list)
            .with_context(|| values.display().to_string())?;
    }
    Ok(())
}

#[test]
fn the_agents_account_may_do_what_it_does_and_nothing_else() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let plane = ControlPlane::start()?;
    let account = format!("--as=system:serviceaccount:{}:evenkeel", deploy::NAMESPACE);
    let may = |verb: &str, resource: &str| {
        plane.run(&["auth", "can-i", verb, resource, "--all-namespaces", &account]).is_ok()
    };
    plane.apply(&kustomized("base")?)?;
    // The authorizer learns of a role a moment after the API server has taken it.
    eventually("the role is in force", || may("create", "events.events.k8s.io"))?;
    for resource in ["namespaces", "services", "pods", "nodes", "endpointslices.discovery.k8s.io"] {
        for verb in ["list", "watch"] {
            ensure!(may(verb, resource), "{verb} {resource}");
        }
    }
    for (verb, resource) in [
        ("get", "secrets"),
        ("list", "configmaps"),
        ("patch", "nodes"),
        ("patch", "pods"),
        ("create", "pods"),
        ("get", "nodes"),
        ("patch", "events.events.k8s.io"),
        ("update", "services"),
        ("create", "serviceaccounts/token"),
    ] {
        ensure!(!may(verb, resource), "{verb} {resource}");
    }
    Ok(())
}

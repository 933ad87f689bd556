//! What a person gets wrong: one clear line, and an exit status that says so.

use anyhow::{Result, ensure};
use evenkeel_tests::agent::{self, Options};
use evenkeel_tests::cgroup::Cgroup;
use evenkeel_tests::host::{self, privileged};
use evenkeel_tests::process::Place;
use evenkeel_tests::{Agent, Cluster, Outcome, Process, Shop, eventually};
use std::process::Command;

/// Runs the agent until it ends by itself: not with success, and with a last line that has all of these words.
fn ends_with(mut process: Process, words: &[&str]) -> Outcome {
    let status = process.wait()?;
    ensure!(!status.success(), "it ended with success");
    let said = process.stderr();
    let last = said.last().cloned().unwrap_or_default().to_lowercase();
    for word in words {
        ensure!(last.contains(&word.to_lowercase()), "no {word:?} in the last line of {said:#?}");
    }
    ensure!(!said.iter().any(|line| line.contains("panicked")), "{said:#?}");
    Ok(())
}

/// On the cluster's node, outside its pods.
fn on_the_node(cluster: &Cluster, command: Command) -> Result<(Process, Cgroup)> {
    let cgroup = cluster.system_cgroup("bad-input")?;
    let place = Place::new(cgroup.path(), Some(cluster.node.open()?))?;
    Ok((Process::spawn("agent", command, Some(place))?, cgroup))
}

#[test]
fn a_folder_that_is_missing() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut command = Command::new(host::evenkeel_binary()?);
    command.args(["agent", "--source", "folder:/no/such/folder"]);
    ends_with(Process::spawn("agent", command, None)?, &["/no/such/folder"])
}

#[test]
fn a_source_of_an_unknown_kind() -> Outcome {
    let mut command = Command::new(host::evenkeel_binary()?);
    command.args(["agent", "--source", "carrier-pigeon:x"]);
    let mut process = Process::spawn("agent", command, None)?;
    ensure!(!process.wait()?.success());
    let said = process.stderr().join("\n");
    ensure!(said.contains("carrier-pigeon") && said.contains("folder"), "{said}");
    Ok(())
}

#[test]
fn an_admin_port_that_is_taken() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = Cluster::new()?;
    let _first = Agent::start(&cluster)?;
    let second = agent::command(&cluster, &Options::default())?;
    let (process, _cgroup) = on_the_node(&cluster, second)?;
    ends_with(process, &["15800", "--admin"])
}

#[test]
fn a_cgroup_that_is_none() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = Cluster::new()?;
    let options = Options { finds_cgroup: true, ..Options::default() };
    let mut command = agent::command(&cluster, &options)?;
    command.args(["--cgroup", "/tmp"]);
    let (process, _cgroup) = on_the_node(&cluster, command)?;
    ends_with(process, &["/tmp", "cgroup"])
}

#[test]
fn a_user_who_is_not_root() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = Cluster::new()?;
    // World-readable copies: neither the build's folder nor the temporary one need be.
    let folder = tempfile::tempdir()?;
    let binary = folder.path().join("evenkeel");
    std::fs::copy(host::evenkeel_binary()?, &binary)?;
    let source = folder.path().join("objects");
    std::fs::create_dir(&source)?;
    use std::os::unix::fs::PermissionsExt;
    for path in [folder.path(), &binary, &source] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"])
        .arg(&binary)
        .args(["agent", "--source", &format!("folder:{}", source.display())]);
    let (process, _cgroup) = on_the_node(&cluster, command)?;
    ends_with(process, &["root"])
}

#[test]
fn kinds_that_evenkeel_does_not_read_are_named_and_passed_over() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n";
    shop.cluster.write("config-map.yaml", config_map)?;
    let agent = Agent::start(&shop.cluster)?;
    ensure!(shop.spreads_calls_of(&shop.client)?, "the other files count");
    let said = agent.process.stderr().join("\n");
    ensure!(said.contains("ConfigMap"), "{said}");
    Ok(())
}

#[test]
fn yaml_that_is_not_kubernetes_is_named_and_changes_nothing() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    shop.cluster.write("compose.yaml", "services:\n  web:\n    image: web\n")?;
    eventually("the file is named", || {
        agent.process.stderr().iter().any(|line| line.contains("compose.yaml"))
    })?;
    ensure!(shop.spreads_calls_of(&shop.client)?, "the other files still count");
    Ok(())
}

#[test]
fn slices_and_ports_that_do_not_fit_are_named_and_passed_over() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let orphan = shop.greeter.clone();
    let mut slice = orphan.objects().remove(1);
    slice["metadata"]["name"] = "orphan".into();
    slice["metadata"]["labels"]["kubernetes.io/service-name"] = "nobody".into();
    let mut twice = orphan.objects().remove(1);
    twice["metadata"]["name"] = "greeter-v4-again".into();
    let yaml = evenkeel_tests::manifests::to_yaml(&[slice, twice])?;
    shop.cluster.write("odd.yaml", &yaml)?;
    let _agent = Agent::start(&shop.cluster)?;
    // An address that two slices name gets one share, not two.
    shop.client.call(&shop.v4(), 200, &[])?.is_even(&shop.names(), 0.1)?;
    Ok(())
}

#[test]
fn check_says_what_the_node_has() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut command = Command::new(host::evenkeel_binary()?);
    command.arg("check");
    let mut process = Process::spawn("check", command, None)?;
    let status = process.wait()?;
    let said = process.stdout().join("\n").to_lowercase();
    ensure!(status.success(), "this machine has all that the agent needs: {said}");
    ensure!(said.contains("cgroup"), "{said}");
    Ok(())
}

//! What `deploy/` renders: the Helm chart and the kustomize folders, by the real helm and kustomize.

use crate::host::{binaries, evenkeel_binary, existing};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The namespace that the chart is rendered for.
pub const NAMESPACE: &str = "evenkeel-system";

/// The folder of `helm` and `kustomize`: `EVENKEEL_CHART_TOOLS`, or where `cargo xtask chart` links them.
const TOOLS_VARIABLE: &str = "EVENKEEL_CHART_TOOLS";

/// Rendered objects, by kind and name.
pub type Objects = BTreeMap<(String, String), Value>;

/// A path below `deploy/`.
#[must_use]
pub fn folder(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(below)
}

/// The chart's folder.
#[must_use]
pub fn chart() -> PathBuf {
    folder("helm/evenkeel")
}

/// helm or kustomize.
///
/// # Errors
/// When it was not built, with what to do.
pub fn tool(name: &str) -> Result<Command> {
    let folder = match std::env::var_os(TOOLS_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => binaries()?.parent().context("binaries stand below target/")?.join("chart/tools"),
    };
    Ok(Command::new(existing(&folder.join(name), "build it with `cargo xtask chart`")?))
}

/// What `helm template evenkeel` prints for the chart with these further arguments.
///
/// # Errors
/// With helm's own words when it refuses.
pub fn rendered(arguments: &[&str]) -> Result<String> {
    let mut helm = tool("helm")?;
    output(helm.args(["template", "evenkeel"]).arg(chart()).args(["--namespace", NAMESPACE]).args(arguments))
}

/// What `kustomize build` prints for a folder below `deploy/kustomize`.
///
/// # Errors
/// With kustomize's own words when it refuses.
pub fn kustomized(below: &str) -> Result<String> {
    output(tool("kustomize")?.arg("build").arg(folder("kustomize").join(below)))
}

/// The agent's image as `cargo xtask image` makes it of this build's agent, written into a folder.
///
/// # Errors
/// When it cannot be made.
pub fn image(folder: &Path) -> Result<PathBuf> {
    let stripped = folder.join("evenkeel");
    let archive = folder.join("evenkeel.tar");
    let agent = evenkeel_binary()?;
    output(Command::new("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(agent))?;
    let xtask = existing(&binaries()?.join("xtask"), "build it with `cargo build -p xtask`")?;
    output(Command::new(xtask).args(["image", "--binary"]).arg(&stripped).arg("--output").arg(&archive))?;
    Ok(archive)
}

/// Reads rendered YAML.
///
/// # Errors
/// When it is none, or an object has no kind or name, or two have the same.
pub fn objects(yaml: &str) -> Result<Objects> {
    let mut found = Objects::new();
    for object in serde_saphyr::from_multiple::<Value>(yaml)? {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let kind = text("/kind").context("an object has no kind")?;
        let name = text("/metadata/name").with_context(|| format!("a {kind} has no name"))?;
        if let Some(twin) = found.insert((kind, name), object) {
            bail!("rendered twice: {twin}");
        }
    }
    Ok(found)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

//! runc, with the limits of resources taken out of what it is to run: for nodes that show nothing but cgroup2 on a machine whose
//! controllers are all cgroup v1's. There cgroup2 has no controller that could hold a limit, and runc fails over each.

use super::programs;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The name by which containerd calls it.
pub const PROGRAM: &str = "runc-without-limits";

/// Does what runc does with these arguments.
///
/// # Errors
/// When the bundle cannot be changed, or runc cannot be started; else this process becomes runc.
pub fn run(arguments: &[OsString]) -> Result<()> {
    if arguments.iter().any(|argument| argument == "create") {
        let bundle = arguments.iter().skip_while(|argument| *argument != "--bundle").nth(1);
        take_limits_out(&Path::new(bundle.context("runc create has a --bundle")?).join("config.json"))?;
    }
    let error = Command::new(programs::path("runc")?).args(arguments).exec();
    bail!("runc: {error}")
}

fn take_limits_out(config: &Path) -> Result<()> {
    let read = fs::read(config).with_context(|| config.display().to_string())?;
    let mut bundle: Value = serde_json::from_slice(&read)?;
    if let Some(resources) = bundle.pointer_mut("/linux/resources") {
        // Which devices may be used is a BPF program, not a controller.
        *resources = json!({"devices": resources["devices"]});
    }
    fs::write(config, bundle.to_string()).with_context(|| config.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_resources_only_the_devices_stay() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("config.json");
        let bundle = json!({"linux": {"resources": {"devices": [1], "memory": {"limit": 1}}, "x": 2}});
        fs::write(&config, bundle.to_string()).expect("it can be written");
        take_limits_out(&config).expect("it is a bundle");
        let changed: Value = serde_json::from_slice(&fs::read(&config).expect("it is there")).expect("JSON");
        assert_eq!(changed, json!({"linux": {"resources": {"devices": [1]}, "x": 2}}));
    }
}

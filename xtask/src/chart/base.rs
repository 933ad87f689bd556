//! What the kustomize base takes from the chart: the objects as the chart renders them, without what is Helm's own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::Tools;
use crate::process::{answer, step};
use crate::workspace::Workspace;

/// A file below deploy/kustomize that the chart makes, and how.
struct Derived {
    path: &'static str,
    arguments: &'static [&'static str],
}

const DERIVED: [Derived; 4] = [
    Derived { path: "base/evenkeel.yaml", arguments: &[] },
    Derived {
        path: "components/prometheus-operator/podmonitor.yaml",
        arguments: &["--show-only=templates/podmonitor.yaml", "--set=metrics.podMonitor.enabled=true"],
    },
    Derived {
        path: "components/prometheus-operator/prometheusrule.yaml",
        arguments: &[
            "--show-only=templates/prometheusrule.yaml",
            "--set=metrics.prometheusRule.enabled=true",
        ],
    },
    Derived {
        path: "components/startup-taint/policy.yaml",
        arguments: &["--show-only=templates/startup-taint-policy.yaml", "--set=startupTaint.enabled=true"],
    },
];

/// Lines that only Helm's own releases have.
const HELMS: [&str; 3] = ["# Source:", "helm.sh/chart:", "app.kubernetes.io/managed-by:"];

const HEADER: &str = "# Made from the chart by `cargo xtask chart --write`; not to be changed by hand.\n";

/// # Errors
/// If the chart cannot be rendered, or a file differs from what it renders.
pub(super) fn compare(workspace: &Workspace, tools: &Tools) -> Result<()> {
    for derived in DERIVED {
        let path = derived.path_in(workspace);
        let found = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            found == derived.render(workspace, tools)?,
            "{} is not what the chart renders: run `cargo xtask chart --write`",
            path.display()
        );
    }
    step("the kustomize base is the chart's");
    Ok(())
}

/// # Errors
/// If the chart cannot be rendered, or a file cannot be written.
pub(super) fn write(workspace: &Workspace, tools: &Tools) -> Result<()> {
    for derived in DERIVED {
        let path = derived.path_in(workspace);
        fs::write(&path, derived.render(workspace, tools)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        step(&path.display().to_string());
    }
    Ok(())
}

impl Derived {
    fn path_in(&self, workspace: &Workspace) -> PathBuf {
        workspace.root.join("deploy/kustomize").join(self.path)
    }

    fn render(&self, workspace: &Workspace, tools: &Tools) -> Result<String> {
        let rendered = answer(
            tools
                .helm()
                .args(["template", "evenkeel"])
                .arg(super::chart(workspace))
                .args(["--namespace", "evenkeel-system"])
                .args(self.arguments),
        )?;
        Ok(without_helms_own(&rendered))
    }
}

fn without_helms_own(rendered: &str) -> String {
    let lines = rendered.lines().filter(|line| {
        let line = line.trim_start();
        !line.is_empty() && !HELMS.iter().any(|helms| line.starts_with(helms))
    });
    lines.fold(HEADER.to_owned(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_helms_own_is_left_out() {
        let rendered = "---\n# Source: evenkeel/templates/x.yaml\nkind: X\nlabels:\n  helm.sh/chart: evenkeel-1\n  \
                        app.kubernetes.io/name: evenkeel\n  app.kubernetes.io/managed-by: Helm\n\n# Why.\nspec: {}\n";
        assert_eq!(
            without_helms_own(rendered),
            format!(
                "{HEADER}---\nkind: X\nlabels:\n  app.kubernetes.io/name: evenkeel\n# Why.\nspec: {{}}\n"
            )
        );
    }
}

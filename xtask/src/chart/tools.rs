//! helm and kustomize of the versions in `tests/chart/go.mod`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::go_module::GoModule;
use crate::workspace::Workspace;

const MODULE: GoModule = GoModule {
    name: "chart-tools",
    module: "tests/chart",
    packages: &["helm.sh/helm/v4/cmd/helm", "sigs.k8s.io/kustomize/kustomize/v5"],
    link: "chart/tools",
    told: "building helm and kustomize (once, about four minutes)",
};

/// Where the tools are.
pub(crate) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// The tools, built now if the cache has none of these versions.
    ///
    /// # Errors
    /// If Go is missing or too old, or a build fails.
    pub(crate) fn find_or_build(workspace: &Workspace) -> Result<Self> {
        Ok(Self { folder: MODULE.find_or_build(workspace)? })
    }

    /// The folder that holds them.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn helm(&self) -> Command {
        Command::new(self.folder.join("helm"))
    }
}

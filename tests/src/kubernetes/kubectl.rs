//! kubectl on a cluster: everything that tests do to objects, they do as a person would.

use super::programs;
use crate::host::run;
use crate::netns::Netns;
use crate::wait::eventually_some;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Spares the API server the question for its schemas, some MiB each time, of which a loaded machine answers some too late: what it does not
/// know it leaves out, and patches go by the types that kubectl knows itself. The chart's objects are held against the schemas by a test.
pub(super) const WITHOUT_SCHEMAS: &str = "--validate=false";
const PATCH_WITHOUT_SCHEMAS: &str = "--openapi-patch=false";

/// kubectl with a cluster's credentials, where its API server can be reached.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    netns: Option<Arc<Netns>>,
    cache: PathBuf,
}

impl Kubectl {
    /// kubectl with that kubeconfig; what it learns of the API is kept in `cache`.
    ///
    /// # Errors
    /// When it has not been built.
    pub(super) fn new(kubeconfig: PathBuf, netns: Option<Arc<Netns>>, cache: PathBuf) -> Result<Self> {
        Ok(Self { program: programs::path("kubectl")?, kubeconfig, netns, cache })
    }

    /// The same cluster with other credentials.
    #[must_use]
    pub fn with_kubeconfig(&self, kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), ..self.clone() }
    }

    /// Runs it; gives what it prints.
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "")
    }

    /// Runs it with `input` on its standard input; gives what it prints.
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let command = self.command(arguments);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run(&command.get_program().to_string_lossy(), &words, input)
    }

    /// The command line, to be run by the caller.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.netns {
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", netns.path().display())).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache).args(arguments);
        command
    }

    /// Creates or changes the objects of these YAML documents.
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.apply_with(&[], yaml)
    }

    /// The same with further arguments.
    pub(super) fn apply_with(&self, arguments: &[&str], yaml: &str) -> Result<()> {
        let apply = ["apply", WITHOUT_SCHEMAS, PATCH_WITHOUT_SCHEMAS, "-f", "-"];
        self.run_with(&[&apply, arguments].concat(), yaml).map(drop)
    }

    /// Deletes the objects of these YAML documents, and waits until they have gone.
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn delete(&self, yaml: &str) -> Result<()> {
        self.run_with(&["delete", "--ignore-not-found", "-f", "-"], yaml).map(drop)
    }

    /// An object, such as `service/web`, or all of a kind.
    ///
    /// # Errors
    /// When there is none.
    pub fn object(&self, what: &str, namespace: &str) -> Result<Value> {
        let json = self.run(&["get", what, "-n", namespace, "-o", "json"])?;
        serde_json::from_str(&json).context(json)
    }

    /// All objects of a kind, with those labels (`app=web`, or empty for any).
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn list(&self, kind: &str, namespace: &str, labels: &str) -> Result<Vec<Value>> {
        let json = self.run(&["get", kind, "-n", namespace, "-l", labels, "-o", "json"])?;
        let mut list: Value = serde_json::from_str(&json).with_context(|| json.clone())?;
        Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// Waits until an object exists.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_for(&self, what: &str, namespace: &str) -> Result<()> {
        self.wait_until(what, namespace, |_| true).map(drop)
    }

    /// Waits until an object exists and satisfies `condition`; gives it.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_until(
        &self,
        what: &str,
        namespace: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = None;
        let waited = eventually_some(&format!("{what} in {namespace} is as expected"), || {
            last = self.object(what, namespace).ok();
            Ok(last.clone().filter(&condition))
        });
        waited.with_context(|| format!("it was last seen as {}", last.unwrap_or_default()))
    }

    /// Waits until a Deployment, DaemonSet or StatefulSet (`deployment/web`) has rolled out.
    ///
    /// # Errors
    /// When it does not.
    pub fn rolled_out(&self, what: &str, namespace: &str) -> Result<()> {
        const LIMIT: &str = "--timeout=120s";
        self.run(&["rollout", "status", what, "-n", namespace, LIMIT]).map(drop).with_context(|| {
            self.run(&["get", "pods,events", "-n", namespace, "-o", "wide"]).unwrap_or_default()
        })
    }
}

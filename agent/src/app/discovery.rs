//! The source that was asked for: a cluster's API, or a folder.

use crate::config::{AgentConfig, ClusterConfig, Source};
use crate::lifecycle::handover::Handover;
use crate::sources::kubernetes::write_back::{PodNote, Wishes, WriteBack};
use crate::sources::kubernetes::{Access, KindView};
use crate::sources::{Change, FolderSource, Journal, KubernetesSource, Problem, Restored, Severity};
use anyhow::{Result, bail};
use std::os::fd::{AsFd as _, OwnedFd};
use tracing::info;

/// The label under which the keeper holds the rows that were known last.
pub(super) const ROWS_LABEL: &str = "rows";

/// Where the truth comes from.
pub(super) enum Discovery {
    Folder(FolderSource),
    Kubernetes(KubernetesSource, WriteBack),
}

impl Discovery {
    /// Opens the source. The first batch is all that there is; `None`: it is not known yet, and comes with
    /// [`Self::next`].
    pub(super) fn open(
        config: &AgentConfig,
        keeper: &Handover,
        rows: Option<OwnedFd>,
    ) -> Result<(Self, Option<Vec<Change>>)> {
        let folder = match &config.source {
            Source::Folder(folder) => folder,
            Source::Kubernetes => return Self::kubernetes(config, keeper, rows),
        };
        let (source, first) = FolderSource::open(folder)?;
        Ok((Self::Folder(source), Some(first)))
    }

    fn kubernetes(
        config: &AgentConfig,
        keeper: &Handover,
        rows: Option<OwnedFd>,
    ) -> Result<(Self, Option<Vec<Change>>)> {
        // Nothing that could change under a running agent.
        if config.cluster.kubeconfig.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
            bail!(
                "--source kubernetes: this is no pod of a cluster (KUBERNETES_SERVICE_HOST is not set): say --kubeconfig FILE, \
                 or --source folder:DIR"
            );
        }
        let keeper = Handover::from(keeper.as_fd().try_clone_to_owned()?);
        let hold = move |rows: std::os::fd::BorrowedFd<'_>| keeper.hold(ROWS_LABEL, rows);
        let (journal, before) = match rows {
            Some(rows) => Journal::restore(rows, hold),
            None => (Journal::new(hold), Restored::default()),
        };
        if !before.rows.is_empty() {
            info!(rows = before.rows.len(), "goes on with what was known last");
        }
        let access = Access { kubeconfig: config.cluster.kubeconfig.clone() };
        let node = config.cluster.node_name.as_deref().unwrap_or_default();
        let ClusterConfig { startup_taint, label_pods, netns_annotation, .. } = config.cluster.clone();
        let source = KubernetesSource::open(&access, node, netns_annotation, &before, journal);
        let rows = before.rows;
        let first = (!rows.is_empty()).then(|| rows.into_iter().map(Change::Set).collect());
        let write_back = WriteBack::start(&access, node, &Wishes { startup_taint, label_pods });
        Ok((Self::Kubernetes(source, write_back), first))
    }

    /// Waits for the next change. Cancel-safe.
    ///
    /// # Errors
    /// The source has ended: the keeper is to start another process, which goes on with what was known last.
    pub(super) async fn next(&mut self) -> Result<Vec<Change>> {
        match self {
            Self::Folder(source) => Ok(source.next().await),
            Self::Kubernetes(source, _) => Ok(source.next().await?),
        }
    }

    /// What is wrong with the source now.
    pub(super) fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Folder(source) => source.problems().current().to_vec(),
            Self::Kubernetes(source, write_back) => {
                let (read, written) = (source.problems().current(), write_back.problems().current());
                read.iter().chain(&*written).cloned().collect()
            }
        }
    }

    /// Tells a cluster whether the agent is ready, and what became of this node's pods.
    pub(super) fn tell(&self, ready: bool, pods: impl FnOnce() -> Vec<PodNote>) {
        if let Self::Kubernetes(_, write_back) = self {
            write_back.ready(ready);
            write_back.pods(pods());
        }
    }

    /// Whether what it has said so far may be served: a folder that is broken from the start has no last good state, and is
    /// mended first. A cluster says nothing before it has said everything.
    pub(super) fn is_usable(&self) -> bool {
        match self {
            Self::Folder(_) => self.problems().iter().all(|problem| problem.severity != Severity::Error),
            Self::Kubernetes(..) => true,
        }
    }

    /// How each kind of a cluster stands; of a folder there is nothing to tell.
    pub(super) fn kinds(&self) -> Vec<KindView> {
        match self {
            Self::Folder(_) => Vec::new(),
            Self::Kubernetes(source, _) => source.kinds(),
        }
    }
}

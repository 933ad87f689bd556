//! The source that was asked for: a cluster's API, or a folder.

use crate::config::{AgentConfig, Source};
use crate::lifecycle::handover::Handover;
use crate::sources::kubernetes::{Access, KindView};
use crate::sources::{Change, FolderSource, Journal, KubernetesSource, Problem, Severity};
use anyhow::Result;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use tracing::info;

/// The label under which the keeper holds the rows that were known last.
pub(super) const ROWS_LABEL: &str = "rows";

/// Where the truth comes from.
pub(super) enum Discovery {
    Folder(FolderSource),
    Kubernetes(KubernetesSource),
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
        let keeper = Handover::from(keeper.as_fd().try_clone_to_owned()?);
        let hold = move |rows: std::os::fd::BorrowedFd<'_>| keeper.hold(ROWS_LABEL, rows);
        let (journal, before) = match rows {
            Some(rows) => Journal::restore(rows, hold),
            None => (Journal::new(hold), Vec::new()),
        };
        if !before.is_empty() {
            info!(rows = before.len(), "goes on with what was known last");
        }
        let access = Access { kubeconfig: config.cluster.kubeconfig.clone() };
        let node = config.cluster.node_name.as_deref().unwrap_or_default();
        let source = KubernetesSource::open(&access, node, &before, journal);
        let first = (!before.is_empty()).then(|| before.into_iter().map(Change::Set).collect());
        Ok((Self::Kubernetes(source), first))
    }

    /// Waits for the next change. Cancel-safe.
    pub(super) async fn next(&mut self) -> Vec<Change> {
        match self {
            Self::Folder(source) => source.next().await,
            Self::Kubernetes(source) => source.next().await,
        }
    }

    /// What is wrong with the source now.
    pub(super) fn problems(&self) -> Arc<[Problem]> {
        match self {
            Self::Folder(source) => source.problems().current(),
            Self::Kubernetes(source) => source.problems().current(),
        }
    }

    /// Whether what it has said so far may be served: a folder that is broken from the start has no last good state, and is
    /// mended first. A cluster says nothing before it has said everything.
    pub(super) fn is_usable(&self) -> bool {
        match self {
            Self::Folder(_) => self.problems().iter().all(|problem| problem.severity != Severity::Error),
            Self::Kubernetes(_) => true,
        }
    }

    /// How each kind of a cluster stands; of a folder there is nothing to tell.
    pub(super) fn kinds(&self) -> Vec<KindView> {
        match self {
            Self::Folder(_) => Vec::new(),
            Self::Kubernetes(source) => source.kinds(),
        }
    }
}

//! What the agent writes to the API: [`events`] on pods that can't be enrolled, and, only where that is asked for, the start-up
//! [`taint`] off its node and [`pod_labels`].
//!
//! Nothing that carries calls waits for any of it, and what can't be written is a problem that is told, and nothing more.

mod events;
mod pod_labels;
mod taint;
mod tried;

use super::access::{self, Access};
use super::fault::Fault;
use crate::mesh::ObjectName;
use crate::sources::{Problem, Problems};
use http::Request;
use kube::Client;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// After how long something is written again that failed or was refused: somebody has to change something first.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The longest time that a change of pods waits to be noticed: the agent looks around as often.
const NOTICE_EVERY: Duration = Duration::from_secs(1);

/// A pod of this node that is to be enrolled, or that is labelled as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodNote {
    /// Its UID.
    pub uid: Arc<str>,
    /// Its name.
    pub name: ObjectName,
    /// What its label [`labels::STATUS`](super::labels::STATUS) says, as far as is known.
    pub label: Option<Arc<str>>,
    /// What became of the wish to enrol it; `None`: nobody wishes it any more, and only a label is left.
    pub outcome: Option<Result<(), Obstacle>>,
}

impl PodNote {
    /// Why it is not enrolled, though somebody wishes it.
    fn obstacle(&self) -> Option<&Obstacle> {
        self.outcome.as_ref()?.as_ref().err()
    }
}

/// Why a pod is not enrolled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Obstacle {
    /// The reason's name, in `snake_case`.
    pub reason: String,
    /// The reason.
    pub text: String,
    /// It does not pass by itself: its owner should hear of it.
    pub lasts: bool,
}

/// What is written besides Events.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// The key of the taint to take off this node.
    pub startup_taint: Option<String>,
    /// Pods are labelled.
    pub label_pods: bool,
}

/// Writes to the API, for as long as it lives.
#[derive(Debug)]
pub struct WriteBack {
    pods: watch::Sender<Vec<PodNote>>,
    ready: watch::Sender<bool>,
    problems: WriteProblems,
    // Ends what writes.
    _tasks: JoinSet<()>,
}

impl WriteBack {
    /// Begins to write for this node.
    pub fn start(access: &Access, node: &str, wishes: &Wishes) -> Self {
        let (pods, notes) = watch::channel(Vec::new());
        let (ready, is_ready) = watch::channel(false);
        let problems = WriteProblems::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(events::run(access.clone(), node.into(), notes.clone(), problems.clone()));
        if wishes.label_pods {
            tasks.spawn(pod_labels::run(access.clone(), notes, problems.clone()));
        }
        if let Some(key) = wishes.startup_taint.clone() {
            tasks.spawn(taint::run(access.clone(), node.into(), key, is_ready, problems.clone()));
        }
        Self { pods, ready, problems, _tasks: tasks }
    }

    /// The pods that are to be enrolled, and what became of them.
    pub fn pods(&self, mut notes: Vec<PodNote>) {
        notes.sort();
        self.pods.send_if_modified(|known| {
            let changed = *known != notes;
            *known = notes;
            changed
        });
    }

    /// Whether the agent is ready.
    pub fn ready(&self, ready: bool) {
        self.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
    }

    /// What can't be written now.
    pub fn problems(&self) -> Problems {
        self.problems.shown.clone()
    }
}

/// What can't be written, a line for each task.
#[derive(Clone, Debug, Default)]
struct WriteProblems {
    shown: Problems,
    lines: Arc<Mutex<[Option<String>; 3]>>,
}

/// Who has a problem.
#[derive(Clone, Copy, Debug)]
enum Task {
    Events = 0,
    PodLabels = 1,
    Taint = 2,
}

impl WriteProblems {
    fn set(&self, task: Task, line: Option<String>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines[task as usize] = line;
        let problem = |cause: &String| Problem::warning(None, cause.clone());
        self.shown.replace(lines.iter().flatten().map(problem).collect());
    }
}

/// Changes an object by a merge patch.
async fn patch(client: &Client, path: &str, patch: &Value) -> Result<(), Fault> {
    let request = Request::patch(path)
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .header(http::header::ACCEPT, METADATA_ALONE)
        .body(patch.to_string().into_bytes());
    send(client, request).await
}

/// Makes an object.
async fn create(client: &Client, path: &str, object: Vec<u8>) -> Result<(), Fault> {
    let request = Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, METADATA_ALONE)
        .body(object);
    send(client, request).await
}

/// An answer of no interest.
const METADATA_ALONE: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

async fn send(client: &Client, request: http::Result<Request<Vec<u8>>>) -> Result<(), Fault> {
    let request = request.map_err(|error| Fault::Malformed(error.to_string()))?;
    access::send(client, request).await.map(drop)
}

/// A client for a few writes in a row, made from the files of its first. After a fault, and where none is written for a while, another
/// is made: [`Self::forget`].
struct Writer {
    access: Access,
    client: Option<Client>,
}

impl Writer {
    fn new(access: Access) -> Self {
        Self { access, client: None }
    }

    async fn client(&mut self) -> Result<Client, Fault> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = self.access.client().await?;
        self.client = Some(client.clone());
        Ok(client)
    }

    fn forget(&mut self) {
        self.client = None;
    }
}

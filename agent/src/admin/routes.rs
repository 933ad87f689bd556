//! What the admin endpoint answers. It holds no state of its own: whoever does answers [`Question`]s.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long a page may wait for its answer: what answers is busy for milliseconds, or stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Questions that wait for their answer; more are told to come again.
const WAITING_QUESTIONS: usize = 64;

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The pods of this node: enrolled, or why not; connections taken, and straight because of what.
    Pods,
    /// The Service ports: captured at which addresses, or why not.
    Services,
    /// The endpoints of each Service port, with calls begun, failed and under way.
    Endpoints,
    /// The workers' counters.
    Workers,
    /// The kernel's side: where the programs are attached, how full the maps are.
    Kernel,
    /// How the source stands: when each kind was last in contact, and where it is.
    Source,
    /// The checked configuration.
    Config,
    /// What of the source could not be used, and why.
    Problems,
}

const PAGES: [(&str, Page); 8] = [
    ("/pods", Page::Pods),
    ("/services", Page::Services),
    ("/endpoints", Page::Endpoints),
    ("/workers", Page::Workers),
    ("/kernel", Page::Kernel),
    ("/source", Page::Source),
    ("/config", Page::Config),
    ("/problems", Page::Problems),
];

/// Asks for a page.
#[derive(Debug)]
pub struct Question {
    /// Which.
    pub page: Page,
    /// Where the answer goes; whoever asked may have gone.
    pub answer: oneshot::Sender<Value>,
}

/// How questions reach whoever answers them.
pub fn questions() -> (mpsc::Sender<Question>, mpsc::Receiver<Question>) {
    mpsc::channel(WAITING_QUESTIONS)
}

/// The admin endpoint's routes.
pub fn routes(questions: mpsc::Sender<Question>) -> Router {
    let router = PAGES.into_iter().fold(Router::new(), |router, (path, page)| {
        let show = move |State(questions): State<mpsc::Sender<Question>>| async move {
            answer(&questions, page).await.map_or_else(busy, |value| Json(value).into_response())
        };
        router.route(path, get(show))
    });
    router.route("/", get(|| async { index() })).fallback(unknown).with_state(questions)
}

async fn answer(questions: &mpsc::Sender<Question>, page: Page) -> Option<Value> {
    let (answer, answered) = oneshot::channel();
    questions.try_send(Question { page, answer }).ok()?;
    timeout(ANSWER_WITHIN, answered).await.ok()?.ok()
}

fn busy() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the agent is starting, stopping or busy: ask again\n").into_response()
}

fn index() -> String {
    let paths = PAGES.iter().map(|(path, _)| *path).chain(["/calls"]);
    paths.map(|path| format!("{path}\n")).collect()
}

async fn unknown(uri: Uri) -> Response {
    (StatusCode::NOT_FOUND, format!("nothing at {}; there is:\n{}", uri.path(), index())).into_response()
}

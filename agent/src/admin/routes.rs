//! What the admin endpoint answers.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use std::sync::Arc;

/// What the endpoint shows; each answer is made when it is asked for.
pub trait View: Send + Sync + 'static {
    /// The pods of this node: enrolled, or why not; connections taken, and straight because of what.
    fn pods(&self) -> Value;
    /// The Service ports: captured at which addresses, or why not.
    fn services(&self) -> Value;
    /// The endpoints of each Service port, with calls begun, failed and under way.
    fn endpoints(&self) -> Value;
    /// The checked configuration.
    fn config(&self) -> Value;
    /// The kernel's side: where the programs are attached, how full the maps are.
    fn kernel(&self) -> Value;
    /// The workers' counters.
    fn workers(&self) -> Value;
    /// What of the source could not be used, and why.
    fn problems(&self) -> Value;
}

type Show = fn(&dyn View) -> Value;

const PAGES: [(&str, Show); 7] = [
    ("/pods", |view| view.pods()),
    ("/services", |view| view.services()),
    ("/endpoints", |view| view.endpoints()),
    ("/config", |view| view.config()),
    ("/kernel", |view| view.kernel()),
    ("/workers", |view| view.workers()),
    ("/problems", |view| view.problems()),
];

/// The endpoint's routes.
pub fn routes(view: Arc<dyn View>) -> Router {
    let router = PAGES.into_iter().fold(Router::new(), |router, (path, show)| {
        router.route(path, get(move |State(view): State<Arc<dyn View>>| async move { Json(show(&*view)) }))
    });
    router.route("/", get(|| async { index() })).fallback(unknown).with_state(view)
}

fn index() -> String {
    PAGES.iter().map(|(path, _)| format!("{path}\n")).collect()
}

async fn unknown(uri: Uri) -> Response {
    (StatusCode::NOT_FOUND, format!("nothing at {}; there is:\n{}", uri.path(), index())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_names_every_page() {
        assert!(PAGES.iter().all(|(path, _)| index().lines().any(|line| line == *path)));
    }
}

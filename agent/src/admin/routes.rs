//! What the admin endpoint answers. It holds no state of its own: whoever does answers [`Question`]s.
//!
//! A request is checked once, in the order [`guard`](super::guard), [`page`](super::page), [`filter`](super::filter),
//! [`accept`](super::accept); what is wrong with it is a [`Refusal`]. The answer is JSON, which [`text`] makes tables of.

use super::accept::Form;
use super::filter::Filter;
use super::guard::Access;
use super::page::{Leads, Page, ROUTES, Route};
use super::refusal::Refusal;
use super::{log, stacks, tap, text, ui};
use crate::telemetry::{Audience, Telemetry, calls_view, profile};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long a page may wait for its answer: what answers is busy for milliseconds, or stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Questions that wait for their answer; more are told to come again.
const WAITING_QUESTIONS: usize = 64;

/// Asks for a page.
#[derive(Debug)]
pub struct Question {
    /// Which.
    pub page: Page,
    /// What of it.
    pub filter: Filter,
    /// Where the answer goes; whoever asked may have gone.
    pub answer: oneshot::Sender<Value>,
}

/// How questions reach whoever answers them.
pub fn questions() -> (mpsc::Sender<Question>, mpsc::Receiver<Question>) {
    mpsc::channel(WAITING_QUESTIONS)
}

/// What the admin endpoint answers from.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where questions go.
    pub questions: mpsc::Sender<Question>,
    /// What is counted of calls: read where the worker threads write it, and asked of nobody.
    pub telemetry: Arc<Telemetry>,
    /// Who is told of single calls: taps are opened there.
    pub audience: Arc<Audience>,
    /// Who may ask.
    pub access: Access,
    /// The description of the endpoint: [`openapi`](super::openapi()).
    pub openapi: Arc<Value>,
}

/// The admin endpoint's routes.
pub fn routes(admin: Admin) -> Router {
    Router::new().fallback(serve).with_state(admin)
}

async fn serve(State(admin): State<Admin>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = match admin.answer(&parts, body).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    // What is true now is not true later, and no browser is to take it for a script.
    headers.insert(CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    headers.insert(VARY, axum::http::HeaderValue::from_static("accept"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, axum::http::HeaderValue::from_static("nosniff"));
    response
}

impl Admin {
    async fn answer(&self, request: &Parts, body: Body) -> Result<Response, Refusal> {
        self.access.check(&request.method, &request.uri, &request.headers)?;
        if let Some(of_page) = ui::answer(&request.method, &request.uri, &request.headers) {
            return Ok(of_page);
        }
        let asked = Asked::read(request)?;
        if let Some(format) = asked.filter.stacks {
            return stacks::answer(asked.route.leads, &asked.filter, format).await;
        }
        let answer = match asked.route.leads {
            Leads::Index => index(),
            Leads::Page(page) => ask(&self.questions, page, asked.filter).await?,
            Leads::Calls => {
                let telemetry = Arc::clone(&self.telemetry);
                // It may read many series.
                let filter = asked.filter;
                let read = spawn_blocking(move || {
                    let takes = |port: &_, method: &_| filter.takes_calls(port, method);
                    json(calls_view(&telemetry, filter.by, filter.rows, filter.pod.as_ref(), takes))
                });
                read.await.map_err(|_| Refusal::busy())?
            }
            Leads::Tap => return tap::answer(&self.audience, asked.filter, asked.form),
            Leads::Log if matches!(request.method, Method::GET | Method::HEAD) => json(log::show()?),
            Leads::Log => json(log::change(body).await?),
            Leads::Cpu => {
                let time = Duration::from_secs(asked.filter.seconds.into());
                json(profile::cpu(time).await.map_err(|error| no_profile(&error))?)
            }
            Leads::Heap => json(profile::heap().map_err(|error| no_profile(&error))?),
            Leads::OpenApi => Value::clone(&self.openapi),
        };
        Ok(match asked.form {
            Form::Json => ([(CONTENT_TYPE, "application/json")], format!("{answer}\n")).into_response(),
            Form::Text => {
                let text = text::text(asked.route.leads, &answer);
                ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
            }
        })
    }
}

/// A request that makes sense.
#[derive(Debug)]
struct Asked {
    route: &'static Route,
    filter: Filter,
    form: Form,
}

impl Asked {
    fn read(request: &Parts) -> Result<Self, Refusal> {
        let path = request.uri.path();
        let route = Route::find(path).ok_or_else(|| Refusal::path(path))?;
        // Whoever is asked with GET answers HEAD too; its body is left out by the server.
        let method = if request.method == "HEAD" { "GET" } else { request.method.as_str() };
        if !route.methods.contains(&method) {
            return Err(Refusal::method(route, method));
        }
        let (mut filter, mut form, mut seen) = (Filter::default(), None, Vec::new());
        for (name, value) in form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes()) {
            let known = route.all_parameters().find(|parameter| parameter.name() == name);
            let parameter = known.ok_or_else(|| Refusal::parameter(route, &name))?;
            if seen.contains(&parameter) && !parameter.may_repeat() {
                return Err(Refusal::twice(parameter.name()));
            }
            seen.push(parameter);
            filter.set(&mut form, parameter, &value)?;
        }
        if route.leads == Leads::Page(Page::Explain) {
            filter.call().map_err(|wrong| Refusal::new(StatusCode::BAD_REQUEST, wrong))?;
        }
        let accept: Vec<_> =
            request.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let accepted = || match accept.is_empty() {
            true => Form::accepted(None, route.is_stream()),
            false => Form::accepted(Some(&accept.join(",")), route.is_stream()),
        };
        let form = form.or_else(accepted).ok_or_else(|| Refusal::not_acceptable(route))?;
        Ok(Self { route, filter, form })
    }
}

async fn ask(questions: &mpsc::Sender<Question>, page: Page, filter: Filter) -> Result<Value, Refusal> {
    let (answer, answered) = oneshot::channel();
    questions.try_send(Question { page, filter, answer }).map_err(|_| Refusal::busy())?;
    match timeout(ANSWER_WITHIN, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(Refusal::busy()),
    }
}

fn no_profile(error: &std::io::Error) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read /proc: {error}"))
}

/// A path that there is.
#[derive(Serialize, JsonSchema)]
pub(super) struct IndexRow {
    /// The path.
    path: &'static str,
    /// The methods that it takes, beside HEAD.
    methods: &'static [&'static str],
    /// The parameters that it takes.
    parameters: Vec<IndexParameter>,
    /// What it answers.
    summary: &'static str,
}

/// A parameter that a path takes.
#[derive(Serialize, JsonSchema)]
struct IndexParameter {
    /// Its name.
    name: &'static str,
    /// What it does, and what it takes.
    summary: &'static str,
}

fn index() -> Value {
    let rows = ROUTES.iter().map(|route| IndexRow {
        path: route.path,
        methods: route.methods,
        parameters: route
            .all_parameters()
            .map(|parameter| IndexParameter { name: parameter.name(), summary: parameter.summary() })
            .collect(),
        summary: route.summary,
    });
    json(rows.collect::<Vec<_>>())
}

/// An answer's JSON.
pub fn json(answer: impl Serialize) -> Value {
    // Nothing that is shown has keys that are no strings, or numbers that are none.
    serde_json::to_value(answer).unwrap_or_else(|error| Value::String(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::accept::NDJSON;
    use super::*;
    use crate::telemetry::StatusFilter;

    fn asked(method: &str, uri: &str, accept: Option<&str>) -> Result<Asked, (u16, String)> {
        let mut request = axum::http::Request::builder().method(method).uri(uri);
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Asked::read(&parts).map_err(|refusal| (refusal.status.as_u16(), refusal.message))
    }

    #[test]
    fn a_request_is_understood_or_answered_with_what_there_is() {
        let all = asked("GET", "/pods", None).unwrap();
        assert_eq!((all.route.path, all.filter, all.form), ("/pods", Filter::default(), Form::Json));
        let some =
            asked("HEAD", "/pods?namespace=a%20b&enrolled=false&format=text", Some("image/png")).unwrap();
        assert_eq!(some.filter.namespace.as_deref(), Some("a b"));
        assert_eq!((some.filter.enrolled, some.form), (Some(false), Form::Text));
        let of_one = asked("GET", "/endpoints?service=shop/cart:50051", Some("text/plain")).unwrap();
        assert_eq!(of_one.filter.service, Some("shop/cart:50051".parse().unwrap()));
        let tapped =
            asked("GET", "/tap?status=unavailable&method=a.B/*&headers=true&limit=7", Some(NDJSON)).unwrap();
        assert_eq!(tapped.filter.tap.status, Some(StatusFilter::Grpc(14)));
        assert_eq!(
            (tapped.filter.with_headers, tapped.filter.records, tapped.form),
            (true, Some(7), Form::Json)
        );
        for (method, uri, accept, status, said) in [
            ("GET", "/pod", None, 404, "did you mean /pods?"),
            ("GET", "/pods/", None, 404, "did you mean /pods?"),
            ("DELETE", "/pods", None, 405, "takes GET, HEAD"),
            ("GET", "/pods?namspace=shop", None, 400, "did you mean namespace?"),
            ("GET", "/workers?namespace=shop", None, 400, "it has: format"),
            ("GET", "/pods?name=a&name=b", None, 400, "say it once"),
            ("GET", "/pods?name=", None, 400, "expected a name"),
            ("GET", "/pods?enrolled=1", None, 400, "expected true or false"),
            ("GET", "/streams?limit=0", None, 400, "from 1 to 10000"),
            ("GET", "/streams?limit=10001", None, 400, "from 1 to 10000"),
            ("GET", "/streams?method=*Add", None, 400, "expected PACKAGE.SERVICE/METHOD"),
            ("GET", "/calls?by=service,pods", None, 400, "expected some of pod, workload, service, method"),
            ("GET", "/calls?by=", None, 400, "expected some of pod"),
            ("GET", "/connections?pod=web", None, 400, "expected NAMESPACE/NAME"),
            ("GET", "/explain", None, 400, "needs pod=NAMESPACE/NAME and to=HOST:PORT"),
            ("GET", "/explain?pod=shop/a&to=cart", None, 400, "expected host:port"),
            ("GET", "/explain?pod=shop/a&to=cart:1&to=cart:2", None, 400, "say it once"),
            ("GET", "/explain?pod=shop/a&to=cart:1&header=a%3Db&header=c", None, 400, "header=\"c\""),
            ("GET", "/pods?format=yaml", None, 400, "expected json or text"),
            ("GET", "/pods?format=pprof", None, 400, "expected json or text"),
            ("GET", "/profile/heap?format=svg", None, 400, "expected json or text or pprof or folded"),
            ("GET", "/endpoints?service=cart", None, 400, "expected NAMESPACE/NAME"),
            ("GET", "/pods", Some("image/png"), 406, "application/json"),
            ("GET", "/pods", Some("application/x-ndjson"), 406, "application/json"),
            ("GET", "/tap", Some("image/png"), 406, "application/x-ndjson"),
            ("POST", "/tap", None, 405, "takes GET, HEAD"),
            ("GET", "/tap?status=bad", None, 400, "a gRPC status by name or number"),
            ("GET", "/tap?method=a*b", None, 400, "as shop.Cart/*"),
            ("GET", "/tap?headers=yes", None, 400, "expected true or false"),
            ("GET", "/tap?limit=0", None, 400, "from 1 to 1000000"),
            ("GET", "/tap?pods=shop/a", None, 400, "did you mean pod?"),
        ] {
            let (refused, message) = asked(method, uri, accept).unwrap_err();
            assert_eq!(refused, status, "{method} {uri}: {message}");
            assert!(message.contains(said) && !message.contains('\n'), "{method} {uri}: {message}");
        }
    }
}

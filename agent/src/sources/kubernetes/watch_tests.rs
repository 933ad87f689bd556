//! The watch of a kind against servers that behave as none of the real ones of the suites does.

use super::*;
use crate::sources::kubernetes::kinds::KINDS;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// What a server says to a request.
struct Answer {
    status: &'static str,
    body: String,
    /// The connection stays open after it, as that of a watch.
    stays: bool,
}

fn answer(status: &'static str, body: impl Into<String>) -> Answer {
    Answer { status, body: body.into(), stays: false }
}

fn version(minor: &str) -> Answer {
    answer("200 OK", format!(r#"{{"major":"1","minor":"{minor}","gitVersion":"v1.{minor}.0"}}"#))
}

fn watch(events: &[&str]) -> Answer {
    Answer {
        stays: true,
        ..answer("200 OK", events.iter().map(|event| format!("{event}\n")).collect::<String>())
    }
}

/// The watch of the cluster's Namespaces, on a server that answers so, and what was asked of it.
struct Scene {
    reports: mpsc::Receiver<(usize, Vec<Report>)>,
    asked: Arc<Mutex<Vec<String>>>,
    _kubeconfig: tempfile::TempDir,
}

impl Scene {
    async fn new(answers: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let server = listener.local_addr().unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \"http://{server}\"}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(serve(listener, asked.clone(), Arc::new(answers)));
        let (sender, reports) = mpsc::channel(64);
        let place = KINDS.iter().position(|kind| kind.resource == "namespaces").unwrap();
        let access = Access { kubeconfig: Some(kubeconfig) };
        let watch =
            Watch::new(place, &KINDS[place], "n1".into(), access, sender, Standing::new(0), Arc::default());
        tokio::spawn(watch.run());
        Self { reports, asked, _kubeconfig: folder }
    }

    /// What is reported until the end of a list, in words.
    async fn until_listed(&mut self) -> Vec<String> {
        self.until_listed_within(Duration::from_secs(30)).await
    }

    async fn until_listed_within(&mut self, limit: Duration) -> Vec<String> {
        let listed = async {
            let mut words = Vec::new();
            while words.last().is_none_or(|word| word != "listed") {
                words.extend(self.words().await);
            }
            words
        };
        timeout(limit, listed).await.unwrap()
    }

    /// What is reported next.
    async fn words(&mut self) -> Vec<String> {
        let (_, reports) = self.reports.recv().await.unwrap();
        let word = |report| match report {
            Report::Listing => "listing".into(),
            Report::Object(object) => object.name.name.to_string(),
            Report::Gone(name) => format!("-{}", name.name),
            Report::Listed => "listed".into(),
            Report::Fault(fault) => fault.to_string(),
            Report::Well => "well".into(),
        };
        reports.into_iter().map(word).collect()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    listener: TcpListener,
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<impl Fn(&str) -> Answer + Send + Sync + 'static>,
) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let (asked, answers) = (asked.clone(), answers.clone());
        tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(socket.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap().to_owned();
            asked.lock().unwrap().push(path.clone());
            let Answer { status, body, stays } = answers(&path);
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
            socket.write_all((head + &body).as_bytes()).await.unwrap();
            if stays {
                std::future::pending::<()>().await;
            }
        });
    }
}

fn object(name: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"5"}}}}"#)
}

fn list(names: &[&str], version: &str, next: &str) -> Answer {
    let items: Vec<String> = names.iter().map(|name| object(name)).collect();
    let items = items.join(",");
    let next = if next.is_empty() { String::new() } else { format!(r#","continue":"{next}""#) };
    answer("200 OK", format!(r#"{{"metadata":{{"resourceVersion":"{version}"{next}}},"items":[{items}]}}"#))
}

const LIST_END: &str = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9",
    "annotations":{"k8s.io/initial-events-end":"true"}}}}"#;

fn one_line(text: &str) -> String {
    text.replace("\n    ", "")
}

#[tokio::test]
async fn a_server_from_before_streaming_lists_is_asked_for_pages() {
    let mut scene = Scene::new(|path| match path {
        "/version" => version("26"),
        path if path.contains("watch=1") => watch(&[]),
        path if path.contains("continue=more") => list(&["c"], "7", ""),
        _ => list(&["a", "b"], "7", "more"),
    })
    .await;
    assert_eq!(scene.until_listed().await, ["listing", "a", "b", "c", "listed"]);
    let asked = scene.asked();
    assert_eq!(
        asked[1], "/api/v1/namespaces?limit=500&resourceVersion=0",
        "any version will do: the server's cache has it"
    );
    assert!(asked.iter().all(|path| !path.contains("sendInitialEvents")), "{asked:?}");
}

#[tokio::test]
async fn a_server_that_refuses_a_streaming_list_is_asked_for_pages() {
    let mut scene = Scene::new(|path| match path {
        "/version" => version("30"),
        path if path.contains("sendInitialEvents") => answer(
            "422 Unprocessable Entity",
            r#"{"kind":"Status","message":"sendInitialEvents: Forbidden: for watch unless the WatchList feature gate is enabled"}"#,
        ),
        path if path.contains("watch=1") => watch(&[]),
        _ => list(&["a"], "7", ""),
    })
    .await;
    assert_eq!(scene.until_listed().await, ["listing", "a", "listed"]);
}

#[tokio::test]
async fn a_watch_that_is_refused_as_too_old_lists_afresh_and_not_older_than_before() {
    let mut scene = Scene::new(|path| match path {
        "/version" => version("36"),
        // Ends after its list, at the end of its time.
        path if path.contains("sendInitialEvents") => {
            let end = one_line(LIST_END);
            let added = format!(r#"{{"type":"ADDED","object":{}}}"#, object("a"));
            answer("200 OK", format!("{added}\n{end}\n"))
        }
        _ => answer("410 Gone", r#"{"kind":"Status","code":410,"reason":"Expired"}"#),
    })
    .await;
    assert_eq!(scene.until_listed().await, ["listing", "a", "listed"]);
    assert_eq!(scene.until_listed().await, ["listing", "a", "listed"]);
    let asked = scene.asked();
    let lists: Vec<_> = asked.iter().filter(|path| path.contains("sendInitialEvents")).collect();
    assert!(lists[0].contains("&resourceVersion=0"), "{asked:?}");
    assert!(lists[1].contains("resourceVersionMatch=NotOlderThan&resourceVersion=9"), "{asked:?}");
}

#[tokio::test]
async fn a_server_that_refuses_each_watch_as_too_old_is_told_of_and_no_list_ends_that() {
    let mut scene = Scene::new(|path| match path {
        "/version" => version("26"),
        path if path.contains("watch=1") => {
            let error = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
            answer(
                "200 OK",
                format!(
                    "{error}
"
                ),
            )
        }
        _ => list(&["a"], "7", ""),
    })
    .await;
    let mut words = Vec::new();
    while words.iter().filter(|word: &&String| word.contains("too old")).count() < 2 {
        words.extend(timeout(Duration::from_secs(30), scene.words()).await.unwrap());
    }
    assert!(!words.contains(&"well".to_owned()), "{words:?}");
}

#[tokio::test]
async fn a_watch_that_goes_on_after_it_expired_is_well_again() {
    let refused = Mutex::new(0);
    let mut scene = Scene::new(move |path| match path {
        "/version" => version("26"),
        path if path.contains("watch=1") => {
            let mut refused = refused.lock().unwrap();
            *refused += 1;
            match *refused {
                1 | 2 => answer("410 Gone", r#"{"kind":"Status","code":410,"reason":"Expired"}"#),
                _ => watch(&[r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"8"}}}"#]),
            }
        }
        _ => list(&["a"], "7", ""),
    })
    .await;
    let mut words = Vec::new();
    while words.last().is_none_or(|word| word != "well") {
        words.extend(timeout(Duration::from_secs(30), scene.words()).await.unwrap());
    }
    assert_eq!(words.iter().filter(|word| word.contains("too old")).count(), 1, "{words:?}");
}

#[tokio::test]
async fn a_list_that_is_broken_off_begins_again_and_an_event_of_a_later_api_is_passed_over() {
    let begun = Mutex::new(0);
    let mut scene = Scene::new(move |path| match path {
        "/version" => version("36"),
        path if path.contains("sendInitialEvents") => {
            let mut begun = begun.lock().unwrap();
            *begun += 1;
            let added = format!(r#"{{"type":"ADDED","object":{}}}"#, object("a"));
            match *begun {
                1 => answer("200 OK", format!("{added}\n{{\"type\":\"ADD")),
                _ => watch(&[r#"{"type":"RENAMED","object":{}}"#, &added, &one_line(LIST_END)]),
            }
        }
        _ => answer("500 Internal Server Error", ""),
    })
    .await;
    assert_eq!(scene.until_listed().await, ["listing", "a", "listing", "a", "listed"]);
}

#[tokio::test]
async fn what_is_forbidden_is_told_at_once_and_what_is_no_answer_too() {
    for (status, body, expected) in [
        (
            "403 Forbidden",
            r#"{"message":"namespaces is forbidden"}"#,
            "forbidden (403: namespaces is forbidden)",
        ),
        ("200 OK", "<html>a login page</html>\n", "not understood"),
    ] {
        let mut scene = Scene::new(move |path| match path {
            "/version" => version("36"),
            _ => answer(status, body),
        })
        .await;
        let told = async {
            loop {
                let (_, reports) = scene.reports.recv().await.unwrap();
                if let Some(Report::Fault(fault)) =
                    reports.into_iter().find(|report| matches!(report, Report::Fault(_)))
                {
                    return fault.to_string();
                }
            }
        };
        let told = timeout(Duration::from_secs(30), told).await.unwrap();
        assert!(told.contains(expected), "{told}");
    }
}

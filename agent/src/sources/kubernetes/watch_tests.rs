//! The watch of a kind against servers that behave as none of the real ones of the suites does.

use super::*;
use crate::sources::kubernetes::fake_server::{Answer, FakeServer, answer};
use crate::sources::kubernetes::kinds::KINDS;
use std::sync::Mutex;

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
    server: FakeServer,
}

impl Scene {
    async fn new(answers: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let server = FakeServer::start(answers).await;
        let (sender, reports) = mpsc::channel(64);
        let place = KINDS.iter().position(|kind| kind.resource == "namespaces").unwrap();
        let (access, standing) = (server.access.clone(), Standing::new(0));
        let watch = Watch::new(place, &KINDS[place], "n1".into(), access, sender, standing, Arc::default());
        tokio::spawn(watch.run());
        Self { reports, server }
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
        self.server.asked()
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

#[tokio::test]
async fn watches_that_get_nowhere_do_not_wake_one_another_for_ever() {
    let (sender, _reports) = mpsc::channel(1);
    let heard = Arc::new(Notify::new());
    let access = Access::default();
    let mut watch = Watch::new(0, &KINDS[0], "n1".into(), access, sender, Standing::new(0), heard.clone());
    watch.cut_off = true;
    // Others that hear from the server all the time.
    let others = tokio::spawn(async move {
        loop {
            heard.notify_waiters();
            sleep(Duration::from_millis(1)).await;
        }
    });
    let long = Duration::from_secs(3600);
    timeout(long / 2, watch.pause(long)).await.expect("a pause ends early");
    let (start, pause) = (Instant::now(), 2 * COME_BACK_OVER);
    watch.pause(pause).await;
    assert!(start.elapsed() >= pause, "it was woken, and has not got on since");
    watch.is_at("1".into()).unwrap();
    timeout(long / 2, watch.pause(long)).await.expect("it has got on");
    others.abort();
}

//! An Event on each pod that can't be enrolled for a reason that lasts: where its owner looks (`kubectl describe pod`).

use super::tried::Tried;
use super::{Obstacle, PodNote, TRY_AGAIN_AFTER, Task, WriteProblems, Writer, create};
use crate::sources::kubernetes::access::Access;
use crate::sources::kubernetes::fault::Fault;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Who says it. The part after the node's name has room in the 128 bytes that the API allows.
const CONTROLLER: &str = "evenkeel.dev/agent";

/// A reason that still stands is told again after this time: the API keeps an Event for an hour.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// What the API server refuses to take of one pod is tried again after this time.
const TELL_REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// How often an Event may be written: a node has a hundred pods, and one cause may stop them all.
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// The longest note that the API allows, in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// How much of a pod's name goes into its Event's: that has 253 bytes, of which a dot and the moment take up to 17.
const MAX_POD_NAME_BYTES: usize = 236;

pub(super) async fn run(
    access: Access,
    node: Arc<str>,
    mut pods: watch::Receiver<Vec<PodNote>>,
    problems: WriteProblems,
) {
    let mut told = Told::default();
    let mut writer = Writer::new(access);
    let mut pace = interval(EVENT_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if next(&mut told, &pods.borrow_and_update(), Instant::now()).is_none() {
            writer.forget();
            problems.set(Task::Events, told.cause());
            // A change, or that it is time to tell something again.
            if let Ok(Err(_)) = timeout(TRY_AGAIN_AFTER, pods.changed()).await {
                return;
            }
            continue;
        }
        pace.tick().await;
        // As it stands now.
        let Some((pod, obstacle)) = next(&mut told, &pods.borrow_and_update(), Instant::now()) else {
            continue;
        };
        let fault = tell(&mut writer, &node, &pod, &obstacle).await.err();
        let what = (pod.uid.clone(), obstacle.reason.clone());
        match fault {
            // Or the pod's namespace is on its way out, or gone.
            None | Some(Fault::NotFound(_) | Fault::NamespaceGoes) => {
                told.insert(what, Instant::now(), TELL_AGAIN_AFTER, None);
                problems.set(Task::Events, told.cause());
            }
            Some(fault) => {
                writer.forget();
                let cause = cause(&fault);
                problems.set(Task::Events, Some(cause.clone()));
                if fault.is_of_connection() {
                    sleep(TRY_AGAIN_AFTER).await;
                    continue;
                }
                // The next pod's may go through.
                let again = if fault.is_busy() { TRY_AGAIN_AFTER } else { TELL_REFUSED_AGAIN_AFTER };
                told.insert(what, Instant::now(), again, Some(cause));
                sleep(fault.retry_after().unwrap_or_default().min(TRY_AGAIN_AFTER)).await;
            }
        }
    }
}

async fn tell(writer: &mut Writer, node: &str, pod: &PodNote, obstacle: &Obstacle) -> Result<(), Fault> {
    let event = event(node, pod, obstacle, Timestamp::now());
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", pod.name.namespace);
    let json = serde_json::to_vec(&event).map_err(|error| Fault::Malformed(error.to_string()))?;
    create(&writer.client().await?, &path, json).await
}

fn cause(fault: &Fault) -> String {
    let remedy = match fault {
        Fault::Forbidden(_) => "; it needs the verb create on events of the API group events.k8s.io",
        _ => "",
    };
    format!("no Event says why a pod is not enrolled: {fault}{remedy}")
}

/// What was told: by UID and reason.
type Told = Tried<(Arc<str>, String)>;

/// The next that is to be told: one that can't be told keeps none behind it waiting.
fn next(told: &mut Told, notes: &[PodNote], now: Instant) -> Option<(PodNote, Obstacle)> {
    told.expire(now);
    told.keep_failures(|(uid, reason)| {
        notes
            .iter()
            .any(|pod| pod.uid == *uid && pod.obstacle().is_some_and(|it| it.lasts && it.reason == *reason))
    });
    notes.iter().find_map(|pod| {
        let obstacle = pod.obstacle().filter(|obstacle| obstacle.lasts)?;
        let known = told.contains(&(pod.uid.clone(), obstacle.reason.clone()));
        (!known).then(|| (pod.clone(), obstacle.clone()))
    })
}

fn event(node: &str, pod: &PodNote, obstacle: &Obstacle, now: Timestamp) -> Event {
    let mut note =
        format!("Calls of this pod are not balanced, its connections go straight: {}", obstacle.text);
    while note.len() > MAX_NOTE_BYTES {
        note.pop();
    }
    Event {
        metadata: ObjectMeta {
            // As client-go names them: the object and the moment.
            name: Some(format!("{}.{:x}", cut(&pod.name.name), now.as_nanosecond())),
            namespace: Some(pod.name.namespace.to_string()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.into()),
        reporting_instance: Some(format!("evenkeel-{node}").chars().take(128).collect()),
        action: Some("Enrol".into()),
        reason: Some(camel_case(&obstacle.reason)),
        type_: Some("Warning".into()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name.name.to_string()),
            namespace: Some(pod.name.namespace.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        }),
        note: Some(note),
        ..Event::default()
    }
}

/// As much of a pod's name as there is room for: each part of a name ends with a letter or a digit. Names are ASCII (RFC 1123).
fn cut(name: &str) -> &str {
    let name = name.get(..MAX_POD_NAME_BYTES).unwrap_or(name);
    name.trim_end_matches(['-', '.'])
}

/// `no_listener_port` → `NotEnrolledNoListenerPort`: a reason of an Event is one word.
fn camel_case(reason: &str) -> String {
    let words = reason.split('_').map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    });
    format!("NotEnrolled{}", words.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::ObjectName;
    use crate::sources::kubernetes::fake_server::{FakeServer, answer, until};

    fn pod(uid: &str, reason: &str, lasts: bool) -> PodNote {
        let obstacle = Obstacle { reason: reason.into(), text: "why".into(), lasts };
        let name = ObjectName::new("shop", uid);
        PodNote { uid: uid.into(), name, label: None, outcome: Some(Err(obstacle)) }
    }

    #[test]
    fn each_reason_that_lasts_is_told_once_an_hour() {
        let (mut told, now) = (Told::default(), Instant::now());
        let notes = [pod("a", "no_process", false), pod("b", "x", true), pod("c", "x", true)];
        for uid in ["b", "c"] {
            let (pod, obstacle) = next(&mut told, &notes, now).unwrap();
            assert_eq!(&*pod.uid, uid);
            told.insert((pod.uid, obstacle.reason), now, TELL_AGAIN_AFTER, None);
        }
        assert!(next(&mut told, &notes, now).is_none());
        assert!(next(&mut told, &[pod("b", "x", true)], now + TELL_AGAIN_AFTER / 2).is_none());
        assert!(next(&mut told, &[pod("b", "y", true)], now).is_some(), "another reason");
        assert!(next(&mut told, &notes, now + TELL_AGAIN_AFTER).is_some());
    }

    #[test]
    fn what_can_not_be_told_of_one_pod_keeps_no_other_waiting_and_is_a_problem_meanwhile() {
        let (mut told, now) = (Told::default(), Instant::now());
        let notes = [pod("a", "x", true), pod("b", "x", true)];
        told.insert(("a".into(), "x".into()), now, TELL_REFUSED_AGAIN_AFTER, Some("refused".into()));
        assert_eq!(&*next(&mut told, &notes, now).unwrap().0.uid, "b");
        told.insert(("b".into(), "x".into()), now, TELL_AGAIN_AFTER, None);
        assert_eq!(told.cause().as_deref(), Some("refused"));
        let later = now + TELL_REFUSED_AGAIN_AFTER;
        assert_eq!(&*next(&mut told, &notes, later).unwrap().0.uid, "a", "it is tried again");
        assert_eq!(told.cause(), None);
        told.insert(("a".into(), "x".into()), later, TELL_REFUSED_AGAIN_AFTER, Some("refused".into()));
        assert!(next(&mut told, &notes[1..], later).is_none());
        assert_eq!(told.cause(), None, "the pod is gone, or enrolled by now");
    }

    #[test]
    fn an_event_is_as_the_api_wants_it() {
        let mut pod = pod("cart-0", "no_listener_port", true);
        pod.name =
            ObjectName::new("shop", &format!("{}.{}", "n".repeat(MAX_POD_NAME_BYTES - 1), "m".repeat(16)));
        let obstacle = Obstacle { text: "ä".repeat(MAX_NOTE_BYTES), ..pod.obstacle().unwrap().clone() };
        let now: Timestamp = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        let event = event(&"n".repeat(253), &pod, &obstacle, now);
        let name = event.metadata.name.as_ref().unwrap();
        assert!(name.len() <= 253 && name.starts_with("nnn") && !name.contains(".."), "{name}");
        assert_eq!(event.reason.as_deref(), Some("NotEnrolledNoListenerPort"));
        assert!(event.note.as_ref().unwrap().len() <= MAX_NOTE_BYTES);
        assert!(event.reporting_instance.as_ref().unwrap().len() <= 128);
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["kind"], "Event");
        assert_eq!(json["eventTime"], "2026-01-02T03:04:05.678901Z");
        assert_eq!(json["regarding"]["uid"], "cart-0");
    }

    /// Admission webhooks are of namespaces: that of the first does not answer.
    #[tokio::test]
    async fn a_webhook_that_fails_keeps_no_other_namespaces_pods_waiting() {
        let server = FakeServer::start(|path| match path.contains("/broken/") {
            true => answer("500 Internal Server Error", r#"{"message":"failed calling webhook"}"#),
            false => answer("201 Created", "{}"),
        })
        .await;
        let notes = ["broken", "fine"]
            .map(|namespace| PodNote { name: ObjectName::new(namespace, "p"), ..pod(namespace, "x", true) });
        let (_sender, pods) = watch::channel(notes.to_vec());
        let problems = WriteProblems::default();
        tokio::spawn(run(server.access.clone(), "n1".into(), pods, problems.clone()));
        server.until_asked("/apis/events.k8s.io/v1/namespaces/fine/events").await;
        assert!(server.asked()[0].contains("/broken/"), "{:?}", server.asked());
        let is_told = || {
            problems.shown.current().iter().any(|problem| problem.cause.contains("failed calling webhook"))
        };
        until("the webhook's failure is told", is_told).await;
    }
}

//! An Event on each pod that can't be enrolled for a reason that lasts: where its owner looks (`kubectl describe pod`).

use super::{Obstacle, PodNote, TRY_AGAIN_AFTER, Task, WriteProblems, create};
use crate::sources::kubernetes::access::Access;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, timeout_at};

/// Who says it. The part after the node's name has room in the 128 bytes that the API allows.
const CONTROLLER: &str = "evenkeel.dev/agent";

/// A reason that still stands is told again after this time: the API keeps an Event for an hour.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// How often an Event may be written: a node has a hundred pods, and one cause may stop them all.
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// The longest note that the API allows, in bytes.
const MAX_NOTE_BYTES: usize = 1024;

pub(super) async fn run(
    access: Access,
    node: Arc<str>,
    mut pods: watch::Receiver<Vec<PodNote>>,
    problems: WriteProblems,
) {
    let mut told = Told::default();
    let mut pace = interval(EVENT_EVERY);
    loop {
        let notes = pods.borrow_and_update().clone();
        while let Some((pod, obstacle)) = told.next(&notes, Instant::now()) {
            pace.tick().await;
            let event = event(&node, pod, obstacle, Timestamp::now());
            let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", pod.name.namespace);
            let written = match serde_json::to_vec(&event) {
                Ok(json) => create(&access, &path, json).await,
                Err(error) => Err(crate::sources::kubernetes::Fault::Malformed(error.to_string())),
            };
            match written {
                Ok(()) => problems.set(Task::Events, None),
                // The pod's namespace is on its way out, or gone.
                Err(crate::sources::kubernetes::Fault::UnknownKind) => {}
                Err(fault) => {
                    let cause = format!(
                        "no Event says why a pod is not enrolled: {fault}; it needs the verb create on events of the API \
                         group events.k8s.io"
                    );
                    problems.set(Task::Events, Some(cause));
                    sleep(TRY_AGAIN_AFTER).await;
                    // What was not told is told then, if it still stands.
                    break;
                }
            }
            told.was_told(pod, obstacle, Instant::now());
        }
        // A change, or that it is time to tell something again.
        if let Ok(Err(_)) = timeout_at(Instant::now() + TELL_AGAIN_AFTER / 60, pods.changed()).await {
            return;
        }
    }
}

/// What was told, and when: by UID and reason.
#[derive(Debug, Default)]
struct Told(HashMap<(Arc<str>, String), Instant>);

impl Told {
    /// The next that is to be told. Forgets what no longer stands and would be told again anyway.
    fn next<'a>(&mut self, notes: &'a [PodNote], now: Instant) -> Option<(&'a PodNote, &'a Obstacle)> {
        self.0.retain(|_, at| now.duration_since(*at) < TELL_AGAIN_AFTER);
        notes.iter().find_map(|pod| {
            let obstacle = pod.obstacle.as_ref().filter(|obstacle| obstacle.lasts)?;
            let known = self.0.contains_key(&(pod.uid.clone(), obstacle.reason.clone()));
            (!known).then_some((pod, obstacle))
        })
    }

    fn was_told(&mut self, pod: &PodNote, obstacle: &Obstacle, now: Instant) {
        self.0.insert((pod.uid.clone(), obstacle.reason.clone()), now);
    }
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
            name: Some(format!("{}.{:x}", pod.name.name, now.as_nanosecond())),
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

    fn pod(uid: &str, reason: &str, lasts: bool) -> PodNote {
        let obstacle = Obstacle { reason: reason.into(), text: "why".into(), lasts };
        PodNote { uid: uid.into(), name: ObjectName::new("shop", uid), obstacle: Some(obstacle) }
    }

    #[test]
    fn each_reason_that_lasts_is_told_once_an_hour() {
        let (mut told, now) = (Told::default(), Instant::now());
        let notes = [pod("a", "no_process", false), pod("b", "x", true), pod("c", "x", true)];
        for uid in ["b", "c"] {
            let (pod, obstacle) = told.next(&notes, now).unwrap();
            assert_eq!(&*pod.uid, uid);
            told.was_told(pod, obstacle, now);
        }
        assert!(told.next(&notes, now).is_none());
        assert!(told.next(&[pod("b", "x", true)], now + TELL_AGAIN_AFTER / 2).is_none());
        assert!(told.next(&[pod("b", "y", true)], now).is_some(), "another reason");
        assert!(told.next(&notes, now + TELL_AGAIN_AFTER).is_some());
    }

    #[test]
    fn an_event_is_as_the_api_wants_it() {
        let mut pod = pod("cart-0", "no_listener_port", true);
        pod.obstacle.as_mut().unwrap().text = "ä".repeat(MAX_NOTE_BYTES);
        let now: Timestamp = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        let event = event(&"n".repeat(253), &pod, pod.obstacle.as_ref().unwrap(), now);
        assert_eq!(event.reason.as_deref(), Some("NotEnrolledNoListenerPort"));
        assert!(event.note.as_ref().unwrap().len() <= MAX_NOTE_BYTES);
        assert!(event.reporting_instance.as_ref().unwrap().len() <= 128);
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["kind"], "Event");
        assert_eq!(json["eventTime"], "2026-01-02T03:04:05.678901Z");
        assert_eq!(json["regarding"]["uid"], "cart-0");
    }
}

//! The label `evenkeel.dev/status` on this node's pods, for `kubectl get pods -L evenkeel.dev/status`. Only where it is asked
//! for: each change of it goes to all who watch pods.

use super::tried::Tried;
use super::{NOTICE_EVERY, PodNote, TRY_AGAIN_AFTER, Task, WriteProblems, Writer, patch};
use crate::mesh::ObjectName;
use crate::sources::kubernetes::access::Access;
use crate::sources::kubernetes::fault::Fault;
use crate::sources::kubernetes::labels;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// A pod's UID and what its label is to say; `None`: it is to have none.
type Label = (Arc<str>, Option<String>);

pub(super) async fn run(access: Access, mut pods: watch::Receiver<Vec<PodNote>>, problems: WriteProblems) {
    let mut tried = Tried::default();
    let mut writer = Writer::new(access);
    loop {
        tried.expire(Instant::now());
        let todo = todo(&mut tried, &pods.borrow_and_update());
        // Why the others are not tried either, and for how long.
        let mut stopped = None;
        for (name, label) in todo {
            let Err(fault) = write(&mut writer, &name, &label).await else {
                tried.insert(label, Instant::now(), TRY_AGAIN_AFTER, None);
                continue;
            };
            writer.forget();
            // Gone, or another by now.
            let is_over = matches!(fault, Fault::NotFound(_) | Fault::Conflict(_));
            let cause = (!is_over).then(|| cause(&fault));
            if fault.is_of_connection() {
                stopped = cause.map(|cause| (cause, TRY_AGAIN_AFTER));
                break;
            }
            tried.insert(label, Instant::now(), TRY_AGAIN_AFTER, cause.clone());
            if let (Some(cause), Some(asked)) = (cause, fault.retry_after()) {
                stopped = Some((cause, asked.min(TRY_AGAIN_AFTER)));
                break;
            }
        }
        let cause = stopped.as_ref().map(|(cause, _)| cause.clone());
        problems.set(Task::PodLabels, cause.or_else(|| tried.cause()));
        writer.forget();
        if let Some((_, pause)) = stopped {
            sleep(pause).await;
            continue;
        }
        // Not each of a start's states is worth a write.
        sleep(NOTICE_EVERY).await;
        if let Ok(Err(_)) = timeout(TRY_AGAIN_AFTER, pods.changed()).await {
            return;
        }
    }
}

async fn write(writer: &mut Writer, name: &ObjectName, (uid, value): &Label) -> Result<(), Fault> {
    let path = format!("/api/v1/namespaces/{}/pods/{}", name.namespace, name.name);
    // The UID makes it count for this pod only, not for the next of its name.
    let body = json!({ "metadata": { "uid": uid, "labels": { labels::STATUS: value } } });
    patch(&writer.client().await?, &path, &body).await
}

fn cause(fault: &Fault) -> String {
    let remedy = match fault {
        Fault::Forbidden(_) => "; it needs the verb patch on pods",
        _ => "",
    };
    format!("a pod is not labelled: {fault}{remedy}")
}

/// What a pod's label is to say.
fn wanted(pod: &PodNote) -> Option<String> {
    let outcome = pod.outcome.as_ref()?;
    Some(match outcome {
        Ok(()) => "enrolled".to_owned(),
        Err(obstacle) if obstacle.lasts => obstacle.reason.clone(),
        Err(_) => "waiting".to_owned(),
    })
}

/// What is to be written so that the pods' labels are as wanted, and was not tried just now: what was written takes a moment until
/// it comes back as what the pod has. A pod that is gone took its label along.
fn todo(tried: &mut Tried<Label>, notes: &[PodNote]) -> Vec<(ObjectName, Label)> {
    let differing: Vec<(ObjectName, Label)> = notes
        .iter()
        .map(|pod| (pod, wanted(pod)))
        .filter(|(pod, wanted)| pod.label.as_deref() != wanted.as_deref())
        .map(|(pod, wanted)| (pod.name.clone(), (pod.uid.clone(), wanted)))
        .collect();
    tried.keep(|label| differing.iter().any(|(_, differing)| differing == label));
    differing.into_iter().filter(|(_, label)| !tried.contains(label)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Obstacle;
    use super::*;
    use crate::sources::kubernetes::fake_server::{FakeServer, answer, until};

    fn waits(lasts: bool) -> Option<Result<(), Obstacle>> {
        Some(Err(Obstacle { reason: "no_listener_port".into(), text: String::new(), lasts }))
    }

    fn pod(uid: &str, label: Option<&str>, outcome: Option<Result<(), Obstacle>>) -> PodNote {
        PodNote { uid: uid.into(), name: ObjectName::new("shop", uid), label: label.map(Into::into), outcome }
    }

    fn labels(tried: &mut Tried<Label>, notes: &[PodNote]) -> Vec<(String, Option<String>)> {
        todo(tried, notes).into_iter().map(|(_, (uid, value))| (uid.to_string(), value)).collect()
    }

    #[test]
    fn a_label_is_written_where_it_is_another_and_taken_off_where_nobody_wants_the_pod_any_more() {
        let notes = [
            pod("a", Some("enrolled"), Some(Ok(()))),
            pod("b", Some("enrolled"), waits(true)),
            pod("c", None, waits(false)),
            pod("d", Some("waiting"), Some(Ok(()))),
            // Opted out, maybe while no agent was there.
            pod("e", Some("enrolled"), None),
        ];
        let expected =
            [("b", Some("no_listener_port")), ("c", Some("waiting")), ("d", Some("enrolled")), ("e", None)];
        let expected = expected.map(|(uid, value)| (uid.to_owned(), value.map(str::to_owned)));
        assert_eq!(labels(&mut Tried::default(), &notes), expected);
    }

    #[test]
    fn what_was_tried_is_not_tried_again_at_once_but_when_it_is_wanted_otherwise_or_time_has_passed() {
        let (mut tried, now) = (Tried::default(), Instant::now());
        let notes = [pod("a", None, Some(Ok(()))), pod("b", None, Some(Ok(())))];
        for (refused, (_, label)) in [false, true].into_iter().zip(todo(&mut tried, &notes)) {
            tried.insert(label, now, TRY_AGAIN_AFTER, refused.then(|| "refused".to_owned()));
        }
        assert!(labels(&mut tried, &notes).is_empty());
        assert_eq!(tried.cause().as_deref(), Some("refused"));
        // It came back, and somebody takes it off.
        assert!(labels(&mut tried, &[pod("a", Some("enrolled"), Some(Ok(()))), notes[1].clone()]).is_empty());
        assert_eq!(labels(&mut tried, &notes), [("a".to_owned(), Some("enrolled".to_owned()))]);
        assert_eq!(
            labels(&mut tried, &[pod("b", None, waits(false))]),
            [("b".to_owned(), Some("waiting".to_owned()))]
        );
        assert_eq!(tried.cause(), None, "the other pod is gone, and this one is another matter");
        tried.insert(("b".into(), None), now, TRY_AGAIN_AFTER, None);
        tried.expire(now + TRY_AGAIN_AFTER);
        assert!(!tried.contains(&("b".into(), None)));
    }

    /// Admission webhooks are of namespaces: that of the first does not answer.
    #[tokio::test]
    async fn a_webhook_that_fails_keeps_no_other_namespaces_pods_waiting() {
        let server = FakeServer::start(|path| match path.contains("/broken/") {
            true => answer("500 Internal Server Error", r#"{"message":"failed calling webhook"}"#),
            false => answer("200 OK", "{}"),
        })
        .await;
        let notes = ["broken", "fine"].map(|namespace| PodNote {
            name: ObjectName::new(namespace, "p"),
            ..pod(namespace, None, Some(Ok(())))
        });
        let (_sender, pods) = watch::channel(notes.to_vec());
        let problems = WriteProblems::default();
        tokio::spawn(run(server.access.clone(), pods, problems.clone()));
        server.until_asked("/api/v1/namespaces/fine/pods/p").await;
        assert!(server.asked()[0].contains("/broken/"), "{:?}", server.asked());
        let is_told = || {
            problems.shown.current().iter().any(|problem| problem.cause.contains("failed calling webhook"))
        };
        until("the webhook's failure is told", is_told).await;
    }
}

//! Pods, and what is asked for on them.

use super::*;
use crate::control::Enrolment;
use crate::sources::rows::OnEnrol::{Keep, Reconnect};
use crate::sources::rows::{Enabled, OnEnrol, PodRow};
use crate::sources::sample::pod;

fn namespace(enabled: Enabled, on_enrol: Option<OnEnrol>) -> Change {
    Change::Set(Row::Namespace(Arc::new(NamespaceRow { on_enrol, ..sample::namespace(enabled) })))
}

fn set_pod(row: PodRow) -> Change {
    Change::Set(Row::Pod(Arc::new(row)))
}

fn names(enrolments: &[Enrolment]) -> Vec<(&str, OnEnrol)> {
    enrolments.iter().map(|enrolment| (&*enrolment.pod.name.name, enrolment.on_enrol)).collect()
}

#[test]
fn a_label_on_the_namespace_enrols_its_pods_and_its_loss_withdraws_them() {
    let mut setup = Setup::new();
    let pods = [("a", Enabled::Unset), ("b", Enabled::No), ("c", Enabled::Yes)];
    let delta = setup.apply(pods.into_iter().map(|(name, enabled)| set_pod(pod(name, enabled))).collect());
    assert_eq!(names(&delta.enrol), [("c", Keep)]);
    let delta = setup.apply(vec![namespace(Enabled::Yes, None)]);
    assert_eq!(names(&delta.enrol), [("a", Keep)]);
    let delta = setup.apply(vec![namespace(Enabled::Yes, Some(OnEnrol::Reconnect))]);
    assert_eq!(names(&delta.change), [("a", Reconnect), ("c", Reconnect)]);
    let delta = setup.apply(vec![Change::Remove(RowKey::Namespace("shop".into()))]);
    assert_eq!(delta.withdraw, ["uid-a".into()]);
    assert_eq!(names(&delta.change), [("c", Keep)]);
    let reasons: Vec<_> =
        setup.world.pods().into_iter().map(|pod| (pod.name, pod.enrol, pod.reason)).collect();
    let because = |reason: &str| Some(reason.to_owned());
    assert_eq!(
        reasons,
        [
            ("a".to_owned(), false, because("nothing is known of the pod's namespace")),
            ("b".to_owned(), false, because("the pod's label says no")),
            ("c".to_owned(), true, None),
        ]
    );
}

#[test]
fn a_pod_that_changes_ends_or_is_made_anew_is_told() {
    let mut setup = Setup::new();
    setup.apply(vec![set_pod(pod("a", Enabled::Yes))]);
    assert!(setup.apply(vec![set_pod(pod("a", Enabled::Yes))]).is_empty());
    let addresses = vec!["10.0.0.1".parse().unwrap()];
    let delta = setup.apply(vec![set_pod(PodRow { addresses, ..pod("a", Enabled::Yes) })]);
    assert_eq!(names(&delta.change), [("a", Keep)]);
    let delta = setup.apply(vec![set_pod(PodRow { finished: true, ..pod("a", Enabled::Yes) })]);
    assert_eq!(delta.withdraw, ["uid-a".into()]);
    setup.apply(vec![set_pod(pod("a", Enabled::Yes))]);
    let again = PodRow { uid: "uid-a2".into(), ..pod("a", Enabled::Yes) };
    let delta = setup.apply(vec![Change::Remove(RowKey::Pod("uid-a".into())), set_pod(again)]);
    assert_eq!((names(&delta.enrol), delta.withdraw), (vec![("a", Keep)], vec!["uid-a".into()]));
}

#[test]
fn a_pod_that_somebody_asked_for_in_vain_is_told_once_for_each_reason() {
    use crate::control::enrolment::NotEnrolled;
    use crate::sources::rows::Mesh;
    let mut setup = Setup::new();
    let told = |delta: &Delta| -> Vec<(String, NotEnrolled)> {
        let refused = delta.refused.iter();
        refused.map(|refused| (refused.pod.name.name.to_string(), refused.reason.clone())).collect()
    };
    let meshed = PodRow { mesh: Some(Mesh::Linkerd), ..pod("a", Enabled::Unset) };
    let elsewhere = PodRow { node: Some("node-2".into()), ..meshed.clone() };
    let delta = setup.apply(vec![
        set_pod(meshed.clone()),
        set_pod(PodRow { uid: "uid-b".into(), ..elsewhere }),
        set_pod(PodRow { host_network: true, ..pod("c", Enabled::No) }),
    ]);
    assert!(delta.is_empty(), "nobody asked");
    let delta = setup.apply(vec![namespace(Enabled::Yes, None)]);
    assert_eq!(told(&delta), [("a".to_owned(), NotEnrolled::Mesh(Mesh::Linkerd))]);
    let moved = PodRow { addresses: vec!["10.0.0.9".parse().unwrap()], ..meshed.clone() };
    assert!(setup.apply(vec![set_pod(moved)]).is_empty(), "it is known already");
    let sandboxed = PodRow { runtime_class: Some("kata".into()), ..meshed.clone() };
    let delta = setup.apply(vec![set_pod(sandboxed)]);
    assert_eq!(told(&delta), [("a".to_owned(), NotEnrolled::Sandboxed("kata".into()))]);
    let delta = setup.apply(vec![set_pod(PodRow { with_mesh: Some(true), ..meshed })]);
    assert_eq!((names(&delta.enrol), told(&delta)), (vec![("a", Keep)], vec![]));
    let delta = setup.apply(vec![set_pod(pod("a", Enabled::Invalid("yes".into())))]);
    assert_eq!(told(&delta), [("a".to_owned(), NotEnrolled::InvalidLabel("yes".into()))]);
    assert_eq!(delta.withdraw, ["uid-a".into()]);
}

#[test]
fn a_sidecar_or_ambient_redirection_that_comes_later_withdraws_the_pod() {
    let mut setup = Setup::new();
    setup.apply(vec![namespace(Enabled::Yes, None), set_pod(pod("a", Enabled::Unset))]);
    let row = |ambient| NamespaceRow { ambient, ..sample::namespace(Enabled::Yes) };
    let delta = setup.apply(vec![Change::Set(Row::Namespace(Arc::new(row(true))))]);
    assert_eq!(delta.withdraw, ["uid-a".into()]);
    let delta = setup.apply(vec![Change::Set(Row::Namespace(Arc::new(row(false))))]);
    assert_eq!(names(&delta.enrol), [("a", Keep)]);
}

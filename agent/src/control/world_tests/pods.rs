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
fn a_pod_that_nobody_asks_for_any_more_and_that_is_labelled_is_told_of() {
    let mut setup = Setup::new();
    let labelled = |name, enabled| PodRow { status_label: Some("enrolled".into()), ..pod(name, enabled) };
    setup.apply(vec![
        set_pod(labelled("a", Enabled::Yes)),
        set_pod(labelled("b", Enabled::No)),
        set_pod(labelled("c", Enabled::Invalid("x".into()))),
        set_pod(pod("d", Enabled::No)),
    ]);
    let told: Vec<_> = setup.world.labelled_in_vain().map(|pod| pod.name.name.to_string()).collect();
    assert_eq!(told, ["b"]);
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
fn a_pod_that_somebody_asked_for_in_vain_is_told_with_its_reason_of_now() {
    use crate::sources::rows::Mesh;
    let mut setup = Setup::new();
    let refused = |setup: &Setup| -> Vec<String> {
        setup.world.refused().map(|it| format!("{} {}", it.pod.name.name, it.reason.name())).collect()
    };
    let meshed = PodRow { mesh: Some(Mesh::Linkerd), ..pod("a", Enabled::Unset) };
    let elsewhere = PodRow { node: Some("node-2".into()), uid: "uid-b".into(), ..meshed.clone() };
    let on_the_node = PodRow { host_network: true, ..pod("c", Enabled::No) };
    let delta = setup.apply(vec![set_pod(meshed.clone()), set_pod(elsewhere), set_pod(on_the_node)]);
    assert!(delta.is_empty() && refused(&setup).is_empty(), "nobody asked");
    setup.apply(vec![namespace(Enabled::Yes, None)]);
    assert_eq!(refused(&setup), ["a service_mesh"]);
    setup.apply(vec![set_pod(PodRow { runtime_class: Some("kata".into()), ..meshed.clone() })]);
    assert_eq!(refused(&setup), ["a sandboxed_runtime"]);
    let delta = setup.apply(vec![set_pod(PodRow { with_mesh: Some(true), ..meshed })]);
    assert_eq!((names(&delta.enrol), refused(&setup)), (vec![("a", Keep)], vec![]));
    let delta = setup.apply(vec![set_pod(pod("a", Enabled::Invalid("yes".into())))]);
    assert_eq!((delta.withdraw, refused(&setup)), (vec!["uid-a".into()], vec!["a invalid_label".into()]));
    setup.apply(vec![Change::Remove(RowKey::Pod("uid-a".into()))]);
    assert_eq!(refused(&setup), [] as [&str; 0]);
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

#[test]
fn of_a_wrong_label_only_the_pods_that_it_is_about_are_told() {
    let mut setup = Setup::new();
    let pods = [
        pod("running", Enabled::Unset),
        PodRow { finished: true, ..pod("over", Enabled::Unset) },
        PodRow { node: Some("node-2".into()), ..pod("elsewhere", Enabled::Unset) },
        PodRow { uid: "own".into(), ..pod("agent", Enabled::Unset) },
    ];
    setup.apply(pods.map(set_pod).into());
    setup.apply(vec![namespace(Enabled::Invalid("yes".into()), None)]);
    let refused: Vec<_> = setup.world.refused().map(|refused| refused.pod.name.name.clone()).collect();
    assert_eq!(refused, ["running".into()]);
    assert!(setup.told().is_empty(), "nothing is wrong with the rows");
    assert_eq!(setup.world.refusals().current().len(), 1);
    setup.apply(vec![namespace(Enabled::Yes, None)]);
    assert_eq!((setup.world.refused().count(), setup.world.refusals().current().len()), (0, 0));
}

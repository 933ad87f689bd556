//! What the store makes of what the watches say.

use super::*;
use crate::sources::intern::Interner;

fn place(resource: &str) -> usize {
    KINDS.iter().position(|kind| kind.resource == resource).unwrap()
}

fn object(resource: &str, json: &str) -> Report {
    Report::Object(KINDS[place(resource)].read(json.as_bytes(), &mut Interner::default()).unwrap())
}

fn namespace(name: &str, enabled: &str) -> Report {
    let json =
        format!(r#"{{"metadata":{{"name":"{name}","labels":{{"evenkeel.dev/enabled":"{enabled}"}}}}}}"#);
    object("namespaces", &json)
}

fn pod(name: &str, uid: &str) -> Report {
    object(
        "pods",
        &format!(r#"{{"metadata":{{"name":"{name}","namespace":"shop","uid":"{uid}"}},"spec":null}}"#),
    )
}

/// A store that has listed everything, and found nothing.
fn complete() -> Store {
    let mut store = Store::new(&[], false);
    for place in 0..KINDS.len() {
        store.take(place, Report::Listing);
        store.take(place, Report::Listed);
    }
    store
}

fn keys(batch: Vec<Change>) -> Vec<String> {
    let mut keys: Vec<String> = batch
        .into_iter()
        .map(|change| match change {
            Change::Set(row) => format!("+{}", row.key()),
            Change::Remove(key) => format!("-{key}"),
        })
        .collect();
    keys.sort();
    keys
}

#[test]
fn nothing_is_handed_out_before_every_kind_was_listed() {
    let mut store = Store::new(&[], false);
    for (place, kind) in KINDS.iter().enumerate() {
        assert!(!store.has_batch());
        store.take(place, Report::Listing);
        if kind.resource == "namespaces" {
            store.take(place, namespace("shop", "true"));
        }
        store.take(place, Report::Listed);
    }
    assert!(store.has_batch());
    assert_eq!(keys(store.take_batch()), ["+Namespace shop"]);
    assert!(!store.has_batch());
}

#[test]
fn a_kind_that_may_be_missing_is_waited_for_until_it_fails() {
    let mut store = Store::new(&[], false);
    for (place, kind) in KINDS.iter().enumerate() {
        store.take(place, Report::Listing);
        if !kind.optional {
            store.take(place, Report::Listed);
        }
    }
    assert!(!store.complete);
    store.take(place("nodes"), Report::Fault(Fault::Forbidden("no".into())));
    assert!(store.complete);
    let problems = store.changed_problems().unwrap();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].severity, Severity::Warning);
    assert!(problems[0].cause.contains("verbs list and watch on nodes"), "{}", problems[0].cause);
}

#[test]
fn what_a_list_does_not_name_any_more_is_gone() {
    let mut store = complete();
    store.take(place("namespaces"), namespace("a", "true"));
    store.take(place("namespaces"), namespace("b", "true"));
    store.take_batch();
    store.take(place("namespaces"), Report::Listing);
    store.take(place("namespaces"), namespace("b", "true"));
    assert!(!store.has_batch(), "a list that is not at its end takes nothing away, and b is as before");
    store.take(place("namespaces"), Report::Listing);
    store.take(place("namespaces"), namespace("c", "true"));
    store.take(place("namespaces"), Report::Listed);
    assert_eq!(keys(store.take_batch()), ["+Namespace c", "-Namespace a", "-Namespace b"]);
}

#[test]
fn a_pod_that_was_made_anew_under_its_name_is_another() {
    let mut store = complete();
    store.take(place("pods"), pod("cart-0", "uid-1"));
    assert_eq!(keys(store.take_batch()), ["+Pod with UID uid-1"]);
    store.take(place("pods"), pod("cart-0", "uid-2"));
    assert_eq!(keys(store.take_batch()), ["+Pod with UID uid-2", "-Pod with UID uid-1"]);
    store.take(place("pods"), Report::Gone(ObjectName::new("shop", "cart-0")));
    assert_eq!(keys(store.take_batch()), ["-Pod with UID uid-2"]);
}

#[test]
fn a_pod_may_only_name_its_network_namespace_where_that_is_asked_for() {
    let json = r#"{"metadata":{"name":"cart-0","namespace":"shop","uid":"uid-1",
        "annotations":{"evenkeel.dev/netns":"/proc/1/ns/net"}}}"#;
    for (asked_for, expected) in [(false, None), (true, Some("/proc/1/ns/net".into()))] {
        let mut store = Store::new(&[], asked_for);
        store.take(place("pods"), object("pods", json));
        let Some(Row::Pod(row)) = store.rows().next() else { panic!("no pod") };
        assert_eq!(row.netns, expected);
        let problems = store.changed_problems().unwrap_or_default();
        let is_told = problems.iter().any(|problem| problem.cause.contains("--netns-annotation"));
        assert_eq!(is_told, !asked_for, "{problems:?}");
    }
}

#[test]
fn the_last_word_on_a_row_counts_and_no_news_is_no_change() {
    let mut store = complete();
    for enabled in ["true", "false", "true"] {
        store.take(place("namespaces"), namespace("shop", enabled));
    }
    let batch = store.take_batch();
    assert!(matches!(&batch[..], [Change::Set(Row::Namespace(row))]
        if row.enabled == crate::sources::rows::Enabled::Yes));
    store.take(place("namespaces"), namespace("shop", "true"));
    assert!(!store.has_batch());
}

#[test]
fn an_object_that_can_not_be_used_any_more_loses_its_row_and_is_named() {
    let mut store = complete();
    let slice = |name: &str, label: &str| {
        object(
            "endpointslices",
            &format!(
                r#"{{"metadata":{{"name":"{name}","namespace":"shop","labels":{{{label}}}}},"addressType":"IPv4"}}"#
            ),
        )
    };
    store.take(place("endpointslices"), slice("s", r#""kubernetes.io/service-name":"cart""#));
    store.take_batch();
    store.changed_problems();
    store.take(place("endpointslices"), slice("s", ""));
    assert_eq!(keys(store.take_batch()), ["-EndpointSlice shop/s"]);
    let problems = store.changed_problems().unwrap();
    assert_eq!(problems[0].object.as_deref(), Some("EndpointSlice shop/s"));
    store.take(place("endpointslices"), Report::Gone(ObjectName::new("shop", "s")));
    assert_eq!(store.changed_problems(), Some(vec![]));
    for number in 0..MAX_REMARKS_TOLD + 7 {
        store.take(place("endpointslices"), slice(&format!("s{number}"), ""));
    }
    let problems = store.changed_problems().unwrap();
    assert_eq!(problems.len(), MAX_REMARKS_TOLD + 1);
    assert!(problems.iter().any(|problem| problem.cause.starts_with("at least 4 more endpointslices")));
}

#[test]
fn what_is_not_used_is_told_for_as_long_as_it_is_and_of_a_list_at_its_end() {
    let mut store = complete();
    store.changed_problems();
    let take = |store: &mut Store, report| store.take(place("namespaces"), report);
    let told = |problems: Option<Vec<Problem>>| -> BTreeSet<String> {
        problems.unwrap().into_iter().filter_map(|problem| problem.object).collect()
    };
    take(&mut store, Report::Listing);
    for number in 0..MAX_REMARKS_TOLD + 2 {
        take(&mut store, namespace(&format!("n{number:03}"), "perhaps"));
        assert_eq!(store.changed_problems(), None, "in the middle of a list");
    }
    take(&mut store, Report::Listed);
    let first = told(store.changed_problems());
    assert_eq!(first.len(), MAX_REMARKS_TOLD);
    // One that comes first by name pushes none of them out.
    take(&mut store, namespace("a", "perhaps"));
    assert_eq!(told(store.changed_problems()), first);
    // One that is mended makes room.
    take(&mut store, namespace("n000", "true"));
    let now = told(store.changed_problems());
    assert!(now.contains("Namespace a") && !now.contains("Namespace n000") && now.len() == MAX_REMARKS_TOLD);
    // What is wrong with the connection does not wait for the end of a list.
    take(&mut store, Report::Listing);
    take(&mut store, Report::Fault(Fault::Silent));
    assert!(store.changed_problems().is_some());
}

#[test]
fn rows_from_before_go_on_until_a_list_says_otherwise() {
    let mut store = complete();
    store.take(place("namespaces"), namespace("shop", "true"));
    store.take(place("pods"), pod("cart-0", "uid-1"));
    let before: Vec<Row> = store.rows().cloned().collect();
    let mut store = Store::new(&before, false);
    assert!(store.complete && !store.has_batch());
    store.take(place("pods"), Report::Fault(Fault::unreachable("no route")));
    assert!(store.faults()[0].ends_with("what was known last goes on"), "it serves: {:?}", store.faults());
    assert_eq!(store.rows().count(), 2);
    store.take(place("pods"), Report::Listing);
    store.take(place("pods"), pod("cart-0", "uid-1"));
    store.take(place("pods"), Report::Listed);
    assert!(!store.has_batch(), "nothing is another");
    store.take(place("namespaces"), Report::Listing);
    store.take(place("namespaces"), Report::Listed);
    assert_eq!(keys(store.take_batch()), ["-Namespace shop"]);
}

#[test]
fn an_api_server_that_is_away_is_one_problem_and_one_of_each_kind_that_is_forbidden() {
    let mut store = complete();
    for place in 0..KINDS.len() {
        store.take(place, Report::Fault(Fault::unreachable("connection refused")));
    }
    assert_eq!(
        store.faults(),
        ["the API server can't be reached: connection refused; what was known last goes on"]
    );
    store.take(place("pods"), Report::Fault(Fault::Forbidden("pods is forbidden".into())));
    store.take(place("endpointslices"), Report::Fault(Fault::Forbidden("…".into())));
    let faults = store.faults();
    assert_eq!(faults.len(), 3);
    assert!(
        faults[0].contains("list and watch on endpointslices of the API group discovery.k8s.io"),
        "{faults:?}"
    );
    for place in 0..KINDS.len() {
        store.take(place, Report::Well);
    }
    assert!(store.faults().is_empty());
}

//! Which workload a pod belongs to, by its owner's name: what its owner's owner is called is in that.

use super::super::labels;
use super::metadata::label;
use crate::mesh::{ObjectName, Workload, cron_job_of};
use crate::sources::intern::Interner;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// What says which template a ReplicaSet's pods are of, and what made that: a part of the ReplicaSet's name.
const TEMPLATES: [(&str, &str); 2] =
    [(labels::TEMPLATE_HASH, "Deployment"), (labels::ROLLOUT_TEMPLATE_HASH, "Rollout")];

/// The pod's workload. A pod that nobody made for a workload is one of its own.
pub(super) fn workload(metadata: &ObjectMeta, pod: &ObjectName, names: &mut Interner) -> Workload {
    let controller = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let template = TEMPLATES.into_iter().find_map(|(key, kind)| Some((label(metadata, key)?, kind)));
    let (name, kind) = match controller {
        Some(owner) => top(&owner.name, &owner.kind, template),
        None => (&*pod.name, "Pod"),
    };
    let mut of = |keys: &[&str]| {
        let value = keys.iter().find_map(|key| label(metadata, key)).filter(|value| !value.is_empty());
        value.map(|value| names.intern(value))
    };
    Workload {
        app: of(&[labels::APP, labels::APP_NAME]),
        version: of(&[labels::VERSION, labels::APP_VERSION]),
        canonical_name: of(&[labels::CANONICAL_NAME]),
        canonical_revision: of(&[labels::CANONICAL_REVISION]),
        namespace: pod.namespace.clone(),
        name: names.intern(name),
        kind: names.intern(kind),
    }
}

/// What an owner belongs to itself.
fn top<'a>(name: &'a str, kind: &'a str, template: Option<(&str, &'static str)>) -> (&'a str, &'a str) {
    match (kind, name.rsplit_once('-'), template) {
        ("ReplicaSet", Some((maker, last)), Some((hash, kind))) if hash == last && !maker.is_empty() => {
            (maker, kind)
        }
        ("Job", ..) => cron_job_of(name).map_or((name, kind), |cron_job| (cron_job, "CronJob")),
        _ => (name, kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    #[test]
    fn an_owners_name_tells_the_workload() {
        let of = |kind| Some(("6d4cf56db6", kind));
        for (kind, owner, template, expected) in [
            ("ReplicaSet", "cart-6d4cf56db6", of("Deployment"), ("cart", "Deployment")),
            // Argo's.
            ("ReplicaSet", "cart-6d4cf56db6", of("Rollout"), ("cart", "Rollout")),
            ("ReplicaSet", "cart-6d4cf56db6", None, ("cart-6d4cf56db6", "ReplicaSet")),
            ("ReplicaSet", "cart", of("Deployment"), ("cart", "ReplicaSet")),
            ("StatefulSet", "ledger", None, ("ledger", "StatefulSet")),
            ("DaemonSet", "log-agent", None, ("log-agent", "DaemonSet")),
            ("Job", "report-29384756", None, ("report", "CronJob")),
            ("Job", "import-2", None, ("import-2", "Job")),
            ("Rollout", "cart", of("Deployment"), ("cart", "Rollout")),
        ] {
            assert_eq!(top(owner, kind, template), expected, "{kind} {owner}");
        }
    }

    #[test]
    fn labels_say_what_an_application_is_called() {
        let pod = ObjectName::new("shop", "web");
        let mut metadata = ObjectMeta::default();
        let mut names = Interner::default();
        assert_eq!(workload(&metadata, &pod, &mut names), Workload::named("shop", "web", "Pod"));
        let labels = [
            (labels::APP_NAME, "basket"),
            (labels::VERSION, "v2"),
            (labels::APP_VERSION, "v3"),
            (labels::CANONICAL_REVISION, "blue"),
            (labels::CANONICAL_NAME, ""),
        ];
        metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let owner = |kind: &str, name: &str, controller| OwnerReference {
            kind: kind.into(),
            name: name.into(),
            controller: Some(controller),
            ..OwnerReference::default()
        };
        metadata.owner_references =
            Some(vec![owner("Thing", "other", false), owner("StatefulSet", "db", true)]);
        let expected = Workload {
            app: Some("basket".into()),
            version: Some("v2".into()),
            canonical_revision: Some("blue".into()),
            ..Workload::named("shop", "db", "StatefulSet")
        };
        assert_eq!(workload(&metadata, &pod, &mut names), expected);
    }
}

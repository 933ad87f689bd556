//! What a pod belongs to, as people know it: the name that dashboards sort by.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A pod's workload, with what its labels say of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Workload {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name: a Deployment's, a StatefulSet's, … or, where nobody made the pod for it, the pod's own.
    pub name: Arc<str>,
    /// Its kind: `Deployment`, `StatefulSet`, …, or `Pod`.
    pub kind: Arc<str>,
    /// The label `app`, or `app.kubernetes.io/name`.
    pub app: Option<Arc<str>>,
    /// The label `version`, or `app.kubernetes.io/version`.
    pub version: Option<Arc<str>>,
    /// The label `service.istio.io/canonical-name`.
    pub canonical_name: Option<Arc<str>>,
    /// The label `service.istio.io/canonical-revision`.
    pub canonical_revision: Option<Arc<str>>,
}

impl Workload {
    /// A workload of which nothing else is known.
    pub fn named(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>, kind: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            kind: kind.into(),
            app: None,
            version: None,
            canonical_name: None,
            canonical_revision: None,
        }
    }

    /// A workload as far as the name of one of its pods tells, which is all that an EndpointSlice says. Controllers make pods' names
    /// of their own and a random part out of 27 characters that spell no words (`SafeEncodeString` of `k8s.io/apimachinery`):
    /// `-HASH-RANDOM` is a Deployment's, `-TIME-RANDOM` a CronJob's, `-RANDOM` another's that has no order, `-NUMBER` a StatefulSet's. `None` if the name
    /// is of no such form. A pod that a person called so is taken for one that a controller made.
    pub fn of_pod_name(namespace: &str, pod: &str) -> Option<Self> {
        if let Some(name) = deployment_of_cut(pod) {
            return Some(Self::named(namespace, name, "Deployment"));
        }
        let (rest, last) = pod.rsplit_once('-')?;
        if rest.is_empty() || last.is_empty() {
            return None;
        }
        let is_random = last.len() == RANDOM_CHARACTERS && last.bytes().all(is_safe);
        let hash = rest.rsplit_once('-').filter(|(name, hash)| {
            !name.is_empty() && HASH_CHARACTERS.contains(&hash.len()) && hash.bytes().all(is_safe)
        });
        let (name, kind) = match hash {
            Some((name, _)) if is_random => (name, "Deployment"),
            _ if is_random && cron_job_of(rest).is_some() => (cron_job_of(rest)?, "CronJob"),
            _ if last.len() < RANDOM_CHARACTERS && last.bytes().all(|byte| byte.is_ascii_digit()) => {
                (rest, "StatefulSet")
            }
            _ if is_random => (rest, "DaemonSet"),
            _ => return None,
        };
        Some(Self::named(namespace, name, kind))
    }
}

/// The Deployment of a pod whose generated name is cut: of what stands before the random part the API server keeps no more than fits
/// (`SimpleNameGenerator` of `k8s.io/apiserver`), so that a part of the template's hash is missing, and the dash behind it.
fn deployment_of_cut(pod: &str) -> Option<&str> {
    let (base, random) = pod.split_at_checked(MOST_GENERATED_CHARACTERS)?;
    let is_cut = random.len() == RANDOM_CHARACTERS && random.bytes().all(is_safe) && !base.ends_with('-');
    let (name, hash) = base.rsplit_once('-').filter(|_| is_cut)?;
    let is_hash = (1..=*HASH_CHARACTERS.end()).contains(&hash.len()) && hash.bytes().all(is_safe);
    (is_hash && !name.is_empty()).then_some(name)
}

/// The CronJob that made a Job, by the Job's name: that ends with its time, in minutes since 1970.
pub fn cron_job_of(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    let is_time = CRON_JOB_DIGITS.contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_digit());
    (is_time && !name.is_empty()).then_some(name)
}

const CRON_JOB_DIGITS: std::ops::RangeInclusive<usize> = 8..=10;
/// The random end of a generated name.
const RANDOM_CHARACTERS: usize = 5;
/// What of a generated name may stand before that: both are a label's 63 characters.
const MOST_GENERATED_CHARACTERS: usize = 63 - RANDOM_CHARACTERS;
/// The hash of a pod template: a 32-bit number in decimal digits, each in its safe form.
const HASH_CHARACTERS: std::ops::RangeInclusive<usize> = 8..=10;

/// The characters of generated parts: no vowels, and nothing that looks like one.
fn is_safe(byte: u8) -> bool {
    b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_name_tells_its_workload() {
        for (pod, expected) in [
            ("cart-6d4cf56db6-x2x8z", Some(("cart", "Deployment"))),
            ("my-cart-v1-7f9c5b6d4-bcdfg", Some(("my-cart-v1", "Deployment"))),
            ("ledger-0", Some(("ledger", "StatefulSet"))),
            ("ledger-4321", Some(("ledger", "StatefulSet"))),
            ("report-29384756-x2x8z", Some(("report", "CronJob"))),
            ("report-29384756-0", Some(("report-29384756", "StatefulSet"))),
            // What a template's hash can't be belongs to the name.
            ("log-agent-x2x8z", Some(("log-agent", "DaemonSet"))),
            ("cart-abcdefgh-x2x8z", Some(("cart-abcdefgh", "DaemonSet"))),
            ("cart", None),
            ("cart-blue", None),
            ("cart-x2x8", None),
            ("cart-", None),
            ("-x2x8z", None),
            ("", None),
        ] {
            let found = Workload::of_pod_name("shop", pod);
            let found = found.as_ref().map(|workload| (&*workload.name, &*workload.kind));
            assert_eq!(found, expected, "{pod}");
        }
    }

    #[test]
    fn a_long_deployments_pods_are_of_one_workload_though_their_names_are_cut() {
        let long = |length: usize| "shop-cart-".repeat(6)[..length - 1].to_owned() + "t";
        // As the API server makes them: 58 characters of the ReplicaSet's name and a dash, and five random ones.
        let pod = |deployment: &str, random: &str| {
            let mut base = format!("{deployment}-6d4cf56db6-");
            base.truncate(58);
            base + random
        };
        for length in [40, 46, 47, 48, 50, 56] {
            let deployment = long(length);
            for random in ["x2x8z", "bcdfg"] {
                let name = pod(&deployment, random);
                let found = Workload::of_pod_name("shop", &name).expect("it is one of those that are made");
                assert_eq!((&*found.name, &*found.kind), (&*deployment, "Deployment"), "{length}: {name}");
            }
        }
    }
}

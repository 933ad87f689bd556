//! The labels and annotations that Evenkeel reads.

/// Label of a Namespace or Pod: `"true"` enrols, `"false"` does not; a pod's wins over its namespace's.
pub const ENABLED: &str = "evenkeel.dev/enabled";

/// Annotation of a Namespace or Pod: `reconnect` ends the connections that a pod had before it was enrolled,
/// `reconnect-missed` those alone that it opened while no agent was there; `keep`, as without it, lets them be. A pod's wins
/// over its namespace's.
pub const ON_ENROL: &str = "evenkeel.dev/on-enrol";

/// Annotation of a Pod: the path of its network namespace, for hosts without a kubelet. Of a cluster's API only heeded where that is
/// asked for: whoever may make a pod may write it.
pub const NETNS: &str = "evenkeel.dev/netns";

/// Annotation of a Service: the name of a [`Picker`](crate::mesh::Picker).
pub const PICKER: &str = "evenkeel.dev/picker";

/// Annotation of a Service whose picker hashes: `source` or `header:NAME`.
pub const HASH_ON: &str = "evenkeel.dev/hash-on";

/// Annotation of a Service: the name of an [`Ejection`](crate::mesh::Ejection).
pub const EJECTION: &str = "evenkeel.dev/ejection";

/// Annotation of a Service: how long a new endpoint takes to get its whole share, as `30s`.
pub const SLOW_START: &str = "evenkeel.dev/slow-start";

/// Annotation of a Service: `grpc` or `grpc:SERVICE` has its endpoints asked for their health.
pub const HEALTH_CHECK: &str = "evenkeel.dev/health-check";

/// Annotation of a Service: a [`RetryPolicy`](crate::mesh::RetryPolicy), as
/// `attempts=3 on=unavailable,resource-exhausted backoff=100ms..1s budget=20%`.
pub const RETRY: &str = "evenkeel.dev/retry";

/// Annotation of a Service: a [`CircuitBreaker`](crate::mesh::CircuitBreaker), as `requests=100 pending=10 connections=4`.
pub const CIRCUIT_BREAKER: &str = "evenkeel.dev/circuit-breaker";

/// Annotation of an EndpointSlice: the weight of each of its endpoints, 1 to 1000; 100 where nothing is said.
pub const WEIGHT: &str = "evenkeel.dev/weight";

/// Annotation of a headless Service: `balance` has the calls balanced that are sent to its endpoints' own addresses.
pub const HEADLESS: &str = "evenkeel.dev/headless";

/// Annotation of a Namespace, Pod or Service: `"true"` takes pods that a service mesh has, and Services with a waypoint, all
/// the same. A pod's or Service's wins over its namespace's.
pub const WITH_MESH: &str = "evenkeel.dev/with-mesh";

/// Label of a Node: its topology zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// Label of a Service or Namespace: the waypoint of Istio's that its traffic passes; `none` is none.
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";

/// Label of a Namespace or Pod: `ambient` has Istio redirect its connections, anything else does not; a pod's wins.
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";

/// Label of an EndpointSlice: its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Label of a Service or EndpointSlice: another proxy than the node's serves it.
pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// Annotation of a static pod's mirror: the UID in the path of the pod's cgroup, which is an MD5 sum of the manifest
/// (`pkg/kubelet/config/common.go`). Anybody who may make a pod may write it: so it counts in that form alone, which no pod of
/// the API's has.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// Label of a Pod: its application.
pub const APP: &str = "app";

/// And in Kubernetes' own words.
pub const APP_NAME: &str = "app.kubernetes.io/name";

/// Label of a Pod: its version.
pub const VERSION: &str = "version";

/// And in Kubernetes' own words.
pub const APP_VERSION: &str = "app.kubernetes.io/version";

/// Label of a Pod: what Istio's metrics are to call its application.
pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";

/// Label of a Pod: what Istio's metrics are to call its version.
pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";

/// Label of a Deployment's Pod: what its ReplicaSet's name has behind the Deployment's.
pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// The same of an Argo Rollout's Pod.
pub const ROLLOUT_TEMPLATE_HASH: &str = "rollouts-pod-template-hash";

/// Label of a Pod that the agent writes, where that is asked for, and reads to know what is written: what became of it.
pub const STATUS: &str = "evenkeel.dev/status";

//! The labels and annotations that Evenkeel reads.

/// Label of a Namespace or Pod: `"true"` enrols, `"false"` does not; a pod's wins over its namespace's.
pub const ENABLED: &str = "evenkeel.dev/enabled";

/// Annotation of a Namespace or Pod: `reconnect` ends the connections that a pod had before it was enrolled; `keep`, as
/// without it, lets them be. A pod's wins over its namespace's.
pub const ON_ENROL: &str = "evenkeel.dev/on-enrol";

/// Annotation of a Pod: the path of its network namespace, for hosts without a kubelet.
pub const NETNS: &str = "evenkeel.dev/netns";

/// Annotation of a Service: `round-robin` or `ewma`.
pub const PICKER: &str = "evenkeel.dev/picker";

/// Annotation of a headless Service: `balance` has the calls balanced that are sent to its endpoints' own addresses.
pub const HEADLESS: &str = "evenkeel.dev/headless";

/// Label of an EndpointSlice: its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Label of a Service or EndpointSlice: another proxy than the node's serves it.
pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// Annotation of a static pod's mirror: the UID in the path of the pod's cgroup.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";

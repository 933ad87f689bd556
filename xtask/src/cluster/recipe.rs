//! What each of the cluster's programs is built from. All versions are those of `tests/cluster/go.mod`.

/// A program, and how Go builds it.
#[derive(Debug)]
pub(super) struct Program {
    /// Its file below the programs' folder.
    pub(super) file: &'static str,
    /// Its package, as the module names it.
    pub(super) package: &'static str,
    pub(super) tags: &'static str,
    /// Variables that the linker sets: a name, and the module whose version is the value.
    pub(super) versions: &'static [(&'static str, &'static str)],
    /// Whether there is C in it; the program is static all the same.
    pub(super) cgo: bool,
}

const PLAIN: Program = Program { file: "", package: "", tags: "", versions: &[], cgo: false };

/// Without it the servers call themselves v0.0.0-master, and clients treat them by that.
const KUBERNETES_VERSIONS: &[(&str, &str)] = &[
    ("k8s.io/component-base/version.gitVersion", "k8s.io/kubernetes"),
    ("k8s.io/client-go/pkg/version.gitVersion", "k8s.io/kubernetes"),
];

const CONTAINERD_VERSION: &[(&str, &str)] =
    &[("github.com/containerd/containerd/v2/version.Version", "github.com/containerd/containerd/v2")];

/// All programs of a cluster; the longest build first.
pub(super) const PROGRAMS: &[Program] = &[
    Program { file: "kubernetes", package: ".", versions: KUBERNETES_VERSIONS, ..PLAIN },
    Program {
        file: "containerd",
        package: "github.com/containerd/containerd/v2/cmd/containerd",
        tags: "no_btrfs no_devmapper no_zfs urfave_cli_no_docs static_build no_tracing",
        versions: CONTAINERD_VERSION,
        ..PLAIN
    },
    Program {
        file: "containerd-shim-runc-v2",
        package: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        tags: "no_grpc urfave_cli_no_docs static_build",
        versions: CONTAINERD_VERSION,
        ..PLAIN
    },
    Program {
        file: "runc",
        package: "github.com/opencontainers/runc",
        // A pod's sandbox always asks for the runtime's own seccomp profile.
        tags: "seccomp urfave_cli_no_docs netgo osusergo",
        versions: &[("main.version", "github.com/opencontainers/runc")],
        cgo: true,
    },
    Program { file: "coredns", package: "./coredns", ..PLAIN },
    Program { file: "pause", package: "./pause", ..PLAIN },
    Program {
        file: "cni/bridge",
        package: "github.com/containernetworking/plugins/plugins/main/bridge",
        ..PLAIN
    },
    Program {
        file: "cni/loopback",
        package: "github.com/containernetworking/plugins/plugins/main/loopback",
        ..PLAIN
    },
    Program {
        file: "cni/host-local",
        package: "github.com/containernetworking/plugins/plugins/ipam/host-local",
        ..PLAIN
    },
    Program {
        file: "cni/portmap",
        package: "github.com/containernetworking/plugins/plugins/meta/portmap",
        ..PLAIN
    },
];

/// Names by which `kubernetes` is called so that it is one of its parts.
pub(super) const KUBERNETES_PARTS: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
];

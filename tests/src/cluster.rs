//! A node with pods, and the objects that describe them.
//!
//! Each pod's veth pair ends in the node's namespace and is routed there, as Calico does it; the node forwards, and translates
//! ClusterIPs as kube-proxy does ([`crate::kube_proxy`]). One description ([`crate::manifests`]) feeds both the translation and the
//! folder that the agent reads, so without the agent everything is reached as in a cluster without Evenkeel.
//!
//! Read on in [`crate::pod`].

use crate::cgroup::Cgroup;
use crate::manifests::{
    CONFIG_MIRROR_ANNOTATION, ENABLED_LABEL, Endpoint, Namespace, PICKER_ANNOTATION, Pairs, PodObject,
    Service, ServicePort, to_yaml,
};
use crate::netns::Netns;
use crate::pod::{Identity, Pod};
use crate::{kube_proxy, leftovers};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// `spec.nodeName` of all pods.
pub const NODE_NAME: &str = "node-1";
/// The Kubernetes Namespace of all pods and Services of a test.
pub const NAMESPACE: &str = "shop";
/// The port of the greeter's Service.
pub const GREETER_PORT: u16 = 50051;
/// The port on which the greeter's pods listen: another one than the Service's, as a mix-up would else not show.
pub const GREETER_TARGET_PORT: u16 = 8080;

/// Pods' next hop: no pod has it, as it is on every veth pair's node side (Calico's address for this).
const GATEWAY_V4: &str = "169.254.1.1";
const GATEWAY_V6: &str = "fe80::1";
/// The node's own addresses, and the ClusterIPs, which it routes before it translates them.
const NODE_V4: &str = "10.244.255.254";
const NODE_V6: &str = "fd00:10:244::ffff";
const CLUSTER_IPS_V4: &str = "10.96.0.0/16";
const CLUSTER_IPS_V6: &str = "fd00:10:96::/112";

/// One node, its pods' namespaces and cgroups, and its folder of YAML.
#[derive(Debug)]
pub struct Cluster {
    /// Unique on this machine.
    name: String,
    /// The node's network namespace: the agent runs there, and pods with hostNetwork.
    pub node: Arc<Netns>,
    /// The objects. Change, then [`Cluster::publish`].
    pub namespaces: BTreeMap<String, Namespace>,
    /// By name.
    pub services: BTreeMap<String, Service>,
    /// By name.
    pub pods: BTreeMap<String, PodObject>,
    /// `kubepods`: the pods' common cgroup.
    pub kubepods: Cgroup,
    cgroup: Cgroup,
    manifests: tempfile::TempDir,
    next_pod: AtomicU16,
    /// The last part of the latest ClusterIP: none is given out twice.
    next_service: u8,
}

impl Cluster {
    /// A node without pods.
    ///
    /// # Errors
    /// When the machine does not let itself be divided so.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        leftovers::sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = leftovers::own_name(number);
        let node = Netns::create(name.clone())?;
        node.sysctl("ipv4/ip_forward", "1")?;
        node.sysctl("ipv6/conf/all/forwarding", "1")?;
        node.ip(&format!(
            "link add node type bridge\n\
             addr add {NODE_V4}/32 dev node\n\
             addr add {NODE_V6}/128 dev node nodad\n\
             link set node up\n\
             route add {CLUSTER_IPS_V4} dev node src {NODE_V4}\n\
             route add {CLUSTER_IPS_V6} dev node src {NODE_V6}\n"
        ))?;
        let cgroup = Cgroup::create()?;
        let kubepods = cgroup.child("kubepods")?;
        let manifests = tempfile::tempdir()?;
        fs::create_dir(manifests.path().join("objects"))?;
        let namespaces = BTreeMap::from([(
            NAMESPACE.to_owned(),
            Namespace { name: NAMESPACE.to_owned(), ..Namespace::default() },
        )]);
        let cluster = Self {
            name,
            node: Arc::new(node),
            namespaces,
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
            kubepods,
            cgroup,
            manifests,
            next_pod: AtomicU16::new(1),
            next_service: 0,
        };
        cluster.publish()?;
        Ok(cluster)
    }

    /// The folder for `--source folder:…`.
    pub fn folder(&self) -> PathBuf {
        self.manifests.path().join("objects")
    }

    /// The folder above all cgroups of the cluster.
    pub fn cgroup_root(&self) -> &Path {
        self.cgroup.path()
    }

    /// A cgroup beside the pods', for the agent.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn system_cgroup(&self, name: &str) -> Result<Cgroup> {
        self.cgroup.child(&format!("system/{name}"))
    }

    /// A pod on the pods' network, and its object. [`Cluster::publish`] makes it known.
    ///
    /// # Errors
    /// When its namespace or cgroup cannot be made.
    pub fn pod(&mut self, name: &str) -> Result<Pod> {
        self.pod_with_uid(name, str::to_owned)
    }

    /// A static pod, whose cgroup has the UID that its kubelet made up, and the object of its mirror, which has another.
    ///
    /// # Errors
    /// As [`Self::pod`].
    pub fn static_pod(&mut self, name: &str) -> Result<Pod> {
        let pod = self.pod_with_uid(name, |uid| uid.replace('-', ""))?;
        if let Some(object) = self.pods.get_mut(name) {
            object.annotations.insert(CONFIG_MIRROR_ANNOTATION.to_owned(), pod.uid.clone());
            object.uid = "mirror-1".to_owned();
        }
        Ok(pod)
    }

    fn pod_with_uid(&mut self, name: &str, form: fn(&str) -> String) -> Result<Pod> {
        let number = self.next_pod.fetch_add(1, Ordering::Relaxed);
        let [high, low] = number.to_be_bytes();
        let identity = Identity {
            name: name.to_owned(),
            uid: form(&self.uid(number)),
            ipv4: Ipv4Addr::new(10, 244, high, low),
            ipv6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, number),
            node_link: format!("pod{number}"),
        };
        let netns = Netns::create(format!("{}-{name}-{number}", self.name))?;
        self.connect(&identity, &netns)?;
        let pod = Pod::start(identity, Arc::new(netns), &self.kubepods)?;
        self.describe(&pod, false);
        Ok(pod)
    }

    /// A pod with `hostNetwork: true`.
    ///
    /// # Errors
    /// When its cgroup cannot be made.
    pub fn host_network_pod(&mut self, name: &str) -> Result<Pod> {
        let number = self.next_pod.fetch_add(1, Ordering::Relaxed);
        let identity = Identity {
            name: name.to_owned(),
            uid: self.uid(number),
            ipv4: NODE_V4.parse()?,
            ipv6: NODE_V6.parse()?,
            node_link: "lo".to_owned(),
        };
        let pod = Pod::start(identity, Arc::clone(&self.node), &self.kubepods)?;
        self.describe(&pod, true);
        Ok(pod)
    }

    fn uid(&self, number: u16) -> String {
        let cluster = self.name.rsplit('-').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        format!("{:08x}-{:04x}-4000-8000-{number:012x}", std::process::id(), cluster & 0xffff)
    }

    fn connect(&self, identity: &Identity, netns: &Netns) -> Result<()> {
        let Identity { ipv4, ipv6, node_link, .. } = identity;
        self.node.ip(&format!(
            "link add {node_link} type veth peer name eth0 netns {pod}\n\
             addr add {GATEWAY_V4}/32 dev {node_link}\n\
             addr add {GATEWAY_V6}/64 dev {node_link} nodad\n\
             link set {node_link} up\n\
             route add {ipv4}/32 dev {node_link}\n\
             route add {ipv6}/128 dev {node_link}\n",
            pod = netns.name(),
        ))?;
        netns.ip(&format!(
            "addr add {ipv4}/32 dev eth0\n\
             addr add {ipv6}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add {GATEWAY_V4}/32 dev eth0 scope link\n\
             route add default via {GATEWAY_V4} dev eth0\n\
             route add ::/0 via {GATEWAY_V6} dev eth0\n"
        ))
    }

    fn describe(&mut self, pod: &Pod, host_network: bool) {
        let object = PodObject {
            namespace: NAMESPACE.to_owned(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            labels: Pairs::new(),
            annotations: Pairs::new(),
            node: NODE_NAME.to_owned(),
            host_network,
            container_ports: Vec::new(),
            addresses: vec![pod.ipv4.into(), pod.ipv6.into()],
        };
        self.pods.insert(pod.name.clone(), object);
    }

    /// Labels the Namespace as enrolled (or not). [`Cluster::publish`] makes it known.
    pub fn enrol_namespace(&mut self, enabled: bool) -> &mut Namespace {
        let namespace = self.namespaces.entry(NAMESPACE.to_owned()).or_default();
        namespace.labels.insert(ENABLED_LABEL.to_owned(), enabled.to_string());
        namespace
    }

    /// Labels one pod. [`Cluster::publish`] makes it known.
    pub fn label_pod(&mut self, pod: &Pod, enabled: bool) {
        if let Some(object) = self.pods.get_mut(&pod.name) {
            object.labels.insert(ENABLED_LABEL.to_owned(), enabled.to_string());
        }
    }

    /// A gRPC Service over those pods with one port, and round robin as the picker: its shares can be told in advance.
    ///
    /// # Errors
    /// When it cannot be published.
    pub fn service(&mut self, name: &str, pods: &[&Pod]) -> Result<Service> {
        self.next_service = self.next_service.checked_add(1).context("at most 255 Services a test")?;
        let number = self.next_service;
        let service = Service {
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            annotations: Pairs::from([(PICKER_ANNOTATION.to_owned(), "round-robin".to_owned())]),
            ipv4: Ipv4Addr::new(10, 96, 5, number),
            ipv6: Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number.into()),
            ports: vec![ServicePort {
                name: "grpc".to_owned(),
                protocol: "TCP",
                app_protocol: None,
                port: GREETER_PORT,
                target_port: GREETER_TARGET_PORT,
            }],
            endpoints: pods.iter().map(|pod| endpoint(pod)).collect(),
        };
        self.services.insert(name.to_owned(), service.clone());
        self.publish()?;
        Ok(service)
    }

    /// Gives a Service an annotation.
    ///
    /// # Errors
    /// When there is no such Service, or it cannot be published.
    pub fn annotate(&mut self, service: &str, annotation: &str, value: &str) -> Result<()> {
        let service = self.services.get_mut(service).context("no such Service")?;
        service.annotations.insert(annotation.to_owned(), value.to_owned());
        self.publish()
    }

    /// Makes exactly those pods the Service's endpoints.
    ///
    /// # Errors
    /// When it cannot be published.
    pub fn set_endpoints(&mut self, service: &str, pods: &[&Pod]) -> Result<()> {
        let service = self.services.get_mut(service).context("no such Service")?;
        service.endpoints = pods.iter().map(|pod| endpoint(pod)).collect();
        self.publish()
    }

    /// Writes the objects to the folder and the rules to the node.
    ///
    /// # Errors
    /// The file system's or `nft`'s own.
    pub fn publish(&self) -> Result<()> {
        self.node.nft(&kube_proxy::rules(self.services.values().cloned()))?;
        let namespaces: Vec<Value> = self.namespaces.values().map(Namespace::object).collect();
        let services: Vec<Value> = self.services.values().flat_map(Service::objects).collect();
        let pods: Vec<Value> = self.pods.values().map(PodObject::object).collect();
        self.write("namespaces.yaml", &to_yaml(&namespaces)?)?;
        self.write("services.yaml", &to_yaml(&services)?)?;
        self.write("pods.yaml", &to_yaml(&pods)?)
    }

    /// Puts a file into the folder, complete from its first moment.
    ///
    /// # Errors
    /// The file system's own.
    pub fn write(&self, file: &str, content: &str) -> Result<()> {
        let path = self.folder().join(file);
        if fs::read_to_string(&path).is_ok_and(|before| before == content) {
            return Ok(());
        }
        replace(&self.manifests.path().join("next"), &path, content)
    }
}

fn replace(temporary: &Path, path: &Path, content: &str) -> Result<()> {
    fs::write(temporary, content)?;
    fs::rename(temporary, path).with_context(|| path.display().to_string())
}

/// The pod as an endpoint.
pub fn endpoint(pod: &Pod) -> Endpoint {
    Endpoint { pod: pod.name.clone(), ipv4: pod.ipv4, ipv6: pod.ipv6, ready: true }
}

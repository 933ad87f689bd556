//! A node with a pod, and a server behind a Service's address in another network namespace.

use crate::app::{App, Dial, Names};
use evenkeel::clock::monotonic_ns;
use evenkeel::kernel::listener::{ListenerOptions, destination_of};
use evenkeel::kernel::{Enrolment, Held, Kernel, LoadOptions, Netns, PodListener, cgroups, object};
use evenkeel::lifecycle::ticks::SharedPage;
use evenkeel::mesh::DestinationId;
use evenkeel_common::{Counters, DEFAULT_MARK, Reason};
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsStr;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{fs, io};

/// The Service's addresses, and the ids they are given.
pub(crate) const SERVICE_V4: &str = "10.96.5.5:50051";
pub(crate) const SERVICE_V6: &str = "[fd96::5]:50051";
/// A port of the same server that is no destination.
pub(crate) const OTHER_V4: &str = "10.96.5.5:50052";
/// What the pod's device is given.
pub(crate) const POD_V4: &str = "10.77.0.2";
pub(crate) const POD_V6: &str = "fd77::2";

/// Whether these tests can run here.
pub(crate) fn can_run() -> bool {
    // SAFETY: takes nothing, cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    let missing = match (is_root, object::object()) {
        (false, _) => "not root".to_owned(),
        (true, Err(error)) => error.to_string(),
        (true, Ok(_)) => return true,
    };
    assert!(std::env::var_os("CI").is_none(), "cannot test the kernel programs: {missing}");
    eprintln!("skipped: {missing}");
    false
}

/// A cgroup of the test's own, with those below it; removed when this goes.
pub(crate) struct Cgroup {
    pub(crate) path: PathBuf,
    below: Vec<PathBuf>,
}

impl Cgroup {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("evenkeel-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let mount = cgroups::cgroup2_mount().unwrap();
        sweep(&mount);
        let path = mount.join(name);
        fs::create_dir(&path).unwrap();
        Self { path, below: Vec::new() }
    }

    /// Makes a cgroup below, with all between.
    pub(crate) fn make(&mut self, relative: &str) -> PathBuf {
        let mut path = self.path.clone();
        for component in relative.split('/') {
            path.push(component);
            if fs::create_dir(&path).is_ok() {
                self.below.push(path.clone());
            }
        }
        path
    }

    /// Makes a cgroup right below one of these, by a name that need be no text.
    pub(crate) fn make_of_bytes(&mut self, below: &Path, name: &[u8]) -> PathBuf {
        let path = below.join(OsStr::from_bytes(name));
        fs::create_dir(&path).unwrap();
        self.below.push(path.clone());
        path
    }
}

/// Removes the cgroups of test runs that were killed.
fn sweep(mount: &Path) {
    for entry in fs::read_dir(mount).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("evenkeel-test-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove_tree(&entry.path());
        }
    }
}

fn remove_tree(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

impl Cgroup {
    /// Removes all below.
    pub(crate) fn clear(&mut self) {
        for path in self.below.drain(..).rev() {
            remove(&path);
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.clear();
        remove(&self.path);
    }
}

fn remove(cgroup: &Path) {
    // A process that was killed leaves its cgroup a moment later.
    for _ in 0..1_000 {
        if fs::remove_dir(cgroup).is_ok() || !cgroup.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where a connection ended up.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// At the agent's listener, with the id that its local address names.
    Agent { id: Option<DestinationId>, stream: TcpStream },
    /// At the server, from this address.
    Server { from: SocketAddr, stream: TcpStream },
}

impl Arrival {
    #[track_caller]
    pub(crate) fn expect_agent(self, id: u32) -> TcpStream {
        match self {
            Self::Agent { id: Some(found), stream } if found.number() == id => stream,
            other => panic!("expected the agent with id {id}, not {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn expect_server(self) -> (SocketAddr, TcpStream) {
        match self {
            Self::Server { from, stream } => (from, stream),
            other @ Self::Agent { .. } => panic!("expected the server, not {other:?}"),
        }
    }
}

/// The whole. Fields are dropped in order: processes before their cgroups.
pub(crate) struct Node {
    pub(crate) links: Vec<Held>,
    pub(crate) kernel: Kernel,
    pub(crate) app: App,
    pub(crate) netns: Netns,
    pub(crate) listener: PodListener,
    pub(crate) server: Vec<TcpListener>,
    pub(crate) server_process: App,
    pub(crate) cgroup: Cgroup,
}

impl Node {
    /// A pod, enrolled; the Service's two addresses captured, v4 with id 4 and v6 with id 6; a heart that beats for an hour.
    pub(crate) fn start() -> Self {
        let node = Self::start_unenrolled();
        node.enrol(&node.enrolment());
        node
    }

    pub(crate) fn start_unenrolled() -> Self {
        let mut cgroup = Cgroup::new();
        let pod = cgroup.make("kubepods/pod0");
        let app = App::start(&pod);
        let server_process = App::start(&cgroup.make("server"));
        connect_namespaces(&app, &server_process);
        let server_netns = Netns::of_process(server_process.pid()).unwrap();
        let server = [SERVICE_V4, SERVICE_V6, OTHER_V4].map(|at| listen(&server_netns, at)).into();

        let kernel =
            Kernel::load(&LoadOptions { destinations: 64, ids: 64, pods: 8, ..LoadOptions::default() })
                .unwrap();
        let links = kernel.attach(&cgroup.path).unwrap();
        kernel.add_destination(SERVICE_V4.parse().unwrap(), DestinationId::new(4).unwrap()).unwrap();
        kernel.add_destination(SERVICE_V6.parse().unwrap(), DestinationId::new(6).unwrap()).unwrap();
        let netns = Netns::of_process(app.pid()).unwrap();
        let listener = PodListener::open(&netns, &listener_options(), &[]).unwrap();
        let node = Self { links, kernel, app, netns, listener, server, server_process, cgroup };
        node.beat(monotonic_ns() + 3_600_000_000_000);
        node
    }

    pub(crate) fn enrolment(&self) -> Enrolment {
        Enrolment {
            listener_port: self.listener.port,
            ipv4: Some(POD_V4.parse().unwrap()),
            ipv6: Some(POD_V6.parse().unwrap()),
            ipv6_route: self.listener.v6.is_some(),
            ..Enrolment::default()
        }
    }

    pub(crate) fn enrol(&self, enrolment: &Enrolment) {
        self.kernel.enrol(self.netns.cookie(), enrolment).unwrap();
    }

    pub(crate) fn beat(&self, at_ns: u64) {
        SharedPage::map(self.kernel.heartbeat().unwrap()).unwrap().words()[0].store(at_ns, Relaxed);
    }

    /// Dials from the pod, and finds out where the connection arrived.
    #[track_caller]
    pub(crate) fn dial(&mut self, dial: Dial) -> (usize, Arrival) {
        let what = format!("{dial:?}");
        let socket = self.app.dial(dial).unwrap_or_else(|error| panic!("{what}: {error}"));
        (socket, self.arrival())
    }

    /// As [`Self::dial`], to the agent; what the app then sees.
    #[track_caller]
    pub(crate) fn taken(&mut self, dial: Dial, id: u32) -> Names {
        let (socket, arrival) = self.dial(dial);
        let _stream = arrival.expect_agent(id);
        self.app.names(socket)
    }

    pub(crate) fn arrival(&self) -> Arrival {
        let agent = std::iter::once(&self.listener.v4).chain(self.listener.v6.as_ref());
        let listeners: Vec<&TcpListener> = agent.chain(&self.server).collect();
        let agents = listeners.len() - self.server.len();
        let mut waiting: Vec<libc::pollfd> = listeners
            .iter()
            .map(|l| libc::pollfd { fd: l.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        // SAFETY: the array is as long as said.
        let ready = unsafe { libc::poll(waiting.as_mut_ptr(), waiting.len() as libc::nfds_t, 10_000) };
        assert_eq!(ready, 1, "one connection arrives");
        let at = waiting.iter().position(|w| w.revents != 0).unwrap();
        let (stream, from) = listeners[at].accept().unwrap();
        if at < agents {
            Arrival::Agent { id: destination_of(stream.local_addr().unwrap()), stream }
        } else {
            Arrival::Server { from, stream }
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.kernel.counters(self.netns.cookie()).unwrap().unwrap()
    }

    /// Dials, expects the server, and that this was counted for the reason.
    #[track_caller]
    pub(crate) fn straight(&mut self, dial: Dial, reason: Reason) {
        let before = self.counters();
        let (_, arrival) = self.dial(dial);
        arrival.expect_server();
        let after = self.counters();
        assert_eq!(after.of(reason), before.of(reason) + 1, "{}: {after:?}", reason.name());
        assert_eq!(
            after.by_reason.iter().sum::<u64>(),
            before.by_reason.iter().sum::<u64>() + 1,
            "{after:?}"
        );
    }
}

pub(crate) fn listener_options() -> ListenerOptions {
    ListenerOptions { ports: 15_810..=15_899, mark: DEFAULT_MARK }
}

fn connect_namespaces(pod: &App, server: &App) {
    pod.ip("link set lo up");
    server.ip("link set lo up");
    pod.ip(&format!("link add eth0 type veth peer name eth0 netns {}", server.pid()));
    pod.ip(&format!("addr add {POD_V4}/24 dev eth0"));
    pod.ip(&format!("addr add {POD_V6}/64 dev eth0 nodad"));
    server.ip("addr add 10.77.0.1/24 dev eth0");
    server.ip("addr add fd77::1/64 dev eth0 nodad");
    server.ip("addr add 10.96.5.5/32 dev lo");
    server.ip("addr add fd96::5/128 dev lo nodad");
    pod.ip("link set eth0 up");
    server.ip("link set eth0 up");
    pod.ip("route add default via 10.77.0.1");
    pod.ip("-6 route add default via fd77::1");
}

/// Waits until what was closed here is gone: another test's process, forked this moment, may hold a copy of it until it is another
/// program.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whether nobody listens on the port. What is bound for it does not listen, and shares the port: a copy of it is in nobody's way.
pub(crate) fn is_free(netns: &Netns, port: u16) -> bool {
    let kind = i32::from(Type::STREAM);
    let socket = Socket::from(netns.socket(i32::from(Domain::IPV6), kind, 0, None).unwrap());
    socket.set_reuse_address(true).unwrap();
    let bound = socket.bind(&SockAddr::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))));
    match bound {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => false,
        bound => {
            bound.unwrap();
            true
        }
    }
}

pub(crate) fn listen(netns: &Netns, at: &str) -> TcpListener {
    let at: SocketAddr = at.parse().unwrap();
    let domain = Domain::for_address(at);
    let kind = i32::from(Type::STREAM);
    let socket = Socket::from(netns.socket(i32::from(domain), kind, 0, None).unwrap());
    socket.bind(&SockAddr::from(at)).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

//! A socket load balancer beside the agent, of the kind that a CNI attaches to the root cgroup in place of kube-proxy.

use crate::app::{Dial, dial};
use crate::node::{Node, SERVICE_V4, can_run, listen};
use evenkeel::kernel::bpf::{AttachType, link_to_cgroup};
use evenkeel::kernel::{Netns, balancers, cgroups, reconnect};
use evenkeel_common::DEFAULT_MARK;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

/// Where the load balancer sends what is dialled at the Service's address.
const ENDPOINT: &str = "10.77.0.1:50051";
const NAME: &str = "test_balancer";

#[test]
fn a_load_balancer_at_the_root_leaves_enrolled_pods_to_the_agent_and_gets_the_others() {
    if !can_run() {
        return;
    }
    let (mut node, _balancer) = node_with_balancer();
    for _ in 0..2 {
        // The agent's own sockets, as those of a relay to the original address: what a socket without the agent meets.
        let (_, arrival) = node.dial(Dial { mark: DEFAULT_MARK, ..dial(SERVICE_V4) });
        assert_eq!(arrival.expect_server().1.local_addr().unwrap(), ENDPOINT.parse().unwrap());
        let (_, arrival) = node.dial(Dial { mark: DEFAULT_MARK, ..dial(ENDPOINT) });
        assert_eq!(arrival.expect_server().1.local_addr().unwrap(), ENDPOINT.parse().unwrap());

        node.enrol(&node.enrolment());
        let names = node.taken(dial(SERVICE_V4), 4);
        assert_eq!(names.peer.to_string(), SERVICE_V4, "its getpeername has nothing to add");
        node.taken(Dial { mapped: true, ..dial(SERVICE_V4) }, 4);

        node.kernel.withdraw(node.netns.cookie()).unwrap();
        for dial in [dial(SERVICE_V4), Dial { mapped: true, ..dial(SERVICE_V4) }] {
            let (socket, arrival) = node.dial(dial);
            let (_, stream) = arrival.expect_server();
            assert_eq!(stream.local_addr().unwrap().to_string(), ENDPOINT);
            let peer = node.app.names(socket).peer;
            assert_eq!(SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string(), SERVICE_V4);
        }
        // However they came: those of a child cgroup run first.
        node.links = node.kernel.attach(&node.cgroup.path.join("kubepods")).unwrap();
    }
}

#[test]
fn connections_that_a_load_balancer_sent_to_an_endpoint_are_ended_too() {
    if !can_run() {
        return;
    }
    let (mut node, _balancer) = node_with_balancer();
    let (socket, arrival) = node.dial(dial(SERVICE_V4));
    let _stream = arrival.expect_server();
    node.enrol(&node.enrolment());

    let service = SERVICE_V4.parse().unwrap();
    assert_eq!(
        reconnect::connections(&node.netns, &[service].into(), DEFAULT_MARK).unwrap(),
        [],
        "it is not what was dialled"
    );
    let peers = [service, ENDPOINT.parse().unwrap()].into();
    assert_eq!(reconnect::connections(&node.netns, &peers, DEFAULT_MARK).unwrap().len(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(reconnect::end_all(&node.netns, &peers, DEFAULT_MARK)).unwrap(), 1);
    assert!(node.app.read(socket).unwrap_err().contains("abort"));
    node.taken(dial(SERVICE_V4), 4);
}

#[test]
fn a_load_balancer_is_seen_and_the_agents_own_programs_are_none() {
    if !can_run() {
        return;
    }
    let (node, balancer) = node_with_balancer();
    let mount = cgroups::cgroup2_mount().unwrap();
    let kubepods = node.cgroup.path.join("kubepods");
    let found = || balancers::programs(&mount, &kubepods).unwrap();
    assert!(found().contains(NAME), "{:?}", found());
    assert!(found().iter().all(|name| !name.starts_with("evenkeel")), "{:?}", found());
    drop(balancer);
    // Another test's process, forked this moment, may hold a copy of the links until it is another program.
    while found().contains(NAME) {
        std::thread::yield_now();
    }
}

/// The agent at the pods' cgroup, not enrolling; the load balancer above it.
fn node_with_balancer() -> (Node, Vec<OwnedFd>) {
    let mut node = Node::start_unenrolled();
    let kubepods = node.cgroup.path.join("kubepods");
    node.links = node.kernel.attach(&kubepods).unwrap();
    let server = Netns::of_process(node.server_process.pid()).unwrap();
    node.server.push(listen(&server, ENDPOINT));
    let balancer = attach_balancer(&node.cgroup.path);
    (node, balancer)
}

/// Where the programs attach, each with the offset in `struct bpf_sock_addr` of the (last word of the) address.
const CONNECT: [(AttachType, i16); 2] = [(AttachType::Connect4, 4), (AttachType::Connect6, 20)];
const GETPEERNAME: [(AttachType, i16); 2] = [(AttachType::GetPeerName4, 4), (AttachType::GetPeerName6, 20)];
const PORT_OFFSET: i16 = 24;

/// Attaches programs that make the endpoint of the Service at `connect()`, and the Service of the endpoint at `getpeername()`.
fn attach_balancer(cgroup: &Path) -> Vec<OwnedFd> {
    let (service, endpoint): (SocketAddrV4, SocketAddrV4) =
        (SERVICE_V4.parse().unwrap(), ENDPOINT.parse().unwrap());
    let there = CONNECT.map(|kind| (kind, service, endpoint));
    let back = GETPEERNAME.map(|kind| (kind, endpoint, service));
    let cgroup = File::open(cgroup).unwrap();
    let attach = |((attach_type, offset), from, to)| {
        let program = load(attach_type as u32, &rewrite(offset, from, to)).unwrap();
        link_to_cgroup(program.as_fd(), cgroup.as_fd(), attach_type).unwrap()
    };
    there.into_iter().chain(back).map(attach).collect()
}

/// An instruction: `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// if address == from && port == from { address, port = to }; return 1
fn rewrite(offset: i16, from: SocketAddrV4, to: SocketAddrV4) -> Vec<Instruction> {
    let load = |offset| Instruction { code: 0x61, registers: 0x12, offset, immediate: 0 };
    let store = |offset| Instruction { code: 0x63, registers: 0x21, offset, immediate: 0 };
    let set = |register, immediate| Instruction { code: 0xb4, registers: register, offset: 0, immediate };
    let skip_unless = |immediate, skip| Instruction { code: 0x56, registers: 2, offset: skip, immediate };
    let address = |of: SocketAddrV4| i32::from_ne_bytes(of.ip().octets());
    let port = |of: SocketAddrV4| i32::from(of.port().to_be());
    vec![
        load(offset),
        skip_unless(address(from), 6),
        load(PORT_OFFSET),
        skip_unless(port(from), 4),
        set(2, address(to)),
        store(offset),
        set(2, port(to)),
        store(PORT_OFFSET),
        set(0, 1),
        Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
    ]
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    version_and_flags: [u32; 2],
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

fn load(attach_type: u32, program: &[Instruction]) -> io::Result<OwnedFd> {
    const CGROUP_SOCK_ADDR: u32 = 18;
    let mut name = [0; 16];
    name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    let attributes = ProgLoad {
        kind: CGROUP_SOCK_ADDR,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        name,
        attach_type,
        ..ProgLoad::default()
    };
    bpf_load(&attributes)
}

fn bpf_load(attributes: &ProgLoad) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: i64 = 5;
    // SAFETY: the structure is a prefix of `union bpf_attr` for the command, and what it points to outlives the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, std::ptr::from_ref(attributes), size_of::<ProgLoad>())
    };
    // SAFETY: the kernel has just made this descriptor for us.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }) }
}

//! Who keeps what alive: links, maps, listeners, namespaces.

use crate::app::{Dial, dial};
use crate::node::{
    Arrival, Node, POD_V4, POD_V6, SERVICE_V4, SERVICE_V6, can_run, eventually, is_free, listen,
    listener_options,
};
use evenkeel::clock::monotonic_ns;
use evenkeel::kernel::listener::{ListenerOptions, is_loopback_up};
use evenkeel::kernel::{Kernel, KnownDestination, Netns, PodListener};
use evenkeel::lifecycle::ticks::SharedPage;
use evenkeel::mesh::DestinationId;
use evenkeel_common::Reason;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn without_its_links_everything_goes_straight() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    node.taken(dial(SERVICE_V4), 4);
    node.links.clear();
    eventually("the links are gone", || matches!(node.dial(dial(SERVICE_V4)).1, Arrival::Server { .. }));
}

#[test]
fn a_worker_that_starts_again_finds_what_it_had_told_the_kernel() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    node.taken(dial(SERVICE_V4), 4);
    let six = DestinationId::new(6).unwrap();
    node.kernel.mark_without_endpoint(SERVICE_V6.parse().unwrap(), six).unwrap();

    let held = node.kernel.hold().unwrap();
    assert!(held.iter().all(|held| !held.is_link()) && node.links.iter().all(|held| held.is_link()));
    node.kernel = Kernel::restore(held).unwrap();

    assert_eq!(node.kernel.enrolled().unwrap(), [(node.netns.cookie(), node.enrolment())]);
    let four = DestinationId::new(4).unwrap();
    let mut known = node.kernel.known_destinations().unwrap();
    known.sort_by_key(|destination| destination.id);
    let (v4, v6) = (SERVICE_V4.parse().unwrap(), SERVICE_V6.parse().unwrap());
    let four_known = KnownDestination { address: v4, id: four, has_endpoint: true };
    let six_known = KnownDestination { address: v6, id: six, has_endpoint: false };
    assert_eq!(known, [four_known, six_known]);
    node.kernel.remove_destination(v6).unwrap();
    assert_eq!(node.kernel.known_ids().unwrap(), [(four, v4), (six, v6)], "in quarantine until forgotten");
    assert_eq!(node.counters().of(Reason::Taken), 1);

    node.taken(dial(SERVICE_V4), 4);
    assert_eq!(node.counters().of(Reason::Taken), 2);
    assert_eq!(node.kernel.attach(&node.cgroup.path).unwrap().len(), node.links.len(), "it can attach, too");
}

#[test]
fn listeners_are_found_again_by_their_descriptors() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    let mut held = node.listener.hold().unwrap();
    held.reverse();
    let mut restored = PodListener::restore(held);
    let (cookie, listener) = restored.pop().unwrap();
    assert!(restored.is_empty());
    assert_eq!((cookie, listener.port), (node.netns.cookie(), node.listener.port));
    let found = Netns::of_socket(listener.v4.as_fd()).unwrap();
    assert_eq!(found.cookie(), cookie);

    node.listener = listener;
    node.taken(dial(SERVICE_V4), 4);
    node.taken(dial(SERVICE_V6), 6);
}

#[test]
fn a_redial_waits_in_the_backlog_for_the_next_worker() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    let held = node.listener.hold().unwrap();
    // What the death of a worker closes, though the keeper holds the same.
    let port = node.listener.port;
    let (_, next) = PodListener::restore(held).pop().unwrap();
    node.listener = next;
    let socket = node.app.dial(dial(SERVICE_V4)).unwrap();
    node.arrival().expect_agent(4);
    assert_eq!(node.app.names(socket).peer.to_string(), SERVICE_V4);
    assert_eq!(node.listener.port, port);
}

#[test]
fn two_agents_that_overlap_do_not_meet() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    // The new agent attaches beside the old, with ids and a listener of its own.
    let new = Kernel::load(&evenkeel::kernel::LoadOptions::default()).unwrap();
    let _new_links = new.attach(&node.cgroup.path).unwrap();
    let new_listener = PodListener::open(&node.netns, &listener_options(), &[]).unwrap();
    assert_ne!(new_listener.port, node.listener.port);
    let hour_ahead = monotonic_ns() + 3_600_000_000_000;
    SharedPage::map(new.heartbeat().unwrap()).unwrap().words()[0].store(hour_ahead, Relaxed);
    for (address, id) in [(SERVICE_V4, 40), (SERVICE_V6, 60)] {
        new.add_destination(address.parse().unwrap(), DestinationId::new(id).unwrap()).unwrap();
    }
    let enrolment = evenkeel::kernel::Enrolment { listener_port: new_listener.port, ..node.enrolment() };
    new.enrol(node.netns.cookie(), &enrolment).unwrap();

    let old_v4 = node.taken(dial(SERVICE_V4), 4);
    let old_v6 = node.taken(dial(SERVICE_V6), 6);
    assert_eq!(
        (old_v4.peer.to_string().as_str(), old_v4.own.ip().to_string().as_str()),
        (SERVICE_V4, POD_V4)
    );
    assert_eq!(
        (old_v6.peer.to_string().as_str(), old_v6.own.ip().to_string().as_str()),
        (SERVICE_V6, POD_V6)
    );

    // The old one takes its pod back; what it holds keeps its names, and the new one takes what comes.
    let (held, arrival) = node.dial(dial(SERVICE_V4));
    let _stream = arrival.expect_agent(4);
    node.enrol(&evenkeel::kernel::Enrolment { leaving: true, ..node.enrolment() });
    let old_listener = std::mem::replace(&mut node.listener, new_listener);
    let new_v4 = node.taken(dial(SERVICE_V4), 40);
    let new_v6 = node.taken(dial(SERVICE_V6), 60);
    assert_eq!(
        (new_v4.peer.to_string().as_str(), new_v4.own.ip().to_string().as_str()),
        (SERVICE_V4, POD_V4)
    );
    assert_eq!(
        (new_v6.peer.to_string().as_str(), new_v6.own.ip().to_string().as_str()),
        (SERVICE_V6, POD_V6)
    );
    assert_eq!(node.app.names(held).peer.to_string(), SERVICE_V4);

    node.links.clear();
    PodListener::clean_up(&node.netns, old_listener.port).unwrap();
    PodListener::clean_up(&node.netns, old_listener.port).expect("already cleaned up is no error");
    drop(old_listener);
    node.taken(dial(SERVICE_V6), 60);
}

#[test]
fn a_port_that_the_pod_declares_or_uses_is_never_the_listeners() {
    if !can_run() {
        return;
    }
    let node = Node::start();
    let options = ListenerOptions { ports: 15_820..=15_824, ..listener_options() };
    let _used_v4 = listen(&node.netns, "10.77.0.2:15821");
    let _used_v6 = listen(&node.netns, "[::1]:15822");
    let avoid = [15_820, 15_823];
    let listener = PodListener::open(&node.netns, &options, &avoid).unwrap();
    assert_eq!(listener.port, 15_824);
    let full = PodListener::open(&node.netns, &options, &avoid).unwrap_err();
    assert_eq!(full.to_string(), "every port of 15820–15824 is declared or in use in the pod");
}

#[test]
fn the_route_of_an_agent_that_was_killed_goes_when_the_next_one_listens() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    let route = |verb: &str, port: u16| {
        format!("-6 route {verb} local fd65:766b:656c:{port:x}::/96 dev lo table local")
    };
    let killed = PodListener::open(&node.netns, &listener_options(), &[]).unwrap().port;
    assert!(!node.app.try_ip(&route("add", killed)), "it stands, though its listener is closed");
    eventually("the listener is gone", || is_free(&node.netns, killed));
    let next = PodListener::open(&node.netns, &listener_options(), &[killed]).unwrap();
    assert!(!node.app.try_ip(&route("del", killed)));
    // That of an agent which still listens stays.
    node.taken(dial(SERVICE_V6), 6);
    assert!(node.app.try_ip(&route("del", node.listener.port)) && node.app.try_ip(&route("del", next.port)));
}

#[test]
fn nobody_outside_of_the_pod_reaches_its_listener() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    let port = node.listener.port;
    let v4 = format!("{POD_V4}:{port}");
    let refused = node.server_process.dial(dial(&v4)).unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    // The filter drops what comes over another device: no answer, so the little patience here only bounds the test's time.
    for v6 in [format!("[{POD_V6}]:{port}"), format!("[fd65:766b:656c:{port:x}::7f01:6]:{port}")] {
        node.server_process.ip("-6 route replace fd65:766b:656c::/48 via fd77::2");
        let patience_ms = 300;
        let error = node.server_process.dial(Dial { patience_ms, ..dial(&v6) }).unwrap_err();
        assert!(error.contains("timed out"), "{error}");
    }
    node.taken(dial(SERVICE_V6), 6);
}

#[test]
fn a_pods_namespace_goes_with_its_last_holder() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    assert!(is_loopback_up(&node.netns).unwrap());
    let (_, arrival) = node.dial(dial(SERVICE_V4));
    let stream = arrival.expect_agent(4);
    node.app.kill();

    let Node { server_process, listener, netns, links, kernel, cgroup, app, .. } = node;
    assert!(server_process.try_ip("link show eth0"), "listener, connection and handle keep it alive");
    drop((listener, netns, app));
    assert!(server_process.try_ip("link show eth0"), "and the connection alone does");
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
    // With the namespace its end of the device pair goes, and with it the server's.
    while server_process.try_ip("link show eth0") {
        std::thread::yield_now();
    }
    drop((server_process, links, kernel, cgroup));
}

#[test]
fn a_pods_loopback_is_seen_to_be_down() {
    if !can_run() {
        return;
    }
    let node = Node::start();
    node.app.ip("link set lo down");
    assert!(!is_loopback_up(&node.netns).unwrap());
}

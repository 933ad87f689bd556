//! Who ends where a source has used up its memory, and that it is nobody for whom nothing waits.

use super::*;

fn tight_pod() -> Protection {
    Protection { pod_memory: MIB, ..Protection::default() }
}

/// Clients of the pod with an answer each that they do not read, as many as fill its memory.
fn with_many_stalled_answers(turns: &mut Turns) -> (Vec<Client>, ConnId, Connection) {
    let mut lazy: Vec<_> = (0..40).map(|_| Client::of_pod(turns, "hog", 1)).collect();
    for client in &mut lazy {
        client.told(turns);
        client.speak(turns);
        client.call(turns);
    }
    let (conn, mut server) = turns.serve();
    for stream in requests(turns, conn, &mut server) {
        server.send_headers(stream, &list(&[(":status", "200")]), false);
        server.send_data(stream, &[0; 60_000], false);
    }
    speak(turns, conn, &mut server);
    (lazy, conn, server)
}

#[test]
fn a_call_that_flows_is_served_while_answers_that_nobody_reads_fill_its_pods_memory() {
    let mut turns = Turns::protected(&[1], tight_pod());
    let mut fast = Client::of_pod(&mut turns, "hog", 1);
    fast.told(&mut turns);
    fast.speak(&mut turns);
    let (lazy, conn, mut server) = with_many_stalled_answers(&mut turns);
    let counters = turns.engine.counters();
    assert!(counters.memory_refusals > 0, "they want more than there is");
    for call in 0..20 {
        turns.engine.tick(turns.engine.now_ns + SECOND_NS / 10);
        fast.call(&mut turns);
        let streams = requests(&mut turns, conn, &mut server);
        assert_eq!(streams.len(), 1, "call {call} goes to the server");
        server.send_headers(streams[0], &list(&[(":status", "200")]), false);
        server.send_data(streams[0], &[0; 5_000], false);
        server.send_trailers(streams[0], &list(&[("grpc-status", "0")]));
        speak(&mut turns, conn, &mut server);
        assert_eq!(fast.told(&mut turns), [ok()], "call {call}");
    }
    assert!(held(&turns, &fast) < MIB, "and there is room");
    assert!(closed(&turns).iter().all(|(conn, _)| lazy.iter().any(|lazy| lazy.conn == *conn)));
}

#[test]
fn calls_for_which_nothing_waits_come_to_the_end_of_a_pods_memory_and_no_further() {
    let limit = MIB / 4;
    let mut turns = Turns::protected(&[1], Protection { pod_memory: limit, ..Protection::default() });
    let mut client = Client::of_pod(&mut turns, "busy", 1);
    client.told(&mut turns);
    client.speak(&mut turns);
    let mut refused = 0;
    for _ in 0..900 {
        client.call(&mut turns);
        refused += client.told(&mut turns).len();
    }
    assert!(refused > 0, "so many do not fit");
    let held = held(&turns, &client);
    assert!(held > limit / 8 * 7 && held < limit / 2 * 3, "{held} bytes");
    assert_eq!(closed(&turns), [], "and nobody loses a connection");
}

#[test]
fn a_client_that_leaves_everything_in_the_kernels_buffers_loses_its_connection_before_its_pod_a_call() {
    let mut turns = Turns::protected(&[1], tight_pod());
    let mut lazy = Client::of_pod(&mut turns, "hog", 1);
    let mut fast = Client::of_pod(&mut turns, "hog", 1);
    for client in [&mut lazy, &mut fast] {
        client.told(&mut turns);
        client.speak(&mut turns);
    }
    turns.engine.kernel_holds(lazy.conn, MIB as u32);
    for second in 1..=4 {
        turns.engine.tick(START_NS + second * SECOND_NS);
        turns.settle();
    }
    assert_eq!(closed(&turns), [(lazy.conn, true)]);
    fast.call(&mut turns);
    assert_eq!(fast.told(&mut turns), []);
    assert_eq!(turns.dials.len(), 1);
}

/// A tunnel of the pod: its client's connection, and its server's.
fn tunnel(turns: &mut Turns) -> (ConnId, ConnId) {
    let client = turns.engine.accepted(Origin::Pod(pod_named("hog", 1)), fixed()).expect("it is known");
    turns.feed(client, b"GET / HTTP/1.1\r\n");
    turns.settle();
    let (server, _) = turns.dials.pop().expect("a tunnel has a server");
    turns.engine.connected(server);
    turns.settle();
    turns.output(server);
    (client, server)
}

#[test]
fn a_tunnel_of_a_pod_that_is_nearly_out_of_memory_is_not_read_while_anything_waits_in_it() {
    let mut turns = Turns::protected(&[1], tight_pod());
    let (client, server) = tunnel(&mut turns);
    turns.feed(server, b"hello");
    assert!(turns.engine.reads(server), "there is memory");
    turns.engine.kernel_holds(client, (MIB - MIB / 16) as u32);
    turns.feed(server, b"hello");
    turns.settle();
    assert!(!turns.engine.reads(server));
    turns.output(client);
    assert!(turns.engine.reads(server), "what was there is gone");
    assert_eq!(turns.resumed, [server]);
}

#[test]
fn a_pod_without_memory_loses_the_tunnels_that_stall_and_gets_no_further_ones() {
    let mut turns = Turns::protected(&[1], tight_pod());
    let (lazy, its_server) = tunnel(&mut turns);
    let (busy, _) = tunnel(&mut turns);
    turns.engine.kernel_holds(busy, MIB as u32);
    turns.settle();
    let refused = turns.engine.accepted(Origin::Pod(pod_named("hog", 1)), fixed()).expect("it is known");
    turns.feed(refused, b"GET / HTTP/1.1\r\n");
    turns.settle();
    assert_eq!(closed(&turns), [(refused, true)]);
    turns.feed(its_server, &[0; 50_000]);
    turns.settle();
    turns.engine.set_time(START_NS + SECOND_NS);
    turns.engine.kernel_holds(busy, (MIB - MIB / 16) as u32);
    turns.settle();
    turns.engine.tick(START_NS + 2 * SECOND_NS);
    turns.settle();
    assert_eq!(closed(&turns)[1..], [(lazy, true), (its_server, true)]);
    assert_eq!(turns.engine.counters().memory_refusals, 2);
}

#[test]
fn a_source_that_has_had_its_share_of_a_turn_waits_for_the_next_and_others_do_not() {
    let mut turns = Turns::new(&[1]);
    let busy: Vec<_> = (0..10).map(|_| tunnel(&mut turns).1).collect();
    let other = Client::of_pod(&mut turns, "other", 2);
    turns.engine.set_time(START_NS);
    let read = busy.iter().take_while(|conn| {
        let reads = !turns.engine.has_had_its_share(**conn);
        if reads {
            turns.feed(**conn, &[0; 60_000]);
            turns.feed(**conn, &[0; 5_536]);
        }
        reads
    });
    assert_eq!(read.count(), 8);
    assert!(!turns.engine.has_had_its_share(other.conn));
    turns.engine.set_time(START_NS);
    assert!(!turns.engine.has_had_its_share(busy[0]), "its next turn");
}

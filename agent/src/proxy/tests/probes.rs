//! Whether servers live, asked as rarely as gRPC servers put up with.

use super::super::ConnId;
use super::rules::{SECOND_NS, advance, begun, got, requests, server_speaks};
use super::turns::{START_NS, Turns, address, list, read, take};
use crate::http2::{Connection, ErrorCode, Event, LastStream};

/// PINGs that the server gets now; it answers them if `answers`.
fn pings(turns: &mut Turns, conn: ConnId, server: &mut Connection, answers: bool) -> u32 {
    let before = server.pings_received();
    requests(turns, conn, server);
    let answer = take(server);
    if answers {
        turns.feed(conn, &answer);
        turns.settle();
    }
    server.pings_received() - before
}

/// A gRPC server's rule, as grpc-go has it: how often it would have complained.
#[derive(Default)]
struct Enforcer {
    last_ns: Option<u64>,
    has_spoken: bool,
    strikes: u32,
    complaints: u32,
}

impl Enforcer {
    fn pings(&mut self, count: u32, now_ns: u64) {
        for _ in 0..count {
            if std::mem::take(&mut self.has_spoken) {
                self.strikes = 0;
            } else if self.last_ns.is_some_and(|last_ns| last_ns + 300 * SECOND_NS > now_ns) {
                self.strikes += 1;
                self.complaints += u32::from(self.strikes > 2);
            }
            self.last_ns = Some(now_ns);
        }
    }
}

#[test]
fn a_clients_pings_reach_a_busy_server_once_a_minute_and_a_quiet_one_once_in_five() {
    let mut turns = Turns::new(&[1, 2]);
    let (busy_conn, mut busy, stream) = begun(&mut turns);
    let (quiet_conn, mut quiet, _) = begun(&mut turns);
    busy.send_headers(stream, &list(&[(":status", "200")]), false);
    let (mut enforcers, mut seen) = ([Enforcer::default(), Enforcer::default()], [0, 0]);
    for tenth in 1..=7_000 {
        let now_ns = START_NS + tenth * SECOND_NS / 10;
        advance(&mut turns, now_ns);
        busy.send_data(stream, b"a", false);
        server_speaks(&mut turns, busy_conn, &mut busy);
        enforcers[0].has_spoken = true;
        turns.client.ping([0; 8]);
        turns.client_speaks();
        got(&mut turns);
        for (which, (conn, server)) in
            [(busy_conn, &mut busy), (quiet_conn, &mut quiet)].into_iter().enumerate()
        {
            let pings = pings(&mut turns, conn, server, true);
            enforcers[which].pings(pings, now_ns);
            seen[which] += pings;
        }
    }
    assert_eq!(seen, [12, 3], "in 700 seconds");
    assert_eq!([enforcers[0].complaints, enforcers[1].strikes], [0, 0]);
    assert_eq!(turns.engine.counters().calls_open, 2);
}

#[test]
fn a_removal_that_follows_a_clients_ping_is_never_one_ping_too_many() {
    // At each moment of a stream whose server speaks now and then, in step with its PINGs or not.
    for (removed_at, speaks_every) in
        [(1, 1_000), (3, 1_000), (12, 7), (70, 1_000), (70, 69), (200, 61), (305, 1_000)]
    {
        let mut turns = Turns::new(&[1]);
        let (conn, mut server, stream) = begun(&mut turns);
        server.send_headers(stream, &list(&[(":status", "200")]), false);
        let mut enforcer = Enforcer::default();
        let mut since_removal = 0;
        for second in 1..=1_500 {
            let now_ns = START_NS + second * SECOND_NS;
            advance(&mut turns, now_ns);
            if second % speaks_every == 0 {
                server.send_data(stream, b"a", false);
                server_speaks(&mut turns, conn, &mut server);
                enforcer.has_spoken = true;
            }
            if second == removed_at {
                turns.publish(&[2]);
            }
            turns.client.ping([0; 8]);
            turns.client_speaks();
            got(&mut turns);
            let pings = pings(&mut turns, conn, &mut server, true);
            enforcer.pings(pings, now_ns);
            since_removal += if (removed_at..removed_at + 7).contains(&second) { pings } else { 0 };
        }
        assert_eq!(enforcer.complaints, 0, "removed after {removed_at} s");
        assert_eq!(since_removal, 2, "at once and once more, {removed_at} s");
    }
}

#[test]
fn a_removed_endpoint_that_answers_at_first_and_hangs_then_is_noticed_in_half_a_minute() {
    let mut turns = Turns::new(&[1]);
    let (conn, mut server, _) = begun(&mut turns);
    turns.publish(&[2]);
    assert_eq!(pings(&mut turns, conn, &mut server, true), 1);
    for second in 1..=30 {
        advance(&mut turns, START_NS + second * SECOND_NS);
    }
    assert_eq!(turns.closed, [(conn, true)]);
    assert_eq!(got(&mut turns).grpc_status, "14");
}

#[test]
fn an_endpoint_that_was_asked_a_while_ago_is_watched_from_its_removal_on() {
    let mut turns = Turns::new(&[1]);
    let (conn, mut server, _) = begun(&mut turns);
    turns.client.ping([0; 8]);
    turns.client_speaks();
    assert_eq!(pings(&mut turns, conn, &mut server, true), 1);
    advance(&mut turns, START_NS + 30 * SECOND_NS);
    turns.publish(&[2]);
    // It answers no more.
    for second in 31..=60 {
        advance(&mut turns, START_NS + second * SECOND_NS);
    }
    assert_eq!(turns.closed, [(conn, true)]);
}

#[test]
fn the_start_of_a_frame_that_came_before_is_no_sign_of_life() {
    let mut turns = Turns::new(&[1]);
    let (conn, _, _) = begun(&mut turns);
    turns.feed(conn, &[0, 0, 8, 6]);
    turns.client.ping([0; 8]);
    turns.client_speaks();
    advance(&mut turns, START_NS + 10 * SECOND_NS);
    // The driver finds nothing to read.
    let mut buffer = vec![0; 20_000];
    let held = turns.engine.restore(conn, &mut buffer);
    assert_eq!(buffer[..held], [0, 0, 8, 6]);
    turns.engine.put_back(conn, &buffer[..held]);
    assert_eq!(turns.engine.restore(conn, &mut buffer), 4);
    turns.engine.put_back(conn, &buffer[..held]);
    advance(&mut turns, START_NS + 21 * SECOND_NS);
    assert_eq!(turns.closed, [(conn, true)]);
}

#[test]
fn only_the_answer_to_its_own_question_counts() {
    let mut turns = Turns::new(&[1]);
    let (conn, _, _) = begun(&mut turns);
    // Nobody asked.
    turns.feed(conn, &[0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    turns.engine.drain(START_NS + 20 * SECOND_NS);
    advance(&mut turns, START_NS + 6 * SECOND_NS);
    got(&mut turns);
    turns.feed(turns.client_conn, &[0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    turns.settle();
    let goaways = |turns: &mut Turns| {
        let mut goaways = 0;
        let bytes = turns.output(turns.client_conn);
        read(&mut turns.client, &bytes, |event, _| {
            goaways += u32::from(matches!(event, Event::GoAway { .. }));
        });
        goaways
    };
    assert_eq!(goaways(&mut turns), 0, "the second GOAWAY waits for the client to have seen the first");
    turns.client_speaks();
    assert_eq!(goaways(&mut turns), 1);
}

#[test]
fn a_server_that_does_not_answer_a_ping_loses_its_calls_and_its_connection() {
    let mut turns = Turns::new(&[1]);
    let (conn, mut server, _) = begun(&mut turns);
    turns.client.ping([0; 8]);
    turns.client_speaks();
    assert_eq!(pings(&mut turns, conn, &mut server, false), 1);
    advance(&mut turns, START_NS + 19 * SECOND_NS);
    assert_eq!(turns.engine.counters().calls_open, 1);
    advance(&mut turns, START_NS + 21 * SECOND_NS);
    let got = got(&mut turns);
    assert_eq!(got.grpc_status, "14");
    assert!(got.message.contains("the connection to 10.0.0.1:50051 was lost"), "{}", got.message);
    assert_eq!((turns.closed.clone(), turns.engine.counters().silent_servers), (vec![(conn, true)], 1));
}

#[test]
fn a_removed_endpoints_streams_end_in_their_own_time_unless_it_is_silent() {
    for answers in [true, false] {
        let mut turns = Turns::new(&[1]);
        let (conn, mut server, stream) = begun(&mut turns);
        turns.publish(&[2]);
        let mut seen = 0;
        for second in 1..=700 {
            advance(&mut turns, START_NS + second * SECOND_NS);
            if !turns.closed.is_empty() {
                break;
            }
            seen += pings(&mut turns, conn, &mut server, answers);
        }
        if answers {
            assert_eq!(seen, 4, "now, a moment later, and every five minutes");
            server.send_headers(stream, &list(&[(":status", "200"), ("grpc-status", "0")]), true);
            server_speaks(&mut turns, conn, &mut server);
            assert_eq!(got(&mut turns).grpc_status, "0");
        } else {
            assert_eq!((seen, &got(&mut turns).grpc_status[..]), (1, "14"));
        }
    }
}

#[test]
fn an_endpoint_that_is_there_and_gets_no_more_calls_is_not_asked() {
    let mut turns = Turns::new(&[1]);
    turns.publish_one_near(&[1, 2]);
    turns.call("/a");
    turns.client_speaks();
    let (near, to) = turns.dials.pop().expect("a connection is wanted");
    assert_eq!(to, address(1));
    turns.engine.connect_failed(near);
    turns.settle();
    let (far, mut server) = turns.serve();
    let stream = requests(&mut turns, far, &mut server)[0];
    // The near one takes connections again, and calls stay there.
    for second in 1..=12 {
        advance(&mut turns, START_NS + second * SECOND_NS);
        assert_eq!(pings(&mut turns, far, &mut server, true), 0);
    }
    turns.call("/b");
    turns.client_speaks();
    assert_eq!(turns.dials[0].1, address(1));
    server.send_headers(stream, &list(&[(":status", "200"), ("grpc-status", "0")]), true);
    server_speaks(&mut turns, far, &mut server);
    assert_eq!(got(&mut turns).grpc_status, "0");
    assert!(!turns.output(far).is_empty(), "its connection goes with its last call");
}

#[test]
fn too_many_pings_halve_their_rate() {
    let mut turns = Turns::new(&[1]);
    let ping = |turns: &mut Turns, second: u64| {
        advance(turns, START_NS + second * SECOND_NS);
        turns.client.ping([0; 8]);
        turns.client_speaks();
    };
    let (conn, mut server, _) = begun(&mut turns);
    ping(&mut turns, 1);
    assert_eq!(pings(&mut turns, conn, &mut server, true), 1);
    server.go_away(ErrorCode::EnhanceYourCalm, LastStream::Seen);
    server_speaks(&mut turns, conn, &mut server);
    let (conn, mut server, stream) = begun(&mut turns);
    ping(&mut turns, 2);
    assert_eq!(pings(&mut turns, conn, &mut server, true), 1);
    server.send_headers(stream, &list(&[(":status", "200")]), false);
    server_speaks(&mut turns, conn, &mut server);
    for (second, expected) in [(30, 0), (90, 0), (121, 0), (123, 1)] {
        ping(&mut turns, second);
        assert_eq!(pings(&mut turns, conn, &mut server, true), expected, "after {second} seconds");
    }
}

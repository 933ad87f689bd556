//! What the end of a call says about its endpoint, as real clients end calls.

use super::rules::{SECOND_NS, advance, request, requests, server_speaks};
use super::turns::{START_NS, Turns, address};
use crate::balance::ejection::CONSECUTIVE_FAILURES;
use crate::balance::latency::FAILURE_FLOOR_NS;
use crate::http2::ErrorCode;
use crate::mesh::Picker;
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn a_call_that_its_client_cancels_at_its_deadline_counts_against_a_server_that_has_said_nothing() {
    // gRPC clients reset a call when its deadline passes: a moment before the agent would, or half a second before.
    for (timeout_s, eject) in [(1, 1), (2, 0)] {
        let mut turns = Turns::new(&[1, 2]);
        let mut now_ns = START_NS;
        for _ in 0..2 * CONSECUTIVE_FAILURES {
            let mut fields = request("application/grpc", 0);
            fields.push(b"grpc-timeout", format!("{timeout_s}S").as_bytes());
            let stream = turns.client.open(&fields, true, 0).expect("there is room");
            turns.client_speaks();
            while !turns.dials.is_empty() {
                turns.serve();
            }
            now_ns += SECOND_NS;
            turns.engine.set_time(now_ns);
            turns.client.reset(stream, ErrorCode::Cancel);
            turns.client.release(stream);
            turns.client_speaks();
        }
        let counters = turns.engine.counters();
        assert_eq!((counters.cancelled, counters.deadlines), (u64::from(2 * CONSECUTIVE_FAILURES), 0));
        assert_eq!(counters.ejections, eject, "one of the two");
        let failed = turns.endpoints.iter().map(|endpoint| endpoint.load.failures.load(Relaxed)).sum::<u64>();
        assert_eq!(failed, if eject > 0 { 10 } else { 0 });
    }
}

#[test]
fn connections_that_nobody_waits_for_any_more_count_when_they_cannot_be_opened() {
    let mut turns = Turns::new(&[1, 2]);
    // It takes longer than a client may leave SETTINGS without an answer.
    turns.answers();
    turns.client_speaks();
    let mut now_ns = START_NS;
    let mut refused = 0;
    while turns.engine.counters().ejections == 0 {
        assert!(refused < CONSECUTIVE_FAILURES, "it is not ejected");
        let stream = turns.call("/a");
        turns.client_speaks();
        if let Some(position) = turns.dials.iter().position(|(_, to)| *to == address(1)) {
            let (conn, _) = turns.dials.remove(position);
            turns.client.reset(stream, ErrorCode::Cancel);
            turns.client.release(stream);
            turns.client_speaks();
            // The host is gone: nobody ever answers.
            now_ns += 4 * SECOND_NS;
            turns.engine.set_time(now_ns);
            turns.engine.connect_failed(conn);
            turns.settle();
            refused += 1;
        } else if !turns.dials.is_empty() {
            turns.serve();
        }
        now_ns += 6 * SECOND_NS;
        advance(&mut turns, now_ns);
    }
    assert_eq!(refused, CONSECUTIVE_FAILURES);
}

#[test]
fn a_server_that_refuses_streams_does_not_look_idle() {
    let mut turns = Turns::new(&[1, 2]);
    turns.publish_as(&[1, 2], Picker::Ewma.into());
    turns.call("/a");
    turns.client_speaks();
    let (_, first) = turns.dials[0];
    let (conn, mut server) = turns.serve();
    let stream = requests(&mut turns, conn, &mut server)[0];
    server.reset(stream, ErrorCode::RefusedStream);
    server_speaks(&mut turns, conn, &mut server);
    let refusing = turns.endpoints.iter().find(|endpoint| endpoint.address == first).expect("one of both");
    assert_eq!(refusing.load.latency_ewma_ns.load(Relaxed), FAILURE_FLOOR_NS);
    assert_eq!(turns.engine.counters().ejections, 0);
    let (_, second) = turns.dials[0];
    assert_ne!(first, second, "the other one has it now");
}

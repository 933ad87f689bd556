//! A thousand clients of one pod that do not read, in every way, beside fast ones of the same pod and of another.

use super::super::{ConnId, Origin};
use super::turns::{START_NS, Turns, list, read, take};
use super::{fixed, pod_named};
use crate::http2::{Connection, Event, HeadersKind, Limits, Name, StreamKey};
use crate::mesh::Protection;
use std::collections::BTreeMap;

const SECOND_NS: u64 = 1_000_000_000;
const LAZY_CLIENTS: usize = 1_000;
/// A hundred of them would fill it if nothing kept them from it.
const POD_MEMORY_BYTES: u64 = 32 << 20;
/// What is read in a turn is charged at its end.
const TURN_BYTES: u64 = 256 << 10;
const LARGE_ANSWER_BYTES: usize = 300_000;
const SMALL_ANSWER_BYTES: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Fast,
    /// Reads, and gives no window.
    NoWindow,
    /// Gives a window of a byte a second.
    Drips,
    /// Gives all the window there is, and leaves it all in its socket.
    DoesNotRead,
    /// Takes its window back every second, and gives it again.
    Flips,
}

struct Client {
    conn: ConnId,
    http2: Connection,
    habit: Habit,
    open: Option<StreamKey>,
    answers: u32,
    failures: Vec<String>,
}

impl Client {
    fn connect(turns: &mut Turns, origin: Origin, habit: Habit) -> Self {
        let conn = turns.engine.accepted(origin, fixed()).expect("the destination is known");
        let stream_window = if habit == Habit::DoesNotRead { 4 << 20 } else { 65_535 };
        let http2 = Connection::client(&Limits { stream_window, ..Limits::default() });
        let mut client = Self { conn, http2, habit, open: None, answers: 0, failures: Vec::new() };
        // Each acknowledges what the engine has to say first.
        client.speak(turns);
        let greeting = turns.output(conn);
        read(&mut client.http2, &greeting, |_, _| ());
        client.speak(turns);
        client
    }

    fn speak(&mut self, turns: &mut Turns) {
        let bytes = take(&mut self.http2);
        turns.feed(self.conn, &bytes);
        turns.settle();
    }

    fn act(&mut self, turns: &mut Turns, second: u64) {
        if turns.closed.iter().any(|(conn, _)| *conn == self.conn) {
            return;
        }
        if self.open.is_none() && (self.habit == Habit::Fast || second == 1) {
            let path = if self.habit == Habit::Fast { "/small" } else { "/large" };
            let fields = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                ("content-type", "application/grpc"),
            ];
            self.open = self.http2.open(&list(&fields), true, 0).ok();
        }
        let mut bytes = take(&mut self.http2);
        match self.habit {
            Habit::Drips => {
                bytes.extend([0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
            }
            Habit::Flips => {
                let window: u32 = if second.is_multiple_of(2) { 65_535 } else { 0 };
                bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4]);
                bytes.extend(window.to_be_bytes());
            }
            Habit::Fast | Habit::NoWindow | Habit::DoesNotRead => {}
        }
        turns.feed(self.conn, &bytes);
        turns.settle();
    }

    fn read(&mut self, turns: &mut Turns) {
        if self.habit == Habit::DoesNotRead || turns.closed.iter().any(|(conn, _)| *conn == self.conn) {
            return;
        }
        let bytes = turns.output(self.conn);
        let (mut ended, mut credit) = (false, 0);
        let (answers, failures) = (&mut self.answers, &mut self.failures);
        read(&mut self.http2, &bytes, |event, fields| match event {
            Event::Headers { end_stream, .. } => {
                if let Some(status) = fields.find(Name::GrpcStatus) {
                    match status {
                        b"0" => *answers += 1,
                        _ => failures.push(String::from_utf8_lossy(status).into_owned()),
                    }
                }
                ended |= end_stream;
            }
            Event::Data { payload, .. } => credit += payload.len() as u32,
            Event::Reset { code, .. } => {
                failures.push(format!("{code:?}"));
                ended = true;
            }
            _ => {}
        });
        if let Some(stream) = self.open {
            if self.habit == Habit::Fast && credit > 0 {
                self.http2.grant(stream, credit);
            }
            if ended {
                self.http2.release(stream);
                self.open = None;
            }
        }
    }
}

/// The next turn of the worker: what was to be written before it has been, or has not.
fn next_turn(turns: &mut Turns) {
    turns.engine.tick(turns.engine.now_ns + 10_000);
}

#[derive(Default)]
struct Servers(BTreeMap<ConnId, Connection>);

impl Servers {
    /// Everything that can be said between the engine and the servers is said.
    fn act(&mut self, turns: &mut Turns) {
        while let Some((conn, _)) = turns.dials.pop() {
            turns.engine.connected(conn);
            self.0.insert(conn, Connection::server(&Limits::default()));
        }
        self.0.retain(|conn, _| !turns.closed.iter().any(|(closed, _)| closed == conn));
        for (conn, server) in &mut self.0 {
            loop {
                let said = turns.output(*conn);
                let mut begun = Vec::new();
                read(server, &said, |event, fields| {
                    if let Event::Headers { stream, kind: HeadersKind::Request, .. } = event {
                        begun.push((stream, fields.find(Name::Path) == Some(b"/large")));
                    }
                });
                for (stream, is_large) in begun {
                    server.send_headers(stream, &list(&[(":status", "200")]), false);
                    let size = if is_large { LARGE_ANSWER_BYTES } else { SMALL_ANSWER_BYTES };
                    server.send_data(stream, &vec![0; size], false);
                    server.send_trailers(stream, &list(&[("grpc-status", "0")]));
                }
                if server.wants_advance() {
                    server.advance(&mut Vec::new());
                }
                next_turn(turns);
                let answer = take(server);
                if answer.is_empty() {
                    break;
                }
                turns.feed(*conn, &answer);
                turns.settle();
            }
        }
    }
}

fn held(turns: &Turns) -> Vec<u64> {
    let found = turns.engine.walk();
    let charged = turns.engine.budgets.held();
    let check = |(budget, held): (u32, u64)| {
        assert_eq!(held, found.get(&budget).copied().unwrap_or(0), "charged, and found");
        held
    };
    charged.map(check).collect()
}

#[test]
fn a_thousand_clients_that_do_not_read_cost_no_more_than_their_pods_memory_and_other_pods_no_call() {
    let protection = Protection { pod_memory: POD_MEMORY_BYTES, ..Protection::default() };
    let mut turns = Turns::protected(&[1, 2], protection);
    let mut servers = Servers::default();
    let habits = [Habit::NoWindow, Habit::Drips, Habit::DoesNotRead, Habit::Flips];
    let (hog, other) = (pod_named("hog", 1), pod_named("other", 2));
    let mut lazy: Vec<_> = (0..LAZY_CLIENTS)
        .map(|number| Client::connect(&mut turns, Origin::Pod(hog.clone()), habits[number % habits.len()]))
        .collect();
    let mut fast: Vec<_> = [&hog, &other, &hog, &other]
        .into_iter()
        .map(|pod| Client::connect(&mut turns, Origin::Pod(pod.clone()), Habit::Fast))
        .collect();
    let mut most = 0;
    for second in 1..=60 {
        turns.engine.tick(START_NS + second * SECOND_NS);
        turns.settle();
        for client in lazy.iter_mut().chain(&mut fast) {
            client.act(&mut turns, second);
        }
        servers.act(&mut turns);
        for client in lazy.iter_mut().chain(&mut fast) {
            client.read(&mut turns);
        }
        servers.act(&mut turns);
        for client in &mut fast {
            client.read(&mut turns);
        }
        most = most.max(held(&turns).into_iter().max().unwrap_or(0));
    }
    assert!(most > POD_MEMORY_BYTES / 2, "{most} bytes are no crowd");
    assert!(most <= POD_MEMORY_BYTES + TURN_BYTES, "{most} bytes are more than the pod may hold");
    // One a second, also of the pod whose memory the others would use up.
    for client in &fast {
        assert_eq!((client.answers, &client.failures[..]), (60, &[][..]));
    }
    // So many who stalled are gone that memory is tight no more: the others may take their time.
    let counters = turns.engine.counters();
    assert!(counters.stalled_clients > 0 && counters.memory_refusals > 0, "{counters:?}");
    let left = held(&turns);
    assert!(left.iter().all(|held| *held < POD_MEMORY_BYTES / 2), "{left:?} bytes are left");
}

//! Trace contexts and spans, on the engine alone. The simulator has them in every world's half.

use super::super::ConnId;
use super::super::shared_use::Ledger;
use super::rules::{advance, server_speaks};
use super::turns::{START_NS, Turns, address, list, read};
use crate::http2::{Connection, ErrorCode, Event, FieldList, HeadersKind, Limits, StreamKey};
use crate::mesh::{Balancing, Picker, Protection};
use crate::telemetry::{Audience, CallStats, Flag, Inlet, Retry, RetryCause, Span, TapFilter, Tracer};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

const MS: u64 = 1_000_000;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

fn sampled() -> String {
    format!("00-{TRACE}-{PARENT:016x}-01")
}

/// The engine with a tracer, and the spans that come out of it.
struct Scene {
    turns: Turns,
    spans: Inlet<Span>,
}

impl Scene {
    fn new(hosts: &[u8], start: &str) -> Self {
        let mut turns = Turns::beside(hosts, Protection::default(), Ledger::default());
        let (tracer, spans) = Tracer::new("1".parse().expect("a ratio"), start.parse().expect("a ratio"));
        turns.engine.tracer = Some(Arc::new(tracer));
        Self { turns, spans }
    }

    fn spans(&mut self) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(1..) = self.spans.poll_next(&mut context, &mut spans, 100) {}
        spans
    }
}

const HEAD: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/shop.Cart/Add"),
    ("content-type", "application/grpc"),
];

fn call(turns: &mut Turns, more: &[(&str, &str)]) {
    turns.client.open(&list(&[&HEAD[..], more].concat()), true, 0).expect("there is room");
    turns.client_speaks();
}

/// The requests that came to a server: each stream, and what it said beyond the first four fields.
fn requests(server: &mut Connection, bytes: &[u8]) -> Vec<(StreamKey, Vec<(String, String)>)> {
    let mut requests = Vec::new();
    read(server, bytes, |event, fields| {
        if let Event::Headers { stream, kind: HeadersKind::Request, .. } = event {
            requests.push((stream, texts(fields).split_off(4)));
        }
    });
    requests
}

fn texts(fields: &FieldList) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|field| (text(field.name), text(field.value))).collect()
}

fn request(turns: &mut Turns, conn: ConnId, server: &mut Connection) -> (StreamKey, Vec<(String, String)>) {
    let bytes = turns.output(conn);
    let mut all = requests(server, &bytes);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn answer(turns: &mut Turns, conn: ConnId, server: &mut Connection, stream: StreamKey, status: &str) {
    let fields = list(&[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", status)]);
    server.send_headers(stream, &fields, true);
    server_speaks(turns, conn, server);
    turns.answers();
}

#[test]
fn of_a_call_that_is_not_traced_not_a_byte_changes() {
    let unsampled = format!("00-{TRACE}-{PARENT:016x}-00");
    let strange = format!("00-{}-{PARENT:016x}-01", TRACE.to_uppercase());
    let (twice, deferred) = (sampled(), format!("{TRACE}-{PARENT:016x}"));
    let contexts: [&[(&str, &str)]; 8] = [
        &[("traceparent", &unsampled), ("tracestate", "a=1"), ("x", "y")],
        &[("tracestate", "a=1"), ("traceparent", &strange)],
        &[("traceparent", &twice), ("x", "y"), ("traceparent", &twice)],
        &[("b3", "0")],
        &[("b3", "1")],
        &[("b3", &deferred)],
        &[("x-b3-traceid", TRACE), ("x-b3-spanid", "0000000000000000"), ("x-b3-sampled", "1")],
        &[],
    ];
    let bytes = |mut turns: Turns| {
        let mut all = Vec::new();
        for context in contexts {
            call(&mut turns, context);
        }
        let (conn, _) = turns.serve();
        all.extend(turns.output(conn));
        (all, turns)
    };
    let Scene { turns, mut spans } = Scene::new(&[1], "0");
    let (with, turns) = bytes(turns);
    let (without, _) = bytes(Turns::new(&[1]));
    assert!(with == without, "what goes to the server is another");
    drop(turns);
    let mut none = Vec::new();
    let polled = spans.poll_next(&mut Context::from_waker(Waker::noop()), &mut none, 1);
    assert!(matches!(polled, Poll::Ready(0)) && none.is_empty(), "{none:?}");
}

#[test]
fn without_a_tracer_a_sampled_context_goes_on_as_it_came() {
    let mut turns = Turns::new(&[1]);
    call(&mut turns, &[("traceparent", &sampled())]);
    let (conn, mut server) = turns.serve();
    let (_, fields) = request(&mut turns, conn, &mut server);
    assert_eq!(fields, [("traceparent".to_owned(), sampled())]);
}

#[test]
fn a_sampled_call_has_one_span_between_its_clients_and_its_servers() {
    let mut scene = Scene::new(&[1], "0");
    let b3 = format!("{TRACE}-{PARENT:016x}-1");
    call(
        &mut scene.turns,
        &[("a", "1"), ("traceparent", &sampled()), ("tracestate", "k=v"), ("b3", &b3), ("tracestate", "l=w")],
    );
    let (conn, mut server) = scene.turns.serve();
    let (stream, fields) = request(&mut scene.turns, conn, &mut server);
    advance(&mut scene.turns, START_NS + 30 * MS);
    assert!(scene.spans().is_empty(), "it is not over");
    answer(&mut scene.turns, conn, &mut server, stream, "5");
    let spans = scene.spans();
    let [span] = &spans[..] else { panic!("{spans:?}") };
    let own = format!("{:016x}", span.trace.span_id);
    let expected = [
        ("a", "1".to_owned()),
        ("traceparent", format!("00-{TRACE}-{own}-01")),
        ("tracestate", "k=v".to_owned()),
        ("b3", format!("{TRACE}-{own}-1-{PARENT:016x}")),
        ("tracestate", "l=w".to_owned()),
    ];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!(format!("{:032x}", span.trace.trace_id), TRACE);
    assert_eq!(span.trace.parent_id.map(Into::into), Some(PARENT));
    assert_eq!((&*span.trace_state, &*span.method), ("k=v,l=w", "shop.Cart/Add"));
    let CallStats { status, attempts, .. } = span.stats;
    assert_eq!((status.grpc, status.flag, attempts), (Some(5), Flag::None, 1));
    assert_eq!(span.endpoint.as_ref().map(|endpoint| endpoint.address), Some(address(1)));
    assert_eq!(span.link.service_port.to_string(), "shop/cart:50051");
    assert_eq!(span.stats.duration_ns(), 30 * MS);
    assert!(span.trace.retries().is_empty());
}

#[test]
fn of_a_call_whose_large_headers_were_let_go_record_and_span_are_complete() {
    let mut scene = Scene::new(&[1], "0");
    let audience = Arc::new(Audience::default());
    let mut all = audience.tap(TapFilter::default(), true).expect("there is room");
    let filter = TapFilter { method: Some("a".parse().expect("a method")), ..TapFilter::default() };
    let mut of_path = audience.tap(filter, false).expect("there is room");
    scene.turns.engine.audience = audience;
    let large = "x".repeat(8 << 10);
    let long_query = format!("/a?token={large}");
    let traceparent = sampled();
    let more = [("x-large", &*large), ("traceparent", &*traceparent), ("tracestate", "k=v")];
    let grpc = [("POST", "/shop.Cart/Add"), ("content-type", "application/grpc")];
    let http = [("GET", &*long_query), ("accept", "text/html")];
    let mut connection = None;
    for [(method, path), field] in [grpc, http] {
        let head = [(":method", method), (":scheme", "http"), (":path", path), field];
        scene.turns.client.open(&list(&[&head[..], &more].concat()), true, 0).expect("there is room");
        scene.turns.client_speaks();
        let (conn, server) = connection.get_or_insert_with(|| scene.turns.serve());
        let (stream, _) = request(&mut scene.turns, *conn, server);
        answer(&mut scene.turns, *conn, server, stream, "0");
    }
    let mut context = Context::from_waker(Waker::noop());
    let (mut records, mut of_a) = (Vec::new(), Vec::new());
    assert!(matches!(all.poll_next(&mut context, &mut records, 8), Poll::Ready(2)), "{records:?}");
    assert!(matches!(of_path.poll_next(&mut context, &mut of_a, 8), Poll::Ready(1)), "{of_a:?}");
    let spans = scene.spans();
    assert_eq!(records[0].method.as_deref(), Some("shop.Cart/Add"));
    assert_eq!((records[1].http_method.as_deref(), records[1].path.as_deref()), (Some("GET"), Some("/a")));
    assert_eq!(of_a[0].path, records[1].path);
    assert_eq!((&*spans[0].method, &*spans[1].http_method), ("shop.Cart/Add", "GET"));
    for (record, span) in records.iter().zip(&spans) {
        assert_eq!(record.trace_id.as_deref(), Some(TRACE));
        assert_eq!(&*span.trace_state, "k=v");
        let headers = record.headers.as_ref().expect("they were asked for");
        assert!(record.headers_cut && headers.iter().all(|(name, _)| name != "x-large"), "{headers:?}");
    }
}

#[test]
fn a_tracestate_whose_traceparent_is_none_is_not_told() {
    let b3 = format!("{TRACE}-{PARENT:016x}-1");
    let traceparent = sampled();
    for (traceparent, expected) in [("00-nonsense", ""), (&*traceparent, "k=v")] {
        let mut scene = Scene::new(&[1], "0");
        call(&mut scene.turns, &[("traceparent", traceparent), ("tracestate", "k=v"), ("b3", &b3)]);
        let (conn, mut server) = scene.turns.serve();
        let (stream, _) = request(&mut scene.turns, conn, &mut server);
        answer(&mut scene.turns, conn, &mut server, stream, "0");
        let spans = scene.spans();
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!(&*span.trace_state, expected, "{traceparent}");
    }
}

#[test]
fn a_request_that_only_a_span_makes_too_large_goes_without_one() {
    let b3 = format!("{TRACE}-{PARENT:016x}-1");
    for came in [&[("b3", &*b3)][..], &[("x", "y")]] {
        let size = list(&[&HEAD[..], came].concat()).size();
        let mut sent = Vec::new();
        for limit in [size, size + 1_000] {
            let mut scene = Scene::new(&[1], "1");
            call(&mut scene.turns, came);
            let (conn, _) = scene.turns.dials.pop().expect("a connection is wanted");
            scene.turns.engine.connected(conn);
            let limits = Limits { max_header_list: limit as u32, ..Limits::default() };
            let mut server = Connection::server(&limits);
            server_speaks(&mut scene.turns, conn, &mut server);
            let (stream, fields) = request(&mut scene.turns, conn, &mut server);
            answer(&mut scene.turns, conn, &mut server, stream, "0");
            sent.push((fields, scene.spans().len()));
        }
        let [(without, 0), (with, 1)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(*without, came.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect::<Vec<_>>());
        assert_ne!(without, with);
    }
}

#[test]
fn however_often_a_call_is_sent_it_has_one_span_that_tells_of_each_attempt() {
    let mut scene = Scene::new(&[1, 2, 3], "0");
    let retry = Some("attempts=3 on=unavailable backoff=100ms..1s budget=20%".parse().expect("a policy"));
    scene.turns.publish_as(&[1, 2, 3], Balancing { retry, ..Picker::RoundRobin.into() });
    call(&mut scene.turns, &[("traceparent", &sampled())]);
    let (refusing, first) = scene.turns.dials.pop().expect("a connection is wanted");
    scene.turns.engine.connect_failed(refusing);
    scene.turns.settle();
    let second = scene.turns.dials.last().expect("another is").1;
    let (conn, mut server) = scene.turns.serve();
    let (stream, at_first) = request(&mut scene.turns, conn, &mut server);
    server.reset(stream, ErrorCode::RefusedStream);
    server_speaks(&mut scene.turns, conn, &mut server);
    let third = scene.turns.dials.last().expect("another is").1;
    let (conn, mut server) = scene.turns.serve();
    let (stream, at_second) = request(&mut scene.turns, conn, &mut server);
    answer(&mut scene.turns, conn, &mut server, stream, "14");
    assert!(scene.spans().is_empty(), "it is sent again");
    advance(&mut scene.turns, START_NS + 300 * MS);
    // To wherever the agent sends it now, over a connection that is there or another.
    let last = match scene.turns.dials.is_empty() {
        true => None,
        false => Some(scene.turns.serve()),
    };
    let (conn, mut server) = last.unwrap_or((conn, server));
    let (stream, at_third) = request(&mut scene.turns, conn, &mut server);
    answer(&mut scene.turns, conn, &mut server, stream, "0");
    let spans = scene.spans();
    let [span] = &spans[..] else { panic!("{spans:?}") };
    let parent = ("traceparent".to_owned(), format!("00-{TRACE}-{:016x}-01", span.trace.span_id));
    for seen in [at_first, at_second, at_third] {
        assert_eq!(seen[0], parent);
    }
    let causes = [
        (first, RetryCause::ConnectionRefused),
        (second, RetryCause::StreamRefused),
        (third, RetryCause::Status(14)),
    ];
    let told: Vec<_> =
        span.trace.retries().iter().map(|Retry { endpoint, cause, .. }| (*endpoint, *cause)).collect();
    assert_eq!(told, causes);
    assert_eq!((span.stats.attempts, span.stats.status.grpc), (4, Some(0)));
}

#[test]
fn a_call_that_never_came_to_a_server_has_its_span_too() {
    let mut scene = Scene::new(&[1], "0");
    call(&mut scene.turns, &[("traceparent", &sampled())]);
    let (conn, _) = scene.turns.dials.pop().expect("a connection is wanted");
    scene.turns.engine.connect_failed(conn);
    scene.turns.settle();
    assert_eq!(scene.turns.answers(), ["14"]);
    let spans = scene.spans();
    let [span] = &spans[..] else { panic!("{spans:?}") };
    let CallStats { status, first_sent_ns, .. } = span.stats;
    assert_eq!((status.flag, status.grpc, first_sent_ns), (Flag::Refused, Some(14), None));
}

#[test]
fn where_it_is_asked_for_a_call_without_a_context_starts_a_trace() {
    let mut scene = Scene::new(&[1], "1");
    call(&mut scene.turns, &[("x", "y")]);
    call(&mut scene.turns, &[("b3", "0")]);
    let (conn, mut server) = scene.turns.serve();
    let bytes = scene.turns.output(conn);
    let mut all = requests(&mut server, &bytes);
    let (denied, fields) = all.pop().expect("two");
    assert_eq!(fields, [("b3".to_owned(), "0".to_owned())]);
    let (stream, fields) = all.pop().expect("two");
    answer(&mut scene.turns, conn, &mut server, denied, "0");
    answer(&mut scene.turns, conn, &mut server, stream, "0");
    let spans = scene.spans();
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(span.trace.parent_id, None);
    let started = format!("00-{:032x}-{:016x}-01", span.trace.trace_id, span.trace.span_id);
    assert_eq!(fields, [("x".to_owned(), "y".to_owned()), ("traceparent".to_owned(), started)]);
}

//! Checks of real servers on the loopback.

use super::*;
use bytes::Bytes;
use http::{HeaderMap, Response};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use tokio::net::TcpListener;

/// What the server says: a `grpc-status`, and with OK a serving status. `None`: nothing, ever.
type Says = Arc<Mutex<Option<(&'static str, u8)>>>;

struct Server {
    endpoint: Arc<Endpoint>,
    says: Says,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start(says: Option<(&'static str, u8)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Arc::new(Endpoint::at(listener.local_addr().unwrap()));
        let says: Says = Arc::new(Mutex::new(says));
        let asked = Arc::<AtomicUsize>::default();
        let server = Self { endpoint, says: says.clone(), asked: asked.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (says, asked) = (says.clone(), asked.clone());
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                        asked.fetch_add(1, Relaxed);
                        let Some((status, serving)) = *says.lock().unwrap() else {
                            std::future::pending::<()>().await;
                            return;
                        };
                        let head = Response::builder().header("content-type", "application/grpc");
                        if status != "0" {
                            let head = head.header("grpc-status", status).body(()).unwrap();
                            respond.send_response(head, true).unwrap();
                            continue;
                        }
                        let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        body.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, serving]), false).unwrap();
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        body.send_trailers(trailers).unwrap();
                    }
                });
            }
        });
        server
    }

    fn is_unhealthy(&self) -> bool {
        self.endpoint.load.left_out.is_unhealthy(monotonic_ns())
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "waited in vain until {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn checks(servers: &[&Server]) -> HealthChecks {
    // Long enough for a bad answer to hold from one check to the next, on a slow machine too.
    let mut checks = HealthChecks::new(Duration::from_millis(50));
    checks.follow(wanted(servers));
    checks
}

fn wanted(servers: &[&Server]) -> Wanted {
    servers.iter().map(|server| (server.endpoint.clone(), "cart".into())).collect()
}

#[test]
fn what_a_server_says_of_itself_decides_and_is_asked_again() {
    run(async {
        let good = Server::start(Some(("0", 1))).await;
        let bad = Server::start(Some(("0", 2))).await;
        let without = Server::start(Some(("12", 0))).await;
        for server in [&good, &bad, &without] {
            server.endpoint.load.calls.store(1, Relaxed);
        }
        let _checks = checks(&[&good, &bad, &without]);
        let is_out = || bad.endpoint.load.left_out.until_for(7, monotonic_ns()) > monotonic_ns();
        eventually("the one that does not serve is out, for whatever source", is_out).await;
        eventually("the others were asked", || good.asked() > 0 && without.asked() > 0).await;
        assert!(!good.is_unhealthy() && !without.is_unhealthy());
        // Nobody calls it while it is out, and it is asked all the same.
        *bad.says.lock().unwrap() = Some(("0", 1));
        eventually("it is back", || !bad.is_unhealthy()).await;
    });
}

/// A server that does with its one request what it likes, and says how that went.
async fn odd_server<T: Send + 'static>(
    act: impl FnOnce(h2::server::SendResponse<Bytes>) -> T + Send + 'static,
) -> (SocketAddr, tokio::sync::oneshot::Receiver<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, respond) = connection.accept().await.unwrap().unwrap();
        let _ = tell.send(act(respond));
        while connection.accept().await.is_some() {}
    });
    (address, told)
}

#[test]
fn a_server_that_is_asked_can_neither_push_nor_fill_memory_with_its_headers() {
    run(async {
        let (address, _told) = odd_server(|mut respond| {
            let mut head = Response::builder().header("grpc-status", "14");
            for number in 0..64 {
                head = head.header(format!("x-{number}"), "v".repeat(16 << 10));
            }
            respond.send_response(head.body(()).unwrap(), true).unwrap();
        })
        .await;
        let answer = check(address, "").await;
        assert!(matches!(answer, Answer::None(_)), "a list of a megabyte is taken: {answer:?}");
        let (address, told) = odd_server(|mut respond| {
            let pushed = http::Request::get("http://server/pushed").body(()).unwrap();
            let could_push = respond.push_request(pushed).is_ok();
            let head = Response::builder().header("grpc-status", "14").body(()).unwrap();
            respond.send_response(head, true).unwrap();
            could_push
        })
        .await;
        assert_eq!(check(address, "").await, Answer::NotServing("grpc-status 14".into()));
        assert!(!told.await.unwrap(), "it may push");
    });
}

#[test]
fn endpoints_with_close_addresses_are_asked_at_different_times() {
    let mut times: Vec<f64> =
        (1..=100).map(|host| share_of_period(SocketAddr::from(([10, 0, 0, host], 50051)))).collect();
    times.sort_by(f64::total_cmp);
    let largest_gap = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!(times[0] < 0.1 && times[99] > 0.9 && largest_gap < 0.1, "{times:?}");
}

#[test]
fn who_says_nothing_or_is_not_there_is_left_to_the_calls_themselves() {
    run(async {
        let silent = Server::start(None).await;
        silent.endpoint.load.calls.store(1, Relaxed);
        let gone: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert!(matches!(check(gone, "").await, Answer::None(_)));
        assert!(matches!(check(silent.endpoint.address, "").await, Answer::None(_)));
        assert!(!silent.is_unhealthy());
    });
}

#[test]
fn who_is_not_called_or_not_wanted_any_more_is_not_asked() {
    run(async {
        let [called, idle] = [Server::start(Some(("0", 1))).await, Server::start(Some(("0", 1))).await];
        called.endpoint.load.calls.store(1, Relaxed);
        let mut checks = checks(&[&called, &idle]);
        eventually("it is asked", || called.asked() == 1).await;
        called.endpoint.load.calls.store(2, Relaxed);
        eventually("it is asked again", || called.asked() == 2).await;
        assert_eq!(idle.asked(), 0);
        checks.follow(wanted(&[&idle]));
        called.endpoint.load.calls.store(3, Relaxed);
        idle.endpoint.load.calls.store(1, Relaxed);
        eventually("the other is asked", || idle.asked() == 1).await;
        assert_eq!((checks.tasks.len(), called.asked()), (1, 2));
    });
}

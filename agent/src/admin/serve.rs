//! Answers HTTP/1.1 at a listener, to clients of whom some may mean no good: every pod of the cluster reaches the probes and the
//! metrics, and the process that answers them has the calls' sockets and memory.
//!
//! The loop ends with the runtime. A connection ends
//!
//! - when its client closes it, or has asked for that;
//! - when no whole head of a request came within [`Bounds::head`] of its begin, or of the answer before;
//! - when its client takes nothing of an answer for [`Bounds::progress`];
//! - where [`Bounds::whole`] is set, after one answer, and after that time;
//! - when there are [`Bounds::connections`] and another comes: then it is the oldest of the client that has most of them.
//!
//! An answer may take as long as it likes to come, or never end.

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep, timeout};

/// Connections at once at one listener: those of some people's browsers, of a kubelet, of a few Prometheus servers.
const MOST_CONNECTIONS: usize = 64;

/// How long a client may take to ask: what it sends is in one packet.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// How long a client may take nothing of its answer: somebody looks at a stream page by page.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// How long the probes' and the metrics' clients have for all of it: thrice what Prometheus waits by default.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);

/// The longest head, and the most that is buffered of what is sent: thousands of `header` parameters of `/explain` fit.
const MOST_HEAD_BYTES: usize = 64 << 10;

/// What clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Connections at once.
    connections: usize,
    /// Time for a request's head.
    head: Duration,
    /// Time in which the client takes nothing of an answer.
    progress: Duration,
    /// Time for a connection, which then has one answer.
    whole: Option<Duration>,
}

impl Bounds {
    /// Of an endpoint for who is on the node.
    pub(super) const LOCAL: Self =
        Self { connections: MOST_CONNECTIONS, head: HEAD_WITHIN, progress: PROGRESS_WITHIN, whole: None };
    /// Of an endpoint that every pod of the cluster reaches.
    pub(super) const OPEN: Self = Self { whole: Some(WHOLE_WITHIN), ..Self::LOCAL };
}

/// Serves until the runtime ends. `client` says whose a connection is.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    client: fn(&L::Addr) -> Option<IpAddr>,
    bounds: Bounds,
    router: Router,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(MOST_HEAD_BYTES)
        .keep_alive(bounds.whole.is_none());
    let mut open = Open::default();
    loop {
        let (stream, address) = listener.accept().await;
        open.make_room(bounds.connections).await;
        let stream = TokioIo::new(Progressing::new(stream, bounds.progress));
        let connection = http.serve_connection(stream, TowerToHyperService::new(router.clone()));
        // How it ended says nothing: its client knows.
        let task = tokio::spawn(async move {
            match bounds.whole {
                Some(whole) => drop(timeout(whole, connection).await),
                None => drop(connection.await),
            }
        });
        open.0.push(Connection { client: client(&address), task });
    }
}

/// The connections that there are, the oldest first.
#[derive(Debug, Default)]
struct Open(Vec<Connection>);

#[derive(Debug)]
struct Connection {
    client: Option<IpAddr>,
    task: JoinHandle<()>,
}

impl Open {
    /// Ends connections until there are fewer than `most`. The one that has come is not refused instead: whoever fills a listener
    /// would keep the kubelet from it, which then kills the agent.
    async fn make_room(&mut self, most: usize) {
        self.0.retain(|connection| !connection.task.is_finished());
        while self.0.len() >= most {
            let Connection { task, .. } = self.0.remove(self.spared_least());
            task.abort();
            // Its descriptor is closed from here on.
            let _ = task.await;
        }
    }

    fn spared_least(&self) -> usize {
        let mut counts = HashMap::<_, usize>::new();
        for connection in &self.0 {
            *counts.entry(connection.client).or_default() += 1;
        }
        let most = counts.values().max();
        self.0.iter().position(|connection| counts.get(&connection.client) == most).unwrap_or(0)
    }
}

/// A stream that fails when nothing of what is written has been taken for a time.
#[derive(Debug)]
struct Progressing<S> {
    stream: S,
    within: Duration,
    /// Runs while something waits to be taken.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> Progressing<S> {
    fn new(stream: S, within: Duration) -> Self {
        Self { stream, within, patience: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.patience = None;
            return poll;
        }
        let within = self.within;
        ready!(self.patience.get_or_insert_with(|| Box::pin(sleep(within))).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Progressing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Progressing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, poll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, Bytes, HttpBody};
    use axum::routing::get;
    use hyper::body::Frame;
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    /// More than the sockets' own buffers take, on loopback.
    const LARGE: usize = 64 << 20;

    async fn served(bounds: Bounds, router: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, |client: &SocketAddr| Some(client.ip()), bounds, router));
        at
    }

    /// A connection of another address of this host's.
    async fn dial(at: SocketAddr, from: [u8; 4]) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(at).await.unwrap()
    }

    /// All that comes until the other side ends it. A reset is an end too.
    async fn read_all(stream: &mut TcpStream) -> String {
        let (mut all, mut part) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(1..) = stream.read(&mut part).await.inspect(|read| all.extend(&part[..*read])) {}
        String::from_utf8_lossy(&all).into_owned()
    }

    fn router() -> Router {
        Router::new().route("/", get(|| async { "hello\n" }))
    }

    #[tokio::test]
    async fn who_says_nothing_or_half_of_it_is_let_go() {
        let bounds = Bounds { head: Duration::from_millis(20), ..Bounds::LOCAL };
        let at = served(bounds, router()).await;
        for said in ["", "GET / HTTP/1.1\r\nhost: a\r\n"] {
            let mut client = TcpStream::connect(at).await.unwrap();
            client.write_all(said.as_bytes()).await.unwrap();
            assert!(!read_all(&mut client).await.contains("200 OK"), "{said:?}");
        }
        let mut idle = TcpStream::connect(at).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(read_all(&mut idle).await.ends_with("hello\n"), "and let go after it");
    }

    #[tokio::test]
    async fn whoever_fills_it_loses_the_oldest_of_its_own_and_keeps_nobody_out() {
        let at = served(Bounds { connections: 8, ..Bounds::LOCAL }, router()).await;
        let mut other = dial(at, [127, 0, 0, 2]).await;
        let mut many = Vec::new();
        for _ in 0..100 {
            many.push(dial(at, [127, 0, 0, 3]).await);
        }
        other.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        assert!(read_all(&mut other).await.ends_with("hello\n"), "it was there before all of them");
        // All but seven, while `other` was the eighth.
        for gone in &mut many[..93] {
            assert_eq!(read_all(gone).await, "");
        }
        let left = many.last_mut().unwrap();
        left.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        assert!(read_all(left).await.ends_with("hello\n"));
    }

    /// Says when it is dropped, as an answer is that nobody waits for any more.
    struct Counted(Arc<AtomicUsize>, Vec<u8>);

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.1
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_not_kept() {
        let short = Duration::from_millis(20);
        for bounds in
            [Bounds { progress: short, ..Bounds::LOCAL }, Bounds { whole: Some(short), ..Bounds::OPEN }]
        {
            let dropped = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&dropped);
            let answer = move || {
                let body = Counted(Arc::clone(&counted), vec![b'x'; LARGE]);
                async { Body::from(Bytes::from_owner(body)) }
            };
            let at = served(bounds, Router::new().route("/", get(answer))).await;
            let mut client = TcpStream::connect(at).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            while dropped.load(SeqCst) == 0 {
                sleep(Duration::from_millis(1)).await;
            }
            assert!(read_all(&mut client).await.len() < LARGE, "{bounds:?}");
        }
    }

    /// A word, a rest, a word, a rest.
    struct Stream {
        left: usize,
        rest: Duration,
        resting: Pin<Box<Sleep>>,
    }

    impl HttpBody for Stream {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            ready!(self.resting.as_mut().poll(cx));
            self.resting = Box::pin(sleep(self.rest));
            self.left -= 1;
            let word = if self.left == 0 { "the last\n" } else { "one\n" };
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(word.as_bytes())))))
        }
    }

    #[tokio::test]
    async fn an_answer_that_takes_its_time_is_not_cut() {
        let short = Duration::from_millis(20);
        let late = move || async move {
            sleep(10 * short).await;
            "at last\n"
        };
        let slow = move || async move {
            let rest = 3 * short;
            Body::new(Stream { left: 5, rest, resting: Box::pin(sleep(rest)) })
        };
        let bounds = Bounds { head: short, progress: short, ..Bounds::LOCAL };
        let router = Router::new().route("/late", get(late)).route("/slow", get(slow));
        let at = served(bounds, router).await;
        for (path, words) in [("late", "at last\n"), ("slow", "the last\n")] {
            let mut client = TcpStream::connect(at).await.unwrap();
            client.write_all(format!("GET /{path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
            assert!(read_all(&mut client).await.contains(words), "{path}");
        }
    }
}

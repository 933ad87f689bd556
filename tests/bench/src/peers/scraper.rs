//! Who scrapes an agent's metrics.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

/// How often: Prometheus does it each 15 s or more seldom.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

/// Asks for the metrics again and again until it is dropped, and reads them to the end.
pub(super) struct Scraper {
    until: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    pub(super) fn start(metrics: SocketAddr) -> Self {
        let (until, dropped) = channel::<()>();
        let ask = move || {
            while dropped.recv_timeout(SCRAPE_EVERY) == Err(RecvTimeoutError::Timeout) {
                // The agent may not listen yet, or no longer.
                let _ = get(metrics, "/metrics");
            }
        };
        Self { until, thread: Some(spawn(ask)) }
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        drop(std::mem::replace(&mut self.until, channel().0));
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked.
            let _ = thread.join();
        }
    }
}

/// The whole answer of an agent's endpoint, its head too.
///
/// # Errors
/// If nobody answers there.
pub(super) fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

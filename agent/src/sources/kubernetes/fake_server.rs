//! An API server of the tests' own, which behaves as none of the real ones of the suites does.

use super::access::Access;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// What the server says to a request.
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) body: String,
    /// The connection stays open after it, as that of a watch.
    pub(super) stays: bool,
}

pub(super) fn answer(status: &'static str, body: impl Into<String>) -> Answer {
    Answer { status, body: body.into(), stays: false }
}

/// The server, and what was asked of it.
pub(super) struct FakeServer {
    pub(super) access: Access,
    asked: Arc<Mutex<Vec<String>>>,
    _kubeconfig: TempDir,
}

impl FakeServer {
    /// Answers each path so.
    pub(super) async fn start(answers: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let server = listener.local_addr().unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \"http://{server}\"}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(serve(listener, asked.clone(), Arc::new(answers)));
        Self { access: Access { kubeconfig: Some(kubeconfig) }, asked, _kubeconfig: folder }
    }

    /// The paths that were asked for.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until a path was asked for.
    pub(super) async fn until_asked(&self, path: &str) {
        until(&format!("{path} is asked for"), || self.asked().iter().any(|asked| asked == path)).await;
    }
}

/// Waits until something is so.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waits = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(30), waits).await.is_ok(), "in vain: {what}");
}

async fn serve(
    listener: TcpListener,
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<impl Fn(&str) -> Answer + Send + Sync + 'static>,
) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let (asked, answers) = (asked.clone(), answers.clone());
        tokio::spawn(async move {
            let path = request(&mut socket).await;
            asked.lock().unwrap().push(path.clone());
            let Answer { status, body, stays } = answers(&path);
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
            socket.write_all((head + &body).as_bytes()).await.unwrap();
            if stays {
                std::future::pending::<()>().await;
            }
        });
    }
}

/// Reads a request with its body; its path.
async fn request(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.map_or(0, |(_, length)| length.parse().unwrap());
    socket.read_exact(&mut vec![0; length]).await.unwrap();
    head.split(' ').nth(1).unwrap().to_owned()
}

//! One connection to an admin endpoint, over whatever carries bytes there: questions out, JSON in.

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// The most that is read of one answer: 100,000 endpoints are some 30 MiB.
const MOST_ANSWER_BYTES: usize = 128 << 20;

/// The most that is read of a line of one that goes on and on: a call's headers are some KiB.
const MOST_LINE_BYTES: usize = 1 << 20;

/// The most that is repeated of an answer that is an error.
const MOST_ERROR_CHARS: usize = 400;

/// A question to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Ask {
    method: Method,
    path: String,
    body: String,
    shape: Shape,
}

/// What an agent's answer is: of another shape, it is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Any,
    List,
    Object,
}

impl Ask {
    /// For a page.
    pub(in crate::cli) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: String::new(), shape: Shape::Any }
    }

    /// For a change, to what the body says.
    pub(in crate::cli) fn put(path: impl Into<String>, body: impl Into<String>) -> Self {
        Self { method: Method::PUT, path: path.into(), body: body.into(), shape: Shape::Any }
    }

    /// What answers with a list.
    pub(in crate::cli) fn of_list(self) -> Self {
        Self { shape: Shape::List, ..self }
    }

    /// What answers with an object.
    pub(in crate::cli) fn of_object(self) -> Self {
        Self { shape: Shape::Object, ..self }
    }

    fn checked(&self, answer: Value) -> Result<Value, AskError> {
        match (self.shape, &answer) {
            (Shape::Any, _) | (Shape::List, Value::Array(_)) | (Shape::Object, Value::Object(_)) => {
                Ok(answer)
            }
            (Shape::List, _) => Err(AskError::NotAnAgents("it is no list".into())),
            (Shape::Object, _) => Err(AskError::NotAnAgents("it is no object".into())),
        }
    }

    /// For a page with these parameters.
    pub(in crate::cli) fn get_with<'a>(
        path: &str,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        Self::get(with_parameters(path, parameters))
    }
}

fn with_parameters<'a>(path: &str, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = path.to_owned();
    for (position, (name, value)) in parameters.into_iter().enumerate() {
        text.push(if position == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            // RFC 3986 §2.3.
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum AskError {
    /// Nobody is there, or the connection broke.
    Unreachable(String),
    /// Nothing came in this time.
    Silent(Duration),
    /// The agent says no, in its own words.
    Refused(StatusCode, String),
    /// What came is not JSON, or of another shape: this is no agent, or a very different one.
    NotAnAgents(String),
}

impl AskError {
    /// Whether the agent does not know what it was asked for: it is an older one.
    pub(in crate::cli) fn is_unknown_page(&self) -> bool {
        matches!(self, Self::Refused(StatusCode::NOT_FOUND, _))
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(cause) => f.write_str(cause),
            Self::Silent(limit) => write!(f, "no answer within {} s (--timeout)", limit.as_secs()),
            Self::Refused(status, text) if text.is_empty() => write!(f, "the agent says {status}"),
            Self::Refused(_, text) => write!(f, "the agent says: {text}"),
            Self::NotAnAgents(cause) => write!(f, "the answer is not an agent's: {cause}"),
        }
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(super) async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, AskError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its end is seen by whoever asks next.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Asks for an answer that goes on and on, which takes the connection.
    pub(super) async fn follow(mut self, ask: &Ask) -> Result<Lines, AskError> {
        let answer = self.send(ask).await?;
        match answer.status() {
            status if status.is_success() => {
                Ok(Lines { body: answer.into_body(), unread: Vec::new(), _connection: self })
            }
            status => {
                let body = Limited::new(answer.into_body(), MOST_ERROR_CHARS).collect().await;
                Err(refused(status, &body.map(|body| body.to_bytes()).unwrap_or_default()))
            }
        }
    }

    /// Outer errors are the connection's, which is of no use after them; inner ones are the answer's.
    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<Result<Value, AskError>, AskError> {
        let read = |body: Bytes| {
            let read = serde_json::from_slice(&body);
            read.map_err(|error| AskError::NotAnAgents(error.to_string()))
                .and_then(|answer| ask.checked(answer))
        };
        Ok(self.fetch(ask).await?.and_then(read))
    }

    /// As [`Self::ask`], for an answer of any kind.
    pub(super) async fn fetch(&mut self, ask: &Ask) -> Result<Result<Bytes, AskError>, AskError> {
        let answer = self.send(ask).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST_ANSWER_BYTES).collect().await;
        let body = body
            .map_err(|error| AskError::Unreachable(format!("the answer breaks off: {error}")))?
            .to_bytes();
        Ok(match status.is_success() {
            true => Ok(body),
            false => Err(refused(status, &body)),
        })
    }

    async fn send(&mut self, ask: &Ask) -> Result<Response<Incoming>, AskError> {
        self.sender.ready().await?;
        let request = Request::builder()
            .method(ask.method.clone())
            .uri(&ask.path)
            // Whatever leads there, the endpoint is a local one.
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
            .body(Full::from(ask.body.clone()))
            .map_err(|error| AskError::Unreachable(error.to_string()))?;
        Ok(self.sender.send_request(request).await?)
    }
}

/// The agent's own words.
fn refused(status: StatusCode, body: &[u8]) -> AskError {
    let text = String::from_utf8_lossy(body);
    AskError::Refused(status, text.trim().chars().take(MOST_ERROR_CHARS).collect())
}

/// The lines of an answer that goes on and on.
#[derive(Debug)]
pub(in crate::cli) struct Lines {
    body: Incoming,
    unread: Vec<u8>,
    _connection: Connection,
}

impl Lines {
    /// The next line as JSON; `None`: the answer is over.
    pub(in crate::cli) async fn next(&mut self) -> Result<Option<Value>, AskError> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let rest = self.unread.split_off(end + 1);
                let line = std::mem::replace(&mut self.unread, rest);
                if line.trim_ascii().is_empty() {
                    // A sign of life.
                    continue;
                }
                let line = serde_json::from_slice(&line);
                return line.map(Some).map_err(|error| AskError::NotAnAgents(error.to_string()));
            }
            if self.unread.len() > MOST_LINE_BYTES {
                return Err(AskError::NotAnAgents("a line without an end".into()));
            }
            match self.body.frame().await {
                None if self.unread.is_empty() => return Ok(None),
                None => return Err(AskError::Unreachable("the answer breaks off".into())),
                Some(Err(_)) => return Err(AskError::Unreachable("the agent has gone".into())),
                Some(Ok(frame)) => self.unread.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            }
        }
    }
}

impl From<hyper::Error> for AskError {
    fn from(error: hyper::Error) -> Self {
        Self::Unreachable(crate::sources::kubernetes::chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// What `ask` makes of an answer, and what was sent for it.
    async fn answered(ask: Ask, answer: &str) -> (Result<Result<Value, AskError>, AskError>, String) {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let answer = answer.to_owned();
        let peer = tokio::spawn(async move {
            let mut request = vec![0; 4096];
            let read = theirs.read(&mut request).await.unwrap();
            theirs.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let mut connection = Connection::over(ours).await.unwrap();
        let outcome = connection.ask(&ask).await;
        (outcome, peer.await.unwrap())
    }

    #[tokio::test]
    async fn a_question_is_sent_as_one_and_its_answer_read() {
        let ask = Ask::get_with("/explain", [("pod", "shop/a"), ("to", "cart:50051"), ("header", "x=a b&c")]);
        let (outcome, sent) = answered(ask, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\": 1}\n").await;
        assert_eq!(outcome, Ok(Ok(serde_json::json!({"a": 1}))));
        let first = sent.lines().next().unwrap();
        assert_eq!(first, "GET /explain?pod=shop%2Fa&to=cart%3A50051&header=x%3Da%20b%26c HTTP/1.1");
        assert!(sent.to_ascii_lowercase().contains("host: localhost\r\n"), "{sent}");
    }

    #[tokio::test]
    async fn an_answer_that_goes_on_is_read_line_by_line_wherever_it_is_cut() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            assert!(theirs.read(&mut [0; 4096]).await.unwrap() > 0);
            theirs.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            for chunk in ["\n", "{\"a\"", ":1}\n\n\r\n{\"a\":2}\n{\"a\":", "3}", "\n", "\n"] {
                theirs.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).await.unwrap();
            }
            theirs.write_all(b"0\r\n\r\n").await.unwrap();
        });
        let mut lines = Connection::over(ours).await.unwrap().follow(&Ask::get("/tap")).await.unwrap();
        for expected in 1..=3 {
            assert_eq!(lines.next().await, Ok(Some(serde_json::json!({ "a": expected }))));
        }
        assert_eq!(lines.next().await, Ok(None));
        let (ours, mut theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            assert!(theirs.read(&mut [0; 4096]).await.unwrap() > 0);
            let busy = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 13\r\n\r\n8 taps: end 1";
            theirs.write_all(busy).await.unwrap();
        });
        let refused = Connection::over(ours).await.unwrap().follow(&Ask::get("/tap")).await.unwrap_err();
        assert_eq!(refused.to_string(), "the agent says: 8 taps: end 1");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told_from_what_is_no_connection() {
        let ask = || Ask::get("/pods");
        let (outcome, _) = answered(ask(), "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nno!\n").await;
        let refused = outcome.unwrap().unwrap_err();
        assert_eq!(refused, AskError::Refused(StatusCode::NOT_FOUND, "no!".into()));
        assert!(refused.is_unknown_page());
        let (outcome, _) = answered(ask(), "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>").await;
        assert!(matches!(outcome.unwrap().unwrap_err(), AskError::NotAnAgents(_)));
        for (ask, body, fits) in [
            (ask().of_list(), "[]", true),
            (ask().of_list(), "{}", false),
            (ask().of_object(), "{}", true),
            (ask().of_object(), "[]", false),
            (ask().of_object(), "17", false),
            (ask().of_list(), "null", false),
            (ask(), "17", true),
            (ask(), "", false),
        ] {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let (outcome, _) = answered(ask.clone(), &answer).await;
            let is_none = matches!(outcome, Ok(Err(AskError::NotAnAgents(_))));
            assert_eq!(is_none, !fits, "{ask:?} {body:?}: {outcome:?}");
        }
        for broken in ["HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n{", "SSH-2.0-OpenSSH_9\r\n", ""] {
            let (outcome, _) = answered(ask(), broken).await;
            assert!(matches!(outcome, Err(AskError::Unreachable(_))), "{broken:?}: {outcome:?}");
        }
    }
}

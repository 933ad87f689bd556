//! A connection to a collector, and one batch at a time over it: OTLP over gRPC (<https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>),
//! on the h2 crate, with TLS where the endpoint says https.

use super::exporter::Export;
use super::messages::{ExportResponse, RetryInfo, RpcStatus};
use super::tls;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode};
use prost::Message as _;
use schemars::JsonSchema;
use serde::Serialize;
use socket2::SockRef;
use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, lookup_host};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// A batch that is not answered by then has failed: OTLP's own default (`OTEL_EXPORTER_OTLP_TIMEOUT`).
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// One of several addresses of a name has so long, so that a dead one leaves time for the next.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// An answer is a number and, where something is wrong, a sentence.
const MOST_ANSWER_BYTES: usize = 16 << 10;
const MOST_HEADER_BYTES: u32 = 16 << 10;
/// Characters of what a collector says that are told.
const MOST_WORDS: usize = 200;

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const USER_AGENT: &str = concat!("evenkeel/", env!("CARGO_PKG_VERSION"));

/// Of a whole batch, what the collector did not take.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) spans: u64,
    /// Why, where some were.
    pub(super) why: String,
}

/// Why a batch was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// It may be sent again.
    pub(super) is_passing: bool,
    /// Not sooner than this.
    pub(super) not_before: Option<Duration>,
    pub(super) why: String,
}

impl Refusal {
    /// The collector could not be asked, or its answer was lost.
    fn passing(why: impl fmt::Display) -> Self {
        Self { is_passing: true, not_before: None, why: printable(&why.to_string()) }
    }

    fn lasting(why: impl fmt::Display) -> Self {
        Self { is_passing: false, not_before: None, why: why.to_string() }
    }
}

/// Whether batches are made smaller on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// They are not.
    None,
    /// By gzip, to a sixth or so.
    Gzip,
}

/// The collector, connected or not.
pub(super) struct Collector {
    export: Export,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Bytes>,
    /// Drives it.
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // It would wait for a peer that may never answer.
        self.task.abort();
    }
}

impl Collector {
    pub(super) fn new(export: Export) -> Self {
        Self { export, connection: None }
    }

    /// Sends a batch. After a failure the next one finds the collector anew, by its name.
    pub(super) async fn export(&mut self, message: Bytes) -> Result<Rejected, Refusal> {
        let late = || Refusal::passing(format!("no answer within {} s", ANSWER_WITHIN.as_secs()));
        let outcome = timeout(ANSWER_WITHIN, self.ask(message)).await.unwrap_or_else(|_| Err(late()));
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    async fn ask(&mut self, message: Bytes) -> Result<Rejected, Refusal> {
        let mut sender = self.sender().await?;
        let mut request = Request::post(format!("{}{PATH}", self.export.endpoint))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", USER_AGENT)
            .header("grpc-accept-encoding", "gzip")
            .header("grpc-timeout", format!("{}S", ANSWER_WITHIN.as_secs()));
        if self.export.compression == Compression::Gzip {
            request = request.header("grpc-encoding", "gzip");
        }
        let mut request = request.body(()).map_err(Refusal::lasting)?;
        request.headers_mut().extend(self.export.headers.fields());
        let (response, mut body) = sender.send_request(request, false).map_err(Refusal::passing)?;
        // It is held until the collector's windows let it go, and no longer than the answer is waited for.
        body.send_data(message, true).map_err(Refusal::passing)?;
        let response = response.await.map_err(Refusal::passing)?;
        let (head, mut body) = response.into_parts();
        if head.headers.contains_key("grpc-status") {
            return judge(head.status, &head.headers, &[]);
        }
        let answer = read(&mut body).await?;
        let trailers = body.trailers().await.map_err(Refusal::passing)?.unwrap_or_default();
        judge(head.status, &trailers, &answer)
    }

    /// A sender on the kept connection, if its peer has not ended it meanwhile, as collectors do with old and idle ones; else on another.
    async fn sender(&mut self) -> Result<SendRequest<Bytes>, Refusal> {
        if let Some(connection) = &self.connection
            && let Ok(sender) = connection.sender.clone().ready().await
        {
            return Ok(sender);
        }
        let connection = self.connect().await?;
        let sender = connection.sender.clone().ready().await.map_err(Refusal::passing)?;
        self.connection = Some(connection);
        Ok(sender)
    }

    async fn connect(&self) -> Result<Connection, Refusal> {
        let endpoint = &self.export.endpoint;
        let (host, port) = (endpoint.host(), endpoint.port());
        let tls = if endpoint.is_secure() {
            // Authorities are read each time: they are replaced while the agent runs. The system's are many files.
            let ca_file = self.export.ca_file.clone();
            let read = spawn_blocking(move || tls::Connector::trusting(ca_file.as_deref())).await;
            Some(read.map_err(Refusal::passing)?.map_err(Refusal::passing)?)
        } else {
            None
        };
        let found = lookup_host((host, port)).await;
        let addresses = found.map_err(|error| Refusal::passing(format!("{host} is not found: {error}")))?;
        let mut last = Refusal::passing(format!("{host} has no address"));
        for address in addresses {
            match timeout(CONNECT_WITHIN, self.connect_to(address, tls.as_ref())).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = Refusal::passing(format!("{address}: {error}")),
                Err(_) => last = Refusal::passing(format!("{address} does not answer")),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr, tls: Option<&tls::Connector>) -> io::Result<Connection> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = self.export.mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        match tls {
            None => handshake(stream).await,
            Some(tls) => handshake(tls.connect(self.export.endpoint.host(), stream).await?).await,
        }
    }
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<Connection> {
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(MOST_HEADER_BYTES);
    let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    let task = tokio::spawn(async move {
        // Who asks over it is told.
        let _ = connection.await;
    });
    Ok(Connection { sender, task })
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, Refusal> {
    let mut answer = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(Refusal::passing)?;
        if answer.len() + piece.len() > MOST_ANSWER_BYTES {
            return Err(Refusal::lasting(format!("its answer is longer than {MOST_ANSWER_BYTES} bytes")));
        }
        answer.extend_from_slice(&piece);
        // A stream's window is larger than what is taken.
        let _ = body.flow_control().release_capacity(piece.len());
    }
    Ok(answer)
}

/// A message in gRPC's frame.
pub(super) fn framed(message: &impl prost::Message, compression: Compression) -> Bytes {
    match compression {
        Compression::None => {
            let length = message.encoded_len();
            let mut framed = BytesMut::with_capacity(5 + length);
            framed.put_u8(0);
            framed.put_u32(length as u32);
            message.encode_raw(&mut framed);
            framed.freeze()
        }
        Compression::Gzip => {
            // The flag, and room for the length.
            let mut encoder = GzEncoder::new(vec![1, 0, 0, 0, 0], flate2::Compression::fast());
            let framed = encoder.write_all(&message.encode_to_vec()).and_then(|()| encoder.finish());
            let mut framed = framed.expect("a Vec takes whatever is written to it");
            let length = framed.len() as u32 - 5;
            framed[1..5].copy_from_slice(&length.to_be_bytes());
            framed.into()
        }
    }
}

/// OTLP/gRPC: which statuses pass, and what OK may hold.
fn judge(status: StatusCode, fields: &HeaderMap, answer: &[u8]) -> Result<Rejected, Refusal> {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    let Some(code) = text("grpc-status").and_then(|code| code.parse::<u8>().ok()) else {
        let why = format!("HTTP status {status} without a grpc-status");
        // As gRPC maps them: UNAVAILABLE, which passes.
        let passes = matches!(status.as_u16(), 429 | 502 | 503 | 504);
        return Err(if passes { Refusal::passing(why) } else { Refusal::lasting(why) });
    };
    if code == 0 {
        return Ok(rejected(answer));
    }
    let name = crate::telemetry::grpc_code_name(code);
    let why = format!("{name}: {}", printable(text("grpc-message").unwrap_or_default()));
    let not_before = text("grpc-status-details-bin").and_then(retry_delay);
    let is_passing = match name {
        "CANCELLED" | "DEADLINE_EXCEEDED" | "ABORTED" | "OUT_OF_RANGE" | "UNAVAILABLE" | "DATA_LOSS" => true,
        // Unless it says when, it will not have more room later.
        "RESOURCE_EXHAUSTED" => not_before.is_some(),
        _ => false,
    };
    Err(Refusal { is_passing, not_before, why })
}

/// What an OK leaves out. An answer that cannot be read has nothing to say against the batch.
fn rejected(answer: &[u8]) -> Rejected {
    let response = unframed(answer).and_then(|message| ExportResponse::decode(&*message).ok());
    let partial = response.and_then(|response| response.partial_success);
    let partial = partial.unwrap_or_default();
    Rejected { spans: partial.rejected_spans.try_into().unwrap_or(0), why: printable(&partial.error_message) }
}

/// The message in a gRPC frame: servers answer as small as they were asked.
fn unframed(answer: &[u8]) -> Option<Cow<'_, [u8]>> {
    let ([flag, _length @ ..], message) = answer.split_first_chunk::<5>()?;
    if *flag == 0 {
        return Some(message.into());
    }
    let mut unpacked = Vec::new();
    let mut decoder = GzDecoder::new(message).take(MOST_ANSWER_BYTES as u64);
    decoder.read_to_end(&mut unpacked).ok()?;
    Some(unpacked.into())
}

/// A collector's own words, for our log: some of them, and nothing that would end the line.
fn printable(text: &str) -> String {
    text.chars().take(MOST_WORDS).flat_map(char::escape_debug).collect()
}

/// The `RetryInfo` among a status' details.
fn retry_delay(details: &str) -> Option<Duration> {
    // gRPC's binary metadata comes with padding and without.
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&STANDARD, config).decode(details).ok()?;
    let status = RpcStatus::decode(&*bytes).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay.unwrap_or_default();
    Some(Duration::new(delay.seconds.try_into().unwrap_or(0), delay.nanos.clamp(0, 999_999_999) as u32))
}

#[cfg(test)]
mod tests {
    use super::super::messages::{Any, PartialSuccess, RetryDelay};
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn details(seconds: i64) -> String {
        let info = RetryInfo { retry_delay: Some(RetryDelay { seconds, nanos: 500_000_000 }) };
        let other = Any { type_url: "type.googleapis.com/google.rpc.DebugInfo".into(), value: vec![1, 2] };
        let any =
            Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
        let status = RpcStatus { details: vec![other, any] };
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(status.encode_to_vec())
    }

    #[test]
    fn statuses_pass_or_last_as_otlp_says() {
        let refusal =
            |pairs: &[(&'static str, &str)]| judge(StatusCode::OK, &fields(pairs), &[]).unwrap_err();
        for (code, passes) in [
            (1, true),
            (2, false),
            (3, false),
            (4, true),
            (5, false),
            (6, false),
            (7, false),
            (8, false),
            (9, false),
            (10, true),
            (11, true),
            (12, false),
            (13, false),
            (14, true),
            (15, true),
            (16, false),
            (99, false),
        ] {
            assert_eq!(refusal(&[("grpc-status", &code.to_string())]).is_passing, passes, "{code}");
        }
        let details = details(7);
        let throttled =
            refusal(&[("grpc-status", "8"), ("grpc-status-details-bin", &details), ("grpc-message", "full")]);
        assert_eq!(throttled.not_before, Some(Duration::from_millis(7_500)));
        assert!(throttled.is_passing && throttled.why == "RESOURCE_EXHAUSTED: full", "{throttled:?}");
        assert!(!refusal(&[("grpc-status", "8"), ("grpc-status-details-bin", "nonsense!")]).is_passing);
        for (status, passes) in [(200, false), (404, false), (503, true), (429, true)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(judge(status, &fields(&[]), &[]).unwrap_err().is_passing, passes, "{status}");
        }
    }

    #[test]
    fn an_ok_says_what_it_leaves_out() {
        let ok = |answer: &[u8]| judge(StatusCode::OK, &fields(&[("grpc-status", "0")]), answer).unwrap();
        let partial = PartialSuccess { rejected_spans: 3, error_message: "too old\nWARN forged".into() };
        let response = ExportResponse { partial_success: Some(partial) };
        for compression in [Compression::None, Compression::Gzip] {
            let expected = Rejected { spans: 3, why: r"too old\nWARN forged".into() };
            assert_eq!(ok(&framed(&response, compression)), expected, "{compression:?}");
        }
        assert_eq!(ok(&framed(&ExportResponse::default(), Compression::None)), Rejected::default());
        for strange in [&b""[..], b"\0\0", b"\0\0\0\0\x05hello", b"\x01\0\0\0\x05hello"] {
            assert_eq!(ok(strange), Rejected::default());
        }
    }

    #[test]
    fn a_frame_that_is_compressed_says_so_and_holds_the_same() {
        let partial = PartialSuccess { rejected_spans: 3, error_message: "again and ".repeat(100) };
        let response = ExportResponse { partial_success: Some(partial) };
        let (plain, small) = (framed(&response, Compression::None), framed(&response, Compression::Gzip));
        assert!(
            plain[0] == 0 && small[0] == 1 && small.len() < plain.len() / 2,
            "{} {}",
            plain.len(),
            small.len()
        );
        for frame in [&plain, &small] {
            assert_eq!(frame[1..5], (frame.len() as u32 - 5).to_be_bytes());
        }
        assert_eq!(*unframed(&small).unwrap(), plain[5..]);
    }
}

//! Header blocks of requests, encoded before the load begins: by an encoder that is not the proxy's, as real clients' do it (with a
//! table, Huffman codes and values that change with every call), and at no cost to the load's core.
//!
//! A run of blocks stands on the state that those before it left in the decoder's table. It can be sent over and over, since its
//! first block empties the table (RFC 7541 §6.3).

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::client;
use http::{HeaderValue, Method, Request, Uri, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::frame::{self, Frame};

/// Different blocks: as many calls lie between two with the same values.
const BLOCKS: usize = 2048;
/// Tokens in use at a time: more than an HPACK table of 4 KiB holds, as with a token for each user.
const TOKENS: usize = 16;
/// Bytes of a token: a JWT with a few claims.
const TOKEN_SIZE: usize = 900;
/// Size updates to 0 and back to HPACK's default of 4,096.
const EMPTY_THE_TABLE: [u8; 4] = [0x20, 0x3f, 0xe1, 0x1f];

/// A run of header blocks that can be sent over and over on one connection.
#[derive(Clone)]
pub(super) struct Blocks {
    blocks: std::rc::Rc<[Box<[u8]>]>,
    next: usize,
}

impl Blocks {
    /// Has the h2 crate encode requests to `to`.
    pub(super) fn encode(to: SocketAddr, token: bool) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Room for all of it: nobody reads before the end.
        let (near, far) = tokio::io::duplex((TOKEN_SIZE + 512) * BLOCKS * 2);
        let sent = runtime.block_on(encoded(near, far, to, token))?;
        let mut blocks = Vec::with_capacity(BLOCKS);
        let mut rest = sent.strip_prefix(frame::PREFACE).context("a client begins with the preface")?;
        while let Some((frame, after)) = Frame::first(rest) {
            if frame.kind == frame::HEADERS {
                ensure!(frame.flags & frame::END_HEADERS != 0, "a request's headers fit into a frame");
                let mut block = if blocks.is_empty() { EMPTY_THE_TABLE.to_vec() } else { Vec::new() };
                block.extend_from_slice(frame.payload);
                blocks.push(block.into_boxed_slice());
            }
            rest = after;
        }
        ensure!(blocks.len() == BLOCKS, "{} of {BLOCKS} blocks", blocks.len());
        Ok(Self { blocks: blocks.into(), next: 0 })
    }

    /// The next block of the run.
    pub(super) fn next(&mut self) -> &[u8] {
        let at = self.next;
        self.next = (at + 1) % self.blocks.len();
        &self.blocks[at]
    }
}

/// All that a client of the h2 crate writes for that many requests.
async fn encoded(near: DuplexStream, mut far: DuplexStream, to: SocketAddr, token: bool) -> Result<Vec<u8>> {
    // The server's SETTINGS: as many streams as there are requests.
    let mut settings = Vec::new();
    frame::write(&mut settings, frame::SETTINGS, 0, 0, &[0, 3, 0, 0, (BLOCKS >> 8) as u8, BLOCKS as u8]);
    far.write_all(&settings).await?;
    let (mut client, connection) =
        client::Builder::new().initial_max_send_streams(BLOCKS).handshake::<_, Bytes>(near).await?;
    let connection = tokio::spawn(connection);
    let mut requests = Requests::new(to);
    let mut answers = Vec::new();
    for _ in 0..BLOCKS {
        std::future::poll_fn(|context| client.poll_ready(context)).await?;
        answers.push(client.send_request(requests.next(token), true)?);
        tokio::task::yield_now().await;
    }
    let mut sent = Vec::new();
    let mut headers = 0;
    let mut buffer = vec![0; 1 << 16];
    while headers < BLOCKS {
        let read = far.read(&mut buffer).await?;
        ensure!(read > 0, "the client ended");
        sent.extend_from_slice(&buffer[..read]);
        let frames = sent.strip_prefix(frame::PREFACE).map_or(0, |rest| frame::count(rest, frame::HEADERS));
        headers = frames;
    }
    connection.abort();
    Ok(sent)
}

/// Requests as a gRPC client makes them.
struct Requests {
    uri: Uri,
    random: fastrand::Rng,
    tokens: Vec<HeaderValue>,
    text: String,
}

impl Requests {
    fn new(to: SocketAddr) -> Self {
        let uri = format!("http://{to}/evenkeel.bench.Echo/Answer");
        let mut random = fastrand::Rng::new();
        let token = |random: &mut fastrand::Rng| {
            let token: String = (0..TOKEN_SIZE).map(|_| random.alphanumeric()).collect();
            HeaderValue::try_from(format!("Bearer {token}")).expect("letters and digits are a header's value")
        };
        let tokens = (0..TOKENS).map(|_| token(&mut random)).collect();
        Self { uri: uri.parse().expect("an address makes a URI"), random, tokens, text: String::new() }
    }

    fn next(&mut self, token: bool) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let trace = self.random.u128(..);
        let span = self.random.u64(..);
        // What is left of a minute or so: another value for each call, and far enough for a machine under load.
        let timeout = self.random.u32(30_000_000..90_000_000);
        let headers = request.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("evenkeel-bench/0.1"));
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip"));
        headers.insert("grpc-timeout", written(&mut self.text, format_args!("{timeout}u")));
        headers
            .insert("traceparent", written(&mut self.text, format_args!("00-{trace:032x}-{span:016x}-01")));
        if token {
            headers
                .insert(header::AUTHORIZATION, self.tokens[self.random.usize(..self.tokens.len())].clone());
        }
        request
    }
}

fn written(text: &mut String, what: std::fmt::Arguments<'_>) -> HeaderValue {
    text.clear();
    text.write_fmt(what).expect("a string takes all text");
    HeaderValue::from_str(text).expect("hexadecimal is a header's value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_takes_the_run_over_and_over() {
        let mut blocks = Blocks::encode("127.0.0.1:80".parse().unwrap(), true).unwrap();
        let mut decoder = loona_hpack::Decoder::new();
        let mut timeouts = std::collections::HashSet::new();
        for _ in 0..2 * BLOCKS + 5 {
            let fields = decoder.decode(blocks.next()).unwrap();
            let value = |name: &[u8]| {
                fields.iter().find(|(of, _)| of == name).map(|(_, value)| value.clone()).unwrap_or_default()
            };
            assert_eq!(value(b":path"), b"/evenkeel.bench.Echo/Answer");
            assert_eq!(value(b"traceparent").len(), 55);
            assert!(value(b"authorization").len() > TOKEN_SIZE);
            timeouts.insert(value(b"grpc-timeout"));
        }
        assert!(timeouts.len() > BLOCKS - 5, "{}", timeouts.len());
    }
}

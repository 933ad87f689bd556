//! One call, its headers varied as a real client's are.

use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};

use crate::scenario::Scenario;
use crate::wire::{Answer, Order};

/// Tokens in use at a time: more than an HPACK table of 4 KiB holds, as with a token for each user.
const TOKENS: usize = 16;
/// Bytes of a token: a JWT with a few claims.
const TOKEN_SIZE: usize = 900;

/// What the headers of a client's calls are made of.
pub(super) struct Headers {
    uri: Uri,
    random: fastrand::Rng,
    tokens: Vec<HeaderValue>,
    text: String,
}

impl Headers {
    pub(super) fn new(to: SocketAddr) -> Self {
        let uri = format!("http://{to}/evenkeel.bench.Echo/Answer");
        let mut random = fastrand::Rng::new();
        let token = |random: &mut fastrand::Rng| {
            let token: String = (0..TOKEN_SIZE).map(|_| random.alphanumeric()).collect();
            HeaderValue::try_from(format!("Bearer {token}")).expect("letters and digits are a header's value")
        };
        let tokens = (0..TOKENS).map(|_| token(&mut random)).collect();
        Self { uri: uri.parse().expect("an address makes a URI"), random, tokens, text: String::new() }
    }

    fn request(&mut self, token: bool) -> Request<()> {
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

/// Makes the call; the backend that answered.
///
/// # Errors
/// Whatever makes the call a bad one.
pub(super) async fn make(
    client: &mut SendRequest<Bytes>,
    headers: &mut Headers,
    scenario: &Scenario,
    call: u64,
) -> Result<u8, String> {
    let order = Order { call, message: scenario.message as u32, messages: scenario.messages as u32 };
    std::future::poll_fn(|context| client.poll_ready(context)).await.map_err(|error| error.to_string())?;
    let (response, mut body) =
        client.send_request(headers.request(scenario.token), false).map_err(|error| error.to_string())?;
    body.send_data(order.encode(scenario.request), true).map_err(|error| error.to_string())?;
    let response = response.await.map_err(|error| error.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("HTTP status {}", response.status()));
    }
    check_status(response.headers(), false)?;
    let mut answer = Answer::new(order);
    let mut body = response.into_body();
    while let Some(bytes) = body.data().await {
        let bytes = bytes.map_err(|error| error.to_string())?;
        body.flow_control().release_capacity(bytes.len()).map_err(|error| error.to_string())?;
        answer.take(&bytes)?;
    }
    let trailers = body.trailers().await.map_err(|error| error.to_string())?.ok_or("no trailers")?;
    check_status(&trailers, true)?;
    answer.finish()
}

/// A call is good if its status is 0; a proxy's own answer has the status in the first headers.
fn check_status(headers: &HeaderMap, required: bool) -> Result<(), String> {
    match headers.get("grpc-status") {
        None if !required => Ok(()),
        Some(status) if status == "0" => Ok(()),
        status => Err(format!("grpc-status {status:?}, grpc-message {:?}", headers.get("grpc-message"))),
    }
}

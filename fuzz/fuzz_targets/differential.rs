//! The same bytes to our server's end of a connection and to the h2 crate's: where both take the connection, each request that the
//! crate takes is one of ours too, the same byte for byte.
#![no_main]

use evenkeel_fuzz::crate_server::{Request, tell};
use evenkeel_fuzz::http2::{ErrorCode, HeadersKind, PREFACE};
use evenkeel_fuzz::story::{Heard, Role, live};

/// As `story` has it.
const MAX_STREAMS: u32 = 10;
const MAX_HEADER_LIST: u32 = 64 << 10;
const FRAME_HEADER: usize = 9;
/// Frame types and a flag (RFC 9113 §6).
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// Requests as our owner heard of them.
fn ours(heard: &[Heard]) -> Vec<Request> {
    let mut requests: Vec<(u32, Request)> = Vec::new();
    for event in heard {
        match event {
            Heard::Headers(token, HeadersKind::Request | HeadersKind::Connect, ends, fields) => {
                let method = fields.iter().find(|(name, _)| name == b":method");
                let request = Request {
                    method: method.map(|(_, value)| value.clone()).unwrap_or_default(),
                    fields: regular(fields),
                    body: Vec::new(),
                    trailers: None,
                    is_whole: *ends,
                };
                requests.push((*token, request));
            }
            Heard::Headers(token, HeadersKind::Trailers, _, fields) => {
                if let Some(request) = of(&mut requests, *token) {
                    request.trailers = Some(regular(fields));
                    request.is_whole = true;
                }
            }
            Heard::Data(token, bytes, ends) => {
                if let Some(request) = of(&mut requests, *token) {
                    request.body.extend(bytes);
                    request.is_whole |= ends;
                }
            }
            Heard::Reset(token, ..) => requests.retain(|(other, _)| other != token),
            _ => {}
        }
    }
    requests.into_iter().map(|(_, request)| request).collect()
}

fn of(requests: &mut [(u32, Request)], token: u32) -> Option<&mut Request> {
    requests.iter_mut().find(|(other, _)| *other == token).map(|(_, request)| request)
}

/// Fields that are not pseudo-header fields: by name, and of one name in order.
fn regular(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut fields: Vec<_> = fields.iter().filter(|(name, _)| !name.starts_with(b":")).cloned().collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

/// The input without a last frame or header block that is cut short: the crate looks at a frame when it is whole, we at DATA as
/// it comes; we look at a block when it is whole, the crate at its frames as they come.
fn whole_frames(input: &[u8]) -> &[u8] {
    let (mut rest, mut whole) = (input, 0);
    while let Some((header, behind)) = rest.split_at_checked(FRAME_HEADER) {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let Some((_, next)) = behind.split_at_checked(length) else { break };
        rest = next;
        let [kind, flags] = [header[3], header[4]];
        if !matches!(kind, HEADERS | CONTINUATION) || flags & END_HEADERS != 0 {
            whole = input.len() - rest.len();
        }
    }
    &input[..whole]
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let input = whole_frames(input);
    let story = live(Role::Server, 0, input, false);
    let theirs = tell(&[PREFACE, input].concat(), MAX_STREAMS, MAX_HEADER_LIST);
    let refused = story.end.map(|error| error.code);
    // Floods are each server's own measure; and what one takes for a fault of a stream, the other may for one of the connection.
    let is_flood =
        refused == Some(ErrorCode::EnhanceYourCalm) || theirs.refused == Some(h2::Reason::ENHANCE_YOUR_CALM);
    if is_flood || story.faults > 0 || theirs.client_left {
        return;
    }
    // Which of the two refuses more is not compared: the crate lets pass some of what RFC 9113 forbids.
    if refused.is_some() || theirs.refused.is_some() {
        return;
    }
    // Neither need know of a request that was cut off, or that the other finds malformed.
    let whole = |requests: Vec<Request>| requests.into_iter().filter(|r| r.is_whole).collect::<Vec<_>>();
    let (ours, theirs) = (whole(ours(&story.heard)), whole(theirs.requests));
    for request in &theirs {
        assert!(ours.contains(request), "the crate takes {request:?}; we take {ours:?}");
    }
});

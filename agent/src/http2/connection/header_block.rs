//! Header blocks: collected, decoded, and held against what the stream waits for.

use super::receive::Step;
use super::{Connection, Event, HeadersKind};
use crate::http2::calm;
use crate::http2::error::{ErrorCode, Fault, Flood};
use crate::http2::fields::FieldList;
use crate::http2::flow::{ReceiveWindow, SendWindow};
use crate::http2::frame::{FrameHeader, flag};
use crate::http2::hpack::{Decoded, ListLimits, Undecoded};
use crate::http2::message::{self, Malformed, Response};
use crate::http2::settings::Role;
use crate::http2::stream::StreamKey;

/// CONTINUATION frames of one block: the largest block allowed by default in pieces of 512 bytes (CVE-2024-27316).
const MAX_CONTINUATIONS: u32 = 128;
/// A block larger than a list may be is still decoded, for its list to be answered with an error of its own: up to this many
/// times a list's size, packed and unpacked. Beyond it the connection ends.
const BLOCK_BYTES_PER_LIST_BYTE: usize = 4;
/// What a HEADERS frame says of priority (RFC 9113 §6.2).
const PRIORITY_LEN: usize = 5;

/// A header block whose end has not come.
#[derive(Debug)]
pub(super) struct PartialBlock {
    pub(super) stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
    continuations: u32,
    looks: u32,
}

impl PartialBlock {
    /// How often somebody has looked and found it unfinished.
    pub(super) fn look(&mut self) -> u32 {
        self.looks += 1;
        self.looks
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Connection {
    pub(super) fn headers_frame<'i>(
        &mut self,
        header: &FrameHeader,
        payload: &'i [u8],
        fields: &mut FieldList,
    ) -> Result<Step<'i>, Fault> {
        if header.stream == 0 {
            return Err(Fault::protocol("HEADERS on no stream"));
        }
        let fragment = without_padding_and_priority(header, payload)?;
        let end_stream = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            self.check_block_size(fragment.len())?;
            return self.whole_block(header.stream, end_stream, fragment, fields);
        }
        self.block = Some(PartialBlock {
            stream: header.stream,
            end_stream,
            bytes: fragment.to_vec(),
            continuations: 0,
            looks: 0,
        });
        Ok(Step::Done)
    }

    pub(super) fn continuation_frame<'i>(
        &mut self,
        header: &FrameHeader,
        payload: &'i [u8],
        fields: &mut FieldList,
    ) -> Result<Step<'i>, Fault> {
        let Some(mut block) = self.block.take() else {
            return Err(Fault::protocol("CONTINUATION of nothing"));
        };
        self.check_block_size(block.bytes.len() + payload.len())?;
        block.bytes.extend_from_slice(payload);
        block.continuations += 1;
        if block.continuations > MAX_CONTINUATIONS {
            return Err(Fault::flood(Flood::Headers, "header block in too many pieces"));
        }
        self.calm.charge(calm::PLAIN)?;
        if header.has(flag::END_HEADERS) {
            return self.whole_block(block.stream, block.end_stream, &block.bytes, fields);
        }
        self.block = Some(block);
        Ok(Step::Done)
    }

    fn check_block_size(&self, bytes: usize) -> Result<(), Fault> {
        if bytes > self.max_block() { Err(too_large_block()) } else { Ok(()) }
    }

    fn max_block(&self) -> usize {
        self.limits.max_header_list as usize * BLOCK_BYTES_PER_LIST_BYTE
    }

    /// Every block is decoded, whatever becomes of its stream: the decoder's table must stay the encoder's.
    fn whole_block<'i>(
        &mut self,
        id: u32,
        end_stream: bool,
        block: &[u8],
        fields: &mut FieldList,
    ) -> Result<Step<'i>, Fault> {
        fields.clear();
        let limits = ListLimits {
            bytes: self.limits.max_header_list as usize,
            fields: self.limits.max_header_fields as usize,
            unpacked: self.max_block(),
        };
        let decoded = self.decoder.decode(block, limits, fields).map_err(|undecoded| match undecoded {
            Undecoded::NotHpack(reason) => Fault::connection(ErrorCode::CompressionError, reason),
            Undecoded::Bomb => too_large_block(),
        })?;
        let stream = match self.streams.find(id) {
            Some(stream) => stream,
            None if self.role == Role::Server && self.is_idle(id) => {
                return self.request(id, end_stream, decoded, fields);
            }
            None if self.is_idle(id) => {
                return Err(Fault::protocol("HEADERS on a stream that nobody opened"));
            }
            // Trailers may be late for a stream that is gone; a second message is never right (RFC 9113 §5.1.1).
            None if self.role == Role::Server
                && fields.iter().next().is_some_and(|field| field.known.is_pseudo()) =>
            {
                return Err(Fault::protocol("request on a stream that was used before"));
            }
            None => return self.late_headers(id),
        };
        if self.streams[stream].reset {
            return self.late_headers(id);
        }
        if self.streams[stream].remote_closed {
            return Err(Fault::Stream(id, ErrorCode::StreamClosed));
        }
        if decoded.too_large {
            return Err(Fault::Stream(id, ErrorCode::EnhanceYourCalm));
        }
        if decoded.invalid_field {
            return Err(malformed(id));
        }
        let kind = self.message_part(stream, end_stream, fields).map_err(|Malformed| malformed(id))?;
        match kind {
            HeadersKind::Informational => self.calm.charge(calm::PLAIN)?,
            _ => self.calm.useful(1),
        }
        if end_stream {
            self.streams.close(stream, false, true);
        }
        Ok(Step::Event(Event::Headers { stream, token: self.streams[stream].token, kind, end_stream }))
    }

    /// What a header list is to a stream that exists already.
    fn message_part(
        &mut self,
        stream: StreamKey,
        end_stream: bool,
        fields: &FieldList,
    ) -> Result<HeadersKind, Malformed> {
        let state = &mut self.streams[stream];
        if state.has_message {
            message::check_trailers(fields)?;
            let is_right = end_stream && state.body_comes(0, true);
            return if is_right { Ok(HeadersKind::Trailers) } else { Err(Malformed) };
        }
        match message::check_response(fields, state.is_head)? {
            Response::Final { body } => {
                state.has_message = true;
                state.body_left = body;
                if state.body_comes(0, end_stream) { Ok(HeadersKind::Response) } else { Err(Malformed) }
            }
            Response::Informational if end_stream => Err(Malformed),
            Response::Informational => Ok(HeadersKind::Informational),
        }
    }

    /// A client opens a stream.
    fn request<'i>(
        &mut self,
        id: u32,
        end_stream: bool,
        decoded: Decoded,
        fields: &FieldList,
    ) -> Result<Step<'i>, Fault> {
        self.calm.request();
        if id.is_multiple_of(2) {
            return Err(Fault::protocol("client's stream with an even identifier"));
        }
        self.last_peer_stream = id;
        if self.sent_go_away.is_some_and(|last| id > last) {
            // Not processed, and the GOAWAY said so.
            self.resets.excuse(self.limits.stream_window);
            self.calm.charge(calm::PLAIN)?;
            return Ok(Step::Done);
        }
        // Streams that are over and not yet released cost as much as open ones (CVE-2023-44487).
        let most = self.limits.max_concurrent_streams;
        if self.streams.open() >= most || self.streams.in_use() >= 2 * most as usize {
            return Err(Fault::Stream(id, ErrorCode::RefusedStream));
        }
        let (kind, body) = request_kind(id, decoded, fields)?;
        if end_stream && body != 0 && body != message::UNKNOWN_LENGTH {
            return Err(malformed(id));
        }
        match kind {
            // Nobody has use for it, and little of it may stand for much.
            HeadersKind::RequestTooLarge => self.calm.charge(calm::RARE)?,
            _ => self.calm.useful(1),
        }
        let send = SendWindow::new(self.peer.initial_window);
        let stream = self.streams.insert(id, send, ReceiveWindow::new(self.limits.stream_window));
        let state = &mut self.streams[stream];
        state.has_message = true;
        state.body_left = body;
        if end_stream {
            self.streams.close(stream, false, true);
        }
        Ok(Step::Event(Event::Headers { stream, token: 0, kind, end_stream }))
    }
}

fn too_large_block() -> Fault {
    Fault::flood(Flood::Headers, "header block many times larger than a list may be")
}

fn malformed(id: u32) -> Fault {
    Fault::Stream(id, ErrorCode::ProtocolError)
}

/// Which kind of request a list is, and the length of the body that it promises.
fn request_kind(id: u32, decoded: Decoded, fields: &FieldList) -> Result<(HeadersKind, u64), Fault> {
    if decoded.invalid_field {
        return Err(malformed(id));
    }
    if decoded.too_large {
        return Ok((HeadersKind::RequestTooLarge, message::UNKNOWN_LENGTH));
    }
    let request = message::check_request(fields).map_err(|Malformed| malformed(id))?;
    Ok((if request.connects { HeadersKind::Connect } else { HeadersKind::Request }, request.body))
}

fn without_padding_and_priority<'i>(header: &FrameHeader, mut payload: &'i [u8]) -> Result<&'i [u8], Fault> {
    let too_short = || Fault::protocol("HEADERS shorter than its padding and priority");
    let mut padding = 0;
    if header.has(flag::PADDED) {
        let (length, rest) = payload.split_first().ok_or_else(too_short)?;
        (padding, payload) = (usize::from(*length), rest);
    }
    if header.has(flag::PRIORITY) {
        payload = payload.get(PRIORITY_LEN..).ok_or_else(too_short)?;
    }
    let length = payload.len().checked_sub(padding).ok_or_else(too_short)?;
    Ok(&payload[..length])
}

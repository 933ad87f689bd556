//! Bytes in: which frame comes next, whether it may, and who deals with it.

use super::{Connection, Event};
use crate::http2::calm;
use crate::http2::error::{ConnectionError, ErrorCode, Fault};
use crate::http2::fields::FieldList;
use crate::http2::frame::{FrameHeader, HEADER_LEN, MAX_PAYLOAD, PREFACE, flag, kind};
use crate::http2::settings::Role;
use crate::http2::stream::StreamKey;

/// Of a DATA frame that has not come whole, less than this is not worth an event: a peer that drips bytes must not make
/// many small frames of one large one.
const MIN_PIECE_BYTES: usize = 4_096;
/// Streams that we reset and whose end the peer may not have heard of: late frames for that many of them are told from
/// frames that break the protocol. As many as a client may have open.
const REMEMBERED_RESETS: usize = 1_024;
/// Late DATA of all of them together: as much as the connection's window lets through in a round trip or two.
const MOST_EXCUSED_BYTES: u64 = 64 << 20;
/// What a late DATA frame counts as at least: a window in frames of a byte each is work without end.
const LEAST_LATE_BYTES: usize = 256;

/// The rest of a DATA frame of which the beginning came.
#[derive(Debug)]
pub(super) struct PartialData {
    /// `None`: nobody wants it.
    stream: Option<StreamKey>,
    /// To know whether the slot is still the same stream's.
    id: u32,
    payload: usize,
    padding: usize,
    end_stream: bool,
}

/// What a step through the input came to.
pub(super) enum Step<'i> {
    Event(Event<'i>),
    /// Something was taken in that is nobody else's business.
    Done,
    /// The next frame has not come whole.
    Starved,
}

impl Connection {
    /// Moves the bytes that were kept last time to the front of `buffer`, and says how many they are: at most
    /// 16,393, for which `buffer` must have room and some more.
    pub fn restore(&mut self, buffer: &mut [u8]) -> usize {
        let kept = self.kept.len();
        buffer[..kept].copy_from_slice(&self.kept);
        // An idle connection holds no memory for input.
        self.kept = Vec::new();
        kept
    }

    /// Keeps what `receive` left of its input until more has come.
    pub fn keep(&mut self, rest: &[u8]) {
        self.kept.extend_from_slice(rest);
    }

    /// Takes frames off the front of `input` until one means something to the owner; `None` when what is left is no whole
    /// frame. `fields` holds a header list after [`Event::Headers`], and is scratch otherwise.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol so that the connection cannot go on. The GOAWAY that says so is in the output.
    pub fn receive<'i>(
        &mut self,
        input: &mut &'i [u8],
        fields: &mut FieldList,
    ) -> Result<Option<Event<'i>>, ConnectionError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let outcome = self.next_event(input, fields);
        if let Err(error) = outcome {
            self.failed = Some(error);
            // What an earlier one said was not processed stays so (RFC 9113 §6.8).
            let last_stream = self.sent_go_away.unwrap_or(u32::MAX).min(self.last_peer_stream);
            self.output.go_away(last_stream, error.code, error.reason);
        }
        outcome
    }

    fn next_event<'i>(
        &mut self,
        input: &mut &'i [u8],
        fields: &mut FieldList,
    ) -> Result<Option<Event<'i>>, ConnectionError> {
        if let Some(event) = self.next_refused() {
            return Ok(Some(event));
        }
        loop {
            let fault = match self.step(input, fields) {
                Ok(Step::Event(event)) => return Ok(Some(event)),
                Ok(Step::Starved) => return Ok(None),
                Ok(Step::Done) => continue,
                Err(fault) => fault,
            };
            match self.answer(fault)? {
                Some(event) => return Ok(Some(event)),
                None => continue,
            }
        }
    }

    /// Resets the stream that a fault is about, and tells its owner, if there is one.
    #[cold]
    fn answer<'i>(&mut self, fault: Fault) -> Result<Option<Event<'i>>, ConnectionError> {
        let (id, code) = match fault {
            Fault::Connection(error) => return Err(error),
            Fault::Stream(id, code) => (id, code),
        };
        let counted = match code {
            // Honest peers have these: our SETTINGS, or a reset of long ago, may not have reached them.
            ErrorCode::RefusedStream | ErrorCode::StreamClosed => self.calm.charge(calm::PLAIN),
            // And these: a server's answer is too large for us and right all the same. Others share its connection.
            ErrorCode::EnhanceYourCalm => self.calm.charge(calm::RARE),
            _ => self.calm.fault(),
        };
        self.faults = self.faults.wrapping_add(1);
        let reply = self.output.reply(kind::RST_STREAM, 0, id, &code.to_wire().to_be_bytes());
        if let Err(Fault::Connection(error)) = counted.and(reply) {
            return Err(error);
        }
        let found = self.streams.find(id).filter(|stream| !self.streams[*stream].reset);
        let Some(stream) = found else {
            let window = if code == ErrorCode::StreamClosed { 0 } else { self.limits.stream_window };
            self.resets.remember(id, window);
            return Ok(None);
        };
        self.close_by_reset(stream, false);
        Ok(Some(Event::Reset { stream, token: self.streams[stream].token, code, by_peer: false }))
    }

    /// A header list came for a stream that is over.
    #[cold]
    pub(super) fn late_headers<'i>(&mut self, id: u32) -> Result<Step<'i>, Fault> {
        self.check_late(id)?;
        self.calm.charge(calm::PLAIN).map(|()| Step::Done)
    }

    /// DATA came for a stream that is over: free as far as the peer may have sent it before it heard of the end.
    #[cold]
    fn late_data(&mut self, id: u32, length: usize) -> Result<(), Fault> {
        self.check_late(id)?;
        if self.resets.is_excused(length) { Ok(()) } else { self.calm.charge(calm::PLAIN) }
    }

    /// Right if the peer may not have heard of the stream's end (RFC 9113 §5.1), else STREAM_CLOSED.
    fn check_late(&self, id: u32) -> Result<(), Fault> {
        if self.resets.contains(id) || self.sent_go_away.is_some_and(|last| id > last) {
            return Ok(());
        }
        Err(Fault::Stream(id, ErrorCode::StreamClosed))
    }

    fn step<'i>(&mut self, input: &mut &'i [u8], fields: &mut FieldList) -> Result<Step<'i>, Fault> {
        if self.data.is_some() {
            return Ok(self.data_piece(input));
        }
        if self.awaits_preface {
            return self.preface(input);
        }
        let Some((bytes, behind)) = input.split_first_chunk::<HEADER_LEN>() else { return Ok(Step::Starved) };
        let header = FrameHeader::read(bytes);
        self.check_frame(&header)?;
        if header.kind == kind::DATA {
            self.frames += 1;
            return self.data_frame(&header, behind, input);
        }
        let Some((payload, rest)) = behind.split_at_checked(header.length) else { return Ok(Step::Starved) };
        self.frames += 1;
        *input = rest;
        self.patience.unfinished = 0;
        match header.kind {
            kind::HEADERS => self.headers_frame(&header, payload, fields),
            kind::CONTINUATION => self.continuation_frame(&header, payload, fields),
            kind::WINDOW_UPDATE => self.window_update_frame(&header, payload),
            kind::RST_STREAM => self.rst_stream_frame(&header, payload),
            kind::SETTINGS => self.settings_frame(&header, payload),
            kind::PING => self.ping_frame(&header, payload),
            kind::GOAWAY => self.go_away_frame(&header, payload),
            kind::PRIORITY => self.priority_frame(&header),
            kind::PUSH_PROMISE => Err(Fault::protocol("PUSH_PROMISE, which is switched off")),
            // RFC 9113 §5.5: extensions that we do not know are ignored.
            _ => self.calm.charge(calm::PLAIN).map(|()| Step::Done),
        }
    }

    /// What holds for every frame.
    fn check_frame(&self, header: &FrameHeader) -> Result<(), Fault> {
        if header.length > MAX_PAYLOAD {
            return Err(Fault::connection(
                ErrorCode::FrameSizeError,
                "frame larger than SETTINGS_MAX_FRAME_SIZE",
            ));
        }
        if let Some(block) = &self.block
            && (header.kind != kind::CONTINUATION || header.stream != block.stream)
        {
            return Err(Fault::protocol("header block interrupted by another frame"));
        }
        if !self.has_peer_settings && (header.kind != kind::SETTINGS || header.has(flag::ACK)) {
            return Err(Fault::protocol("first frame is not SETTINGS"));
        }
        Ok(())
    }

    fn preface<'i>(&mut self, input: &mut &'i [u8]) -> Result<Step<'i>, Fault> {
        let (came, rest) = input.split_at(input.len().min(PREFACE.len()));
        if !PREFACE.starts_with(came) {
            return Err(Fault::protocol("client preface is not HTTP/2's"));
        }
        if came.len() < PREFACE.len() {
            return Ok(Step::Starved);
        }
        *input = rest;
        self.awaits_preface = false;
        Ok(Step::Done)
    }

    /// The beginning of a DATA frame: credit and stream are settled for the whole of it.
    fn data_frame<'i>(
        &mut self,
        header: &FrameHeader,
        behind: &'i [u8],
        input: &mut &'i [u8],
    ) -> Result<Step<'i>, Fault> {
        let (padding_field, padding) = match (header.has(flag::PADDED), behind.first()) {
            (false, _) => (0, 0),
            (true, None) if header.length > 0 => return Ok(Step::Starved),
            (true, first) => (1, first.copied().map_or(0, usize::from)),
        };
        if padding_field + padding > header.length {
            return Err(Fault::protocol("DATA padded beyond its end"));
        }
        if header.stream == 0 || self.is_idle(header.stream) {
            return Err(Fault::protocol("DATA on no stream"));
        }
        self.connection_credit(header.length)?;
        *input = &behind[padding_field..];
        self.patience.unfinished = 0;
        let payload = header.length - padding_field - padding;
        let end_stream = header.has(flag::END_STREAM);
        if payload == 0 && !end_stream {
            self.calm.charge(calm::RARE)?;
        }
        self.data = Some(PartialData { stream: None, id: header.stream, payload, padding, end_stream });
        let Some(stream) = self.data_stream(header.stream, header.length)? else { return Ok(Step::Done) };
        if !self.streams[stream].body_comes(payload, end_stream) {
            return Err(Fault::Stream(header.stream, ErrorCode::ProtocolError));
        }
        self.calm.useful(u32::from(payload > 0));
        if header.length > payload {
            self.grant(stream, (header.length - payload) as u32);
        }
        if let Some(data) = &mut self.data {
            data.stream = Some(stream);
        }
        Ok(self.data_piece(input))
    }

    /// The stream that gets a DATA frame's payload; `None` if the frame is late for it.
    fn data_stream(&mut self, id: u32, length: usize) -> Result<Option<StreamKey>, Fault> {
        let Some(key) = self.streams.find(id) else { return self.late_data(id, length).map(|()| None) };
        // Before the acknowledgement the peer may go by the protocol's default window.
        let slack = if self.has_settings_ack {
            0
        } else {
            super::INITIAL_WINDOW.saturating_sub(self.limits.stream_window)
        };
        let stream = &mut self.streams[key];
        if stream.reset {
            return self.late_data(id, length).map(|()| None);
        }
        if stream.remote_closed {
            return Err(Fault::Stream(id, ErrorCode::StreamClosed));
        }
        if !stream.has_message {
            return Err(Fault::Stream(id, ErrorCode::ProtocolError));
        }
        stream
            .receive_window
            .receive(length, slack)
            .map_err(|_| Fault::Stream(id, ErrorCode::FlowControlError))?;
        Ok(Some(key))
    }

    /// Credit of the connection comes back at once: what a stalled stream holds is bounded by its own window.
    fn connection_credit(&mut self, bytes: usize) -> Result<(), Fault> {
        let overrun =
            |_| Fault::connection(ErrorCode::FlowControlError, "more DATA than the connection's window");
        self.receive_window.receive(bytes, 0).map_err(overrun)?;
        // The connection's window never grows: it is as large as it may be from the start.
        if let Some(increment) = self.receive_window.consume_all(bytes as u32) {
            self.output.window_update(0, increment);
        }
        Ok(())
    }

    /// As much of a DATA frame as came.
    fn data_piece<'i>(&mut self, input: &mut &'i [u8]) -> Step<'i> {
        let Some(data) = &mut self.data else { return Step::Done };
        let stream = data.stream.filter(|stream| self.streams.is_still(*stream, data.id));
        let came = data.payload.min(input.len());
        let is_rest = came == data.payload;
        if stream.is_some() && !is_rest && came < MIN_PIECE_BYTES {
            return Step::Starved;
        }
        let (payload, rest) = input.split_at(came);
        let padding = data.padding.min(rest.len());
        let end_stream = data.end_stream && is_rest;
        data.payload -= came;
        if data.payload == 0 {
            data.padding -= padding;
            *input = &rest[padding..];
            // The event of the frame's end is out, even if some padding is to come.
            data.end_stream &= !is_rest;
        } else {
            *input = rest;
        }
        if data.payload == 0 && data.padding == 0 {
            self.data = None;
        } else if input.is_empty() && (stream.is_none() || (payload.is_empty() && !end_stream)) {
            return Step::Starved;
        }
        let Some(stream) = stream.filter(|_| !payload.is_empty() || end_stream) else { return Step::Done };
        if end_stream {
            self.streams.close(stream, false, true);
        }
        Step::Event(Event::Data { stream, token: self.streams[stream].token, payload, end_stream })
    }

    /// Streams that the peer broke a rule on, or that were refused, since the last time that somebody asked.
    pub fn take_faults(&mut self) -> u32 {
        std::mem::take(&mut self.faults)
    }

    /// A period is over: the peer may do anew what it may do in a period. To be called about once a second.
    pub fn begin_period(&mut self) {
        self.calm = calm::Calm::default();
        // A server that never acknowledges SETTINGS has had its time.
        self.resets_are_read();
    }

    /// No frame but HEADERS may come for a stream that nobody has opened (RFC 9113 §5.1).
    pub(super) fn is_idle(&self, id: u32) -> bool {
        match (self.role, id % 2) {
            (Role::Server, 1) => id > self.last_peer_stream,
            (Role::Client, 1) => id >= self.next_stream,
            // Nobody pushes.
            _ => true,
        }
    }
}

/// The streams that we reset last, of which frames may still be on their way.
#[derive(Debug, Default)]
pub(super) struct Resets {
    /// A ring, filled up to its size first.
    ids: Vec<u32>,
    next: usize,
    /// Late DATA that the peer may have sent in good faith.
    excused_bytes: u64,
}

impl Resets {
    /// The peer's `window` on the stream was so large when it was reset.
    pub(super) fn remember(&mut self, id: u32, window: u32) {
        self.excuse(window);
        if self.ids.len() < REMEMBERED_RESETS {
            self.ids.push(id);
        } else {
            self.ids[self.next] = id;
            self.next = (self.next + 1) % REMEMBERED_RESETS;
        }
    }

    /// So much DATA may come late.
    pub(super) fn excuse(&mut self, bytes: u32) {
        self.excused_bytes = (self.excused_bytes + u64::from(bytes)).min(MOST_EXCUSED_BYTES);
    }

    fn is_excused(&mut self, bytes: usize) -> bool {
        let left = self.excused_bytes.checked_sub(bytes.max(LEAST_LATE_BYTES) as u64);
        self.excused_bytes = left.unwrap_or(self.excused_bytes);
        left.is_some()
    }

    fn contains(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.ids.capacity() * size_of::<u32>()
    }
}

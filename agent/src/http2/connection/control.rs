//! Frames that govern the connection and its streams, and carry no message.

use super::receive::Step;
use super::{Connection, Event};
use crate::http2::calm;
use crate::http2::error::{ErrorCode, Fault};
use crate::http2::frame::{FrameHeader, MAX_STREAM_ID, flag, kind};
use crate::http2::settings::Role;
use crate::http2::stream::StreamKey;

impl Connection {
    pub(super) fn settings_frame<'i>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Step<'i>, Fault> {
        on_connection(header)?;
        if header.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(wrong_size("acknowledgement of SETTINGS with a payload"));
            }
            self.has_settings_ack = true;
            self.unacknowledged_settings = self.unacknowledged_settings.saturating_sub(1);
            self.calm.charge(calm::PLAIN)?;
            if self.unacknowledged_settings == 0 && self.resets_are_read() {
                // There is room for further streams.
                return Ok(Step::Event(Event::Settings));
            }
            return Ok(Step::Done);
        }
        self.calm.charge(calm::RARE)?;
        let before = self.peer;
        self.peer.apply(payload, self.role)?;
        self.has_peer_settings = true;
        if self.peer.header_table != before.header_table {
            self.encoder.set_peer_table(self.peer.header_table as usize);
        }
        self.shift_send_windows(i64::from(self.peer.initial_window) - i64::from(before.initial_window))?;
        self.output.reply(kind::SETTINGS, flag::ACK, 0, &[])?;
        Ok(Step::Event(Event::Settings))
    }

    /// RFC 9113 §6.9.2: the initial window holds for streams that are open already as well.
    fn shift_send_windows(&mut self, by: i64) -> Result<(), Fault> {
        if by == 0 {
            return Ok(());
        }
        self.calm.charge(calm::of_streams(self.streams.slots().len()))?;
        for (key, stream) in self.streams.iter_mut() {
            stream.send_window.shift(by).map_err(|_| {
                Fault::connection(
                    ErrorCode::FlowControlError,
                    "SETTINGS_INITIAL_WINDOW_SIZE overflows a stream's window",
                )
            })?;
            if stream.queue.is_some() && stream.send_window.available() > 0 {
                self.turns.join(key, stream);
            }
        }
        Ok(())
    }

    pub(super) fn ping_frame<'i>(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<Step<'i>, Fault> {
        on_connection(header)?;
        let payload: [u8; 8] = payload.try_into().map_err(|_| wrong_size("PING that is not 8 bytes"))?;
        self.calm.charge(calm::PLAIN)?;
        if header.has(flag::ACK) {
            return Ok(Step::Event(Event::Pong(payload)));
        }
        self.pings_received = self.pings_received.wrapping_add(1);
        self.output.reply(kind::PING, flag::ACK, 0, &payload)?;
        Ok(Step::Done)
    }

    pub(super) fn window_update_frame<'i>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Step<'i>, Fault> {
        let increment: [u8; 4] =
            payload.try_into().map_err(|_| wrong_size("WINDOW_UPDATE that is not 4 bytes"))?;
        let increment = i64::from(u32::from_be_bytes(increment) & MAX_STREAM_ID);
        self.calm.charge(calm::PLAIN)?;
        if header.stream == 0 {
            if increment == 0 {
                return Err(Fault::protocol("WINDOW_UPDATE of nothing"));
            }
            self.send_window.shift(increment).map_err(|_| {
                Fault::connection(
                    ErrorCode::FlowControlError,
                    "WINDOW_UPDATE overflows the connection's window",
                )
            })?;
            return Ok(Step::Done);
        }
        let Some(key) = self.known_stream(header)? else { return Ok(Step::Done) };
        let stream = &mut self.streams[key];
        if stream.is_closed() {
            return Ok(Step::Done);
        }
        if increment == 0 {
            return Err(Fault::Stream(header.stream, ErrorCode::ProtocolError));
        }
        let overflow = |_| Fault::Stream(header.stream, ErrorCode::FlowControlError);
        stream.send_window.shift(increment).map_err(overflow)?;
        if stream.queue.is_some() && stream.send_window.available() > 0 {
            self.turns.join(key, stream);
        }
        Ok(Step::Done)
    }

    pub(super) fn rst_stream_frame<'i>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Step<'i>, Fault> {
        let code: [u8; 4] = payload.try_into().map_err(|_| wrong_size("RST_STREAM that is not 4 bytes"))?;
        let known = self.known_stream(header)?.filter(|stream| !self.streams[*stream].is_closed());
        let Some(stream) = known else { return self.calm.charge(calm::PLAIN).map(|()| Step::Done) };
        if self.role == Role::Server && !self.streams[stream].local_closed {
            self.calm.cancel()?;
        }
        self.close_by_reset(stream, true);
        let code = ErrorCode::from_wire(u32::from_be_bytes(code));
        Ok(Step::Event(Event::Reset { stream, token: self.streams[stream].token, code, by_peer: true }))
    }

    pub(super) fn go_away_frame<'i>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Step<'i>, Fault> {
        on_connection(header)?;
        let Some(([s0, s1, s2, s3, c0, c1, c2, c3], _debug)) = payload.split_first_chunk::<8>() else {
            return Err(wrong_size("GOAWAY shorter than 8 bytes"));
        };
        let last_stream = u32::from_be_bytes([*s0, *s1, *s2, *s3]) & MAX_STREAM_ID;
        let code = ErrorCode::from_wire(u32::from_be_bytes([*c0, *c1, *c2, *c3]));
        self.calm.charge(calm::RARE + calm::of_streams(self.streams.slots().len()))?;
        self.received_go_away = true;
        if self.role == Role::Client {
            self.refusing = Some((last_stream, 0));
        }
        Ok(Step::Event(Event::GoAway { last_stream, code }))
    }

    /// The next open stream that the peer's GOAWAY says it never processed.
    pub(super) fn next_refused<'i>(&mut self) -> Option<Event<'i>> {
        let (last_stream, seen) = self.refusing?;
        let slots = self.streams.slots().iter().enumerate().skip(seen as usize);
        let found = slots
            .map(|(slot, stream)| (slot as u32, stream))
            .find(|(_, stream)| stream.id > last_stream && !stream.is_closed());
        let Some((slot, found)) = found else {
            self.refusing = None;
            return None;
        };
        let (stream, token) = (StreamKey(slot), found.token);
        self.refusing = Some((last_stream, slot + 1));
        self.close_by_reset(stream, true);
        Some(Event::Refused { stream, token })
    }

    /// RFC 9113 §5.3.2: priority is not used, but the frame must be one.
    pub(super) fn priority_frame<'i>(&mut self, header: &FrameHeader) -> Result<Step<'i>, Fault> {
        self.calm.charge(calm::PLAIN)?;
        match (header.stream, header.length) {
            (0, _) => Err(Fault::protocol("PRIORITY on no stream")),
            (_, 5) => Ok(Step::Done),
            // A stream error in RFC 9113 §6.3, which may be treated as this (§5.4.1): the stream may be idle.
            _ => Err(wrong_size("PRIORITY that is not 5 bytes")),
        }
    }

    /// The stream that a frame is about; `None` if it is gone.
    fn known_stream(&self, header: &FrameHeader) -> Result<Option<StreamKey>, Fault> {
        match self.streams.find(header.stream) {
            None if self.is_idle(header.stream) => {
                Err(Fault::protocol("frame on a stream that nobody opened"))
            }
            found => Ok(found),
        }
    }
}

fn on_connection(header: &FrameHeader) -> Result<(), Fault> {
    if header.stream == 0 { Ok(()) } else { Err(Fault::protocol("connection's frame on a stream")) }
}

fn wrong_size(reason: &'static str) -> Fault {
    Fault::connection(ErrorCode::FrameSizeError, reason)
}

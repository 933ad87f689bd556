//! Messages out: header lists at once, bodies as windows and the output allow.

use super::{Connection, OpenError, Progress};
use crate::http2::fields::FieldList;
use crate::http2::flow::{ReceiveWindow, SendWindow};
use crate::http2::frame::{MAX_PAYLOAD, MAX_STREAM_ID};
use crate::http2::settings::Role;
use crate::http2::stream::StreamKey;

impl Connection {
    /// Opens a stream with a request's header list (client role).
    ///
    /// # Errors
    ///
    /// The connection takes no further stream, now or ever.
    pub fn open(&mut self, fields: &FieldList, end_stream: bool, token: u32) -> Result<StreamKey, OpenError> {
        debug_assert_eq!(self.role, Role::Client, "only a client opens streams");
        self.check_open()?;
        let id = self.next_stream;
        self.next_stream += 2;
        let send = SendWindow::new(self.peer.initial_window);
        let stream = self.streams.insert(id, send, ReceiveWindow::new(self.limits.stream_window));
        let state = &mut self.streams[stream];
        state.token = token;
        state.is_head = fields.is_head();
        self.calm.useful(1);
        self.write_headers(stream, fields, end_stream);
        Ok(stream)
    }

    /// Whether `open` would succeed.
    #[must_use]
    pub fn can_open(&self) -> bool {
        self.check_open().is_ok()
    }

    fn check_open(&self) -> Result<(), OpenError> {
        if self.received_go_away || self.sent_go_away.is_some() || self.failed.is_some() {
            return Err(OpenError::GoingAway);
        }
        if self.next_stream > MAX_STREAM_ID {
            return Err(OpenError::IdsExhausted);
        }
        let most = self.peer.max_concurrent_streams;
        match self.cancels.held() {
            Some(held) if self.streams.open() + held < most => Ok(()),
            _ => Err(OpenError::AtPeerLimit),
        }
    }

    /// A response's header list, the final one or a 1xx. Nothing happens if our half is closed.
    pub fn send_headers(&mut self, stream: StreamKey, fields: &FieldList, end_stream: bool) {
        if !self.streams[stream].local_closed {
            self.write_headers(stream, fields, end_stream);
        }
    }

    /// Body bytes: as many as the windows and `max_output` allow go to the output, which is what it returns; the rest
    /// is queued in the stream for `advance`. If our half is closed, they are dropped, and count as gone.
    pub fn send_data(&mut self, stream: StreamKey, payload: &[u8], end_stream: bool) -> usize {
        if self.streams[stream].local_closed {
            return payload.len();
        }
        if let Some(queue) = &mut self.streams[stream].queue {
            self.queues_held -= queue.held_bytes();
            queue.push(payload);
            queue.ends |= end_stream;
            self.queues_held += queue.held_bytes();
            return 0;
        }
        let written = self.write_data(stream, payload, end_stream);
        if written < payload.len() {
            let rest = &payload[written..];
            let stream_state = &mut self.streams[stream];
            let queue = stream_state.queue.insert(Box::default());
            queue.push(rest);
            queue.ends = end_stream;
            self.queues_held += queue.held_bytes();
            if stream_state.send_window.available() > 0 {
                self.turns.join(stream, stream_state);
            }
        }
        written
    }

    /// Trailers, which end the stream, behind what it has queued. They are encoded when they are written: blocks reach
    /// the peer in the order of the encoder's table.
    pub fn send_trailers(&mut self, stream: StreamKey, fields: &FieldList) {
        if self.streams[stream].local_closed {
            return;
        }
        match &mut self.streams[stream].queue {
            Some(queue) => {
                self.queues_held -= queue.held_bytes();
                queue.trailers.get_or_insert_default().copy_from(fields);
                self.queues_held += queue.held_bytes();
            }
            None => self.write_headers(stream, fields, true),
        }
    }

    /// Whether the peer would take more of the stream's body.
    #[must_use]
    pub fn has_window(&self, stream: StreamKey) -> bool {
        self.send_window.available() > 0 && self.streams[stream].send_window.available() > 0
    }

    /// Body bytes that wait in the stream.
    #[must_use]
    pub fn queued(&self, stream: StreamKey) -> usize {
        self.streams[stream].queued()
    }

    /// Whether `advance` has something to do now.
    #[must_use]
    pub fn wants_advance(&self) -> bool {
        !self.turns.is_empty() && self.send_window.available() > 0 && self.output.len() < self.max_output()
    }

    /// Writes what windows and `max_output` allow of what is queued, one frame of each stream in turn, and adds to
    /// `progress` what left the queues. Call it when [`Connection::wants_advance`]: after windows opened or output went.
    pub fn advance(&mut self, progress: &mut Vec<Progress>) {
        while self.wants_advance() {
            let Some(stream) = self.turns.next(&mut self.streams) else { return };
            let Some(mut queue) = self.streams[stream].queue.take() else { continue };
            self.queues_held -= queue.held_bytes();
            let left = queue.unwritten();
            let piece = &left[..left.len().min(MAX_PAYLOAD)];
            let is_last = piece.len() == left.len();
            let bytes = self.write_data(stream, piece, is_last && queue.ends && queue.trailers.is_none());
            queue.written(bytes);
            if !queue.unwritten().is_empty() {
                self.queues_held += queue.held_bytes();
                let state = &mut self.streams[stream];
                state.queue = Some(queue);
                if state.send_window.available() > 0 {
                    self.turns.join(stream, state);
                }
            } else if let Some(trailers) = queue.trailers {
                self.write_headers(stream, &trailers, true);
            }
            let state = &self.streams[stream];
            let (token, finished) = (state.token, state.local_closed);
            match progress.last_mut() {
                Some(last) if last.stream == stream => {
                    last.bytes += bytes as u32;
                    last.finished = finished;
                }
                _ => progress.push(Progress { stream, token, bytes: bytes as u32, finished }),
            }
        }
    }

    fn write_headers(&mut self, stream: StreamKey, fields: &FieldList, end_stream: bool) {
        debug_assert!(self.streams[stream].queue.is_none(), "a header list must not pass a queued body");
        let encoder = &mut self.encoder;
        self.output.headers(self.streams[stream].id, end_stream, |out| encoder.encode(fields, out));
        if end_stream {
            self.streams.close(stream, true, false);
        }
    }

    /// DATA frames as windows and the output allow; END_STREAM only with the last byte.
    fn write_data(&mut self, stream: StreamKey, payload: &[u8], end_stream: bool) -> usize {
        let max_output = self.max_output();
        let state = &mut self.streams[stream];
        let allowed = state.send_window.available().min(self.send_window.available()).min(payload.len());
        let mut written = 0;
        self.calm.useful(1);
        while written < allowed && self.output.len() < max_output {
            let end = allowed.min(written + MAX_PAYLOAD);
            self.output.data(state.id, &payload[written..end], end_stream && end == payload.len());
            written = end;
        }
        state.send_window.take(written);
        self.send_window.take(written);
        if end_stream && written == payload.len() {
            if payload.is_empty() {
                self.output.data(state.id, &[], true);
            }
            self.streams.close(stream, true, false);
        }
        written
    }
}

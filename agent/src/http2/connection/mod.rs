//! One end of an HTTP/2 connection: its state, its beginning and its end.
//!
//! `receive` takes frames apart, `header_block` and `control` act on them, `send` makes frames, `cancels` holds some of them
//! back, `patience` counts how long the peer keeps us waiting; `event` is what the owner hears.

mod cancels;
mod control;
mod event;
mod header_block;
mod patience;
mod receive;
mod send;

pub use event::{Event, HeadersKind, LastStream, OpenError, Progress};
pub use patience::Waits;

use self::cancels::Cancels;
use self::header_block::PartialBlock;
use self::patience::Patience;
use self::receive::{PartialData, Resets};
use super::calm::Calm;
use super::error::{ConnectionError, ErrorCode};
use super::flow::{INITIAL_WINDOW, ReceiveWindow, SendWindow};
use super::frame::{MAX_STREAM_ID, PREFACE, kind};
use super::hpack::{Decoder, Encoder};
use super::limits::Limits;
use super::output::Output;
use super::settings::{self, PeerSettings, Role};
use super::stream::{StreamKey, Streams};
use super::turns::Turns;

/// Output that an owner short of memory makes in advance: two frames, so that the socket never waits for the second.
const FRUGAL_OUTPUT_BYTES: usize = 32 << 10;
/// And one that has nearly none: a frame behind some headers.
const STRICT_OUTPUT_BYTES: usize = 4 << 10;

/// How short of memory a connection's owner is.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub enum Thrift {
    /// There is enough.
    #[default]
    Ample,
    /// Windows do not grow, those that have grown shrink as they are used, and less output is made in advance.
    Frugal,
    /// And hardly any.
    Strict,
}

/// One end of an HTTP/2 connection, without I/O. Feed it with [`Connection::receive`], write its
/// [`Connection::output`] to the socket, and drive [`Connection::advance`] when it wants to.
///
/// A stream lives in its slot until [`Connection::release`], which its owner calls exactly once; until then its
/// [`StreamKey`] is valid, whatever becomes of the stream on the wire.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    limits: Limits,

    /// A frame's beginning that `keep` was given.
    kept: Vec<u8>,
    /// The client's preface is still to come.
    awaits_preface: bool,
    /// The peer's first frame came, which must be SETTINGS (RFC 9113 §3.4).
    has_peer_settings: bool,
    /// The peer acknowledged our SETTINGS: from then on it keeps to our stream window.
    has_settings_ack: bool,
    unacknowledged_settings: u32,
    /// The DATA frame of which not everything came yet.
    data: Option<PartialData>,
    /// The header block that is to be continued.
    block: Option<PartialBlock>,
    /// Frames that have come.
    frames: u32,
    /// What the peer makes us do for nothing.
    calm: Calm,
    /// How long it keeps us waiting.
    patience: Patience,
    /// Streams of the peer that broke a rule or were refused.
    faults: u32,
    resets: Resets,
    cancels: Cancels,
    decoder: Decoder,

    streams: Streams,
    /// Client: the identifier of the next stream we open. Server: the highest one seen is `last_peer_stream`.
    next_stream: u32,
    last_peer_stream: u32,
    /// Our GOAWAY's last stream.
    sent_go_away: Option<u32>,
    received_go_away: bool,
    /// Streams above the peer's GOAWAY's last stream that are still to be reported: (last stream, slots looked at).
    refusing: Option<(u32, u32)>,
    failed: Option<ConnectionError>,
    pings_received: u32,

    peer: PeerSettings,
    send_window: SendWindow,
    receive_window: ReceiveWindow,
    encoder: Encoder,
    /// Streams with something queued and a window to send it.
    turns: Turns,
    /// What all queues hold in memory.
    queues_held: usize,
    thrift: Thrift,
    output: Output,
}

impl Connection {
    /// The end that accepted: expects the client's preface. Its SETTINGS are in the output already.
    #[must_use]
    pub fn server(limits: &Limits) -> Self {
        Self::new(Role::Server, limits)
    }

    /// The end that connected: the preface and SETTINGS are in the output already.
    #[must_use]
    pub fn client(limits: &Limits) -> Self {
        Self::new(Role::Client, limits)
    }

    fn new(role: Role, limits: &Limits) -> Self {
        let connection_window = limits.connection_window.max(INITIAL_WINDOW);
        let mut output = Output::default();
        if role == Role::Client {
            output.raw(PREFACE);
        }
        output.frame(kind::SETTINGS, 0, 0, &settings::ours(role, limits));
        if connection_window > INITIAL_WINDOW {
            output.window_update(0, connection_window - INITIAL_WINDOW);
        }
        Self {
            role,
            limits: limits.clone(),
            kept: Vec::new(),
            awaits_preface: role == Role::Server,
            has_peer_settings: false,
            has_settings_ack: false,
            unacknowledged_settings: 1,
            data: None,
            block: None,
            frames: 0,
            calm: Calm::default(),
            patience: Patience::default(),
            faults: 0,
            resets: Resets::default(),
            cancels: Cancels::default(),
            decoder: Decoder::new(limits.header_table as usize),
            streams: Streams::default(),
            next_stream: 1,
            last_peer_stream: 0,
            sent_go_away: None,
            received_go_away: false,
            refusing: None,
            failed: None,
            pings_received: 0,
            peer: PeerSettings::default(),
            send_window: SendWindow::new(INITIAL_WINDOW),
            receive_window: ReceiveWindow::new(connection_window),
            encoder: Encoder::new(limits.header_table as usize),
            turns: Turns::default(),
            queues_held: 0,
            thrift: Thrift::Ample,
            output,
        }
    }

    /// Gives a stream its owner's token, which comes back with every event of the stream.
    pub fn set_token(&mut self, stream: StreamKey, token: u32) {
        self.streams[stream].token = token;
    }

    /// Says how short of memory the owner is.
    pub fn set_thrift(&mut self, thrift: Thrift) {
        self.thrift = thrift;
    }

    /// Payload bytes of [`Event::Data`] went on: the peer may send as many again. Told in halves of the window, which
    /// grows as long as they go on as fast as they come.
    pub fn grant(&mut self, stream: StreamKey, bytes: u32) {
        let limits = &self.limits;
        let is_ample = self.thrift == Thrift::Ample;
        let max = if is_ample { limits.max_stream_window } else { limits.stream_window };
        let stream = &mut self.streams[stream];
        if stream.remote_closed {
            return;
        }
        if let Some(increment) = stream.receive_window.consume(bytes, max) {
            self.output.window_update(stream.id, increment);
        }
    }

    /// Ends the stream with RST_STREAM and drops what it has queued; nothing happens if it is closed. Of many streams that the
    /// server has said nothing about, some are reset on the wire a round trip later.
    pub fn reset(&mut self, stream: StreamKey, code: ErrorCode) {
        let state = &self.streams[stream];
        if state.is_closed() {
            return;
        }
        self.send_reset(state.id, code, state.has_message);
        self.close_by_reset(stream, false);
    }

    /// Both halves are done and nothing is queued.
    #[must_use]
    pub fn is_closed(&self, stream: StreamKey) -> bool {
        self.streams[stream].is_closed()
    }

    /// Frees the stream's slot; the key is not valid any longer. A stream that is not closed is reset: a server that
    /// has answered in full says NO_ERROR (RFC 9113 §8.1), everybody else CANCEL.
    pub fn release(&mut self, stream: StreamKey) {
        let has_answered = self.role == Role::Server && self.streams[stream].local_closed;
        self.reset(stream, if has_answered { ErrorCode::NoError } else { ErrorCode::Cancel });
        self.streams.remove(stream);
    }

    /// Asks the peer for an [`Event::Pong`] with the same payload.
    pub fn ping(&mut self, payload: [u8; 8]) {
        self.output.frame(kind::PING, 0, 0, &payload);
    }

    /// Says GOAWAY. Streams that the peer opens above `last_stream` are ignored from now on.
    pub fn go_away(&mut self, code: ErrorCode, last_stream: LastStream) {
        let last_stream = match last_stream {
            LastStream::Max => MAX_STREAM_ID,
            LastStream::Seen => self.last_peer_stream,
        };
        // It may only go down (RFC 9113 §6.8).
        let last_stream = self.sent_go_away.map_or(last_stream, |sent| sent.min(last_stream));
        self.sent_go_away = Some(last_stream);
        self.output.go_away(last_stream, code, "");
    }

    /// Bytes for the socket.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.unsent()
    }

    /// So many bytes of the output are at the socket.
    pub fn sent(&mut self, bytes: usize) {
        self.patience.sent += bytes;
        self.output.sent(bytes, self.streams.open() == 0);
    }

    /// Streams that are not closed.
    #[must_use]
    pub fn open_streams(&self) -> u32 {
        self.streams.open()
    }

    /// Whether the peer has acknowledged our SETTINGS (RFC 9113 §6.5.3).
    #[must_use]
    pub fn has_settings_ack(&self) -> bool {
        self.has_settings_ack
    }

    /// Frames that have come since this was last asked.
    pub fn take_frames(&mut self) -> u32 {
        std::mem::take(&mut self.frames)
    }

    /// How often the peer has sent a PING of its own, so far.
    #[must_use]
    pub fn pings_received(&self) -> u32 {
        self.pings_received
    }

    /// The largest header list that the peer takes, as RFC 9113 §6.5.2 counts; `u32::MAX` if it has not said.
    #[must_use]
    pub fn peer_max_header_list(&self) -> u32 {
        self.peer.max_header_list
    }

    /// The peer's SETTINGS_MAX_CONCURRENT_STREAMS; `u32::MAX` if it sets no limit.
    #[must_use]
    pub fn peer_max_concurrent_streams(&self) -> u32 {
        self.peer.max_concurrent_streams
    }

    /// Everything that the connection holds in memory, itself included.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        size_of::<Self>()
            + self.kept.capacity()
            + self.block.as_ref().map_or(0, PartialBlock::held_bytes)
            + self.decoder.held_bytes()
            + self.encoder.held_bytes()
            + self.streams.held_bytes()
            + self.turns.held_bytes()
            + self.resets.held_bytes()
            + self.cancels.held_bytes()
            + self.queues_held
            + self.output.held_bytes()
    }

    /// As [`Self::reset`], by a client that does not care what its server thinks of it.
    #[cfg(test)]
    pub(crate) fn reset_at_once_for_test(&mut self, stream: StreamKey) {
        self.output.rst_stream(self.streams[stream].id, ErrorCode::Cancel);
        self.close_by_reset(stream, false);
    }

    /// The slot of a stream that its owner has not released yet.
    #[cfg(test)]
    pub(super) fn streams_find_for_test(&self, id: u32) -> Option<StreamKey> {
        self.streams.find(id)
    }

    /// RST_STREAM came or went.
    fn close_by_reset(&mut self, stream: StreamKey, by_peer: bool) {
        self.drop_queue(stream);
        let state = &mut self.streams[stream];
        state.reset = true;
        if !by_peer && !state.remote_closed {
            self.resets.remember(state.id, state.receive_window.left());
        }
        self.streams.close(stream, true, true);
    }

    fn drop_queue(&mut self, stream: StreamKey) {
        // Its turn is passed over when it comes.
        if std::mem::take(&mut self.streams[stream].in_turn) {
            self.turns.tidy(&mut self.streams);
        }
        if let Some(queue) = self.streams[stream].queue.take() {
            self.queues_held -= queue.held_bytes();
        }
    }

    /// Output beyond which DATA is queued in its stream.
    fn max_output(&self) -> usize {
        match self.thrift {
            Thrift::Ample => self.limits.max_output,
            Thrift::Frugal => self.limits.max_output.min(FRUGAL_OUTPUT_BYTES),
            Thrift::Strict => self.limits.max_output.min(STRICT_OUTPUT_BYTES),
        }
    }
}

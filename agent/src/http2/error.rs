//! The error codes of RFC 9113 §7, and the error that ends a connection.

use std::fmt;

/// Why a stream or a connection ended (RFC 9113 §7). A code that the RFC does not know is kept as it came.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum ErrorCode {
    /// A graceful end.
    NoError,
    /// The peer broke the protocol.
    ProtocolError,
    /// A fault of the sender's own.
    InternalError,
    /// More was sent than the window allowed.
    FlowControlError,
    /// SETTINGS were not acknowledged in time.
    SettingsTimeout,
    /// A frame came for a half that was closed already.
    StreamClosed,
    /// A frame has a size that its type does not allow.
    FrameSizeError,
    /// The stream was not processed at all: safe to retry.
    RefusedStream,
    /// The stream is not needed any longer.
    Cancel,
    /// The header compression state is lost.
    CompressionError,
    /// The tunnel of a CONNECT request broke.
    ConnectError,
    /// The peer makes more work than it should.
    EnhanceYourCalm,
    /// The transport is not secure enough.
    InadequateSecurity,
    /// The request wants HTTP/1.1.
    Http11Required,
    /// A code that RFC 9113 does not define.
    Unknown(u32),
}

impl ErrorCode {
    /// The code as it stands in RST_STREAM and GOAWAY.
    #[must_use]
    pub fn to_wire(self) -> u32 {
        match self {
            Self::NoError => 0x0,
            Self::ProtocolError => 0x1,
            Self::InternalError => 0x2,
            Self::FlowControlError => 0x3,
            Self::SettingsTimeout => 0x4,
            Self::StreamClosed => 0x5,
            Self::FrameSizeError => 0x6,
            Self::RefusedStream => 0x7,
            Self::Cancel => 0x8,
            Self::CompressionError => 0x9,
            Self::ConnectError => 0xa,
            Self::EnhanceYourCalm => 0xb,
            Self::InadequateSecurity => 0xc,
            Self::Http11Required => 0xd,
            Self::Unknown(code) => code,
        }
    }

    /// The code that stood in a RST_STREAM or GOAWAY.
    #[must_use]
    pub fn from_wire(code: u32) -> Self {
        match code {
            0x0 => Self::NoError,
            0x1 => Self::ProtocolError,
            0x2 => Self::InternalError,
            0x3 => Self::FlowControlError,
            0x4 => Self::SettingsTimeout,
            0x5 => Self::StreamClosed,
            0x6 => Self::FrameSizeError,
            0x7 => Self::RefusedStream,
            0x8 => Self::Cancel,
            0x9 => Self::CompressionError,
            0xa => Self::ConnectError,
            0xb => Self::EnhanceYourCalm,
            0xc => Self::InadequateSecurity,
            0xd => Self::Http11Required,
            code => Self::Unknown(code),
        }
    }
}

/// The connection cannot go on (RFC 9113 §5.4.1). The GOAWAY that says so is in the output already: flush and close.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ConnectionError {
    /// What the GOAWAY says.
    pub code: ErrorCode,
    /// What was wrong, for the log.
    pub reason: &'static str,
    /// Not a broken rule but too much of something.
    pub flood: Option<Flood>,
}

/// Of what a peer sent too much, to be told to calm down (RFC 9113 §10.5).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Flood {
    /// Frames that are no part of a message.
    Control,
    /// Requests that it reset at once.
    Cancels,
    /// Streams that break the protocol.
    Faults,
    /// Header blocks, in bytes or in pieces.
    Headers,
    /// What has to be answered, while it does not read the answers.
    Unread,
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP/2 connection error {:?}: {}", self.code, self.reason)
    }
}

impl std::error::Error for ConnectionError {}

/// How far a fault in a frame reaches (RFC 9113 §5.4).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The whole connection.
    Connection(ConnectionError),
    /// This stream alone: RST_STREAM, and the rest goes on.
    Stream(u32, ErrorCode),
}

impl Fault {
    pub(super) fn connection(code: ErrorCode, reason: &'static str) -> Self {
        Self::Connection(ConnectionError { code, reason, flood: None })
    }

    pub(super) fn flood(flood: Flood, reason: &'static str) -> Self {
        Self::Connection(ConnectionError { code: ErrorCode::EnhanceYourCalm, reason, flood: Some(flood) })
    }

    pub(super) fn protocol(reason: &'static str) -> Self {
        Self::connection(ErrorCode::ProtocolError, reason)
    }
}

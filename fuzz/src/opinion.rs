//! What a server makes of a step of its input, in words that two servers have in common.

use crate::http2::ErrorCode;

const FRAME_HEADER: usize = 9;
/// Frame types and a flag (RFC 9113 §6).
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const PUSH_PROMISE: u8 = 0x5;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// A request with all that belongs to it, and nothing that only one of two servers would tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The stream's identifier.
    pub stream: u32,
    /// `:method`.
    pub method: Vec<u8>,
    /// The fields that are not pseudo-header fields: by name, and of one name in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Body bytes.
    pub body: Vec<u8>,
    /// Trailers, if there were any.
    pub trailers: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It went on.
    Taken,
    /// The stream was reset, with that code.
    Reset(u32, ErrorCode),
    /// The connection was ended: why, in the server's own words.
    Refused(String),
    /// The connection was ended for too much of something, which is each server's own measure.
    Flood,
    /// The client said GOAWAY with an error, which the h2 crate takes for the end.
    ClientLeft,
}

impl Opinion {
    /// Without what differs from input to input.
    pub fn in_short(&self) -> String {
        match self {
            Self::Taken => "takes it".to_owned(),
            Self::Reset(_, code) => format!("resets the stream: {code:?}"),
            Self::Refused(why) => format!("ends the connection: {why}"),
            Self::Flood | Self::ClientLeft => "is not compared".to_owned(),
        }
    }
}

/// A frame, or a header block in all its frames: what both servers have an opinion of when they have read it.
#[derive(Clone, Copy, Debug)]
pub struct Step<'i> {
    /// The frames' bytes.
    pub bytes: &'i [u8],
    /// The type of the first.
    pub kind: u8,
    /// The stream of the first.
    pub stream: u32,
}

/// The steps of an input, without what is cut short at its end: the crate looks at a frame when it is whole, we at DATA as it comes; we
/// look at a block when it is whole, the crate at its frames as they come.
pub fn steps(mut input: &[u8]) -> impl Iterator<Item = Step<'_>> {
    std::iter::from_fn(move || {
        let (kind, stream, flags, mut length) = frame(input)?;
        let mut is_open = matches!(kind, HEADERS | PUSH_PROMISE) && flags & END_HEADERS == 0;
        while is_open {
            let (next, _, flags, more) = frame(&input[length..])?;
            length += more;
            // Any other frame is an error, and ends the step as well.
            is_open = next == CONTINUATION && flags & END_HEADERS == 0;
        }
        let (bytes, rest) = input.split_at(length);
        input = rest;
        Some(Step { bytes, kind, stream })
    })
}

/// Type, stream, flags and length, with its header, of the frame in front, if it is whole.
fn frame(input: &[u8]) -> Option<(u8, u32, u8, usize)> {
    let (header, behind) = input.split_at_checked(FRAME_HEADER)?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
    (behind.len() >= length).then_some((header[3], stream, header[4], FRAME_HEADER + length))
}

/// The streams that a server's output resets.
pub fn reset_streams(mut output: &[u8]) -> impl Iterator<Item = (u32, ErrorCode)> {
    let frames = std::iter::from_fn(move || {
        let (kind, stream, _, length) = frame(output)?;
        let (bytes, rest) = output.split_at(length);
        output = rest;
        Some((kind, stream, &bytes[FRAME_HEADER..]))
    });
    frames.filter(|(kind, ..)| *kind == RST_STREAM).map(|(_, stream, payload)| {
        let code = payload.try_into().map(u32::from_be_bytes).expect("a server resets by the book");
        (stream, ErrorCode::from_wire(code))
    })
}

/// Fields by name, and of one name in order.
pub fn sorted(mut fields: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

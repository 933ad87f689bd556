//! Clients of another source than the stories': they keep to HTTP/2 and mean no good. What becomes of them is their own business; the
//! stories' calls come to their ends beside them.

use super::network::Link;
use crate::balance::Random;
use crate::http2::PREFACE;

/// The path of a call that is no story's.
pub(super) const PATH: &[u8] = b"/flood";

#[derive(Debug, Clone, Copy)]
enum Kind {
    Pings,
    Settings,
    Windows,
    /// The initial window, away and back.
    Flips,
    EmptyData,
    /// Requests that are reset at once.
    Resets,
    Requests,
}

const KINDS: [Kind; 7] =
    [Kind::Pings, Kind::Settings, Kind::Windows, Kind::Flips, Kind::EmptyData, Kind::Resets, Kind::Requests];

/// Bytes that one sends at most.
const MOST_BYTES: usize = 400_000;

pub(super) struct Flood {
    kind: Kind,
    /// What has been made, and not been sent.
    waiting: Vec<u8>,
    next_stream: u32,
    flipped: bool,
    left: usize,
    /// It reads what it is told.
    pub(super) reads: bool,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// POST, http, the path, and gRPC's content type, all without a table.
fn request() -> Vec<u8> {
    let content_type = b"application/grpc";
    let mut block = vec![0x83, 0x86, 0x04, PATH.len() as u8];
    block.extend(PATH);
    block.extend([0x0f, 0x10, content_type.len() as u8]);
    block.extend(content_type);
    block
}

impl Flood {
    /// It, and what it begins with.
    pub(super) fn new(random: &mut Random) -> (Self, Vec<u8>) {
        let kind = KINDS[random.below(KINDS.len())];
        let mut greeting = PREFACE.to_vec();
        greeting.extend(frame(4, 0, 0, &[]));
        if matches!(kind, Kind::EmptyData) {
            greeting.extend(frame(1, 4, 1, &request()));
        }
        let (left, reads) = (random.below(MOST_BYTES), random.below(2) == 0);
        (Self { kind, waiting: Vec::new(), next_stream: 1, flipped: false, left, reads }, greeting)
    }

    fn next(&mut self) -> Vec<u8> {
        match self.kind {
            Kind::Pings => frame(6, 0, 0, b"are you?"),
            Kind::Settings => frame(4, 0, 0, &[]),
            Kind::Windows => frame(8, 0, 0, &1_u32.to_be_bytes()),
            Kind::Flips => {
                self.flipped ^= true;
                let window: u32 = if self.flipped { 0 } else { 65_535 };
                let mut payload = vec![0, 4];
                payload.extend(window.to_be_bytes());
                frame(4, 0, 0, &payload)
            }
            Kind::EmptyData => frame(0, 0, 1, &[]),
            Kind::Resets | Kind::Requests => {
                let stream = self.next_stream;
                self.next_stream += 2;
                let mut frames = frame(1, 5, stream, &request());
                if matches!(self.kind, Kind::Resets) {
                    frames.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
                }
                frames
            }
        }
    }

    pub(super) fn act(&mut self, random: &mut Random, link: &mut Link) {
        let size = 1 + random.below(30_000);
        while self.waiting.len() < size && self.left > 0 {
            let next = self.next();
            self.left = self.left.saturating_sub(next.len());
            self.waiting.extend(next);
        }
        let size = size.min(self.waiting.len()).min(link.room_to_engine());
        link.to_engine.extend(self.waiting.drain(..size));
    }
}

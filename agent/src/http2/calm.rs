//! How much a peer may make us do that is no use to anyone, in a period that the owner sets (a second, say).
//!
//! A frame that brings part of a message is useful. What else comes is cheap for its sender and not free for us; a peer that
//! sends little but that is told to calm down (RFC 9113 §10.5). Limits stand far above what any peer in the field does.

use super::error::{Fault, Flood};

/// What frames without a message may cost in a period: ten thousand plain ones. gRPC's own bandwidth probes are a PING a
/// round trip, while data flows.
const FREE_COST: u32 = 10_000;
/// And for each frame with part of a message, either way: a WINDOW_UPDATE for the stream and one for the connection, twice.
const COST_PER_USEFUL_FRAME: u32 = 4;
/// Requests that a client resets before they are answered, in a period (CVE-2023-44487). Above this no more than half of
/// its requests may be such.
const MAX_CANCELS: u32 = 10_000;
/// Streams that broke a rule and were reset for it, in a period: each is work for nothing, and no sane peer has any
/// (CVE-2025-8671, "made you reset").
const MAX_FAULTS: u32 = 1_000;

/// A frame that is read and answered or ignored: PING, PRIORITY, WINDOW_UPDATE, frames of streams that are gone.
pub(super) const PLAIN: u32 = 1;
/// SETTINGS, GOAWAY, and DATA of nothing (CVE-2019-9515, -9518): no peer has a reason for many.
pub(super) const RARE: u32 = 10;
/// What looks at every stream costs more by their number.
pub(super) const fn of_streams(streams: usize) -> u32 {
    (streams / 16) as u32
}

/// What a peer has done in the present period.
#[derive(Debug, Default)]
pub(super) struct Calm {
    useful: u32,
    cost: u32,
    requests: u32,
    cancels: u32,
    faults: u32,
}

impl Calm {
    /// A frame brought, or took, part of a message.
    pub(super) fn useful(&mut self, frames: u32) {
        self.useful = self.useful.wrapping_add(frames);
    }

    pub(super) fn request(&mut self) {
        self.requests = self.requests.wrapping_add(1);
    }

    /// Something came that is no part of a message.
    pub(super) fn charge(&mut self, cost: u32) -> Result<(), Fault> {
        self.cost = self.cost.saturating_add(cost);
        let allowed = FREE_COST.saturating_add(self.useful.saturating_mul(COST_PER_USEFUL_FRAME));
        if self.cost > allowed {
            return Err(Fault::flood(Flood::Control, "too many frames that are no part of a message"));
        }
        Ok(())
    }

    /// A client reset a request that was not answered yet.
    pub(super) fn cancel(&mut self) -> Result<(), Fault> {
        self.cancels += 1;
        if self.cancels > MAX_CANCELS && self.cancels > self.requests / 2 {
            return Err(Fault::flood(Flood::Cancels, "too many requests reset before their answer"));
        }
        Ok(())
    }

    /// A stream broke a rule.
    pub(super) fn fault(&mut self) -> Result<(), Fault> {
        self.faults += 1;
        if self.faults > MAX_FAULTS {
            return Err(Fault::flood(Flood::Faults, "too many streams that break the protocol"));
        }
        Ok(())
    }
}

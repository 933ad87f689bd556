//! Where our server and the h2 crate's are known to differ, and why ours is right.

use crate::opinion::{Opinion, Step};

/// Frame types (RFC 9113 §6).
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PRIORITY: u8 = 0x2;
const SETTINGS: u8 = 0x4;
const PUSH_PROMISE: u8 = 0x5;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;

/// What the crate does, its code aside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Theirs {
    Takes,
    Resets,
    Ends,
}
use Theirs::{Ends, Resets, Takes};

/// A difference that has a reason.
struct Known {
    /// The type of the frame, or of the first of a header block; none: any.
    frame: Option<u8>,
    /// Our opinion, in short.
    ours: &'static str,
    /// The crate's.
    theirs: &'static [Theirs],
    /// Why ours is right.
    why: &'static str,
}

const fn of(frame: u8, ours: &'static str, theirs: &'static [Theirs], why: &'static str) -> Known {
    Known { frame: Some(frame), ours, theirs, why }
}

/// Sections are RFC 9113's, unless it says otherwise.
const KNOWN: &[Known] = &[
    // What the crate lets pass.
    Known {
        frame: None,
        ours: "ends the connection: first frame is not SETTINGS",
        theirs: &[Takes],
        why: "§3.4: SETTINGS must be the first frame",
    },
    of(
        HEADERS,
        "ends the connection: HEADERS shorter than its padding and priority",
        &[Takes],
        "§6.2: padding that is longer than the frame is a connection error",
    ),
    of(
        HEADERS,
        "ends the connection: header block interrupted by another frame",
        &[Takes],
        "§6.10: so is any frame but CONTINUATION within a header block; the crate forgets a block that it finds malformed before its end",
    ),
    of(
        HEADERS,
        "ends the connection: client's stream with an even identifier",
        &[Takes],
        "§5.1.1: an unexpected stream identifier is a connection error",
    ),
    of(
        HEADERS,
        "ends the connection: request on a stream that was used before",
        &[Takes],
        "§5.1.1: an unexpected stream identifier is a connection error",
    ),
    of(
        HEADERS,
        "ends the connection: table size update behind a field",
        &[Takes],
        "RFC 7541 §4.2: it stands at the beginning of a block; §4.3: what cannot be decoded is a connection error",
    ),
    of(
        PUSH_PROMISE,
        "ends the connection: PUSH_PROMISE, which is switched off",
        &[Takes],
        "§8.4: a client cannot push: a connection error",
    ),
    of(
        HEADERS,
        "resets the stream: ProtocolError",
        &[Takes],
        "§8.3.1: a request without :path is malformed, unless it is a CONNECT",
    ),
    of(
        DATA,
        "resets the stream: StreamClosed",
        &[Takes],
        "§5.1: DATA behind a stream's end is an error of the stream; the crate forgets a stream that it has reset together with its end",
    ),
    // What the crate refuses and we take.
    of(
        HEADERS,
        "takes it",
        &[Resets, Ends],
        "§8.2.1 forbids three octets in a value and white space around it; the crate wants an :authority, :path and :scheme that http's \
         types can hold. What they mean is the server's to say",
    ),
    of(
        PRIORITY,
        "takes it",
        &[Resets],
        "§5.3.2 has taken priorities out: a stream may depend on itself, or on any",
    ),
    of(SETTINGS, "takes it", &[Ends], "§6.5.3 gives an acknowledgement of nothing no meaning"),
    of(
        DATA,
        "takes it",
        &[Resets],
        "§5.1: what comes late for a stream that was refused is ignored, as its sender may not have heard of the reset",
    ),
    of(
        GOAWAY,
        "takes it",
        &[Ends],
        "§6.8 lets nobody say a higher stream than before, and makes it no error; a client means streams that were pushed, and none are",
    ),
    of(
        WINDOW_UPDATE,
        "takes it",
        &[Ends],
        "§5.1: of a closed stream that must not be an error; there is nothing to update by 0 either",
    ),
];

/// Why the two may differ about that step, if that is known.
pub fn known(step: Step<'_>, ours: &Opinion, theirs: &Opinion) -> Option<&'static str> {
    let ours = ours.in_short();
    let theirs = match theirs {
        Opinion::Taken => Takes,
        Opinion::Reset(..) => Resets,
        _ => Ends,
    };
    let found = KNOWN.iter().find(|known| {
        known.frame.is_none_or(|frame| frame == step.kind)
            && known.ours == ours
            && known.theirs.contains(&theirs)
    });
    found.map(|known| known.why)
}

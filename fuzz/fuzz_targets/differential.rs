//! The same bytes to our server's end of a connection and to the h2 crate's, frame by frame: both take the same, both refuse the same, but
//! for what [`evenkeel_fuzz::disagreements`] lists; and each request that is whole until then is the same for both, byte for byte. Whether
//! the stream or the connection ends for what is refused is each server's to choose (RFC 9113 §5.4.1).
#![no_main]

use evenkeel_fuzz::crate_server::CrateServer;
use evenkeel_fuzz::disagreements::known;
use evenkeel_fuzz::http2::PREFACE;
use evenkeel_fuzz::opinion::{Opinion, steps};
use evenkeel_fuzz::our_server::OurServer;
use evenkeel_fuzz::story::limits;

/// Set where a difference that nobody has listed is told, and is no failure: what another crate refuses besides is a matter for whoever
/// looks for it, and what both take is compared all the same.
const SURVEY: &str = "EVENKEEL_FUZZ_SURVEY";

/// Both servers, at the beginning of a connection.
fn servers() -> (OurServer, CrateServer) {
    let limits = limits();
    let mut theirs = CrateServer::new(limits.max_concurrent_streams, limits.max_header_list);
    assert_eq!(theirs.tell(PREFACE), Opinion::Taken);
    (OurServer::new(), theirs)
}

/// What is shown is shown of something: of an input that is right both have the request.
fn both_have_a_request() {
    let (mut ours, mut theirs) = servers();
    for step in steps(include_bytes!("../corpus/differential/call")) {
        ours.tell(step.bytes, step.stream);
        theirs.tell(step.bytes);
    }
    assert_eq!((ours.whole().len(), theirs.whole().len()), (1, 1));
}

libfuzzer_sys::fuzz_target!(init: both_have_a_request(), |input: &[u8]| {
    let (mut ours, mut theirs) = servers();
    for step in steps(input) {
        let (our, their) = (ours.tell(step.bytes, step.stream), theirs.tell(step.bytes));
        match (&our, &their) {
            (Opinion::Flood | Opinion::ClientLeft, _) | (_, Opinion::Flood | Opinion::ClientLeft) => return,
            (Opinion::Refused(_), Opinion::Refused(_) | Opinion::Reset(..)) | (Opinion::Reset(..), Opinion::Refused(_)) => return,
            (Opinion::Taken, Opinion::Taken) => {}
            (Opinion::Reset(our, _), Opinion::Reset(their, _)) if our == their => {}
            _ => {
                if known(step, &our, &their).is_none() {
                    let difference = format!(
                        "frame type {:#x} of stream {}: we {}, the crate {}; {:02x?}",
                        step.kind,
                        step.stream,
                        our.in_short(),
                        their.in_short(),
                        step.bytes
                    );
                    assert!(std::env::var_os(SURVEY).is_some(), "{difference}");
                    eprintln!("a difference that is not listed: {difference}");
                }
                return;
            }
        }
        assert_eq!(ours.whole(), theirs.whole(), "the requests differ");
    }
});

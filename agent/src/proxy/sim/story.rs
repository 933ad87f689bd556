//! What a call is to do, and what its client may see of it.

use super::Faults;
use crate::balance::Random;
use crate::http2::ErrorCode;
use crate::mesh::RetryPolicy;
use crate::proxy::call::{MAX_ENDPOINTS, REPLAY_LIMIT_BYTES};

/// What the server does with the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plot {
    /// Answers with a body and this status; `at_once`: without waiting for the request's end.
    Answer { at_once: bool },
    /// A status and nothing else, whatever the request still has to say.
    TrailersOnly,
    /// Refuses it so many times.
    Refuse { times: u32 },
    /// Resets it before the answer, or in its middle.
    Reset { after_headers: bool, code: ErrorCode },
    /// Says nothing until the deadline has passed.
    Hang,
    /// Answers with what is no HTTP.
    Lie(Lie),
    /// Answers so many times with UNAVAILABLE and nothing else, and then as it should.
    Unavailable { times: u32 },
}

/// How often a call is sent at most where the Service asks for retries.
const ATTEMPTS: u32 = 3;

/// What such a Service says. Its budget is large enough for all.
pub(super) fn retry_policy() -> RetryPolicy {
    let text = format!("attempts={ATTEMPTS} on=unavailable backoff=1ms..5ms budget=100%");
    text.parse().expect("a policy")
}

/// How an answer is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// Its `content-length` is another.
    Length { off_by: i64 },
    /// Its header list is larger than anybody takes.
    Large,
    /// A field's name is none.
    Malformed,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oddity {
    /// Its header list is larger than the agent takes.
    Large,
    /// It is a CONNECT.
    Connect,
    /// Its `content-length` says more than comes.
    Length,
}

#[derive(Debug, Clone)]
pub(super) struct Story {
    pub(super) is_grpc: bool,
    pub(super) request_bytes: usize,
    pub(super) response_bytes: usize,
    pub(super) request_trailers: bool,
    pub(super) plot: Plot,
    pub(super) oddity: Option<Oddity>,
    /// The agent takes part in the call's trace, if that is sampled.
    pub(super) is_traced: bool,
    /// The client cancels when it has sent so many bytes.
    pub(super) cancel_at: Option<usize>,
}

/// The one end of a call, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// END_STREAM, with the HTTP status, grpc-status and whether the agent itself answered.
    Complete {
        http: u16,
        grpc: Option<u8>,
        by_agent: bool,
    },
    Reset(ErrorCode),
    /// The client itself cancelled.
    Cancelled,
    /// The client's connection was lost, or could not be used.
    Lost,
}

/// What has happened to a call so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) result: Option<Ending>,
    pub(super) response_received: usize,
    /// How often a server has begun to process it.
    pub(super) processed: u32,
    pub(super) refused: u32,
    /// How often a server has gone away and left it unprocessed.
    pub(super) left_behind: u32,
    /// How often the endpoint that it waited for took no connection.
    pub(super) unconnected: u32,
    /// How often the connection that it was on has broken.
    pub(super) broken: u32,
    /// How often a server has answered it with UNAVAILABLE, or was about to.
    pub(super) failed: u32,
    /// Bytes that the processing server has.
    pub(super) request_received: usize,
    pub(super) request_complete: bool,
    pub(super) got_request_trailers: bool,
    /// The spans that servers have seen as their parents, where the call is traced.
    pub(super) parents: Vec<u64>,
    /// The processing server was told that nobody wants the answer.
    pub(super) reset_seen: bool,
}

impl Tally {
    /// How often it may have been at a server: once, and again for each time that the Service's policy covers.
    pub(super) fn attempts(&self) -> u32 {
        1 + self.failed + self.broken
    }

    pub(super) fn end(&mut self, ending: Ending) {
        assert!(self.result.is_none(), "a call ends twice: {:?} and then {ending:?}", self.result);
        self.result = Some(ending);
    }
}

/// The length of each gRPC message in a call's bodies, with its prefix: smaller and larger than frames.
fn message_size(call: usize) -> usize {
    PREFIX + [1, 7, 100, 3_000, 40_000][call % 5]
}

/// A message's flag byte and length.
const PREFIX: usize = 5;

/// How many messages have begun in the first bytes of a call's body.
pub(super) fn messages_in(call: usize, bytes: u64) -> u64 {
    bytes.checked_sub(PREFIX as u64).map_or(0, |behind| behind / message_size(call) as u64 + 1)
}

/// The byte of a call's body at a position: neither lost, doubled nor crossed bytes go unseen.
pub(super) fn byte(call: usize, response: bool, position: usize) -> u8 {
    let size = message_size(call);
    let prefix = ((size - PREFIX) as u64).to_be_bytes();
    if let Some(byte) = prefix[8 - PREFIX..].get(position % size) {
        return *byte;
    }
    let mixed = (call as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ ((position as u64) << 1 | u64::from(response));
    (mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
}

fn size(random: &mut Random) -> usize {
    match random.below(6) {
        0 => 0,
        1..=3 => random.below(2_000),
        4 => random.below(20_000),
        _ => random.below(200_000),
    }
}

impl Story {
    pub(super) fn random(random: &mut Random, retries: bool) -> Self {
        let code =
            [ErrorCode::InternalError, ErrorCode::Cancel, ErrorCode::NoError, ErrorCode::EnhanceYourCalm]
                [random.below(4)];
        let plot = match random.below(14) {
            0 if retries => Plot::TrailersOnly,
            1..8 if retries => Plot::Unavailable { times: 1 + random.below(3) as u32 },
            _ if retries => Plot::Answer { at_once: random.below(2) == 0 },
            4 => Plot::Lie(
                [Lie::Length { off_by: 1 }, Lie::Length { off_by: -1 }, Lie::Large, Lie::Malformed]
                    [random.below(4)],
            ),
            0 => Plot::TrailersOnly,
            1 => Plot::Refuse { times: 1 + random.below(2) as u32 },
            2 => Plot::Reset { after_headers: random.below(2) == 0, code },
            3 => Plot::Hang,
            _ => Plot::Answer { at_once: random.below(2) == 0 },
        };
        let request_bytes = size(random);
        let oddity = match random.below(40) {
            0 => Some(Oddity::Large),
            1 => Some(Oddity::Connect),
            2 => Some(Oddity::Length),
            _ => None,
        };
        Self {
            is_grpc: retries || random.below(5) > 0,
            request_bytes,
            // A length that is too small is smaller than something.
            response_bytes: size(random).max(1),
            oddity,
            request_trailers: random.below(8) == 0,
            plot,
            is_traced: false,
            cancel_at: (random.below(10) == 0).then(|| random.below(request_bytes + 1)),
        }
    }

    /// Its headers end the stream, and say that a body follows.
    pub(super) fn is_malformed_at_once(&self) -> bool {
        self.oddity == Some(Oddity::Length) && self.request_bytes == 0 && !self.request_trailers
    }

    /// The status that the story's server gives.
    pub(super) fn status(&self) -> u8 {
        if self.plot == Plot::TrailersOnly { 5 } else { 0 }
    }

    /// Whether the call may have found no server that processes it.
    fn is_unserved(&self, tally: &Tally, faults: Faults, endpoints: usize) -> bool {
        // What was refused is sent again once, if it was held.
        let retries = u32::from(self.request_bytes <= REPLAY_LIMIT_BYTES);
        let connects = if faults.endpoints_change { 1 } else { endpoints.min(MAX_ENDPOINTS) as u32 };
        tally.refused + tally.left_behind > retries || tally.unconnected >= connects
    }

    /// Whether what the client saw is what the story demands, in a world of so many endpoints.
    pub(super) fn check(&self, tally: &Tally, faults: Faults, endpoints: usize) -> Result<(), String> {
        let most = if faults.retries { tally.attempts().min(ATTEMPTS) } else { 1 };
        if tally.processed > most {
            return Err(format!("processed {} times", tally.processed));
        }
        let Some(ending) = &tally.result else { return Err("has no end".to_owned()) };
        let by_server = Ending::Complete { http: 200, grpc: Some(self.status()), by_agent: false };
        if *ending == by_server {
            if tally.response_received != self.expected_response() {
                return Err(format!("got {} bytes of the answer", tally.response_received));
            }
            let all = tally.request_complete && tally.request_received == self.request_bytes;
            let waits = matches!(
                self.plot,
                Plot::Answer { at_once: false } | Plot::Refuse { .. } | Plot::Unavailable { .. }
            );
            if waits && !all {
                return Err(format!("the server got {} bytes", tally.request_received));
            }
            if waits && tally.got_request_trailers != self.request_trailers {
                return Err("the request's trailers are lost".to_owned());
            }
        }
        let unavailable = [self.by_agent(14, 502), self.by_agent(14, 503)];
        let expected = match self.plot {
            Plot::Answer { .. } | Plot::TrailersOnly => *ending == by_server,
            Plot::Refuse { times: 1 } if self.request_bytes <= REPLAY_LIMIT_BYTES => *ending == by_server,
            Plot::Refuse { .. } if self.request_bytes <= REPLAY_LIMIT_BYTES => unavailable.contains(ending),
            Plot::Unavailable { times } => {
                // Of a source without memory nothing waits to be sent again.
                let is_held = self.request_bytes <= REPLAY_LIMIT_BYTES && !faults.memory_is_short;
                let undisturbed =
                    tally.broken + tally.unconnected + tally.left_behind == 0 && !faults.costs_all();
                let fails = Ending::Complete { http: 200, grpc: Some(14), by_agent: false };
                match times {
                    ATTEMPTS.. if undisturbed => *ending == fails,
                    _ if is_held && undisturbed => *ending == by_server,
                    // A server's GOAWAY may leave behind what is too long to be held.
                    _ => *ending == by_server || *ending == fails || unavailable.contains(ending),
                }
            }
            Plot::Hang => *ending == self.by_agent(4, 504),
            // What was passed on says a length as well: no status can follow it.
            Plot::Lie(Lie::Length { .. }) => *ending == Ending::Reset(ErrorCode::InternalError),
            Plot::Lie(Lie::Large) => *ending == self.by_agent(8, 502),
            Plot::Lie(Lie::Malformed) => *ending == self.by_agent(13, 502),
            // Too much had gone by to be sent again.
            Plot::Refuse { .. } => *ending == by_server || unavailable.contains(ending),
            Plot::Reset { after_headers, code } => {
                let status = match code {
                    ErrorCode::Cancel => 1,
                    ErrorCode::NoError => 14,
                    ErrorCode::EnhanceYourCalm => 8,
                    _ => 13,
                };
                let reset = if code == ErrorCode::NoError { ErrorCode::InternalError } else { code };
                *ending == self.by_agent(status, 502)
                    || after_headers && !self.is_grpc && *ending == Ending::Reset(reset)
            }
        };
        let expected = match self.oddity {
            Some(Oddity::Large) => *ending == self.by_agent(8, 431) && tally.processed == 0,
            Some(Oddity::Connect) => {
                *ending == Ending::Complete { http: 501, grpc: None, by_agent: true } && tally.processed == 0
            }
            // Unless the answer was faster.
            Some(Oddity::Length) => expected || *ending == Ending::Reset(ErrorCode::ProtocolError),
            None => expected,
        };
        let cancelled = *ending == Ending::Cancelled && self.cancel_at.is_some();
        let excused = match ending {
            _ if faults.memory_is_short && self.is_of_memory(ending) => true,
            // Who has most waiting may lose its connection.
            Ending::Lost => faults.costs_clients() || faults.memory_is_short,
            Ending::Complete { by_agent: true, .. } if unavailable.contains(ending) => {
                tally.broken > 0 || faults.costs_all() || self.is_unserved(tally, faults, endpoints)
            }
            Ending::Complete { http: 200, grpc: Some(14), by_agent: true } | Ending::Reset(_) => {
                tally.broken > 0 || faults.costs_all()
            }
            _ => false,
        };
        if expected || cancelled || excused { Ok(()) } else { Err(format!("ends with {ending:?}")) }
    }

    fn is_of_memory(&self, ending: &Ending) -> bool {
        *ending == self.by_agent(8, 503) || *ending == Ending::Reset(ErrorCode::EnhanceYourCalm)
    }

    fn expected_response(&self) -> usize {
        if self.plot == Plot::TrailersOnly { 0 } else { self.response_bytes }
    }

    fn by_agent(&self, grpc: u8, http: u16) -> Ending {
        if self.is_grpc {
            Ending::Complete { http: 200, grpc: Some(grpc), by_agent: true }
        } else {
            Ending::Complete { http, grpc: None, by_agent: true }
        }
    }
}

//! SETTINGS (RFC 9113 §6.5): ours, and the peer's.

use super::error::{ErrorCode, Fault};
use super::flow::{INITIAL_WINDOW, MAX_WINDOW};
use super::hpack::DEFAULT_TABLE_BYTES;
use super::limits::Limits;

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;

/// One setting's length in a frame.
const SETTING_LEN: usize = 6;

/// Which end of the connection this is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Server,
    Client,
}

/// What the peer's SETTINGS say, as far as it binds us. SETTINGS_MAX_FRAME_SIZE is only checked: we never send more
/// than the least that it can be.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct PeerSettings {
    pub(super) header_table: u32,
    pub(super) max_concurrent_streams: u32,
    pub(super) initial_window: u32,
    pub(super) max_header_list: u32,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            header_table: DEFAULT_TABLE_BYTES as u32,
            max_concurrent_streams: u32::MAX,
            initial_window: INITIAL_WINDOW,
            max_header_list: u32::MAX,
        }
    }
}

impl PeerSettings {
    /// Takes in a SETTINGS frame's payload; `role` is ours.
    pub(super) fn apply(&mut self, payload: &[u8], role: Role) -> Result<(), Fault> {
        let (settings, []) = payload.as_chunks::<SETTING_LEN>() else {
            return Err(Fault::connection(
                ErrorCode::FrameSizeError,
                "SETTINGS of a length that is no multiple of 6",
            ));
        };
        for [i0, i1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            match u16::from_be_bytes([*i0, *i1]) {
                HEADER_TABLE_SIZE => self.header_table = value,
                // A server never enables push at a client, and a client only says 0 or 1 (RFC 9113 §6.5.2).
                ENABLE_PUSH if value > 1 || (value == 1 && role == Role::Client) => {
                    return Err(Fault::protocol(
                        "SETTINGS_ENABLE_PUSH of a value that the peer may not send",
                    ));
                }
                MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = value,
                INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                    return Err(Fault::connection(
                        ErrorCode::FlowControlError,
                        "SETTINGS_INITIAL_WINDOW_SIZE above 2^31 - 1",
                    ));
                }
                INITIAL_WINDOW_SIZE => self.initial_window = value,
                MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => {
                    return Err(Fault::protocol("SETTINGS_MAX_FRAME_SIZE out of range"));
                }
                MAX_HEADER_LIST_SIZE => self.max_header_list = value,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The payload of our own SETTINGS.
pub(super) fn ours(role: Role, limits: &Limits) -> Vec<u8> {
    let mut settings = Vec::new();
    match role {
        Role::Client => settings.push((ENABLE_PUSH, 0)),
        Role::Server => settings.push((MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams)),
    }
    if limits.header_table as usize != DEFAULT_TABLE_BYTES {
        settings.push((HEADER_TABLE_SIZE, limits.header_table));
    }
    if limits.stream_window != INITIAL_WINDOW {
        settings.push((INITIAL_WINDOW_SIZE, limits.stream_window.min(MAX_WINDOW)));
    }
    settings.push((MAX_HEADER_LIST_SIZE, limits.max_header_list));
    let mut payload = Vec::with_capacity(settings.len() * SETTING_LEN);
    for (id, value) in settings {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    payload
}

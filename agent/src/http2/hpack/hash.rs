//! The hash that finds a field in an encoder's table: worked out once where a field is decoded, and carried along.
//!
//! It guards nothing: a hit is verified byte by byte, and the length of a search is bounded.

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

pub(in crate::http2) const fn of_name(name: &[u8]) -> u32 {
    fold(mix(name.len() as u64, name))
}

pub(in crate::http2) const fn with_value(name_hash: u32, value: &[u8]) -> u32 {
    fold(mix(name_hash as u64 ^ ((value.len() as u64) << 32), value))
}

const fn mix(mut state: u64, mut bytes: &[u8]) -> u64 {
    while let Some((word, rest)) = bytes.split_first_chunk::<8>() {
        state = step(state, u64::from_le_bytes(*word));
        bytes = rest;
    }
    let mut last = 0;
    while let Some((byte, rest)) = bytes.split_first() {
        last = (last << 8) | *byte as u64;
        bytes = rest;
    }
    step(state, last)
}

const fn step(state: u64, word: u64) -> u64 {
    (state.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER)
}

const fn fold(state: u64) -> u32 {
    (state ^ (state >> 32)) as u32
}

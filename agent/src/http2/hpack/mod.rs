//! Header compression (RFC 7541): a block's bytes to a [`FieldList`](super::FieldList) and back.
//!
//! `integer` and `huffman` are the two primitive forms, `static_table` and `dynamic_table` the fields that a byte can
//! stand for, `decoder` and `encoder` (with its `index`) the two directions; `hash` ties them together.

mod decoder;
mod dynamic_table;
mod encoder;
pub(super) mod hash;
mod huffman;
mod index;
mod integer;
pub(super) mod static_table;
#[cfg(test)]
mod tests;

pub(super) use decoder::{Decoded, Decoder, ListLimits, Undecoded};
pub(super) use dynamic_table::DEFAULT_BYTES as DEFAULT_TABLE_BYTES;
pub(super) use encoder::Encoder;

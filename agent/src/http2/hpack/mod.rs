//! Header compression (RFC 7541): a block's bytes to a [`FieldList`](super::FieldList) and back.
//!
//! `integer` and `huffman` read and write the two primitive forms, `static_table` and `dynamic_table` hold the fields
//! that a byte can stand for, `decoder` and `encoder` are the two directions, `hash` is what ties them together.

pub(super) mod hash;
pub(super) mod static_table;

//! A header block's bytes to a field list (RFC 7541 §3.2).

use super::dynamic_table::{DEFAULT_BYTES, DynamicTable, TableField};
use super::{hash, huffman, integer, static_table};
use crate::http2::fields::{Entry, FieldList, Indexing};
use crate::http2::name::Name;

/// The block was not read to its end, so the two tables no longer agree: an error of the whole connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(in crate::http2) enum Undecoded {
    /// It is not HPACK: COMPRESSION_ERROR.
    NotHpack(&'static str),
    /// It unpacks to more than the limits allow.
    Bomb,
}

/// What was wrong with a block that is HPACK all the same: faults of the message, not of the connection.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub(in crate::http2) struct Decoded {
    /// More bytes or fields than the limits allow; the list is cut short.
    pub(in crate::http2) too_large: bool,
    /// A name or value that RFC 9113 §8.2.1 forbids.
    pub(in crate::http2) invalid_field: bool,
}

/// How much of a header list is kept, and how much of a larger one is read.
#[derive(Copy, Clone, Debug)]
pub(in crate::http2) struct ListLimits {
    pub(in crate::http2) bytes: usize,
    pub(in crate::http2) fields: usize,
    /// Bytes that a block may unpack to, kept or not: two bytes of it may stand for a name of 4 KiB.
    pub(in crate::http2) unpacked: usize,
}

#[derive(Debug)]
pub(in crate::http2) struct Decoder {
    table: DynamicTable,
    /// The largest table that the encoder may choose.
    max_table: usize,
}

/// A string of the block, as it was added to the list's bytes.
struct Text {
    len: u32,
    /// Its Huffman form in the block, empty if it came without.
    huffman_at: usize,
    huffman_len: usize,
}

impl Decoder {
    /// `announced` is what our SETTINGS say; until the peer has seen them, the protocol's default holds.
    pub(in crate::http2) fn new(announced: usize) -> Self {
        Self { table: DynamicTable::new(DEFAULT_BYTES), max_table: announced.max(DEFAULT_BYTES) }
    }

    /// Decodes a whole block to the end of `fields`. The block is read to its end whatever the message is worth, so
    /// that the table stays the encoder's.
    pub(in crate::http2) fn decode(
        &mut self,
        mut block: &[u8],
        limits: ListLimits,
        fields: &mut FieldList,
    ) -> Result<Decoded, Undecoded> {
        let mut decoded = Decoded::default();
        let mut only_updates_so_far = true;
        // Of the fields that were not kept.
        let mut dropped = 0;
        while let Some((&first, rest)) = block.split_first() {
            block = rest;
            if first & 0xe0 == 0x20 {
                if !only_updates_so_far {
                    return Err(Undecoded::NotHpack("table size update behind a field"));
                }
                self.update_size(first, &mut block)?;
                continue;
            }
            only_updates_so_far = false;
            if decoded.too_large && first & 0x80 != 0 {
                // One byte may stand for a field of 4 KiB, and nobody needs another copy of it.
                self.skip_indexed(first, &mut block)?;
                continue;
            }
            let kept = fields.bytes.len();
            let valid = if first & 0x80 != 0 {
                self.indexed(first, &mut block, fields)?
            } else {
                self.literal(first, &mut block, fields)?
            };
            decoded.invalid_field |= !valid;
            decoded.too_large |= fields.size() > limits.bytes || fields.len() > limits.fields;
            if decoded.too_large {
                dropped +=
                    fields.entries.last().map_or(0, |entry| (entry.name_len + entry.value_len) as usize);
                fields.pop_entry();
                fields.bytes.truncate(kept);
                if dropped > limits.unpacked {
                    return Err(Undecoded::Bomb);
                }
            }
        }
        Ok(decoded)
    }

    pub(in crate::http2) fn held_bytes(&self) -> usize {
        self.table.held_bytes()
    }

    fn update_size(&mut self, first: u8, block: &mut &[u8]) -> Result<(), Undecoded> {
        match integer::decode(first, 5, block) {
            Some(size) if size as usize <= self.max_table => {
                self.table.set_max_size(size as usize);
                Ok(())
            }
            _ => Err(Undecoded::NotHpack("table size update above what we announced")),
        }
    }

    /// Adds a field of a table to the list; whether it is valid.
    fn indexed(&mut self, first: u8, block: &mut &[u8], fields: &mut FieldList) -> Result<bool, Undecoded> {
        let index = integer::decode(first, 7, block).ok_or(NO_ENTRY)?;
        if index <= u32::from(static_table::LEN) {
            if index == 0 {
                return Err(NO_ENTRY);
            }
            fields.push_entry(Entry::of_static(index as u8));
            return Ok(true);
        }
        let field = self.table.field(index as usize - FIRST_DYNAMIC).ok_or(NO_ENTRY)?;
        let at = fields.bytes.len() as u32;
        fields.bytes.extend_from_slice(self.table.bytes(field));
        fields.push_entry(Entry {
            at,
            name_len: field.name_len,
            value_len: field.value_len,
            huffman_len: 0,
            name_hash: field.name_hash,
            hash: field.hash,
            name: field.name,
            indexing: Indexing::Allowed,
            whole_static: 0,
        });
        Ok(field.valid)
    }

    fn skip_indexed(&self, first: u8, block: &mut &[u8]) -> Result<(), Undecoded> {
        let index = integer::decode(first, 7, block).ok_or(NO_ENTRY)? as usize;
        let is_entry = match index.checked_sub(FIRST_DYNAMIC) {
            Some(age) => self.table.field(age).is_some(),
            None => index != 0,
        };
        if is_entry { Ok(()) } else { Err(NO_ENTRY) }
    }

    /// Adds a literal to the list, and to the table if it belongs there; whether it is valid.
    fn literal(&mut self, first: u8, block: &mut &[u8], fields: &mut FieldList) -> Result<bool, Undecoded> {
        let (indexing, prefix) = match first {
            0x40.. => (Indexing::Allowed, 6),
            0x10.. => (Indexing::Never, 4),
            _ => (Indexing::Without, 4),
        };
        let index = integer::decode(first, prefix, block)
            .ok_or(Undecoded::NotHpack("index cut short or too large"))?;
        let at = fields.bytes.len();
        let (name, name_len, name_hash, name_valid) = self.literal_name(index as usize, block, fields)?;
        let from = *block;
        let value = string(block, &mut fields.bytes)?;
        let text = &fields.bytes[at..];
        let value_bytes = &text[name_len as usize..];
        let valid = name_valid && is_valid_value(value_bytes);
        // Nobody looks for a field that its sender keeps out of the tables.
        let hash = if indexing == Indexing::Allowed { hash::with_value(name_hash, value_bytes) } else { 0 };
        if indexing == Indexing::Allowed {
            let field = TableField::new(name, name_len, value.len, name_hash, hash, valid);
            self.table.insert(field, text);
        }
        fields.bytes.extend_from_slice(&from[value.huffman_at..value.huffman_at + value.huffman_len]);
        fields.push_entry(Entry {
            at: at as u32,
            name_len,
            value_len: value.len,
            huffman_len: value.huffman_len as u32,
            name_hash,
            hash,
            name,
            indexing,
            whole_static: 0,
        });
        Ok(valid)
    }

    /// Adds a literal's name to the list's bytes: which one it is, its length, its hash, whether it is valid.
    fn literal_name(
        &self,
        index: usize,
        block: &mut &[u8],
        fields: &mut FieldList,
    ) -> Result<(Name, u32, u32, bool), Undecoded> {
        if index == 0 {
            let at = fields.bytes.len();
            let text = string(block, &mut fields.bytes)?;
            let name = &fields.bytes[at..];
            let known = Name::of(name);
            let valid = known != Name::Other || is_valid_name(name);
            return Ok((known, text.len, hash::of_name(name), valid));
        }
        if index < FIRST_DYNAMIC {
            let field = static_table::entry(index as u8);
            fields.bytes.extend_from_slice(field.name);
            return Ok((field.known, field.name.len() as u32, field.name_hash, true));
        }
        let field = self.table.field(index - FIRST_DYNAMIC).ok_or(NO_ENTRY)?;
        let name = &self.table.bytes(field)[..field.name_len as usize];
        fields.bytes.extend_from_slice(name);
        let valid = field.valid || field.name != Name::Other || is_valid_name(name);
        Ok((field.name, field.name_len, field.name_hash, valid))
    }
}

const NO_ENTRY: Undecoded = Undecoded::NotHpack("index of no entry");
const FIRST_DYNAMIC: usize = static_table::LEN as usize + 1;

/// Adds a string literal (RFC 7541 §5.2) to `out`.
fn string(block: &mut &[u8], out: &mut Vec<u8>) -> Result<Text, Undecoded> {
    const CUT: Undecoded = Undecoded::NotHpack("string cut short");
    let whole = block.len();
    let (&first, mut rest) = block.split_first().ok_or(CUT)?;
    let len = integer::decode(first, 7, &mut rest).ok_or(Undecoded::NotHpack("string length too large"))?;
    let (coded, rest) = rest.split_at_checked(len as usize).ok_or(CUT)?;
    let coded_at = whole - rest.len() - coded.len();
    *block = rest;
    if first & 0x80 == 0 {
        out.extend_from_slice(coded);
        return Ok(Text { len, huffman_at: 0, huffman_len: 0 });
    }
    let before = out.len();
    huffman::decode(coded, out).map_err(|_| Undecoded::NotHpack("string that is no Huffman code"))?;
    Ok(Text { len: (out.len() - before) as u32, huffman_at: coded_at, huffman_len: coded.len() })
}

/// RFC 9110 §5.1's token without upper case (RFC 9113 §8.2). A colon makes it a pseudo-header field, and all of those
/// that are allowed are known names.
fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| is_lower_token(*byte))
}

fn is_lower_token(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_'
        | b'`' | b'|' | b'~')
}

/// RFC 9113 §8.2.1: no NUL, CR or LF. White space at either end is malformed too, and passed on all the same: it ends the
/// `grpc-message` of many a server, which clients take as it is.
fn is_valid_value(value: &[u8]) -> bool {
    // A fold and not `any`: the compiler makes vector code of it.
    !value.iter().fold(false, |found, byte| found | matches!(byte, 0 | b'\n' | b'\r'))
}

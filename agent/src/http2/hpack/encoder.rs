//! A field list to a header block's bytes (RFC 7541 §3.1).
//!
//! What the decoder knew is used again: an entry of the static table stays one byte, a field that was in a table is found
//! with one lookup, a Huffman form is passed through. The sender's choice binds: a field that it kept out of the tables
//! stays out.

use super::dynamic_table::{DEFAULT_BYTES, DynamicTable, TableField};
use super::index::Index;
use super::{huffman, integer, static_table};
use crate::http2::fields::{Entry, FieldList, Indexing};

/// Fields remembered from having been sent as literals, to know one that comes back: so many sets of a few.
const REMEMBERED_SETS: usize = 32;
/// Of one set, the latest: several, so that two fields of one set do not drive each other out for ever.
const REMEMBERED_PER_SET: usize = 4;

#[derive(Debug)]
pub(in crate::http2) struct Encoder {
    table: DynamicTable,
    index: Index,
    /// Hashes of fields that were sent as literals, the latest of a set in front; empty until the first.
    remembered: Vec<[u32; REMEMBERED_PER_SET]>,
    /// The most that we use of the peer's table.
    max_table: usize,
    /// A size to announce in front of the next block, and the smallest that there was in between (RFC 7541 §4.2).
    update: Option<SizeUpdate>,
}

#[derive(Copy, Clone, Debug)]
struct SizeUpdate {
    smallest: usize,
    last: usize,
}

impl Encoder {
    pub(in crate::http2) fn new(max_table: usize) -> Self {
        let mut encoder = Self {
            table: DynamicTable::new(DEFAULT_BYTES),
            index: Index::default(),
            remembered: Vec::new(),
            max_table,
            update: None,
        };
        encoder.set_peer_table(DEFAULT_BYTES);
        encoder
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE.
    pub(in crate::http2) fn set_peer_table(&mut self, bytes: usize) {
        let last = bytes.min(self.max_table);
        if last == self.table.max_size() && self.update.is_none() {
            return;
        }
        let smallest = self.update.map_or(last, |update| update.smallest.min(last));
        self.table.set_max_size(last);
        self.update = Some(SizeUpdate { smallest, last });
    }

    /// Encodes a block to the end of `out`.
    pub(in crate::http2) fn encode(&mut self, fields: &FieldList, out: &mut Vec<u8>) {
        if let Some(SizeUpdate { smallest, last }) = self.update.take() {
            if smallest < last {
                integer::encode(smallest, 5, 0x20, out);
            }
            integer::encode(last, 5, 0x20, out);
        }
        for entry in &fields.entries {
            if entry.whole_static != 0 {
                out.push(0x80 | entry.whole_static);
                continue;
            }
            let (text, huffman_form) = fields.text(entry);
            match entry.indexing {
                Indexing::Allowed => self.indexable(entry, text, huffman_form, out),
                Indexing::Without => self.literal(entry, text, huffman_form, 0x00, out),
                Indexing::Never => self.literal(entry, text, huffman_form, 0x10, out),
            }
        }
    }

    pub(in crate::http2) fn held_bytes(&self) -> usize {
        self.table.held_bytes()
            + self.index.held_bytes()
            + self.remembered.capacity() * size_of::<[u32; REMEMBERED_PER_SET]>()
    }

    /// `text` is the field's name and value, one behind the other.
    fn indexable(&mut self, entry: &Entry, text: &[u8], huffman_form: &[u8], out: &mut Vec<u8>) {
        if let Some(age) = self.index.find(&self.table, entry.hash, text, entry.name_len) {
            integer::encode(FIRST_DYNAMIC + age, 7, 0x80, out);
            return;
        }
        let (name, value) = text.split_at(entry.name_len as usize);
        let name_index = self.name_index(entry, name);
        if !self.is_worth_indexing(entry, name_index) {
            literal_head(name_index, 4, 0x00, name, out);
            passed_on(value, huffman_form, out);
            return;
        }
        literal_head(name_index, 6, 0x40, name, out);
        if huffman_form.is_empty() {
            shortest(value, out);
        } else {
            passed_on(value, huffman_form, out);
        }
        let Entry { name, name_len, value_len, name_hash, hash, .. } = *entry;
        let field = TableField::new(name, name_len, value_len, name_hash, hash, true);
        self.index.insert(&mut self.table, field, text);
    }

    fn literal(&self, entry: &Entry, text: &[u8], huffman_form: &[u8], pattern: u8, out: &mut Vec<u8>) {
        let (name, value) = text.split_at(entry.name_len as usize);
        literal_head(self.name_index(entry, name), 4, pattern, name, out);
        passed_on(value, huffman_form, out);
    }

    /// Indexing pays for a name that no table has, and for a value that comes back. A value that changes with every call
    /// (a trace's, a deadline) would only push the others out.
    fn is_worth_indexing(&mut self, entry: &Entry, name_index: usize) -> bool {
        if !self.table.fits(entry.name_len as usize, entry.value_len as usize) {
            return false;
        }
        if self.remembered.is_empty() {
            self.remembered.resize(REMEMBERED_SETS, [0; REMEMBERED_PER_SET]);
        }
        let set = &mut self.remembered[(entry.hash >> 16) as usize % REMEMBERED_SETS];
        let came_back = set.contains(&entry.hash);
        set.copy_within(..REMEMBERED_PER_SET - 1, 1);
        set[0] = entry.hash;
        came_back || name_index == 0
    }

    /// The index of an entry with that name, 0 if there is none.
    fn name_index(&self, entry: &Entry, name: &[u8]) -> usize {
        match entry.name.static_index() {
            0 => {
                self.index.find_name(&self.table, entry.name_hash, name).map_or(0, |age| FIRST_DYNAMIC + age)
            }
            index => usize::from(index),
        }
    }
}

const FIRST_DYNAMIC: usize = static_table::LEN as usize + 1;

fn literal_head(name_index: usize, prefix: u32, pattern: u8, name: &[u8], out: &mut Vec<u8>) {
    integer::encode(name_index, prefix, pattern, out);
    if name_index == 0 {
        shortest(name, out);
    }
}

/// A value as it came: in its Huffman form if it had one, else plain. To code it now would save the wire little and cost
/// more than everything else that happens to the field.
fn passed_on(value: &[u8], huffman_form: &[u8], out: &mut Vec<u8>) {
    if huffman_form.is_empty() {
        integer::encode(value.len(), 7, 0x00, out);
        out.extend_from_slice(value);
    } else {
        integer::encode(huffman_form.len(), 7, 0x80, out);
        out.extend_from_slice(huffman_form);
    }
}

/// A string in its shorter form: worth the work for what is then in the peer's table.
fn shortest(text: &[u8], out: &mut Vec<u8>) {
    let coded = huffman::encoded_len(text);
    if coded < text.len() {
        integer::encode(coded, 7, 0x80, out);
        huffman::encode(text, out);
    } else {
        integer::encode(text.len(), 7, 0x00, out);
        out.extend_from_slice(text);
    }
}

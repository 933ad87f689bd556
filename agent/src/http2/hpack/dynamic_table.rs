//! HPACK's dynamic table (RFC 7541 §2.3.2 and §4), the same for both directions.

use std::collections::VecDeque;

use crate::http2::fields::FIELD_OVERHEAD;
use crate::http2::name::Name;

/// The table that both sides start with, until SETTINGS say otherwise (RFC 9113 §6.5.2).
pub(in crate::http2) const DEFAULT_BYTES: usize = 4_096;

/// What the table knows of a field beside its bytes; worked out once, when the field is put in.
#[derive(Copy, Clone, Debug)]
pub(super) struct TableField {
    /// Where the name starts in the table's bytes; the value is behind it.
    at: u32,
    pub(super) name_len: u32,
    pub(super) value_len: u32,
    pub(super) name_hash: u32,
    pub(super) hash: u32,
    pub(super) name: Name,
    /// Name and value are what RFC 9113 §8.2.1 allows.
    pub(super) valid: bool,
}

impl TableField {
    pub(super) fn new(
        name: Name,
        name_len: u32,
        value_len: u32,
        name_hash: u32,
        hash: u32,
        valid: bool,
    ) -> Self {
        Self { at: 0, name_len, value_len, name_hash, hash, name, valid }
    }

    fn size(&self) -> usize {
        (self.name_len + self.value_len) as usize + FIELD_OVERHEAD
    }
}

#[derive(Debug)]
pub(super) struct DynamicTable {
    /// Names and values, oldest first. Bytes in front of the oldest field are dead until the next compaction.
    bytes: Vec<u8>,
    /// Oldest first.
    fields: VecDeque<TableField>,
    size: usize,
    max_size: usize,
}

impl DynamicTable {
    /// An empty table; allocates with its first field.
    pub(super) fn new(max_size: usize) -> Self {
        Self { bytes: Vec::new(), fields: VecDeque::new(), size: 0, max_size }
    }

    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    pub(super) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict_down_to(max_size);
    }

    /// The field that came as the `age`-th last; 0 is the newest.
    pub(super) fn field(&self, age: usize) -> Option<&TableField> {
        self.fields.get(self.fields.len().checked_sub(age + 1)?)
    }

    /// The field's name and value, one behind the other.
    pub(super) fn bytes(&self, field: &TableField) -> &[u8] {
        let at = field.at as usize;
        &self.bytes[at..at + (field.name_len + field.value_len) as usize]
    }

    pub(super) fn fits(&self, name_len: usize, value_len: usize) -> bool {
        name_len + value_len + FIELD_OVERHEAD <= self.max_size
    }

    /// Puts a field in front. A field larger than the table only empties it (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, mut field: TableField, name: &[u8], value: &[u8]) {
        let size = field.size();
        if size > self.max_size {
            self.evict_down_to(0);
            return;
        }
        self.evict_down_to(self.max_size - size);
        if self.bytes.len() + name.len() + value.len() > 2 * self.max_size {
            self.compact();
        }
        field.at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.fields.push_back(field);
        self.size += size;
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.fields.capacity() * size_of::<TableField>()
    }

    fn evict_down_to(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.fields.pop_front() else { break };
            self.size -= oldest.size();
        }
    }

    fn compact(&mut self) {
        let dead = self.fields.front().map_or(self.bytes.len(), |oldest| oldest.at as usize);
        self.bytes.drain(..dead);
        for field in &mut self.fields {
            field.at -= dead as u32;
        }
    }
}
